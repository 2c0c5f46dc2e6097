//! The commands of `cluster --help`, in groups.

use std::fmt::Write as _;

use clap::Command;

/// What each group is called, and its commands in the order in which people need them.
const GROUPS: [(&str, &[&str]); 9] = [
    (
        "Run apps",
        &["start", "stop", "restart", "reload", "scale", "policy", "delete", "serve", "runtime"],
    ),
    ("Deploy", &["promote", "rollback", "history", "startOrReload", "startOrRestart"]),
    ("Files of apps", &["init", "schema", "diff", "import", "pm2"]),
    ("Look", &["list", "describe", "logs", "events", "metrics", "pid", "id", "env", "jlist"]),
    ("Reach into apps", &["send", "sendSignal", "flush", "reloadLogs", "reset"]),
    ("Boot", &["save", "resurrect", "cleardump", "startup", "unstartup"]),
    ("The daemon", &["ping", "version", "upgrade", "kill", "daemon"]),
    ("Experiments", &["lab"]),
    ("Help", &["doctor", "report", "completion", "man", "help"]),
];

/// The command with help that shows groups; what is in none of them comes last.
pub(super) fn arrange(mut command: Command) -> Command {
    command.build();
    let groups = text(&command);
    command.help_template(format!(
        "{{about}}\n\n{{usage-heading}} {{usage}}\n\n{groups}Options:\n{{options}}{{after-help}}"
    ))
}

fn text(command: &Command) -> String {
    let grouped = |name: &str| GROUPS.iter().any(|(_, names)| names.contains(&name));
    let others: Vec<&str> = command
        .get_subcommands()
        .filter(|one| !one.is_hide_set() && !grouped(one.get_name()))
        .map(Command::get_name)
        .collect();
    let mut text = String::new();
    for (heading, names) in GROUPS.into_iter().chain([("More", others.as_slice())]) {
        let known: Vec<&Command> =
            names.iter().filter_map(|name| command.find_subcommand(name)).collect();
        if known.is_empty() {
            continue;
        }
        let _infallible = writeln!(text, "{heading}:");
        for one in known {
            let _infallible = writeln!(text, "  {:<14} {}", one.get_name(), about(one).trim());
        }
        text.push('\n');
    }
    text
}

/// What it does, and its other names: in the same line if that is short enough.
fn about(command: &Command) -> String {
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    let aliases: Vec<&str> = command.get_visible_aliases().collect();
    if aliases.is_empty() {
        return about;
    }
    let aliases = format!("[also: {}]", aliases.join(", "));
    let room = 82_usize.saturating_sub(aliases.len());
    let between = if about.len() < room { " " } else { "\n                 " };
    format!("{about}{between}{aliases}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group() {
        let command = super::super::command();
        for one in command.get_subcommands().filter(|one| !one.is_hide_set()) {
            let name = one.get_name();
            let count = GROUPS.iter().filter(|(_, names)| names.contains(&name)).count();
            assert_eq!(count, 1, "{name}");
        }
        for name in GROUPS.iter().flat_map(|(_, names)| *names) {
            assert!(command.find_subcommand(name).is_some(), "there is no {name}");
        }
    }
}
