//! Words of PM2 that are not there, and of other tools; and what to use instead.

use clap::error::{ContextKind, ContextValue};

use super::{error::Error, human, pm2};

/// Words of other tools, and what they are here.
const COMMANDS: [(&[&str], &str); 13] = [
    (&["kill-app", "terminate", "quit"], "cluster stop TARGET, or cluster kill for everything"),
    (
        &["node", "port", "ports"],
        "cluster list shows the ports, cluster describe TARGET all addresses",
    ),
    (&["rm", "remove"], "cluster delete TARGET"),
    (&["log", "tail"], "cluster logs TARGET"),
    (&["top", "htop", "monitor"], "watch -n1 cluster list -v"),
    (&["up", "run", "create"], "cluster start SCRIPT"),
    (
        &["exec"],
        "workers are ordinary processes of this host, and commands run beside them: cluster pid NAME:0 says the \
         process id of one, cluster env NAME:0 shows its environment, cluster start SCRIPT starts an app",
    ),
    (
        &["get"],
        "cluster list shows apps, cluster describe NAME all of one; there are no modules to configure",
    ),
    (&["down", "shutdown", "halt"], "cluster kill stops every app and ends the daemon"),
    (
        &["enable", "disable"],
        "cluster startup has saved apps started at boot, cluster unstartup undoes that",
    ),
    (&["inspect"], "cluster describe TARGET"),
    (&["is-active"], "cluster list TARGET"),
    (
        &["rollout", "set-image"],
        "cluster reload TARGET deploys, cluster list shows how far it is, cluster rollback TARGET undoes it, \
         cluster history TARGET tells of those before",
    ),
];

/// Options of other commands, and what to do instead.
const OPTIONS: [(&[&str], &str); 11] = [
    (&["--attach"], "cluster start SCRIPT --no-daemon stays in the foreground"),
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
        &["--policy"],
        "cluster policy NAME least-conn, or another policy, switches at once and replaces no worker",
    ),
    (&["--weights"], "cluster policy NAME weights=3,1 sets them at once and replaces no worker"),
    (
        &["--guard"],
        "cluster policy NAME guard=off, or KEY=VALUE,…, sets it at once and replaces no worker",
    ),
    (&["--shed"], "cluster policy NAME shed=200, or off, sets it at once and replaces no worker"),
    (
        &["--to-revision", "--to"],
        "cluster rollback goes back to what was deployed before; twice, and it is as it was",
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
        entry.map(|(_, instead)| (*instead).to_owned())
    };
    let (kind, word, instead) =
        match (word(ContextKind::InvalidSubcommand), word(ContextKind::InvalidArg)) {
            (Some(word), _) => {
                ("command", word, find(&COMMANDS, word).or_else(|| pm2::instead_of_command(word)))
            }
            (None, Some(word)) => {
                let own = find(&OPTIONS, word).or_else(|| of_start(word));
                ("option", word, own.or_else(|| pm2::instead_of_option(word)))
            }
            (None, None) => return None,
        };
    let shown = human::plain(word);
    Some(Error::usage(format!("there is no {kind} `{shown}`")).hint(instead?))
}

/// What to do with an option that only `start` has.
fn of_start(word: &str) -> Option<String> {
    let command = super::command();
    let long = word.strip_prefix("--")?;
    let start = command.find_subcommand("start")?;
    let is_one = |option: &clap::Arg| {
        option.get_long() == Some(long)
            || option.get_all_aliases().is_some_and(|others| others.contains(&long))
    };
    start.get_arguments().any(is_one).then(|| {
        "start has it; for an app that runs, change its file, then cluster start FILE".to_owned()
    })
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{super::command::Cli, *};

    fn mistake(line: &str) -> Option<(String, String)> {
        let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
        answer(&error).map(|answer| (answer.message, answer.hint.unwrap_or_default()))
    }

    #[test]
    fn a_word_of_another_tool_is_answered_with_what_there_is() {
        let (message, hint) = mistake("cluster rm web").unwrap();
        assert_eq!(
            (message.as_str(), hint.as_str()),
            ("there is no command `rm`", "cluster delete TARGET")
        );
        assert_eq!(mistake("cluster restart -f web").unwrap().0, "there is no option `-f`");
        assert!(mistake("cluster start a.js --attach").unwrap().1.contains("--no-daemon"));
        let (message, hint) = mistake("cluster start a.js --no-vizion").unwrap();
        assert_eq!(message, "there is no option `--no-vizion`");
        assert!(hint.contains("version control"), "{hint}");
        assert!(mistake("cluster lst").is_none());
        assert!(mistake("cluster start a.js --nope").is_none());
    }

    #[test]
    fn a_word_of_pm2_is_answered_as_the_table_says() {
        for (line, part) in [
            ("cluster update", "cluster upgrade: "),
            ("cluster monit", "watch -n1 cluster list -v"),
            ("cluster deploy", "cluster reload FILE"),
            ("cluster pull", "cluster rollback"),
            ("cluster attach web", "cluster logs NAME"),
            ("cluster profile:cpu", "perf"),
            ("cluster install pm2-logrotate", "built in"),
            ("cluster start a.js -x", "one mode for every program"),
            ("cluster start a.js --ext js", "--watch takes what is watched"),
            ("cluster start a.js --parallel 2", "its own pace"),
        ] {
            let (_, hint) = mistake(line).unwrap_or_else(|| panic!("{line}"));
            assert!(hint.contains(part) && !hint.contains('`'), "{line}: {hint}");
        }
    }

    #[test]
    fn an_option_of_start_on_another_command_is_answered_with_the_file() {
        for line in [
            "cluster restart web --max-memory-restart 200M",
            "cluster reload web --cron 0",
            "cluster stop web --node-args=--inspect",
        ] {
            assert!(mistake(line).unwrap().1.contains("cluster start FILE"), "{line}");
        }
    }

    #[test]
    fn what_can_be_switched_live_is_answered_with_the_command_that_does() {
        for (line, switch) in [
            ("cluster policy app --policy least-conn", "cluster policy NAME least-conn"),
            ("cluster reload app --policy=least-conn", "cluster policy NAME least-conn"),
            ("cluster restart app --policy hash", "cluster policy NAME least-conn"),
            ("cluster restart app --weights 3,1", "cluster policy NAME weights=3,1"),
            ("cluster stop app --guard off", "cluster policy NAME guard=off"),
            ("cluster reload app --shed 200", "cluster policy NAME shed=200"),
        ] {
            assert!(mistake(line).unwrap().1.contains(switch), "{line}");
        }
    }

    #[test]
    fn words_of_kubectl_and_docker_are_answered_with_what_they_look_for() {
        let (message, hint) = mistake("cluster get apps").unwrap();
        assert_eq!(message, "there is no command `get`");
        assert!(hint.starts_with("cluster list"), "{hint}");
        let (_, hint) = mistake("cluster exec web ls").unwrap();
        assert!(!hint.starts_with("cluster start") && hint.contains("cluster pid"), "{hint}");
    }

    #[test]
    fn nothing_that_is_there_is_said_to_be_missing() {
        for word in COMMANDS.iter().flat_map(|(words, _)| *words) {
            assert!(super::super::command().find_subcommand(word).is_none(), "{word}");
        }
    }
}
