//! Which of an app's variables are its own: a dump has those of PM2 and of the shell that started it as well.

use std::collections::BTreeMap;

use super::{
    super::tree::{Data, Entry, Node, Table},
    scalar,
};
use crate::config::resolve::Surroundings;

/// PM2's own, as found in its dumps; and those of the channel that it talks to Node over.
const INJECTED: [&str; 8] = [
    "unique_id",
    "pm_id",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "km_link",
    "vizion_running",
];

/// Variables of PM2 that are for the app, or that mean the same here.
const KEPT: [&str; 4] = ["PM2_SERVE_", "PM2_KILL_", "PM2_GRACEFUL_", "PM2_PROCESS_INSTANCE_VAR"];

/// What belongs to one session of a terminal, not to an app.
const SESSION: [&str; 22] = [
    "_",
    "COLORTERM",
    "COLUMNS",
    "DBUS_SESSION_BUS_ADDRESS",
    "DISPLAY",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LESSCLOSE",
    "LESSOPEN",
    "LINES",
    "LS_COLORS",
    "MAIL",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "PS1",
    "PWD",
    "SHLVL",
    "STY",
    "TERM",
    "TMUX",
    "TMUX_PANE",
    "WINDOWID",
];
const SESSION_BEGINNINGS: [&str; 6] = ["LISTEN_", "SSH_", "SUDO_", "TERM_", "VSCODE_", "XDG_"];

/// Variables of an app, and how many were left out because this shell has the same.
pub(super) struct Own {
    pub(super) variables: Table,
    pub(super) shared: usize,
}

/// Those of `env` that are the app's own.
pub(super) fn own(env: &Table, app: &Table, around: &Surroundings) -> Own {
    let name = scalar(app, "name").unwrap_or_default();
    let instance = scalar(app, "instance_var");
    let here: BTreeMap<_, _> = around
        .env
        .iter()
        .filter_map(|(key, value)| Some((key.to_str()?, value.to_str()?)))
        .collect();
    let mut own = Own { variables: Table::default(), shared: 0 };
    for entry in env.entries() {
        let key = entry.key.as_str();
        let Some(value) = scalar(env, key) else { continue };
        // PM2 gives every app a variable of its own name, for the configuration of modules.
        let is_modules = key == name && matches!(value.as_str(), "{}" | "[object Object]");
        if is_modules || is_injected(key) || Some(key) == instance.as_deref() || is_session(key) {
            continue;
        }
        if here.get(key) == Some(&value.as_str()) {
            own.shared += 1;
            continue;
        }
        let node = Node::new(Data::Text(value), entry.node.place);
        own.variables.put(Entry { key: key.to_owned(), place: entry.place, node });
    }
    own
}

fn is_injected(key: &str) -> bool {
    let kept = KEPT.iter().any(|kept| key.starts_with(kept));
    INJECTED.contains(&key) || key.starts_with("axm_") || (key.starts_with("PM2_") && !kept)
}

fn is_session(key: &str) -> bool {
    SESSION.contains(&key) || SESSION_BEGINNINGS.iter().any(|beginning| key.starts_with(beginning))
}
