//! Words of PM2 that are not there yet, and of other tools; and what to use instead.

use clap::error::{ContextKind, ContextValue};

use super::{error::Error, human, pm2};

/// Words, and what to do instead.
const COMMANDS: [(&[&str], &str); 4] = [
    (&["monit", "dashboard", "dash", "imonit"], "watch -n1 cluster list -v"),
    (&["logrotate"], "nothing needs doing: log files rotate by themselves"),
    (&["deploy", "set", "get", "conf", "install"], "see cluster --help for what is there"),
    (&["attach", "trigger"], "cluster logs NAME shows what it writes"),
];

/// Words of other tools, and what they are here.
const OTHERS: [(&[&str], &str); 12] = [
    (&["slist", "sysinfos"], "cluster report shows the host, cluster list --json the apps"),
    (&["kill-app", "terminate", "quit"], "cluster stop TARGET, or cluster kill for everything"),
    (
        &["node", "port", "ports"],
        "cluster list shows the ports, cluster describe TARGET all addresses",
    ),
    (&["rm", "remove", "uninstall"], "cluster delete TARGET"),
    (&["log", "tail"], "cluster logs TARGET"),
    (&["top", "htop", "monitor"], "watch -n1 cluster list -v"),
    (&["up", "run", "create", "exec"], "cluster start SCRIPT"),
    (&["down", "shutdown", "halt"], "cluster kill stops every app and ends the daemon"),
    (
        &["enable", "disable"],
        "cluster startup has saved apps started at boot, cluster unstartup undoes that",
    ),
    (&["inspect"], "cluster describe TARGET"),
    (&["is-active"], "cluster list TARGET"),
    (
        &["rollout", "update", "set-image"],
        "cluster reload TARGET deploys, cluster list shows how far it is, cluster rollback TARGET undoes it, \
         cluster history TARGET tells of those before",
    ),
];

/// Options of other commands, and what to do instead.
const OTHER_OPTIONS: [(&[&str], &str); 6] = [
    (
        &["--update-env"],
        "restart keeps the environment; cluster reload NAME --update-env takes the one of the shell",
    ),
    (
        &["-f", "--follow", "--force"],
        "cluster logs follows by itself; to start a script a second time, give another --name",
    ),
    (&["--replicas", "-i", "--instances"], "cluster scale NAME N"),
    (
        &[
            "--readiness",
            "--readiness-probe",
            "--health",
            "--health-check",
            "--healthcheck",
            "--health-cmd",
        ],
        "--probe says when a worker is ready, --liveness what it must go on answering",
    ),
    (&["--liveness-probe"], "--liveness PROBE"),
    (
        &["--to-revision", "--to"],
        "cluster rollback goes back to what was deployed before; twice, and it is as it was",
    ),
];

/// Options of `start`, and what to do instead.
const OPTIONS: [(&[&str], &str); 2] = [
    (&["--attach"], "cluster start SCRIPT --no-daemon stays in the foreground"),
    (
        &[
            "-o",
            "--output",
            "-e",
            "--error",
            "-l",
            "--log",
            "--merge-logs",
            "--time",
            "--log-date-format",
        ],
        "the paths of the log files are in cluster describe NAME",
    ),
];

/// The answer to a mistake in the command line that is none to users of PM2.
pub(super) fn answer(error: &clap::Error) -> Option<Error> {
    let word = |kind| match error.get(kind) {
        Some(ContextValue::String(word)) => Some(word.as_str()),
        _ => None,
    };
    let find = |list: &[(&[&'static str], &'static str)], word: &str| {
        let entry = list.iter().find(|(words, _)| words.contains(&word));
        entry.map(|(_, instead)| *instead)
    };
    let (word, later, other, kind) =
        match (word(ContextKind::InvalidSubcommand), word(ContextKind::InvalidArg)) {
            (Some(word), _) => (word, &COMMANDS[..], &OTHERS[..], "command"),
            (None, Some(word)) => (word, &OPTIONS[..], &OTHER_OPTIONS[..], "option"),
            (None, None) => return None,
        };
    let shown = human::plain(word);
    if let Some(instead) = find(later, word) {
        return Some(Error::usage(format!("`{shown}` is not there yet")).hint(instead));
    }
    let of_pm2 = || if kind == "option" { pm2::why_no_option(word) } else { None };
    let instead = find(other, word).or_else(of_pm2)?;
    Some(Error::usage(format!("there is no {kind} `{shown}`")).hint(instead))
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::command::Cli, *};

    #[test]
    fn what_comes_later_is_answered_with_what_there_is() {
        let mistake = |line: &str| {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            answer(&error).map(|answer| (answer.message, answer.hint.unwrap_or_default()))
        };
        let (message, hint) = mistake("cluster attach web").unwrap();
        assert_eq!(message, "`attach` is not there yet");
        assert!(hint.contains("cluster logs"));
        assert_eq!(
            mistake("cluster start a.js --attach").unwrap().0,
            "`--attach` is not there yet"
        );
        assert_eq!(mistake("cluster rm web").unwrap().0, "there is no command `rm`");
        assert_eq!(mistake("cluster restart -f web").unwrap().0, "there is no option `-f`");
        let (message, hint) = mistake("cluster start a.js --no-vizion").unwrap();
        assert_eq!(message, "there is no option `--no-vizion`");
        assert!(hint.contains("version control"), "{hint}");
        assert!(mistake("cluster lst").is_none());
        assert!(mistake("cluster start a.js --nope").is_none());
    }

    #[test]
    fn nothing_that_is_there_is_said_to_come_later() {
        for word in COMMANDS.iter().chain(&OTHERS).flat_map(|(words, _)| *words) {
            assert!(super::super::command().find_subcommand(word).is_none(), "{word}");
        }
    }
}
