//! From what PM2 has to a file in the own form, with everything that differs.

mod dump;
mod environment;
mod render;

use std::path::{Path, PathBuf};

use super::{
    Parsed, Source,
    place::Problem,
    pm2::attributes::{self, State},
    shape::{self, App, Shaped},
    tree::{Data, Node, Table},
};
use crate::config::{refusal::Refusal, resolve::Surroundings};

/// What an import comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Imported {
    /// The file in the own form.
    pub text: String,
    /// Names of its apps: there, and here.
    pub names: Vec<(String, String)>,
    /// What differs, by the name of the app; without a name what concerns all.
    pub differences: Vec<(Option<String>, String)>,
    /// Whether it may have secrets in it: a dump has the whole environment of whoever started an app.
    pub is_private: bool,
}

/// Reads a dump or a configuration of PM2. Paths become independent of the folder that the result is written to.
///
/// # Errors
/// What is wrong with the file.
pub fn import(path: &Path, around: &Surroundings) -> Result<Imported, Refusal> {
    let is_dump = is_dump(path);
    let parsed = if is_dump {
        super::parse_as(&Source::File(path.to_owned()), Some(super::Format::Json), around)?
    } else {
        super::parse(&Source::File(path.to_owned()), around)?
    };
    let Parsed { path: absolute, name, format, root, notices } = parsed;
    let refuse = |problem: Problem| problem.of(&name);
    let (is_dump, home) =
        (is_dump || dump::is_one(&root), absolute.as_deref().and_then(Path::parent));
    let mut outcome = if is_dump {
        dump::apps(&root, home.unwrap_or(&around.cwd), around).map_err(refuse)?
    } else {
        let shaped = shape::apps(root, format).map_err(refuse)?;
        if !shaped.is_pm2 {
            return Err(Refusal::new(format!("{name}: is in the own form already"))
                .hint(format!("cluster start {name}")));
        }
        let names = shaped.apps.iter().map(|app| (app.name(), app.name())).collect();
        Apps { shaped, names, said: Vec::new() }
    };
    let mut differences: Vec<(Option<String>, String)> =
        notices.into_iter().chain(outcome.shaped.notices).map(apart).collect();
    differences.append(&mut outcome.said);
    for (app, (_, name)) in outcome.shaped.apps.iter_mut().zip(&outcome.names) {
        app.keys.set("name", Node::text(name));
        settle(app, home.unwrap_or(&around.cwd), around);
        differences.extend(different(app).map(|why| (Some(name.clone()), why)));
    }
    let text = render::file(&outcome.shaped.apps, &differences, &name);
    Ok(Imported { text, names: outcome.names, differences, is_private: is_dump })
}

/// Apps, what they are called there and here, and what is said of them.
struct Apps {
    shaped: Shaped,
    names: Vec<(String, String)>,
    said: Vec<(Option<String>, String)>,
}

/// Where PM2 keeps its dump.
pub fn home(around: &Surroundings) -> Option<PathBuf> {
    let variable = |name: &str| {
        around
            .env
            .iter()
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value)
    };
    let home = variable("PM2_HOME").map(PathBuf::from);
    home.or_else(|| Some(Path::new(variable("HOME")?).join(".pm2")))
}

/// The name of a dump in PM2's folder.
pub const DUMP: &str = "dump.pm2";

fn is_dump(path: &Path) -> bool {
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    name.starts_with(DUMP)
}

/// A notice of the form ``app `web`: …`` is about that app.
fn apart(notice: String) -> (Option<String>, String) {
    let parts = notice.strip_prefix("app `").and_then(|rest| rest.split_once("`: "));
    match parts {
        Some((app, rest)) => (Some(app.to_owned()), rest.to_owned()),
        None => (None, notice),
    }
}

/// What is not quite the same of the attributes that an app has.
fn different(app: &App) -> impl Iterator<Item = String> {
    let of_keys = app.keys.keys().filter_map(|key| {
        let attribute = attributes::find(key).filter(|found| found.key() == Some(key))?;
        match attribute.state {
            // That names are unique is said where two are not.
            State::Different(why) if key != "name" => Some(format!("`{key}`: {why}")),
            State::Same | State::Better(_) | State::Different(_) | State::Absent(_) => None,
        }
    });
    of_keys.collect::<Vec<_>>().into_iter()
}

/// Makes the working folder absolute: PM2's is relative to the current folder, the own one to the file.
fn settle(app: &mut App, folder: &Path, around: &Surroundings) {
    let text = |key: &str| app.keys.get(key).and_then(Node::as_text).unwrap_or_default().to_owned();
    let (cwd, script) = (text("cwd"), text("script"));
    let is_in = |base: &Path| base.join(&cwd).join(&script).exists();
    let base = if !is_in(&around.cwd) && is_in(folder) { folder } else { &around.cwd };
    let cwd = base.join(cwd);
    // Without `..`, and without the slash that joining nothing leaves.
    let cwd = cwd.canonicalize().unwrap_or_else(|_| cwd.components().collect::<PathBuf>());
    app.keys.set("cwd", Node::text(cwd.to_string_lossy()));
}

/// The entry of a table as a text, whatever scalar it is.
fn scalar(table: &Table, key: &str) -> Option<String> {
    match &table.get(key)?.data {
        Data::Text(text) => Some(text.clone()),
        Data::Number(number) => Some(number.to_string()),
        Data::Bool(value) => Some(value.to_string()),
        Data::Null | Data::List(_) | Data::Table(_) => None,
    }
}

#[cfg(test)]
mod tests;
