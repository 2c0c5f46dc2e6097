//! Every attribute of an app in PM2's files, and what becomes of it: one table, for reading and for the documentation.
// tidy: long, because it is a registry: one entry per attribute

use super::{super::tree::Node, convert};
use crate::config::nearest::nearest;

use self::{
    Becomes::{Converted, Key, Nothing, Part},
    State::{Absent, Better, Different, Same},
};

/// An attribute of PM2.
pub struct Attribute {
    /// Its name there.
    pub name: &'static str,
    /// Its other names, besides its own in camel case.
    pub aliases: &'static [&'static str],
    /// What becomes of it.
    pub becomes: Becomes,
    /// How that compares.
    pub state: State,
}

/// What becomes of an attribute.
pub enum Becomes {
    /// A key here, with the same value.
    Key(&'static str),
    /// A key here, with a value that says the same; none when the key is as if it were not there.
    Converted(&'static str, convert::Conversion),
    /// Something that depends on the rest of the app: where that goes.
    Part(&'static str),
    /// Nothing; said to the user, except of a value that asks for nothing.
    Nothing(Quiet),
}

/// Of which values nothing is said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Quiet {
    /// None.
    Never,
    /// All: what it asks for is so anyway, or cannot be seen.
    Always,
    /// Of one that switches it off.
    WhenOff,
    /// Of one that switches it on.
    WhenOn,
}

/// How something of PM2 compares with what is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// The same.
    Same,
    /// The same, and how it is better.
    Better(&'static str),
    /// Something like it, and why it is not the same.
    Different(&'static str),
    /// Not there, and why.
    Absent(&'static str),
}

impl Attribute {
    /// The key it becomes, if it becomes one.
    pub fn key(&self) -> Option<&'static str> {
        match self.becomes {
            Key(key) | Converted(key, _) | Part(key) => Some(key),
            Nothing(_) => None,
        }
    }

    /// All its names: its own, that in camel case, and the others.
    pub fn names(&self) -> Vec<String> {
        let mut names = vec![self.name.to_owned()];
        let camel = camel_case(self.name);
        if camel != self.name {
            names.push(camel);
        }
        names.extend(self.aliases.iter().map(|alias| (*alias).to_owned()));
        names
    }
}

impl State {
    /// Why it is not simply the same; empty when it is.
    pub fn why(&self) -> &'static str {
        match self {
            Self::Same => "",
            Self::Better(why) | Self::Different(why) | Self::Absent(why) => why,
        }
    }
}

impl Quiet {
    pub(super) fn covers(self, value: &Node) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::WhenOff => value.as_bool() == Some(false) || value.is_null(),
            Self::WhenOn => value.as_bool() == Some(true) || value.is_null(),
        }
    }
}

/// The attribute of that name or alias.
pub fn find(name: &str) -> Option<&'static Attribute> {
    ATTRIBUTES.iter().find(|attribute| attribute.names().iter().any(|known| known == name))
}

/// The name of an attribute that is nearest to one that is none.
pub(super) fn near(name: &str) -> Option<String> {
    let names: Vec<String> = ATTRIBUTES.iter().flat_map(Attribute::names).collect();
    nearest(name, names.iter().map(String::as_str)).map(str::to_owned)
}

fn camel_case(name: &str) -> String {
    let mut words = name.split('_');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| {
        let mut letters = word.chars();
        let capital = letters.next().map(|letter| letter.to_ascii_uppercase());
        text.chars().chain(capital).chain(letters).collect()
    })
}

const fn attribute(
    name: &'static str,
    aliases: &'static [&'static str],
    becomes: Becomes,
    state: State,
) -> Attribute {
    Attribute { name, aliases, becomes, state }
}

const NO_ACCOUNT: &str = "it is for PM2's paid monitoring, which is not part of this";
const NO_AGENT: &str = "nothing is loaded into the app";

