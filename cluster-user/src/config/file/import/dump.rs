//! Reads PM2's dump: one entry per instance, each with everything that PM2 knows of it.

use std::path::Path;

use serde_json::Number;

use super::{
    super::{
        place::Problem,
        pm2::{self, attributes},
        shape::Shaped,
        tree::{Data, Node, Table},
    },
    Apps, environment, scalar,
};
use crate::config::{interpreter, resolve::Surroundings};

/// The newest release of PM2 whose dumps are known.
const NEWEST: u64 = 7;

/// What an entry has without having been told, and what is read from elsewhere.
const USUAL: &[(&str, &str)] = &[
    ("autorestart", "true"),
    ("autostart", "true"),
    ("automation", "true"),
    ("instance_var", "NODE_APP_INSTANCE"),
    ("kill_retry_time", "100"),
    ("namespace", "default"),
    ("pmx", "true"),
    ("treekill", "true"),
    ("vizion", "true"),
    ("watch", "false"),
    ("windowsHide", "true"),
];
const ELSEWHERE: [&str; 9] = [
    "script",
    "cwd",
    "env",
    "instances",
    "username",
    "exec_interpreter",
    "merge_logs",
    "log_date_format",
    "port",
];

/// Whether a tree is that of a dump rather than a configuration.
pub(super) fn is_one(root: &Node) -> bool {
    let has_path =
        |entry: &Node| entry.as_table().is_some_and(|app| app.get("pm_exec_path").is_some());
    root.as_list().is_some_and(|list| !list.is_empty() && list.iter().all(has_path))
}

/// The apps of a dump in PM2's folder `home`.
pub(super) fn apps(root: &Node, home: &Path, around: &Surroundings) -> Result<Apps, Problem> {
    let Some(entries) = root.as_list() else {
        return Err(Problem::new(root.place, format!("is {}, not a dump of PM2", root.kind()))
            .hint("pm2 save writes it anew"));
    };
    if entries.is_empty() {
        return Err(Problem::new(None, "has no apps").hint("pm2 save writes what PM2 runs now"));
    }
    let mut groups: Vec<Group<'_>> = Vec::new();
    for (node, number) in entries.iter().zip(1..) {
        let entry = Instance::of(node, number)?;
        let same = |group: &&mut Group<'_>| group.first.is_of_one_app_with(&entry);
        match groups.iter_mut().find(same) {
            Some(group) => group.add(entry),
            None => groups.push(Group { first: entry, count: 1, stopped: 0 }.counted()),
        }
    }
    let mut outcome = Apps { shaped: empty(), names: Vec::new(), said: Vec::new() };
    for group in &groups {
        let name = unique(&group.first.name, &outcome.names);
        let mut say = |what: String| outcome.said.push((Some(name.clone()), what));
        if name != group.first.name {
            say(format!(
                "it is called `{}` there, as another app is: names are unique here",
                group.first.name
            ));
        }
        let table = group.attributes(home, around, &mut say);
        let node = Node::new(Data::Table(table), None);
        let shaped = pm2::apps(Node::new(Data::List(vec![node]), None))?;
        outcome.shaped.apps.extend(shaped.apps);
        outcome.shaped.notices.extend(shaped.notices);
        outcome.names.push((group.first.name.clone(), name));
    }
    Ok(outcome)
}

fn empty() -> Shaped {
    Shaped { apps: Vec::new(), is_pm2: true, deployed: Vec::new(), notices: Vec::new() }
}

fn unique(name: &str, taken: &[(String, String)]) -> String {
    let is_free = |name: &String| taken.iter().all(|(_, taken)| taken != name);
    let numbered = (2..).map(|number: u32| format!("{name}-{number}"));
    std::iter::once(name.to_owned()).chain(numbered).find(is_free).unwrap_or_default()
}

/// One entry of the dump.
struct Instance<'a> {
    name: String,
    path: String,
    table: &'a Table,
}

