//! Every command, option and variable of PM2 and what it is here; the table in the documentation is made of this.
// tidy: long, because it is a registry: one entry per word

use std::fmt::Write as _;

use clap::Args;

use super::{error::Error, output};
use crate::config::file::pm2::attributes::{
    ATTRIBUTES,
    State::{self, Absent, Better, Different, Same},
};

/// Shows what every command, option and attribute of PM2 is here
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster pm2 | grep memory")]
pub(super) struct Pm2 {}

impl Pm2 {
    pub(super) fn run() -> Result<(), Error> {
        Ok(output::answer(&document())?)
    }
}

/// Something of PM2, with its other names, and what it is here.
struct Word {
    there: &'static str,
    /// The own command or option; empty when there is none.
    here: &'static str,
    state: State,
}

const fn word(there: &'static str, here: &'static str, state: State) -> Word {
    Word { there, here, state }
}

const NO_ACCOUNT: &str = "pm2.io and its modules are not part of this";
const NO_GIT: &str = "put the files in place, then `cluster reload FILE`";
const SYSTEMD: &str = "systemd, OpenRC and SysV; those of other systems than Linux are not there";

/// Commands (`pm2 --help`).
const COMMANDS: &[Word] = &[
    word("start", "start", Better("waits until every worker is ready, and fails when one is not")),
    word("stop", "stop", Better("connections are drained first")),
    word("restart", "restart", Same),
    word(
        "reload",
        "reload",
        Better(
            "loses no connection, for every language; a reload that fails is rolled back, and exits with 1",
        ),
    ),
    word("delete, del", "delete", Same),
    word("reset", "reset", Same),
    word("startOrRestart", "startOrRestart", Same),
    word("startOrReload, startOrGracefulReload", "startOrReload", Same),
    word(
        "scale",
        "scale",
        Better("-N works, `max` too; the highest leave first, and finish what they have"),
    ),
    word("sendSignal", "sendSignal", Same),
    word("kill", "kill", Same),
    word("ping", "ping", Same),
    word("deploy", "", Absent(NO_GIT)),
    word(
        "pull, forward, backward",
        "rollback",
        Different(
            "`cluster rollback` goes back to what ran before; the working copy is yours to move",
        ),
    ),
    word("list, ls, l, ps, status", "list", Better("ports, readiness, and what is under way")),
    word("jlist", "jlist", Better("values of secrets are left out")),
    word("prettylist", "list", Different("`cluster list --json`")),
    word(
        "slist, sysinfos",
        "",
        Absent("`cluster report` shows the host, `cluster list --json` the apps"),
    ),
    word("describe, desc, info, show", "describe", Same),
    word("id", "id", Same),
    word("pid", "pid", Same),
    word("create", "pid", Different("it is another name of `pid` there")),
    word("env", "env", Better("values of secrets are hidden unless asked for")),
    word("report", "report", Better("without secrets")),
    word(
        "monit, dashboard, dash, imonit",
        "list",
        Different("`watch -n1 cluster list -v`, `cluster logs` and `cluster events`"),
    ),
    word("logs", "logs", Better("--since, --until, --grep")),
    word("flush", "flush", Same),
    word("reloadLogs", "reloadLogs", Same),
    word("logrotate", "", Absent("files rotate by themselves")),
    word(
        "save, dump",
        "save",
        Better("readable by the owner alone; a full disk leaves the old one"),
    ),
    word("cleardump", "cleardump", Same),
    word("resurrect", "resurrect", Same),
    word("startup", "startup", Different(SYSTEMD)),
    word("unstartup", "unstartup", Different(SYSTEMD)),
    word(
        "update, updatePM2, deepUpdate",
        "upgrade",
        Better("the daemon is replaced under its apps, which do not notice"),
    ),
    word("send", "send", Better("to every worker of an app; JSON messages")),
    word(
        "attach",
        "logs",
        Different("`cluster logs NAME` shows what it writes, `cluster send` tells it something"),
    ),
    word("trigger", "", Absent(NO_ACCOUNT)),
    word("inspect", "", Different("start it with node_args: `--inspect`")),
    word("profile:cpu, profile:mem", "", Absent("perf and heaptrack look into every program")),
    word(
        "set, multiset, get, conf, config, unset",
        "",
        Absent("there are no modules to configure"),
    ),
    word(
        "install, module:install, module:update, module:generate, uninstall, package, publish",
        "",
        Absent("there are no modules; what pm2-logrotate does is built in"),
    ),
    word(
        "link, unlink, monitor, unmonitor, open, plus, register, login, logout",
        "",
        Absent(NO_ACCOUNT),
    ),
    word("install-otel, uninstall-otel", "", Absent(NO_ACCOUNT)),
    word(
        "serve, expose",
        "serve",
        Better("hidden files and links out of the folder are not there"),
    ),
    word("ecosystem, init", "init", Different("writes cluster.toml")),
    word("autoinstall, examples", "", Absent("`cluster help COMMAND` has examples")),
    word("completion", "completion", Better("fish too, and names of apps")),
    word(
        "pm2-runtime, pm2-docker",
        "runtime",
        Better("the exit code of the app is that of the container"),
    ),
    word("pm2-dev", "", Different("`cluster start FILE --watch`, then `cluster logs`")),
];

