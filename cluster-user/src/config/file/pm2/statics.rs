//! PM2's section `static`: folders that are served, each an app here as well.

use super::super::{
    place::Problem,
    shape::App,
    tree::{Data, Node, Table},
};

/// What an entry may say, and the variable that PM2's file server reads it from.
const VARIABLES: [(&str, &str); 7] = [
    ("port", "PM2_SERVE_PORT"),
    ("host", "PM2_SERVE_HOST"),
    ("path", "PM2_SERVE_PATH"),
    ("spa", "PM2_SERVE_SPA"),
    ("ftp", "PM2_SERVE_FTP"),
    ("directory", "PM2_SERVE_DIRECTORY"),
    ("monitor", "PM2_SERVE_MONITOR"),
];

/// The apps of the section: `cluster serve`, told by variables what PM2's own server would be told by them.
pub(super) fn apps(node: Node, notices: &mut Vec<String>) -> Result<Vec<App>, Problem> {
    let place = node.place;
    let list = match node.data {
        Data::List(list) => list,
        Data::Table(_) => vec![node],
        Data::Null | Data::Bool(_) | Data::Number(_) | Data::Text(_) => {
            let message = format!("`static` is {}, not a list of folders", node.kind());
            return Err(Problem::new(place, message));
        }
    };
    list.into_iter().map(|entry| one(entry, notices)).collect()
}

/// Makes an app one that serves the files that its variables name: a worker of `cluster serve`.
pub(super) fn serve(keys: &mut Table) {
    let program = std::env::current_exe().unwrap_or_else(|_unknown| "cluster".into());
    keys.set("script", Node::text(program.to_string_lossy()));
    keys.set("args", Node::new(Data::List(vec![Node::text("serve-files")]), None));
    keys.set("interpreter", Node::text("none"));
}

fn one(node: Node, notices: &mut Vec<String>) -> Result<App, Problem> {
    let place = node.place;
    let Data::Table(table) = node.data else {
        return Err(Problem::new(place, format!("`static` has {}, not a table", node.kind())));
    };
    let text = |key: &str| match &table.get(key)?.data {
        Data::Text(text) => Some(text.clone()),
        Data::Number(number) => Some(number.to_string()),
        Data::Bool(value) => Some(value.to_string()),
        Data::Null | Data::List(_) | Data::Table(_) => None,
    };
    let port = text("port").unwrap_or_else(|| "8080".to_owned());
    let name = text("name").unwrap_or_else(|| format!("static-page-server-{port}"));
    let mut env = Table::default();
    for (key, variable) in VARIABLES {
        if let Some(value) = text(key) {
            env.set(variable, Node::text(value));
        }
    }
    if let Some(auth) = table.get("basic_auth").and_then(Node::as_table) {
        env.set("PM2_SERVE_BASIC_AUTH", Node::text("true"));
        for (key, variable) in [
            ("username", "PM2_SERVE_BASIC_AUTH_USERNAME"),
            ("password", "PM2_SERVE_BASIC_AUTH_PASSWORD"),
        ] {
            if let Some(value) = auth.get(key).and_then(Node::as_text) {
                env.set(variable, Node::text(value));
            }
        }
    }
    if text("monitor").is_some() {
        notices.push(format!(
            "app `{name}`: `monitor` has no effect: it is for PM2's paid monitoring"
        ));
    }
    let mut keys = Table::default();
    keys.set("name", Node::text(name));
    serve(&mut keys);
    keys.set("env", Node::new(Data::Table(env), None));
    Ok(App { keys, environments: Vec::new(), takes_environments_name: false, place })
}
