//! PM2's form: a list of apps with PM2's attributes, which become keys of a definition one by one.

pub mod attributes;
mod convert;
mod statics;
mod words;

use std::path::Path;

use self::attributes::{Attribute, Becomes};
use super::{
    native,
    place::{Place, Problem},
    shape::{App, Shaped},
    tree::{Data, Entry, Node, Table},
};
use crate::config::nearest::nearest;

/// Sections of a file besides its apps.
const SECTIONS: [&str; 4] = ["apps", "pm2", "deploy", "static"];

/// As a script: PM2's own file server.
const SERVE: &str = "serve";

/// The signal that apps written for PM2 wait for.
const SIGNAL: &str = "SIGINT";

/// The apps of a file in PM2's form: below `apps` or `pm2`, as a list, or one alone.
pub(in crate::config::file) fn apps(root: Node) -> Result<Shaped, Problem> {
    let place = root.place;
    let mut shaped =
        Shaped { apps: Vec::new(), is_pm2: true, deployed: Vec::new(), notices: Vec::new() };
    let mut root = match root.data {
        Data::List(list) => return each(list, &mut shaped).map(|()| shaped),
        Data::Table(table) => table,
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => {
            return Err(Problem::new(place, format!("is {}, not a list of apps", root.kind())));
        }
    };
    let statics = root.remove("static");
    if let Some(deploy) = root.remove("deploy") {
        shaped.deployed = deployed(&deploy.node);
        shaped.notices.push(
            "`deploy` is left out: what is here begins when the files are in place; then cluster reload FILE"
                .to_owned(),
        );
    }
    match root.remove("apps").or_else(|| root.remove("pm2")) {
        Some(apps) => {
            if let Some(stray) = root.entries().find(|entry| !native::is_for_others(&entry.key)) {
                return Err(unknown_section(stray));
            }
            match apps.node.data {
                Data::List(list) => each(list, &mut shaped)?,
                Data::Table(_) => each(vec![apps.node], &mut shaped)?,
                Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => {
                    let message =
                        format!("`{}` is {}, not a list of apps", apps.key, apps.node.kind());
                    return Err(Problem::new(apps.node.place.or(apps.place), message));
                }
            }
        }
        None if root.is_empty() => {}
        None => {
            let is_app = |key: &str| attributes::find(key).is_some();
            if let Some(stray) = root.entries().find(|entry| !native::is_for_others(&entry.key))
                && !root.keys().any(is_app)
            {
                return Err(unknown_section(stray));
            }
            each(vec![Node::new(Data::Table(root), place)], &mut shaped)?;
        }
    }
    if let Some(statics) = statics {
        shaped.apps.extend(statics::apps(statics.node, &mut shaped.notices)?);
    }
    Ok(shaped)
}

/// What PM2 calls an app of that script when it has no name.
pub(super) fn name_of(script: &str) -> String {
    let first = script.split_whitespace().next().unwrap_or(script);
    let script = if script.contains('/') && !script.contains(' ') { script } else { first };
    let path = Path::new(script);
    path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned()
}

fn each(list: Vec<Node>, shaped: &mut Shaped) -> Result<(), Problem> {
    for (node, number) in list.into_iter().zip(1..) {
        let Data::Table(table) = node.data else {
            let message = format!("app number {number} is {}, not a table", node.kind());
            return Err(Problem::new(node.place, message));
        };
        let app = one(table, node.place, number, &mut shaped.notices)?;
        shaped.apps.push(app);
    }
    Ok(())
}

fn one(
    table: Table,
    place: Option<Place>,
    number: usize,
    notices: &mut Vec<String>,
) -> Result<App, Problem> {
    let shown = shown_name(&table, number);
    let known = native::keys();
    let mut app = App {
        keys: Table::default(),
        environments: Vec::new(),
        takes_environments_name: false,
        place,
    };
    let mut mode = None;
    let mut port = None;
    for entry in table {
        if let Some(environment) = entry.key.strip_prefix("env_") {
            let variables = variables(&entry.node).map_err(|why| wrong(&shown, &entry, &why))?;
            app.environments.push((environment.to_owned(), variables));
            continue;
        }
        let Some(attribute) = attributes::find(&entry.key) else {
            if !known.contains(&entry.key) {
                return Err(unknown(&shown, &entry, &known));
            }
            // A key of the own form says here what it says there.
            app.keys.put(entry);
            continue;
        };
        let Attribute { becomes, state, name, .. } = attribute;
        // An own key of the same name may have been taken by an alias before.
        let mut put = |key: &'static str, node: Node| {
            if !known.iter().any(|known| known == key) {
                notices.push(format!("app `{shown}`: `{}` has no effect yet", entry.key));
                return Ok(());
            }
            let node = Entry { key: key.to_owned(), place: entry.place, node };
            match app.keys.put(node) {
                Some(_) => Err(wrong(&shown, &entry, "is said twice, by two of its names")),
                None => Ok(()),
            }
        };
        match becomes {
            _ if entry.node.is_null() => {}
            Becomes::Key(key) => put(key, entry.node.clone())?,
            Becomes::Converted(key, convert) => {
                let node = convert(&entry.node).map_err(|why| wrong(&shown, &entry, &why))?;
                node.map_or(Ok(()), |node| put(key, node))?;
            }
            Becomes::Nothing(quiet) if quiet.covers(&entry.node) => {}
            Becomes::Nothing(_) => {
                notices.push(format!(
                    "app `{shown}`: `{}` has no effect: {}",
                    entry.key,
                    state.why()
                ));
            }
            Becomes::Part(_) => match *name {
                "env" => {
                    let variables =
                        variables(&entry.node).map_err(|why| wrong(&shown, &entry, &why))?;
                    app.keys.set("env", Node::new(Data::Table(variables), entry.node.place));
                }
                "port" => port = Some(entry.clone()),
                "exec_mode" => mode = Some(self::mode(&shown, &entry)?),
                // The name of the environment is known when one is chosen.
                _ => app.takes_environments_name = entry.node.as_bool() == Some(true),
            },
        }
    }
    if app.keys.get("script").is_none() {
        return Err(Problem::new(place, format!("app `{shown}` has no script"))
            .hint("script: \"server.js\": a script, a program or a command line"));
    }
    if app.keys.get("script").and_then(Node::as_text) == Some(SERVE) {
        statics::serve(&mut app.keys);
    }
    if let Some(port) = port {
        set_port(&mut app.keys, &port).map_err(|why| wrong(&shown, &port, &why))?;
    }
    // One of PM2's mode for every program may serve no port, and PM2 does not ask.
    let signs = ["no_port", "optional_port", "wait_ready", "notify", "probe"];
    if mode != Some(Mode::Cluster) && !signs.iter().any(|sign| app.keys.get(sign).is_some()) {
        app.keys.set("optional_port", Node::new(Data::Bool(true), None));
    }
    if app.keys.get("kill_signal").is_none() {
        app.keys.set("kill_signal", Node::text(SIGNAL));
    }
    let instances = app.keys.get("instances").map(Node::to_json);
    let several = instances.is_some_and(|count| count != 1 && count != "1");
    if several && mode == Some(Mode::Fork) {
        notices.push(format!(
            "app `{shown}`: its workers share its port: `fork` does not mean one port for each here"
        ));
    }
    Ok(app)
}

