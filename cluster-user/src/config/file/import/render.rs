//! Writes apps as a file in the own form.

use std::fmt::Write as _;

use toml::Value;

use super::super::{
    shape::App,
    tree::{Data, Node, Table},
};

/// What comes first; everything else follows in alphabetical order.
const FIRST: [&str; 5] = ["script", "args", "cwd", "interpreter", "instances"];

pub(super) fn file(apps: &[App], differences: &[(Option<String>, String)], from: &str) -> String {
    let mut text = format!("# Imported from {from}.\n");
    for (_, what) in differences.iter().filter(|(app, _)| app.is_none()) {
        comment(&mut text, what);
    }
    for app in apps {
        let name = app.name();
        text.push('\n');
        for (_, what) in differences.iter().filter(|(about, _)| about.as_ref() == Some(&name)) {
            comment(&mut text, what);
        }
        let table = format!("apps.{}", key(&name));
        line(&mut text, &format!("[{table}]"));
        for (name, node) in ordered(&app.keys) {
            line(&mut text, &format!("{} = {}", key(name), value(node)));
        }
        let env = app.keys.get("env").and_then(Node::as_table);
        let environments = app.environments.iter().map(|(name, env)| (format!("env_{name}"), env));
        for (name, env) in env.map(|env| ("env".to_owned(), env)).into_iter().chain(environments) {
            line(&mut text, &format!("\n[{table}.{}]", key(&name)));
            for entry in env.entries() {
                line(&mut text, &format!("{} = {}", key(&entry.key), value(&entry.node)));
            }
        }
    }
    text
}

fn ordered(keys: &Table) -> Vec<(&str, &Node)> {
    let mut keys: Vec<_> = keys
        .entries()
        .map(|entry| (entry.key.as_str(), &entry.node))
        .filter(|(key, node)| !["name", "env"].contains(key) && !node.is_null())
        .collect();
    let rank = |key: &str| FIRST.iter().position(|first| *first == key).unwrap_or(FIRST.len());
    keys.sort_by_key(|(key, _)| (rank(key), *key));
    keys
}

fn comment(text: &mut String, what: &str) {
    let what: String = what.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    line(text, &format!("# {what}"));
}

fn line(text: &mut String, line: &str) {
    // A String takes everything.
    writeln!(text, "{line}").unwrap_or_default();
}

fn key(name: &str) -> String {
    let is_bare = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
    // JSON's escapes are some of TOML's, and a key has no line breaks.
    if is_bare { name.to_owned() } else { serde_json::Value::from(name).to_string() }
}

fn value(node: &Node) -> String {
    match &node.data {
        Data::Text(text) => Value::String(text.clone()).to_string(),
        Data::Number(number) => number.to_string(),
        Data::Bool(value) => value.to_string(),
        Data::List(list) => {
            format!("[{}]", list.iter().map(value).collect::<Vec<_>>().join(", "))
        }
        Data::Table(table) => {
            let entries = table
                .entries()
                .map(|entry| format!("{} = {}", key(&entry.key), value(&entry.node)));
            format!("{{ {} }}", entries.collect::<Vec<_>>().join(", "))
        }
        // Is left out before.
        Data::Null => "\"\"".to_owned(),
    }
}
