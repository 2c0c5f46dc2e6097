//! What is offered for each argument.

use std::{ffi::OsStr, time::Duration};

use clap::{Arg, Command, ValueHint};
use clap_complete::engine::{
    ArgValueCompleter, CompletionCandidate, PathCompleter, ValueCompleter as _,
};
use nix::sys::signal::Signal;

use crate::{
    api::message::AppView,
    cli::{human, session},
    config::{home::Home, scheduling::known::POLICIES},
};

/// How long Tab may wait for the daemon.
const PATIENCE: Duration = Duration::from_millis(500);

/// The command line with what its arguments may be. Arguments are known by what stands for them in help texts.
pub(super) fn prepare(command: Command) -> Command {
    command.mut_subcommands(|subcommand| {
        subcommand.mut_args(|argument| {
            let names: Vec<_> = argument
                .get_value_names()
                .unwrap_or_default()
                .iter()
                .map(ToString::to_string)
                .collect();
            match names.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
                ["TARGET"] => argument.add(ArgValueCompleter::new(targets)),
                ["SIGNAL", "TARGET"] => argument.add(ArgValueCompleter::new(signals_and_targets)),
                ["SIGNAL"] => argument.add(ArgValueCompleter::new(signals)),
                [name] if name.starts_with("SCRIPT") || name.starts_with("FILE") => {
                    argument.add(ArgValueCompleter::new(scripts))
                }
                ["POLICY"] => argument.add(ArgValueCompleter::new(policies)),
                ["POLICY|KEY=VALUE"] => argument.add(ArgValueCompleter::new(policies_and_settings)),
                ["FOLDER" | "DIR"] => argument.add(ArgValueCompleter::new(PathCompleter::dir())),
                ["PATH" | "PROGRAM"] => argument,
                _ => nothing(argument),
            }
        })
    })
}

/// No file names for what is a number or a time.
fn nothing(argument: Arg) -> Arg {
    let takes_value = argument.get_action().takes_values();
    let listed = !argument.get_possible_values().is_empty();
    if takes_value && !listed && argument.get_value_hint() == ValueHint::Unknown {
        return argument.add(ArgValueCompleter::new(|_: &OsStr| Vec::new()));
    }
    argument
}

fn targets(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    candidates(&apps(), typed)
}

/// Names first, then namespaces and `all`; workers when the word has come as far as their colon.
fn candidates(apps: &[AppView], typed: &str) -> Vec<CompletionCandidate> {
    let mut offered: Vec<(String, String)> = Vec::new();
    for app in apps {
        let state = format!("app {}, {}", app.id, human::status(app.status));
        offered.push((app.name.clone(), state));
        if typed.contains(':') {
            let workers = app.workers.iter().map(|worker| {
                let state = human::status(worker.status).to_owned();
                (format!("{}:{}", app.name, worker.instance), state)
            });
            offered.extend(workers);
        }
        let namespace = &app.namespace;
        if namespace != "default" && !offered.iter().any(|(name, _)| name == namespace) {
            offered.push((namespace.clone(), "namespace".to_owned()));
        }
    }
    if !apps.is_empty() {
        offered.push(("all".to_owned(), "every app".to_owned()));
    }
    offered
        .into_iter()
        .filter(|(name, _)| name.starts_with(typed))
        .map(|(name, help)| CompletionCandidate::new(name).help(Some(help.into())))
        .collect()
}

fn signals(typed: &OsStr) -> Vec<CompletionCandidate> {
    let typed = typed.to_string_lossy().to_ascii_uppercase();
    let names = Signal::iterator().map(Signal::as_str);
    let long = typed.starts_with("SIG");
    let names = names.map(|name| if long { name } else { name.trim_start_matches("SIG") });
    names.filter(|name| name.starts_with(&typed)).map(CompletionCandidate::new).collect()
}

fn signals_and_targets(typed: &OsStr) -> Vec<CompletionCandidate> {
    targets(typed).into_iter().chain(signals(typed)).collect()
}

fn policies(typed: &OsStr) -> Vec<CompletionCandidate> {
    let Some(typed) = typed.to_str() else { return Vec::new() };
    let named =
        POLICIES.iter().filter(|known| known.name != "custom" && known.name.starts_with(typed));
    let named =
        named.map(|known| CompletionCandidate::new(known.name).help(Some(known.picks.into())));
    named.chain(PathCompleter::any().complete(OsStr::new(typed))).collect()
}

fn policies_and_settings(typed: &OsStr) -> Vec<CompletionCandidate> {
    const WORDS: [(&str, &str); 13] = [
        ("guard=on", "the usual guard"),
        ("guard=off", "no guard at all"),
        ("guard=stalled=", "after so long without accepting"),
        ("guard=heartbeat=", "after so long without WATCHDOG=1"),
        ("guard=queue=", "with more than so many in the accept queue"),
        ("guard=slow-start=", "so long after it became ready"),
        ("shed=", "refuse when every worker has so many"),
        ("shed=off", "never refuse"),
        ("weights=", "shares of the workers by their numbers"),
        ("weights=off", "equal shares"),
        ("prefix=", "sticky: bits of an IPv4 address"),
        ("prefix6=", "sticky: bits of an IPv6 address"),
        ("quic=", "sticky: bytes of a connection id"),
    ];
    let words = WORDS
        .iter()
        .filter(|(word, _)| typed.to_str().is_some_and(|typed| word.starts_with(typed)));
    let words =
        words.map(|(word, help)| CompletionCandidate::new(*word).help(Some((*help).into())));
    policies(typed).into_iter().chain(words).collect()
}

fn scripts(typed: &OsStr) -> Vec<CompletionCandidate> {
    PathCompleter::any().complete(typed).into_iter().chain(targets(typed)).collect()
}

/// The apps of the daemon that a command would talk to.
fn apps() -> Vec<AppView> {
    let home = Home::from_env().ok();
    home.and_then(|home| session::glance(&home, PATIENCE)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{
        super::super::{command, sample::app},
        *,
    };

    #[test]
    fn names_come_first_and_workers_after_their_colon() {
        let mut shop = app();
        shop.name = "shop-web".to_owned();
        shop.namespace = "shop".to_owned();
        let apps = [app(), shop];
        let offered = |typed: &str| -> Vec<String> {
            let offered = candidates(&apps, typed);
            offered.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(offered(""), ["web", "shop-web", "shop", "all"]);
        assert_eq!(offered("w"), ["web"]);
        assert_eq!(offered("web:"), ["web:0", "web:1"]);
        assert!(candidates(&[], "").is_empty(), "`all` of nothing is nothing");
    }

    #[test]
    fn signals_are_offered_as_they_are_begun() {
        let offered = |typed: &str| -> Vec<String> {
            let offered = signals(OsStr::new(typed));
            offered.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(offered("hu"), ["HUP"]);
        assert_eq!(offered("SIGUSR"), ["SIGUSR1", "SIGUSR2"]);
    }

    #[test]
    fn policies_are_offered_with_what_they_pick_and_settings_with_their_keys() {
        let offered = |typed: &str| -> Vec<String> {
            let offered = policies_and_settings(OsStr::new(typed));
            offered.iter().map(|one| one.get_value().to_string_lossy().into_owned()).collect()
        };
        assert_eq!(offered("least"), ["least-conn"]);
        assert_eq!(offered("shed="), ["shed=", "shed=off"]);
        assert!(offered("cus").is_empty(), "it is named by its file");
    }

    #[test]
    fn the_prepared_command_line_is_sound() {
        prepare(command()).debug_assert();
    }
}
