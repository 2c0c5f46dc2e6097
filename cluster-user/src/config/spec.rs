//! What an app is: everything needed to run its workers, valid by construction.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

use super::name::Name;

/// An app as the daemon keeps it. Durations are whole milliseconds on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AppSpec {
    /// Unique among a daemon's apps.
    pub name: Name,
    /// A group of apps to be named together.
    pub namespace: Name,
    /// What the user typed: path or command line, for display.
    pub script: String,
    /// Absolute path of the file to execute: the interpreter, or the program itself.
    pub program: PathBuf,
    /// Arguments after the program's name, those for the interpreter and the script's path first.
    pub args: Vec<String>,
    /// Absolute path of the working folder.
    pub cwd: PathBuf,
    /// The whole environment of a worker, less what is particular to each.
    pub env: BTreeMap<String, String>,
    /// User and group to run as, with the user's supplementary groups; the daemon's own when absent.
    pub user: Option<User>,
    /// Wanted number of workers, 1 to `MAX_INSTANCES`.
    pub instances: u32,
    /// Ports to balance; empty for all.
    pub ports: Vec<u16>,
    /// When a worker counts as ready.
    pub readiness: Readiness,
    /// What follows when a worker dies.
    pub restart: RestartPolicy,
    /// How a worker is ended.
    pub stop: StopPolicy,
    /// How long the waiting room holds connections while there is no worker, before they are refused.
    #[serde(with = "millis")]
    pub wait_timeout: Duration,
    /// Whether the kernel program logs each decision.
    pub trace: bool,
    /// Whether plain mode is an error.
    pub require_kernel: bool,
}

/// Who a worker runs as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct User {
    /// Numeric user id.
    pub uid: u32,
    /// Numeric primary group id.
    pub gid: u32,
    /// Supplementary group ids.
    pub groups: Vec<u32>,
}

/// When a worker counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "when", deny_unknown_fields)]
pub enum Readiness {
    /// It listens: on every port of `ports`, or on any when there are none; an error after `timeout`.
    Listening {
        /// From spawn to listening.
        #[serde(with = "millis")]
        timeout: Duration,
    },
    /// It has run for `min_uptime`: for programs that serve no port.
    Running,
}

/// What follows when a worker dies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RestartPolicy {
    /// Whether a worker that ends by itself is replaced.
    pub autorestart: bool,
    /// This many unstable runs in a row, and the worker is errored.
    pub max_restarts: u32,
    /// A shorter run is unstable.
    #[serde(with = "millis")]
    pub min_uptime: Duration,
    /// Fixed wait before each replacement; zero for at once, then exponential backoff while unstable.
    #[serde(with = "millis")]
    pub restart_delay: Duration,
    /// Exit codes after which a worker is not replaced.
    pub stop_exit_codes: Vec<i32>,
}

/// How a worker is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopPolicy {
    /// Number of the signal that asks it to end.
    pub signal: i32,
    /// How long it may finish what it has after it left the route.
    #[serde(with = "millis")]
    pub drain_timeout: Duration,
    /// From the signal to SIGKILL.
    #[serde(with = "millis")]
    pub kill_timeout: Duration,
}

/// Durations as whole milliseconds.
pub mod millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serializer};

    /// Writes a duration.
    pub fn serialize<S: Serializer>(duration: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}
