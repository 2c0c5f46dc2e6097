//! One definition of an app, for the options of the command line and for every file: nothing but what was said.
//!
//! A group's field is at once an option (`--kill-timeout`), a key of files (`kill_timeout`), a line of the help and a
//! description in the schema. To add an option, add a field to the group it belongs to, what it becomes to
//! [`spec`](super::spec), and the step from one to the other to [`resolve`](super::resolve).

mod identity;
mod hooks;
mod kernel;
pub mod logs;
mod ports;
mod readiness;
mod recycling;
mod resources;
mod restarting;
mod run;
pub mod scheduling;
mod stopping;
pub mod value;
mod watching;

use std::collections::BTreeMap;

use clap::Args;
use schemars::{JsonSchema, Schema, SchemaGenerator, generate::SchemaSettings};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value};

use self::value::Scalar;
pub use self::{
    hooks::Hooks,
    identity::Identity,
    kernel::Kernel,
    logs::Logs,
    ports::Ports,
    readiness::{MOST, Readiness},
    recycling::Recycling,
    resources::Resources,
    restarting::Restarting,
    run::Run,
    scheduling::Scheduling,
    stopping::Stopping,
    watching::{Watched, Watching},
};

/// What was said about an app, by options or in a file.
#[derive(Args, Clone, Debug, Default, PartialEq, Eq)]
pub struct Definition {
    /// What is run, as whom, where, and how many times.
    #[command(flatten)]
    pub run: Run,
    /// Which ports are balanced.
    #[command(flatten)]
    pub ports: Ports,
    /// Who each worker is, and the sockets it is given.
    #[command(flatten)]
    pub identity: Identity,
    /// When a worker is ready.
    #[command(flatten)]
    pub readiness: Readiness,
    /// What follows when a worker ends.
    #[command(flatten)]
    pub restarting: Restarting,
    /// How a worker is ended.
    #[command(flatten)]
    pub stopping: Stopping,
    /// What becomes of output.
    #[command(flatten)]
    pub logs: Logs,
    /// When a worker that is well is replaced.
    #[command(flatten)]
    pub recycling: Recycling,
    /// Files whose change reloads it.
    #[command(flatten)]
    pub watching: Watching,
    /// Commands at turns of a worker's life.
    #[command(flatten)]
    pub hooks: Hooks,
    /// What each worker may use.
    #[command(flatten)]
    pub resources: Resources,
    /// How a worker is picked for each connection.
    #[command(flatten)]
    pub scheduling: Scheduling,
    /// How the kernel is used.
    #[command(flatten)]
    pub kernel: Kernel,
    /// Variables for the workers' environment.
    #[arg(skip)]
    pub env: BTreeMap<String, String>,
}

/// A value that its key cannot have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfit {
    /// The key.
    pub key: String,
    /// A lowercase fragment.
    pub why: String,
}

/// Calls a macro with every group: its field and its type.
macro_rules! groups {
    ($each:ident) => {
        $each!(run: Run);
        $each!(ports: Ports);
        $each!(identity: Identity);
        $each!(readiness: Readiness);
        $each!(restarting: Restarting);
        $each!(stopping: Stopping);
        $each!(logs: Logs);
        $each!(recycling: Recycling);
        $each!(watching: Watching);
        $each!(hooks: Hooks);
        $each!(resources: Resources);
        $each!(scheduling: Scheduling);
        $each!(kernel: Kernel);
    };
}

impl Definition {
    /// What is written in a file as `keys`; those that are none are left aside, see [`Definition::schemas`].
    ///
    /// # Errors
    /// The first key with a value that it cannot have.
    pub fn from_keys(keys: &Map<String, Value>) -> Result<Self, Unfit> {
        let mut definition = Self::default();
        macro_rules! read {
            ($field:ident: $type:ty) => {
                definition.$field = read::<$type>(keys)?;
            };
        }
        groups!(read);
        if let Some(env) = keys.get("env").filter(|env| !env.is_null()) {
            let env: BTreeMap<String, Scalar> = serde_path_to_error::deserialize(env)
                .map_err(|error| unfit(&format!("env.{}", error.path()), error.inner()))?;
            definition.env = env.into_iter().map(|(key, Scalar(value))| (key, value)).collect();
        }
        Ok(definition)
    }

    /// As it is written in a file: only what was said.
    pub fn to_keys(&self) -> Map<String, Value> {
        let mut keys = Map::new();
        macro_rules! write {
            ($field:ident: $type:ty) => {
                keys.extend(written(&self.$field));
            };
        }
        groups!(write);
        if !self.env.is_empty() {
            keys.insert("env".to_owned(), written_value(&self.env));
        }
        keys
    }

