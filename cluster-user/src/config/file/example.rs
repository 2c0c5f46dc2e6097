//! The commented example that `cluster init` writes: every key there is, with its description and a value.

use std::fmt::Write as _;

use clap::{Args as _, Command};
use schemars::Schema;
use serde_json::Value;

use crate::config::definition::Definition;

const HEAD: &str = "\
# What `cluster start` starts in this folder. After a change: `cluster diff cluster.toml` shows what is new, and
# `cluster reload cluster.toml` brings it about without losing a connection.
#
# Every key is in here. What stands behind a # is an example, or what would be so anyway. Times are \"500ms\", \"10s\",
# \"1m\", \"2h\", or a number of milliseconds; sizes are \"512M\" or \"2G\". Paths are relative to this file.

[apps.web]
# Script, program or command line
script = \"server.js\"
";

const TAIL: &str = "
# Variables for the workers' environment
env = { NODE_ENV = \"development\" }
# Others that go over them with `cluster start cluster.toml --env production`
env_production = { NODE_ENV = \"production\" }

# A second app is another table. This one serves no port.
# [apps.worker]
# script = \"python3 worker.py --queue mail\"
# no_port = true
";

/// Values that show more than the one that is so anyway.
const SAMPLES: &[(&str, &str)] = &[
    ("args", "[\"--verbose\", \"--port\", \"8080\"]"),
    ("instances", "\"max\""),
    ("cwd", "\".\""),
    ("interpreter", "\"node\""),
    ("interpreter_args", "[\"--max-old-space-size=512\"]"),
    ("uid", "\"www-data\""),
    ("gid", "\"www-data\""),
    ("port", "[8080]"),
    ("instance_var", "\"NODE_APP_INSTANCE\""),
    ("increment_var", "\"METRICS_PORT\""),
    ("pid_file", "\"web.pid\""),
    ("listen", "[\"tcp://0.0.0.0:80\"]"),
    ("probe", "\"/health\""),
    ("liveness", "\"/health\""),
    ("watchdog", "\"30s\""),
    ("exp_backoff_restart_delay", "\"100ms\""),
    ("stop_exit_codes", "[0]"),
    ("out_file", "\"logs/out.log\""),
    ("error_file", "\"logs/error.log\""),
    ("log_file", "\"logs/all.log\""),
    ("log_date_format", "\"YYYY-MM-DD HH:mm:ss.SSS Z\""),
    ("log_type", "\"json\""),
    ("pid_file", "\"web.pid\""),
    ("instance_var", "\"NODE_APP_INSTANCE\""),
    ("increment_var", "\"METRICS_PORT\""),
    ("listen", "[\"tcp://0.0.0.0:8080\"]"),
    ("filter_env", "[\"SSH_*\", \"LS_COLORS\"]"),
    ("max_memory_restart", "\"512M\""),
    ("max_lifetime", "\"1d\""),
    ("cron_restart", "\"0 3 * * *\""),
    ("cron_tz", "\"Europe/Berlin\""),
    ("watch", "[\"src\", \"config.json\"]"),
    ("ignore_watch", "[\"uploads\", \"*.tmp\"]"),
    ("pre_start", "\"npm run migrate\""),
    ("post_ready", "\"echo $CLUSTER_APP $CLUSTER_INSTANCE is ready\""),
    ("pre_stop", "\"echo $CLUSTER_PID ends\""),
    ("post_stop", "\"rm -f /tmp/web-$CLUSTER_INSTANCE\""),
    ("on_failure", "\"logger $CLUSTER_APP: $CLUSTER_REASON\""),
    ("weights", "[3, 1, 1, 1]"),
    ("guard", "{ heartbeat = \"1s\", queue = 100, slow-start = \"10s\" }"),
    ("shed", "200"),
    ("memory_max", "\"1G\""),
    ("memory_high", "\"900M\""),
    ("cpu_max", "1.5"),
    ("cpu_weight", "100"),
    ("pids_max", "200"),
    ("cpus", "\"spread\""),
    ("nice", "5"),
    ("rlimits", "{ nofile = 65536, core = \"unlimited\" }"),
    ("umask", "\"027\""),
    ("oom_score_adj", "200"),
];

/// Descriptions are broken before this column.
const WIDTH: usize = 112;

/// The example.
pub fn example() -> String {
    let mut text = HEAD.to_owned();
    let schemas = Definition::schemas();
    let mut heading = None;
    for (key, under) in keys() {
        let Some(schema) = schemas.get(&key) else { continue };
        if under != heading {
            let title = under.as_deref().unwrap_or_default();
            write!(text, "\n# ── {title} ──\n").unwrap_or_default();
            heading = under;
        }
        let value = sample(&key, schema).unwrap_or_default();
        let is_live = key == "instances";
        let mark = if is_live { "" } else { "# " };
        write!(text, "\n{}{mark}{key} = {value}\n", comment(&in_file(description(schema))))
            .unwrap_or_default();
    }
    text.push_str(TAIL);
    text
}

/// Every key besides `script` and `name`, in the order of the options, with the title it stands below.
fn keys() -> Vec<(String, Option<String>)> {
    let command = Definition::augment_args(Command::new("start"));
    let options = command.get_arguments().filter_map(|option| {
        let heading = option.get_help_heading().unwrap_or("How it is run");
        Some((option.get_long()?.replace('-', "_"), Some(heading.to_owned())))
    });
    let first = [("args".to_owned(), None)];
    let mut keys: Vec<_> = first.into_iter().chain(options).collect();
    keys.retain(|(key, _)| key != "name");
    for (_, heading) in keys.iter_mut().take_while(|(key, _)| key != "interpreter") {
        *heading = None;
    }
    keys
}

pub(super) fn description(schema: &Schema) -> &str {
    schema.get("description").and_then(Value::as_str).unwrap_or_default()
}

/// A description speaks of options, which are keys in a file.
pub(super) fn in_file(description: &str) -> String {
    let words = description.split(' ').map(|word| match word.strip_prefix("--") {
        Some(option) => format!("`{}`", option.trim_end_matches(',').replace('-', "_")),
        None => word.to_owned(),
    });
    words.collect::<Vec<_>>().join(" ")
}

/// A description as lines of a comment.
fn comment(description: &str) -> String {
    let mut lines = vec![String::new()];
    for word in description.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.is_empty() => word.clone_into(line),
            Some(line) if line.chars().count() + word.chars().count() < WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            Some(_) | None => lines.push(word.to_owned()),
        }
    }
    lines
        .iter()
        .map(|line| format!("# {line}"))
        .chain([String::new()])
        .collect::<Vec<_>>()
        .join("\n")
}