/// The instances of one app.
struct Group<'a> {
    first: Instance<'a>,
    count: u32,
    stopped: u32,
}

impl<'a> Instance<'a> {
    fn of(node: &'a Node, number: usize) -> Result<Self, Problem> {
        let table = node.as_table().ok_or_else(|| {
            Problem::new(node.place, format!("entry {number} is {}, not an app", node.kind()))
        })?;
        let version = scalar(table, "_pm2_version").unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u64>().ok());
        if major.is_some_and(|major| major > NEWEST) {
            let message =
                format!("was written by PM2 {version}, and dumps are known up to PM2 {NEWEST}");
            return Err(Problem::new(node.find("_pm2_version"), message)
                .hint("import the file that its apps were started from: cluster import ecosystem.config.js"));
        }
        let part = |key: &str| {
            let text = table.get(key).and_then(Node::as_text).filter(|text| !text.is_empty());
            text.map(str::to_owned).ok_or_else(|| {
                Problem::new(
                    node.place,
                    format!("entry {number} has no `{key}`, as apps in a dump have"),
                )
                .hint("pm2 save writes it anew")
            })
        };
        Ok(Self { name: part("name")?, path: part("pm_exec_path")?, table })
    }

    fn is_of_one_app_with(&self, other: &Self) -> bool {
        let args = |entry: &Self| entry.table.get("args").map(Node::to_json);
        self.name == other.name && self.path == other.path && args(self) == args(other)
    }
}

impl<'a> Group<'a> {
    fn counted(mut self) -> Self {
        self.stopped = u32::from(scalar(self.first.table, "status").as_deref() == Some("stopped"));
        self
    }

    fn add(&mut self, entry: Instance<'a>) {
        self.count += 1;
        self.stopped += u32::from(scalar(entry.table, "status").as_deref() == Some("stopped"));
    }

    /// The attributes that the app was started with, as they would stand in a file.
    fn attributes(&self, home: &Path, around: &Surroundings, say: &mut dyn FnMut(String)) -> Table {
        let Instance { name, path, table: from } = &self.first;
        let mut table = Table::default();
        let cwd = scalar(from, "pm_cwd").unwrap_or_else(|| "/".to_owned());
        let command = self.command_line();
        table.set("name", Node::text(name.as_str()));
        table.set("script", Node::text(command.clone().unwrap_or_else(|| shorten(path, &cwd))));
        table.set("cwd", Node::text(cwd.as_str()));
        if self.count > 1 {
            table.set("instances", Node::new(Data::Number(Number::from(self.count)), None));
            if self.count == around.cpus {
                say("it has one instance per CPU: instances = \"max\" says that on every host"
                    .to_owned());
            }
        }
        self.copy_attributes(&mut table, command.is_some());
        self.interpreter(&mut table, command.is_some());
        self.files(&mut table, home);
        if self.stopped == self.count {
            table.set("autostart", Node::new(Data::Bool(false), None));
            say("it was stopped, and is not started before you say so".to_owned());
        }
        let env = from.get("env").and_then(Node::as_table).cloned().unwrap_or_default();
        let own = environment::own(&env, from, around);
        if own.shared > 0 {
            say(format!(
                "{} variables are those of this shell too, and left out: `start` takes them from it",
                own.shared
            ));
        }
        if !own.variables.is_empty() {
            table.set("env", Node::new(Data::Table(own.variables), None));
        }
        table
    }

    /// `bash -c "line"` is what PM2 makes of a script with a space in it.
    fn command_line(&self) -> Option<String> {
        let shell = Path::new(&self.first.path).file_name()?.to_str()?;
        let args: Vec<&str> =
            self.first.table.get("args")?.as_list()?.iter().filter_map(Node::as_text).collect();
        match args[..] {
            ["-c", line] if ["bash", "sh"].contains(&shell) && line.contains(' ') => {
                Some(line.to_owned())
            }
            _ => None,
        }
    }

