//! The own form: tables `apps.NAME` with the keys of a definition.

use super::{
    place::Problem,
    pm2::attributes,
    shape::{App, Shaped},
    tree::{Data, Node, Table},
};
use crate::config::{definition::Definition, nearest::nearest};

/// What tools put into the root of a file: editors their schema, and people what they only refer to.
pub(super) fn is_for_others(key: &str) -> bool {
    key == "$schema" || key.starts_with("x-")
}

pub(super) fn apps(root: &Node) -> Result<Shaped, Problem> {
    let Some(root) = root.as_table() else {
        let message = format!("is {}, not a table with apps", root.kind());
        return Err(Problem::new(root.place, message));
    };
    let known = keys();
    let mut apps = Vec::new();
    for entry in root.entries().filter(|entry| !is_for_others(&entry.key)) {
        if entry.key != "apps" {
            return Err(stray(&entry.key, entry.place, &known));
        }
        let Some(tables) = entry.node.as_table() else {
            return Err(Problem::new(entry.place, format!("`apps` is {}", entry.node.kind()))
                .hint("each app is a table with its name: [apps.web]"));
        };
        for app in tables.entries() {
            let Some(keys) = app.node.as_table() else {
                let message = format!("app `{}` is {}", app.key, app.node.kind());
                return Err(Problem::new(app.place, message)
                    .hint(format!("it is a table: [apps.{}]", app.key)));
            };
            let mut app = own(&app.key, app.place, keys, &known)?;
            app.place = entry.place.and(app.place);
            apps.push(app);
        }
    }
    Ok(Shaped { apps, is_pm2: false, deployed: Vec::new(), notices: Vec::new() })
}

fn own(
    name: &str,
    place: Option<super::place::Place>,
    table: &Table,
    known: &[String],
) -> Result<App, Problem> {
    let mut app = App {
        keys: Table::default(),
        environments: Vec::new(),
        takes_environments_name: false,
        place,
    };
    for entry in table.entries() {
        let key = entry.key.as_str();
        if let Some(environment) = key.strip_prefix("env_") {
            let Data::Table(variables) = &entry.node.data else {
                let message =
                    format!("app `{name}`: `{key}` is {}, not a table", entry.node.kind());
                return Err(Problem::new(entry.node.place, message));
            };
            app.environments.push((environment.to_owned(), variables.clone()));
        } else if key == "name" {
            return Err(Problem::new(entry.place, format!("app `{name}` has its name already"))
                .hint("it is the table's: [apps.NAME]"));
        } else if key == "env" || known.iter().any(|known| known == key) {
            app.keys.put(entry.clone());
        } else {
            return Err(unknown(name, key, known).at(entry.place));
        }
    }
    if app.keys.get("script").is_none() {
        return Err(Problem::new(place, format!("app `{name}` has no script"))
            .hint("script = \"server.js\": a script, a program or a command line"));
    }
    app.keys.set("name", Node::text(name));
    Ok(app)
}

/// Every key of an app but `env` and its kin.
pub(super) fn keys() -> Vec<String> {
    Definition::schemas().into_keys().collect()
}

/// An unknown key, with the one that was meant.
pub(super) fn unknown(app: &str, key: &str, known: &[String]) -> Problem {
    let problem = Problem::new(None, format!("app `{app}`: there is no key `{key}`"));
    let near = nearest(key, known.iter().map(String::as_str).chain(["env"]));
    match (attributes::find(key).map(attributes::Attribute::key), near) {
        (Some(Some(own)), _) if own != key => problem.hint(format!("it is `{own}` here")),
        (_, Some(near)) => problem.hint(format!("did you mean `{near}`?")),
        (Some(_) | None, None) => problem.hint("cluster init shows every key there is"),
    }
}

fn stray(key: &str, place: Option<super::place::Place>, known: &[String]) -> Problem {
    let problem = Problem::new(place, format!("`{key}` stands outside of an app"));
    if known.iter().any(|known| known == key) {
        return problem
            .hint(format!("put it below the app it is for: [apps.NAME], then {key} = …"));
    }
    match nearest(key, ["apps"]) {
        Some(near) => problem.hint(format!("did you mean `{near}`?")),
        None => problem.hint("a file has tables [apps.NAME] and nothing else"),
    }
}