/// Options of all commands; `here` is an option of `start` unless it names its command.
const OPTIONS: &[Word] = &[
    word("-v, --version", "--version", Same),
    word("-s, --silent", "--silent", Same),
    word("--ext", "--watch", Different("--watch takes what is watched")),
    word("-n, --name", "--name", Same),
    word("-m, --mini-list", "list --mini-list", Same),
    word("--interpreter", "--interpreter", Same),
    word("--interpreter-args, --node-args", "--interpreter-args", Same),
    word("-o, --output", "--out-file", Same),
    word("-e, --error", "--error-file", Same),
    word("-l, --log", "--log-file", Same),
    word("--filter-env", "--filter-env", Same),
    word("--log-type", "--log-type", Same),
    word("--log-date-format", "--log-date-format", Same),
    word("--time", "--time", Same),
    word("--disable-logs", "--disable-logs", Same),
    word("--env", "--env", Better("`--env KEY=VALUE` too")),
    word("-a, --update-env", "--update-env", Better("a variable that is gone is really gone")),
    word("-f, --force", "", Different("the same script may be started under another --name")),
    word("-i, --instances", "--instances", Same),
    word("--parallel", "", Different("`reload` has its own pace")),
    word("--shutdown-with-message", "--shutdown-with-message", Same),
    word("-p, --pid", "--pid-file", Same),
    word("-k, --kill-timeout", "--kill-timeout", Same),
    word(
        "--listen-timeout",
        "--listen-timeout",
        Different("a worker that is not ready by then has failed, and is not used all the same"),
    ),
    word(
        "--max-memory-restart",
        "--max-memory-restart",
        Better("one worker at a time, without losing a request"),
    ),
    word("--restart-delay", "--restart-delay", Same),
    word("--exp-backoff-restart-delay", "--exp-backoff-restart-delay", Same),
    word("-x, --execute-command", "", Absent("there is one mode for every program")),
    word("--max-restarts", "--max-restarts", Same),
    word("--uid", "--uid", Same),
    word("-u, --user", "startup --user", Same),
    word("--gid", "--gid", Same),
    word("--namespace", "--namespace", Same),
    word("--cwd", "--cwd", Same),
    word("--hp", "startup --hp", Same),
    word("--service-name", "startup --service-name", Same),
    word("--wait-ip", "", Absent("the unit waits for network-online.target by itself")),
    word("-c, --cron, --cron-restart", "--cron-restart", Better("a reload, not a hard restart")),
    word("-w, --write", "", Absent("`cluster save` keeps what runs")),
    word("--no-daemon", "--no-daemon", Same),
    word(
        "--source-map-support, --disable-source-map-support",
        "",
        Absent("Node does it: --node-args=--enable-source-maps"),
    ),
    word("--only", "--only", Same),
    word(
        "--wait-ready",
        "--wait-ready",
        Better("a worker that never says it is ready is not shown online"),
    ),
    word("--merge-logs", "--merge-logs", Same),
    word("--watch", "--watch", Better("a reload once per burst of changes")),
    word("--ignore-watch", "--ignore-watch", Same),
    word("--watch-delay", "--watch-delay", Same),
    word("--no-color", "--no-color", Better("NO_COLOR=1 too, and never into a file")),
    word("--no-vizion", "", Absent("the version control of a folder is left alone")),
    word("--no-autostart", "--no-autostart", Same),
    word("--no-autorestart", "--no-autorestart", Same),
    word("--stop-exit-codes", "--stop-exit-codes", Same),
    word("--no-treekill", "", Absent("everything a worker started is ended with it")),
    word(
        "--no-pmx, --no-automation, --trace, --disable-trace, --v8, --event-loop-inspector, --deep-monitoring",
        "",
        Absent(NO_ACCOUNT),
    ),
    word("--sort", "list --sort", Same),
    word("--attach", "", Different("`cluster logs NAME` after it")),
];