    /// What is said here, and of everything else what `base` says. Variables of both are there.
    #[must_use]
    pub fn over(&self, base: &Self) -> Self {
        let mut keys = base.to_keys();
        keys.extend(self.to_keys());
        // What was written by a definition is read by one.
        let mut both = Self::from_keys(&keys).unwrap_or_else(|_unfit| self.clone());
        both.env = base.env.clone();
        both.env.extend(self.env.clone());
        both
    }

    /// Every key a file may have besides `env`, with the schema of its value and its description.
    pub fn schemas() -> BTreeMap<String, Schema> {
        let mut schemas = BTreeMap::new();
        macro_rules! describe {
            ($field:ident: $type:ty) => {
                schemas.extend(properties::<$type>());
            };
        }
        groups!(describe);
        schemas
    }
}

fn read<T: DeserializeOwned + Default>(keys: &Map<String, Value>) -> Result<T, Unfit> {
    // What is null was not said.
    let said = keys.iter().filter(|(_, value)| !value.is_null());
    let said = Value::Object(said.map(|(key, value)| (key.clone(), value.clone())).collect());
    serde_path_to_error::deserialize(said)
        .map_err(|error| unfit(&error.path().to_string(), error.inner()))
}

fn unfit(key: &str, why: &serde_json::Error) -> Unfit {
    Unfit { key: key.to_owned(), why: why.to_string() }
}

fn written(group: &impl Serialize) -> Map<String, Value> {
    match written_value(group) {
        Value::Object(keys) => keys,
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => {
            Map::new()
        }
    }
}

fn written_value(value: &impl Serialize) -> Value {
    // Texts, numbers, and lists of them: nothing in it can fail to be written.
    serde_json::to_value(value).unwrap_or_default()
}

fn properties<T: JsonSchema>() -> Vec<(String, Schema)> {
    let mut generator = SchemaGenerator::new(SchemaSettings::draft2020_12());
    let mut schema = T::json_schema(&mut generator);
    let properties = schema.get_mut("properties").and_then(Value::as_object_mut);
    let properties = properties.map(std::mem::take).unwrap_or_default();
    properties
        .into_iter()
        .filter_map(|(key, schema)| Some((key, Schema::try_from(schema).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command};
    use serde_json::json;

    use super::*;

    #[test]
    fn every_key_is_an_option_and_every_option_a_key() {
        let command = Definition::augment_args(Command::new("start"));
        let options: Vec<String> = command
            .get_arguments()
            .filter_map(|argument| argument.get_long().map(|long| long.replace('-', "_")))
            .collect();
        let keys = Definition::schemas();
        // What stands on the command line by itself.
        let bare = ["script", "args"];
        let known: Vec<&String> = keys.keys().filter(|key| !bare.contains(&key.as_str())).collect();
        assert_eq!(
            known,
            options
                .iter()
                .collect::<std::collections::BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        );
        for (key, schema) in &keys {
            let described = schema.get("description").and_then(Value::as_str).unwrap_or_default();
            assert!(!described.is_empty(), "{key} is not described");
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let keys = json!({
            "script": "app.js", "args": ["a b"], "instances": "max", "port": [80], "probe": "/up",
            "kill_timeout": "1600", "stop_exit_codes": "0, 3", "overlap": false, "uid": 33,
            "env": { "A": 1, "B": true }
        });
        let definition = Definition::from_keys(keys.as_object().unwrap()).unwrap();
        assert_eq!(definition.env["B"], "true");
        assert_eq!(Definition::from_keys(&definition.to_keys()).unwrap(), definition);
    }

    #[test]
    fn what_is_said_goes_over_what_was_said_before() {
        let read = |keys: Value| Definition::from_keys(keys.as_object().unwrap()).unwrap();
        let base = read(json!({ "script": "a", "instances": 4, "env": { "A": "1", "B": "1" } }));
        let top = read(json!({ "instances": 2, "env": { "B": "2" } }));
        let both = top.over(&base);
        let expected = json!({ "script": "a", "instances": 2, "env": { "A": "1", "B": "2" } });
        assert_eq!(both, read(expected));
    }

    #[test]
    fn a_value_that_does_not_fit_is_named() {
        let keys = json!({ "kill_timeout": "soon" });
        let unfit = Definition::from_keys(keys.as_object().unwrap()).unwrap_err();
        assert_eq!(unfit.key, "kill_timeout");
        assert!(unfit.why.contains("`soon` is no duration"), "{}", unfit.why);
    }
}