/// Every attribute there is.
pub const ATTRIBUTES: &[Attribute] = &[
    attribute(
        "script",
        &["exec", "cmd", "command"],
        Converted("script", convert::script),
        Better("a command line needs a shell only for shell syntax"),
    ),
    attribute(
        "name",
        &[],
        Key("name"),
        Different("names are unique: the same name twice in a file is an error"),
    ),
    attribute(
        "name_prefix",
        &[],
        Nothing(Quiet::Never),
        Absent("PM2 does nothing with it in a file either"),
    ),
    attribute("namespace", &[], Key("namespace"), Same),
    attribute("filter_env", &[], Converted("filter_env", convert::filter), Same),
    attribute("install_url", &[], Nothing(Quiet::Never), Absent("there are no modules to install")),
    attribute(
        "cwd",
        &[],
        Key("cwd"),
        Better("a script that is not in the current folder is looked for beside the file"),
    ),
    attribute("args", &[], Converted("args", convert::words), Same),
    attribute(
        "exec_interpreter",
        &["interpreter"],
        Converted("interpreter", convert::interpreter),
        Better("the first line (#!) of a script counts; works with every language in every mode"),
    ),
    attribute(
        "node_args",
        &["interpreterArgs", "interpreter_args"],
        Converted("interpreter_args", convert::words),
        Same,
    ),
    attribute(
        "instances",
        &[],
        Key("instances"),
        Better("every language; the kernel hands out the connections"),
    ),
    attribute(
        "exec_mode",
        &[],
        Part("optional_port"),
        Different("the workers of both share the app's ports"),
    ),
    attribute(
        "out_file",
        &["out", "output", "out_log"],
        Converted("out_file", convert::log_path),
        Same,
    ),
    attribute(
        "error_file",
        &["error", "err", "err_file", "err_log"],
        Converted("error_file", convert::log_path),
        Same,
    ),
    attribute("log_file", &["log"], Converted("log_file", convert::log_path), Same),
    attribute("disable_logs", &[], Key("disable_logs"), Same),
    attribute("log_type", &[], Key("log_type"), Same),
    attribute("log_date_format", &[], Key("log_date_format"), Same),
    attribute("time", &[], Key("time"), Same),
    attribute("merge_logs", &["combine_logs"], Key("merge_logs"), Same),
    attribute(
        "env",
        &[],
        Part("env"),
        Better("a variable that is gone from the file is gone after a reload; null removes one"),
    ),
    attribute("append_env_to_name", &[], Part("name"), Same),
    attribute(
        "max_memory_restart",
        &[],
        Key("max_memory_restart"),
        Better("one worker at a time, without losing a request"),
    ),
    attribute("pid_file", &["pid"], Key("pid_file"), Same),
    attribute("restart_delay", &[], Key("restart_delay"), Same),
    attribute("exp_backoff_restart_delay", &[], Key("exp_backoff_restart_delay"), Same),
    attribute("min_uptime", &[], Key("min_uptime"), Same),
    attribute("max_restarts", &[], Key("max_restarts"), Same),
    attribute("stop_exit_codes", &[], Key("stop_exit_codes"), Same),
    attribute("autorestart", &[], Key("autorestart"), Same),
    attribute("autostart", &[], Key("autostart"), Same),
    attribute(
        "cron_restart",
        &["cron"],
        Converted("cron_restart", convert::cron),
        Better("a reload, not a hard restart; time zones"),
    ),
    attribute(
        "wait_ready",
        &[],
        Key("wait_ready"),
        Better("a worker that never says it is ready is not shown online"),
    ),
    attribute(
        "listen_timeout",
        &[],
        Converted("listen_timeout", convert::listen_timeout),
        Different(
            "here a worker that is not ready by then has failed, and the old one goes on serving; so it is never shorter than 30 s",
        ),
    ),
    attribute(
        "kill_timeout",
        &[],
        Key("kill_timeout"),
        Better("10 s unless said otherwise, after connections were drained"),
    ),
    attribute(
        "kill_retry_time",
        &[],
        Nothing(Quiet::Always),
        Absent("the end of a process is told by the kernel, not polled for"),
    ),
    attribute("shutdown_with_message", &[], Key("shutdown_with_message"), Same),
    attribute(
        "treekill",
        &[],
        Nothing(Quiet::WhenOn),
        Absent("everything a worker started is ended with it"),
    ),
    attribute(
        "watch",
        &[],
        Key("watch"),
        Better("a reload once per burst of changes, not a hard restart for each"),
    ),
    attribute("watch_delay", &[], Key("watch_delay"), Same),
    attribute("ignore_watch", &[], Key("ignore_watch"), Same),
    attribute(
        "watch_options",
        &[],
        Nothing(Quiet::Never),
        Absent("the kernel says what changes; there is nothing to tune"),
    ),
    attribute(
        "instance_var",
        &[],
        Key("instance_var"),
        Better("stable across a reload, and unique"),
    ),
    attribute("increment_var", &[], Key("increment_var"), Same),
    attribute("port", &[], Part("env.PORT"), Same),
    attribute("uid", &["user"], Key("uid"), Same),
    attribute("gid", &[], Key("gid"), Same),
    attribute(
        "username",
        &[],
        Nothing(Quiet::Always),
        Absent("who an app runs as is shown, not told"),
    ),
    attribute(
        "force",
        &[],
        Nothing(Quiet::Always),
        Absent("the same script may be started twice under two names"),
    ),
    attribute(
        "execute_command",
        &[],
        Nothing(Quiet::Always),
        Absent("it chose the fork mode of an old release"),
    ),
    attribute(
        "vizion",
        &[],
        Nothing(Quiet::Always),
        Absent("the version control of a folder is left alone"),
    ),
    attribute(
        "post_update",
        &[],
        Nothing(Quiet::Never),
        Absent("there is no pull that it would follow; hooks are pre_start and post_ready"),
    ),
    attribute(
        "source_map_support",
        &[],
        Nothing(Quiet::WhenOff),
        Absent("Node does it: node_args: '--enable-source-maps'"),
    ),
    attribute(
        "disable_source_map_support",
        &[],
        Nothing(Quiet::Always),
        Absent("there is nothing to disable"),
    ),
    attribute("trace", &[], Nothing(Quiet::WhenOff), Absent(NO_ACCOUNT)),
    attribute("disable_trace", &[], Nothing(Quiet::Always), Absent("there is nothing to disable")),
    attribute("v8", &[], Nothing(Quiet::WhenOff), Absent(NO_ACCOUNT)),
    attribute("event_loop_inspector", &[], Nothing(Quiet::WhenOff), Absent(NO_ACCOUNT)),
    attribute("deep_monitoring", &[], Nothing(Quiet::WhenOff), Absent(NO_ACCOUNT)),
    attribute("pmx", &[], Nothing(Quiet::WhenOff), Absent(NO_AGENT)),
    attribute("automation", &[], Nothing(Quiet::WhenOff), Absent(NO_AGENT)),
    attribute("io", &[], Nothing(Quiet::Never), Absent(NO_ACCOUNT)),
    attribute("windowsHide", &[], Nothing(Quiet::Always), Absent("this is Linux")),
    attribute("write", &[], Nothing(Quiet::Always), Absent("cluster save keeps what runs")),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_attribute_of_the_release_that_was_read_is_there() {
        // Names of PM2 7.0.4's own schema of an app.
        const THERE: &str = "script name name_prefix filter_env namespace install_url cwd args exec_interpreter \
            node_args out_file error_file log_file disable_logs log_type log_date_format time env \
            max_memory_restart pid_file restart_delay exp_backoff_restart_delay source_map_support \
            disable_source_map_support wait_ready instances kill_timeout shutdown_with_message listen_timeout \
            cron_restart merge_logs vizion autostart autorestart stop_exit_codes watch_delay watch ignore_watch \
            watch_options min_uptime max_restarts execute_command exec_mode force append_env_to_name post_update \
            trace disable_trace v8 event_loop_inspector deep_monitoring increment_var instance_var pmx automation \
            treekill port username uid gid windowsHide kill_retry_time write io";
        let known: BTreeSet<&str> = ATTRIBUTES.iter().map(|attribute| attribute.name).collect();
        assert_eq!(known, THERE.split_whitespace().collect());
        assert_eq!(known.len(), ATTRIBUTES.len());
    }

    #[test]
    fn no_name_means_two_attributes() {
        let mut seen = BTreeSet::new();
        for name in ATTRIBUTES.iter().flat_map(Attribute::names) {
            assert!(seen.insert(name.clone()), "{name}");
        }
        assert_eq!(find("maxMemoryRestart").unwrap().name, "max_memory_restart");
        assert_eq!(find("interpreter").unwrap().key(), Some("interpreter"));
    }

    #[test]
    fn what_becomes_nothing_says_why() {
        for attribute in ATTRIBUTES {
            let is_nothing = matches!(attribute.becomes, Nothing(_));
            assert_eq!(is_nothing, matches!(attribute.state, Absent(_)), "{}", attribute.name);
        }
    }
}