    fn copy_attributes(&self, table: &mut Table, is_command_line: bool) {
        let from = self.first.table;
        let env = from.get("env").and_then(Node::as_table);
        for entry in from.entries() {
            let key = entry.key.as_str();
            let usual = USUAL.iter().find(|(known, _)| *known == key).map(|(_, usual)| *usual);
            let is_usual = usual.is_some() && scalar(from, key).as_deref() == usual;
            // All variables stand beside the attributes, too.
            let is_variable = env.is_some_and(|env| env.get(key).is_some());
            let is_known = attributes::find(key).is_some_and(|known| known.name == key)
                || key.strip_prefix("env_").is_some_and(|_| entry.node.as_table().is_some());
            let is_none = match &entry.node.data {
                Data::Null => true,
                Data::List(list) => list.is_empty(),
                Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::Table(_) => false,
            };
            let is_line = is_command_line && ["args", "exec_interpreter"].contains(&key);
            if is_known
                && !is_usual
                && !is_variable
                && !is_none
                && !is_line
                && !ELSEWHERE.contains(&key)
            {
                table.set(key, Node::new(entry.node.data.clone(), None));
            }
        }
        let is_cluster = scalar(from, "exec_mode").as_deref() == Some("cluster_mode");
        if is_cluster && scalar(from, "merge_logs").as_deref() == Some("true") {
            table.set("merge_logs", Node::new(Data::Bool(true), None));
        }
        if table.get("time").is_none()
            && let Some(format) = scalar(from, "log_date_format")
        {
            table.set("log_date_format", Node::text(format));
        }
    }

    fn interpreter(&self, table: &mut Table, is_command_line: bool) {
        let Some(named) = scalar(self.first.table, "exec_interpreter") else { return };
        let base = Path::new(&named).file_name().and_then(|name| name.to_str()).unwrap_or(&named);
        let extension = Path::new(&self.first.path).extension().and_then(|ext| ext.to_str());
        let is_own = extension.is_some_and(|extension| interpreter::runs(base, extension));
        if !is_command_line && !is_own && named != "none" {
            table.set("exec_interpreter", Node::text(named));
        }
    }

    /// Files that PM2 chose itself are not carried over; those that were named lose the number it put in.
    fn files(&self, table: &mut Table, home: &Path) {
        let from = self.first.table;
        let merged = scalar(from, "merge_logs").as_deref() == Some("true");
        let id = scalar(from, "pm_id");
        for (key, attribute) in [
            ("pm_out_log_path", "out_file"),
            ("pm_err_log_path", "error_file"),
            ("pm_log_path", "log_file"),
            ("pm_pid_path", "pid_file"),
        ] {
            let Some(path) = scalar(from, key).filter(|path| !Path::new(path).starts_with(home))
            else {
                continue;
            };
            let is_numbered = attribute == "pid_file" || !merged;
            let path = if is_numbered { without_number(&path, id.as_deref()) } else { path };
            table.set(attribute, Node::text(path));
        }
    }
}

/// The path of a script, relative to its folder when it is in it.
fn shorten(path: &str, cwd: &str) -> String {
    let inside = Path::new(path).strip_prefix(cwd).ok().and_then(Path::to_str);
    inside.filter(|inside| !inside.is_empty()).unwrap_or(path).to_owned()
}

/// `out-3.log` is `out.log` of instance 3; dumps do not say which one it is of.
fn without_number(path: &str, id: Option<&str>) -> String {
    let Some((stem, extension)) = path.rsplit_once('.') else { return path.to_owned() };
    match stem.rsplit_once('-') {
        Some((stem, number))
            if !number.is_empty()
                && number.bytes().all(|byte| byte.is_ascii_digit())
                && id.is_none_or(|id| id == number) =>
        {
            format!("{stem}.{extension}")
        }
        Some(_) | None => path.to_owned(),
    }
}