/// Variables that PM2 and its apps know.
const VARIABLES: &[Word] = &[
    word("PM2_HOME", "CLUSTER_HOME", Different("`cluster import` reads PM2_HOME")),
    word("PM2_KILL_TIMEOUT, PM2_KILL_SIGNAL", "", Same),
    word("PM2_KILL_RETRY_TIME", "", Absent("the kernel tells when a process has ended")),
    word("PM2_KILL_USE_MESSAGE", "", Same),
    word("PM2_GRACEFUL_LISTEN_TIMEOUT, PM2_GRACEFUL_TIMEOUT", "", Same),
    word("PM2_RELOAD_LOCK_TIMEOUT", "", Absent("two reloads of one app cannot overlap")),
    word("PM2_CONCURRENT_ACTIONS", "", Different("`reload` has its own pace")),
    word("PM2_WORKER_INTERVAL", "", Absent("memory is looked at by the kernel where it can")),
    word("EXP_BACKOFF_RESET_TIMER", "", Different("min_uptime")),
    word("PM2_LOG_DATE_FORMAT", "", Different("log_date_format")),
    word(
        "PM2_API_IPADDR, PM2_API_PORT, PM2_WEB_PORT, PM2_WEB_STRIP_ENV_VARS",
        "",
        Different("the API is a socket in CLUSTER_HOME, for its owner alone"),
    ),
    word("PM2_PROCESS_INSTANCE_VAR", "", Same),
    word("PM2_SOCKET_USER, PM2_SOCKET_GROUP", "", Absent("the socket is its owner's alone")),
    word(
        "PM2_OPTIMIZE_MEMORY, PM2_NODE_OPTIONS, PM2_MODIFY_REQUIRE, PM2_ENABLE_GIT_PARSING, PM2_DAEMON_TITLE, PROCESS_TITLE",
        "",
        Absent("the daemon is no Node program"),
    ),
    word(
        "PM2_SILENT, PM2_DISCRETE_MODE, PM2_NO_INTERACTION, PM2_PROGRAMMATIC, PM2_DEBUG",
        "",
        Absent("nothing is ever asked, and what is in passing goes to standard error"),
    ),
    word("PM2_DISABLE_VERSION_CHECK", "", Absent("nothing is ever sent anywhere")),
    word(
        "PM2_PUBLIC_KEY, PM2_SECRET_KEY, INSTANCE_NAME, PM2_MACHINE_NAME, PM2_APM_ADDRESS",
        "",
        Absent(NO_ACCOUNT),
    ),
    word("PM2_SERVE_PATH, PM2_SERVE_PORT, PM2_SERVE_HOST, PM2_SERVE_SPA, …", "", Same),
    word("NODE_APP_INSTANCE", "NODE_APP_INSTANCE", Better("stable across a reload, and unique")),
    word("pm_id, name", "", Same),
];

/// What to use instead of a command of PM2 that is not there by its name.
pub(super) fn instead_of_command(typed: &str) -> Option<String> {
    instead(COMMANDS, typed, "cluster ")
}

/// What to use instead of an option of PM2.
pub(super) fn instead_of_option(typed: &str) -> Option<String> {
    instead(OPTIONS, typed, "")
}

fn instead(words: &[Word], typed: &str, before: &str) -> Option<String> {
    let word = words.iter().find(|word| word.there.split(", ").any(|name| name == typed))?;
    let why = word.state.why().replace('`', "");
    if word.here.is_empty() || why.contains("cluster ") {
        return Some(why);
    }
    // One that is the same belongs to another command.
    let elsewhere = word.here.split(' ').any(|part| part == typed);
    (!elsewhere && word.state != Same).then(|| format!("{before}{}: {why}", word.here))
}

