//! Whose form a file has, and its apps in the own form whichever it is.

use std::collections::BTreeSet;

use super::{
    native,
    place::{Place, Problem},
    pm2,
    source::Format,
    tree::{Data, Node, Table},
};
use crate::config::nearest::nearest;

/// An app of a file, in the own form, before one of its environments is chosen.
#[derive(Clone, Debug)]
pub(crate) struct App {
    /// Keys of a definition; `env` only with what every environment has.
    pub(crate) keys: Table,
    /// `env_NAME` by `NAME`.
    pub(crate) environments: Vec<(String, Table)>,
    /// Whether the environment's name becomes part of its own.
    pub(crate) takes_environments_name: bool,
    pub(crate) place: Option<Place>,
}

/// The apps of a file.
#[derive(Clone, Debug)]
pub(crate) struct Shaped {
    pub(crate) apps: Vec<App>,
    /// Whether it has PM2's form.
    pub(crate) is_pm2: bool,
    /// Variables of PM2's `deploy` section, by the environment's name; they go under `env`.
    pub(crate) deployed: Vec<(String, Table)>,
    /// Lowercase fragments.
    pub(crate) notices: Vec<String>,
}

impl App {
    /// What it is called here, or the script when it has no name.
    pub(crate) fn name(&self) -> String {
        let text = |key: &str| self.keys.get(key).and_then(Node::as_text);
        match (text("name"), text("script")) {
            (Some(name), _) => name.to_owned(),
            (None, Some(script)) => pm2::name_of(script),
            (None, None) => "?".to_owned(),
        }
    }

    /// The place of a key's value, as `env.PORT`, or of the app.
    pub(crate) fn place_of(&self, path: &str) -> Option<Place> {
        let (key, rest) = path.split_at(path.find(['.', '[']).unwrap_or(path.len()));
        let entry = self.keys.entry(key)?;
        let inner = entry.node.find(rest.trim_start_matches(['.', '[']));
        inner.or(entry.place).or(self.place)
    }

    /// Puts variables over those it has.
    fn put_variables(&mut self, more: &Table) {
        let mut env = match self.keys.remove("env").map(|entry| entry.node.data) {
            Some(Data::Table(env)) => env,
            Some(Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) | Data::List(_))
            | None => Table::default(),
        };
        for entry in more.entries() {
            env.put(entry.clone());
        }
        self.keys.set("env", Node::new(Data::Table(env), None));
    }
}

/// The apps of a file, whatever its form.
pub(crate) fn apps(root: Node, format: Format) -> Result<Shaped, Problem> {
    let is_own = root
        .as_table()
        .and_then(|root| root.get("apps"))
        .is_some_and(|apps| apps.as_table().is_some());
    let shaped =
        if is_own || format == Format::Toml { native::apps(&root) } else { pm2::apps(root) }?;
    if shaped.apps.is_empty() {
        return Err(Problem::new(None, "has no apps"));
    }
    Ok(shaped)
}

/// Those that are meant, with the environment that is.
pub(super) fn select(
    mut apps: Vec<App>,
    deployed: &[(String, Table)],
    select: &super::Select,
    notices: &mut Vec<String>,
) -> Result<Vec<App>, Problem> {
    let names: Vec<String> = apps.iter().map(App::name).collect();
    if let Some(unknown) = select.only.iter().find(|only| !names.contains(only)) {
        let near = nearest(unknown, names.iter().map(String::as_str));
        let hint = match near {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("there are: {}", names.join(", ")),
        };
        return Err(Problem::new(None, format!("has no app `{unknown}`")).hint(hint));
    }
    let mut seen = BTreeSet::new();
    if let Some((app, name)) = apps.iter().zip(&names).find(|(_, name)| !seen.insert(*name)) {
        return Err(Problem::new(app.place, format!("two apps are called `{name}`"))
            .hint("give each a name of its own, and the same namespace to name them together"));
    }
    if !select.only.is_empty() {
        apps.retain(|app| select.only.contains(&app.name()));
    }
    let Some(wanted) = &select.env else { return Ok(apps) };
    let find = |all: &[(String, Table)]| {
        all.iter().find(|(name, _)| name == wanted).map(|(_, table)| table.clone())
    };
    let lowest = find(deployed);
    let mut is_known = lowest.is_some();
    for app in &mut apps {
        if let Some(lowest) = &lowest {
            let own = app.keys.get("env").and_then(Node::as_table).cloned().unwrap_or_default();
            app.put_variables(lowest);
            app.put_variables(&own);
        }
        if let Some(chosen) = find(&app.environments) {
            is_known = true;
            app.put_variables(&chosen);
        }
        if app.takes_environments_name {
            let name = format!("{}-{wanted}", app.name());
            app.keys.set("name", Node::text(name));
        }
    }
    if !is_known {
        notices.push(unknown_environment(&apps, wanted));
    }
    Ok(apps)
}

fn unknown_environment(apps: &[App], wanted: &str) -> String {
    let known: BTreeSet<&str> =
        apps.iter().flat_map(|app| &app.environments).map(|(name, _)| name.as_str()).collect();
    let known: Vec<String> = known.iter().map(|name| format!("env_{name}")).collect();
    if known.is_empty() {
        return format!("no app has `env_{wanted}`: --env changes nothing");
    }
    format!("no app has `env_{wanted}`, only {}", known.join(", "))
}