/// How PM2 runs an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    /// Each worker for itself.
    Fork,
    /// Workers of Node's cluster module.
    Cluster,
}

fn mode(app: &str, entry: &Entry) -> Result<Mode, Problem> {
    match entry.node.as_text() {
        Some("fork" | "fork_mode") => Ok(Mode::Fork),
        Some("cluster" | "cluster_mode") => Ok(Mode::Cluster),
        Some(_) | None => Err(wrong(app, entry, "is neither `fork` nor `cluster`")),
    }
}

/// Variables as PM2 gives them to an app: what is no text becomes JSON, and what is null is none.
fn variables(node: &Node) -> Result<Table, String> {
    let Some(table) = node.as_table() else {
        return Err(format!("is {}, not a table of variables", node.kind()));
    };
    let mut variables = Table::default();
    for entry in table.entries() {
        let data = match &entry.node.data {
            Data::Null => continue,
            Data::List(_) | Data::Table(_) => Data::Text(entry.node.to_json().to_string()),
            Data::Bool(_) | Data::Number(_) | Data::Text(_) => entry.node.data.clone(),
        };
        let node = Node::new(data, entry.node.place);
        variables.put(Entry { key: entry.key.clone(), place: entry.place, node });
    }
    Ok(variables)
}

/// `port` is the variable `PORT`, whatever `env` says.
fn set_port(keys: &mut Table, port: &Entry) -> Result<(), String> {
    let number = match &port.node.data {
        Data::Number(number) => number.to_string(),
        Data::Text(text) => text.trim().to_owned(),
        Data::Null | Data::Bool(_) | Data::List(_) | Data::Table(_) => String::new(),
    };
    if number.parse::<u16>().is_err() {
        return Err(format!("is {}, not the number of a port", port.node.kind()));
    }
    let mut env = keys.get("env").and_then(Node::as_table).cloned().unwrap_or_default();
    env.set("PORT", Node::new(Data::Text(number), port.node.place));
    keys.set("env", Node::new(Data::Table(env), None));
    Ok(())
}

/// Variables of each environment of the section `deploy`.
fn deployed(deploy: &Node) -> Vec<(String, Table)> {
    let environments = deploy.as_table().into_iter().flat_map(Table::entries);
    environments
        .filter_map(|entry| {
            let env = entry.node.as_table()?.get("env")?;
            Some((entry.key.clone(), variables(env).ok()?))
        })
        .collect()
}

fn shown_name(table: &Table, number: usize) -> String {
    let text = |key: &str| table.get(key).and_then(Node::as_text);
    let script = ["script", "exec", "cmd", "command"].into_iter().find_map(text);
    text("name")
        .map(str::to_owned)
        .or_else(|| script.map(name_of))
        .unwrap_or_else(|| format!("number {number}"))
}

fn wrong(app: &str, entry: &Entry, why: &str) -> Problem {
    Problem::new(entry.node.place.or(entry.place), format!("app `{app}`: `{}` {why}", entry.key))
}

fn unknown(app: &str, entry: &Entry, known: &[String]) -> Problem {
    let near = attributes::near(&entry.key);
    let near =
        near.or_else(|| nearest(&entry.key, known.iter().map(String::as_str)).map(str::to_owned));
    let problem =
        Problem::new(entry.place, format!("app `{app}`: there is no attribute `{}`", entry.key));
    match near {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("cluster init shows every key there is; variables belong into `env`"),
    }
}

fn unknown_section(entry: &Entry) -> Problem {
    let problem = Problem::new(entry.place, format!("there is no section `{}`", entry.key));
    match nearest(&entry.key, SECTIONS) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("a file has `apps`, a list of them, or is one"),
    }
}
