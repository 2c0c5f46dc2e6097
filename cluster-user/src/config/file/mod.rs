//! Configuration files: TOML, JSON, YAML, and programs that export their configuration; the own form, and PM2's.
//!
//! Each format becomes one tree that knows its places ([`tree`]); the tree's shape says whose form it is ([`shape`]);
//! PM2's form becomes the own one, attribute by attribute ([`pm2`]); and the own form is what a [`Definition`] is made
//! of. Relative paths of the own form are relative to the file's folder. Those of PM2's form are relative to the current
//! folder, as they are there, and when the script is not there but beside the file, to the file's folder.

mod example;
pub mod import;
mod javascript;
mod json;
mod native;
mod place;
pub mod pm2;
mod schema;
mod shape;
mod source;
mod toml;
mod tree;
mod yaml;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

pub use self::{
    example::example,
    schema::schema,
    source::{Format, NAMES, Source},
};
use self::{place::Problem, shape::App, tree::Node};
use super::{definition::Definition, refusal::Refusal, resolve::Surroundings};

/// Which of a file's apps are meant, and with which of their environments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Select {
    /// Names of apps; empty for all.
    pub only: Vec<String>,
    /// `NAME` of `env_NAME`, which goes over `env`.
    pub env: Option<String>,
}

/// What a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Loaded {
    /// Its absolute path; none for standard input.
    pub path: Option<PathBuf>,
    /// How it is written.
    pub format: Format,
    /// Its apps, in its order, each with its working folder.
    pub apps: Vec<Definition>,
    /// Where the keys of each of them stand, by key: `cluster.toml:3:1`. Without those of which that is not known.
    pub places: Vec<BTreeMap<String, String>>,
    /// What the user should know, lowercase fragments.
    pub notices: Vec<String>,
}

/// Whether a path looks like that of a configuration rather than a script.
pub fn is_config(path: &Path) -> bool {
    Format::of(path).is_some()
}

/// The configuration of a folder: the first of [`NAMES`] that is there.
pub fn find(folder: &Path) -> Option<PathBuf> {
    NAMES.iter().map(|name| folder.join(name)).find(|path| path.is_file())
}

/// Reads a configuration.
///
/// # Errors
/// What is wrong with it: file, line and column where there are some, and reason.
pub fn read(source: &Source, around: &Surroundings, select: &Select) -> Result<Loaded, Refusal> {
    let parsed = parse(source, around)?;
    let Parsed { path, name, format, root, mut notices } = parsed;
    let refuse = |problem: Problem| problem.of(&name);
    let shaped = shape::apps(root, format).map_err(refuse)?;
    notices.extend(shaped.notices);
    let is_pm2 = shaped.is_pm2;
    let apps =
        shape::select(shaped.apps, &shaped.deployed, select, &mut notices).map_err(refuse)?;
    let folder = path.as_deref().and_then(Path::parent).unwrap_or(&around.cwd);
    let (mut definitions, mut places) = (Vec::new(), Vec::new());
    for app in apps {
        places.push(app.places(&name));
        let mut definition = app.definition().map_err(refuse)?;
        let base = if is_pm2 { base(&definition, folder, around, &mut notices) } else { folder };
        settle(&mut definition, base);
        definitions.push(definition);
    }
    for notice in &mut notices {
        *notice = format!("{name}: {notice}");
    }
    Ok(Loaded { path, format, apps: definitions, places, notices })
}

/// A file's tree, before anything is made of it.
pub(crate) struct Parsed {
    pub(crate) path: Option<PathBuf>,
    /// As it is called in messages.
    pub(crate) name: String,
    pub(crate) format: Format,
    pub(crate) root: Node,
    pub(crate) notices: Vec<String>,
}

pub(crate) fn parse(source: &Source, around: &Surroundings) -> Result<Parsed, Refusal> {
    parse_as(source, None, around)
}

/// Reads a source in a format, or in the one that its name or its text says.
pub(crate) fn parse_as(
    source: &Source,
    format: Option<Format>,
    around: &Surroundings,
) -> Result<Parsed, Refusal> {
    let (path, name, format, text) = match source {
        Source::File(typed) => {
            let name: String =
                typed.to_string_lossy().chars().filter(|c| !c.is_control()).collect();
            let path = around.cwd.join(typed);
            let path = std::path::absolute(&path).unwrap_or(path);
            let text = source::text(&path, &name)?;
            let format =
                format.or_else(|| Format::of_named(&path)).unwrap_or_else(|| Format::guess(&text));
            (Some(path), name, format, text)
        }
        Source::Stdin => {
            let name = "standard input".to_owned();
            let text = source::stdin(&name)?;
            let format = Format::guess(&text);
            (None, name, format, text)
        }
    };
    let refuse = |problem: Problem| problem.of(&name);
    let mut notices = Vec::new();
    let root = match (format, &path) {
        (Format::Toml, _) => toml::parse(&text).map_err(refuse)?,
        (Format::Yaml, _) => yaml::parse(&text).map_err(refuse)?,
        (Format::JavaScript, Some(path)) => {
            let exported = javascript::evaluate(path, around).map_err(refuse)?;
            notices = exported.notices;
            exported.root
        }
        (Format::Json, _) | (Format::JavaScript, None) => json::parse(&text).map_err(refuse)?,
    };
    Ok(Parsed { path, name, format, root, notices })
}

/// The folder that paths of an app in PM2's form are relative to.
fn base<'a>(
    definition: &Definition,
    folder: &'a Path,
    around: &'a Surroundings,
    notices: &mut Vec<String>,
) -> &'a Path {
    let script = definition.run.script.as_deref().unwrap_or_default();
    let cwd = definition.run.cwd.as_deref().unwrap_or_default();
    let is_in = |base: &Path| base.join(cwd).join(script).exists();
    let depends = !Path::new(script).is_absolute() && !script.is_empty();
    if !depends || folder == around.cwd || is_in(&around.cwd) || !is_in(folder) {
        return &around.cwd;
    }
    notices.push(format!(
        "`{script}` is not in the current folder, and is taken from the file's: {}",
        folder.display()
    ));
    folder
}

/// From here on nothing depends on where the file is.
fn settle(definition: &mut Definition, base: &Path) {
    let cwd = definition.run.cwd.as_deref().map_or_else(|| base.to_owned(), |cwd| base.join(cwd));
    definition.run.cwd = Some(cwd.to_string_lossy().into_owned());
}

impl App {
    /// Where its keys stand in the file `name`.
    fn places(&self, name: &str) -> BTreeMap<String, String> {
        let place = |key: &String| Some((key.clone(), format!("{name}:{}", self.place_of(key)?)));
        self.keys.entries().filter_map(|entry| place(&entry.key)).collect()
    }

    /// What it defines.
    fn definition(&self) -> Result<Definition, Problem> {
        let keys = self.keys.to_json();
        Definition::from_keys(&keys).map_err(|unfit| {
            let place = self.place_of(&unfit.key);
            Problem::new(place, format!("app `{}`: {}: {}", self.name(), unfit.key, unfit.why))
        })
    }
}

#[cfg(test)]
mod tests;