/// A value to show, as TOML.
fn sample(key: &str, schema: &Schema) -> Option<String> {
    if let Some((_, value)) = SAMPLES.iter().find(|(known, _)| *known == key) {
        return Some((*value).to_owned());
    }
    if let Some(usual) = usual(description(schema)) {
        return Some(usual);
    }
    let example = schema.get("examples").and_then(Value::as_array).and_then(|list| list.first());
    if let Some(example) = example {
        return Some(example.to_string());
    }
    let kinds = schema.get("type").map(Value::to_string).unwrap_or_default();
    let known = [("boolean", "true"), ("integer", "1"), ("string", "\"…\""), ("array", "[]")];
    known.iter().find(|(kind, _)| kinds.contains(kind)).map(|(_, value)| (*value).to_owned())
}

/// What is so anyway, when the description says that in the words of a value.
fn usual(description: &str) -> Option<String> {
    let (_, usual) = description.rsplit_once("[default: ")?;
    let usual = usual.strip_suffix(']')?;
    Some(match usual {
        "on" => "true".to_owned(),
        "off" => "false".to_owned(),
        number if number.parse::<u64>().is_ok() => number.to_owned(),
        words if words.contains(' ') => return None,
        text => format!("{text:?}"),
    })
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Format, native, shape, toml},
        *,
    };

    #[test]
    fn the_example_loads() {
        let shaped = shape::apps(toml::parse(&example()).unwrap(), Format::Toml).unwrap();
        assert_eq!(shaped.apps.len(), 1);
        let app = &shaped.apps[0];
        assert_eq!(app.name(), "web");
        Definition::from_keys(&app.keys.to_json()).unwrap();
    }

    #[test]
    fn every_key_is_in_the_example_with_a_value_that_it_can_have() {
        let example = example();
        for key in native::keys().iter().filter(|key| *key != "name") {
            let line = example
                .lines()
                .map(|line| line.strip_prefix("# ").unwrap_or(line))
                .find(|line| line.strip_prefix(key).is_some_and(|rest| rest.starts_with(" = ")))
                .unwrap_or_else(|| panic!("no example of `{key}`"));
            let text = format!("[apps.a]\nscript = 'a'\n{}\n", line.replace("script = ", "x-s = "));
            let text = if *key == "script" { format!("[apps.a]\n{line}\n") } else { text };
            let shaped = shape::apps(toml::parse(&text).unwrap(), Format::Toml);
            let shaped = shaped.unwrap_or_else(|problem| panic!("{line}: {}", problem.message));
            Definition::from_keys(&shaped.apps[0].keys.to_json())
                .unwrap_or_else(|unfit| panic!("{line}: {}: add a sample", unfit.why));
        }
    }

    #[test]
    fn lines_fit_a_screen() {
        for line in example().lines() {
            assert!(line.chars().count() <= 120, "{line}");
        }
    }
}