/// The documentation for who comes from PM2.
fn document() -> String {
    let mut text = "\
# From PM2 to cluster

<!-- What `cluster pm2` prints; cargo run -p cluster-user -- pm2 >docs/pm2.md writes it anew. -->

`cluster start ecosystem.config.js` takes a file of PM2 as it is, and `cluster import` makes cluster.toml of it, or of
what PM2 runs; with `--takeover` it moves the apps over, one by one. This is everything that PM2 7.0.4 has, and what
it is here: the same, better, different, or absent, and why.
"
    .to_owned();
    section(&mut text, "Commands", "Command of PM2", COMMANDS, "cluster ");
    section(&mut text, "Options", "Option of PM2", OPTIONS, "");
    heading(
        &mut text,
        "Attributes of an app in a file",
        "Attribute of PM2 (other names)",
        "Key here",
    );
    for attribute in ATTRIBUTES {
        let names: Vec<String> = attribute.names().iter().skip(1).map(|name| code(name)).collect();
        let others =
            if names.is_empty() { String::new() } else { format!(" ({})", names.join(", ")) };
        let there = format!("{}{others}", code(attribute.name));
        row(&mut text, &there, attribute.key().unwrap_or_default(), attribute.state);
    }
    text.push_str("\n`env_NAME`, `apps`, `pm2`, `static`, a list, and a single app are understood; `deploy` is not.\n");
    section(&mut text, "Variables", "Variable of PM2", VARIABLES, "");
    text
}

fn section(text: &mut String, title: &str, there: &str, words: &[Word], before: &str) {
    heading(text, title, there, "Here");
    for word in words {
        let names: Vec<String> = word.there.split(", ").map(code).collect();
        let here =
            if word.here.is_empty() { String::new() } else { format!("{before}{}", word.here) };
        row(text, &names.join(", "), &here, word.state);
    }
}

fn heading(text: &mut String, title: &str, there: &str, here: &str) {
    // A String takes everything.
    write!(text, "\n## {title}\n\n| {there} | {here} | State | |\n|---|---|---|---|\n")
        .unwrap_or_default();
}

fn row(text: &mut String, there: &str, here: &str, state: State) {
    let here = if here.is_empty() { "–".to_owned() } else { code(here) };
    let word = match state {
        Same => "same",
        Better(_) => "better",
        Different(_) => "different",
        Absent(_) => "absent",
    };
    writeln!(text, "| {there} | {here} | {word} | {} |", state.why().replace('|', "\\|"))
        .unwrap_or_default();
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs, path::Path};

    use super::*;
    use crate::config::{definition::Definition, file::pm2::attributes::Attribute};

    #[test]
    fn the_documentation_is_what_the_code_says() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/pm2.md");
        let written = fs::read_to_string(path).unwrap_or_default();
        assert!(
            written == document(),
            "docs/pm2.md is old: cargo run -p cluster-user -- pm2 >docs/pm2.md"
        );
    }

    #[test]
    fn every_command_that_is_named_is_there() {
        let command = super::super::command();
        for word in COMMANDS.iter().filter(|word| !word.here.is_empty()) {
            let found = command.find_subcommand(word.here);
            let is_there = found.is_some();
            assert!(is_there, "`{}` is said to be `{}` here", word.there, word.here);
            if word.state == Same {
                for name in word.there.split(", ") {
                    let is_there = command.find_subcommand(name).is_some();
                    assert!(is_there, "`{name}` is said to be the same");
                }
            }
        }
    }

    #[test]
    fn every_option_that_is_named_is_there() {
        let command = super::super::command();
        for word in OPTIONS.iter().filter(|word| !word.here.is_empty() && word.here != "--version")
        {
            let (of, long) = word.here.split_once(' ').unwrap_or(("start", word.here));
            let of = command.find_subcommand(of).unwrap();
            let long = long.trim_start_matches("--");
            let is_there = of.get_arguments().any(|option| option.get_long() == Some(long));
            assert!(is_there, "{} is said to be {} here", word.there, word.here);
        }
    }

    #[test]
    fn no_option_that_is_there_is_said_not_to_be() {
        // What is there by the same name means something else, as the table says.
        let others = ["--force", "--trace"];
        let command = super::super::command();
        for word in OPTIONS.iter().filter(|word| word.here.is_empty()) {
            for name in word.there.split(", ").filter(|name| !others.contains(name)) {
                let long = name.trim_start_matches("--");
                for of in command.get_subcommands().filter(|of| !of.is_hide_set()) {
                    let is_there = of.get_arguments().any(|option| option.get_long() == Some(long));
                    assert!(!is_there, "{} has {name}", of.get_name());
                }
            }
        }
    }

    #[test]
    fn every_key_that_an_attribute_becomes_is_one() {
        let keys: BTreeSet<String> = Definition::schemas().into_keys().collect();
        for key in ATTRIBUTES.iter().filter_map(Attribute::key) {
            let key = key.split('.').next().unwrap();
            assert!(key == "env" || keys.contains(key), "{key}");
        }
    }
}
