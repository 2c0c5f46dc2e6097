//! What an app is: everything needed to run its workers, valid by construction.

pub mod hooks;
pub mod identity;
pub mod logs;
pub mod recycle;
pub mod resources;
pub mod watch;

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};

pub use self::logs::Logs;
use self::{
    hooks::Hooks, identity::Identity, recycle::Recycle, resources::Resources, watch::Watch,
};
use super::{listen::Listen, name::Name, scheduling::Scheduling};

/// An app as the daemon keeps it. Durations are whole milliseconds on the wire.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option")]
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
    /// How many of `args` come before those of the script itself.
    #[serde(default)]
    pub leading_args: usize,
    /// Absolute path of the working folder.
    pub cwd: PathBuf,
    /// Variables of the shell that started it, and those that follow from the user and the folder.
    #[serde(default)]
    pub inherited: BTreeMap<String, String>,
    /// Variables that were said, by options or in a file: they go before inherited ones.
    pub env: BTreeMap<String, String>,
    /// The file that it is defined in.
    #[serde(default)]
    pub source: Option<PathBuf>,
    /// User and group to run as, with the user's supplementary groups; the daemon's own when absent.
    pub user: Option<User>,
    /// Wanted number of workers, 1 to `MAX_INSTANCES`.
    pub instances: u32,
    /// Whether its workers start with it, or when somebody says so.
    #[serde(default = "yes")]
    pub autostart: bool,
    /// Who each worker is.
    #[serde(default)]
    pub identity: Identity,
    /// Sockets that workers are given.
    #[serde(default)]
    pub listen: Vec<Listen>,
    /// Ports to balance; empty for all.
    pub ports: Vec<u16>,
    /// By which sign a worker is known to be ready, when there is no `probe`.
    pub readiness: Readiness,
    /// From spawn to ready, else the worker has failed.
    #[serde(with = "millis")]
    pub listen_timeout: Duration,
    /// Asked of a new worker until it passes; goes before every other sign.
    #[serde(default)]
    pub probe: Option<Probe>,
    /// Asked of an online worker again and again.
    #[serde(default)]
    pub liveness: Option<Probe>,
    /// An online worker says `WATCHDOG=1` at least this often.
    #[serde(default, with = "optional_millis")]
    pub watchdog: Option<Duration>,
    /// Whether a reload starts the new worker beside the old one, instead of after it.
    pub overlap: bool,
    /// What follows when a worker dies.
    pub restart: RestartPolicy,
    /// How a worker is ended.
    pub stop: StopPolicy,
    /// What becomes of its workers' output.
    #[serde(default)]
    pub logs: Logs,
    /// How long the waiting room holds connections while there is no worker, before they are refused.
    #[serde(with = "millis")]
    pub wait_timeout: Duration,
    /// Files whose change reloads it.
    #[serde(default)]
    pub watch: Option<Watch>,
    /// When a worker that is well is replaced all the same.
    #[serde(default)]
    pub recycle: Recycle,
    /// Commands that are run at turns of a worker's life.
    #[serde(default)]
    pub hooks: Hooks,
    /// What each worker may use of the host.
    #[serde(default)]
    pub resources: Resources,
    /// How connections are spread over its workers. It is the same in every generation: a reload leaves it alone.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Whether the kernel program logs each decision.
    pub trace: bool,
    /// Whether plain mode is an error.
    pub require_kernel: bool,
}

impl AppSpec {
    /// The environment of its workers, less what is particular to each.
    pub fn environment(&self) -> BTreeMap<&str, &str> {
        let both = self.inherited.iter().chain(&self.env);
        both.map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.get(name).or_else(|| self.inherited.get(name)).map(String::as_str)
    }

    /// What stands in a worker's place for its definition until that is looked up.
    pub(crate) fn unread() -> Self {
        Self::usual(Name::unread())
    }

    /// An app with the settings that `start` has when nothing else is typed.
    pub fn usual(name: Name) -> Self {
        let seconds = Duration::from_secs;
        Self {
            script: name.to_string(),
            name,
            namespace: Name::usual_namespace(),
            program: PathBuf::new(),
            args: Vec::new(),
            leading_args: 0,
            cwd: PathBuf::new(),
            inherited: BTreeMap::new(),
            env: BTreeMap::new(),
            source: None,
            user: None,
            instances: 1,
            autostart: true,
            identity: Identity::default(),
            listen: Vec::new(),
            ports: Vec::new(),
            readiness: Readiness::Listening,
            listen_timeout: seconds(30),
            probe: None,
            liveness: None,
            watchdog: None,
            overlap: true,
            restart: RestartPolicy {
                autorestart: true,
                max_restarts: 16,
                min_uptime: seconds(1),
                restart_delay: Duration::ZERO,
                exp_backoff: None,
                stop_exit_codes: Vec::new(),
            },
            stop: StopPolicy {
                signal: 15,
                with_message: false,
                drain_timeout: seconds(30),
                kill_timeout: seconds(10),
            },
            logs: Logs::default(),
            wait_timeout: seconds(30),
            watch: None,
            recycle: Recycle::default(),
            hooks: Hooks::default(),
            resources: Resources::default(),
            scheduling: Scheduling::default(),
            trace: false,
            require_kernel: false,
        }
    }
}

fn yes() -> bool {
    true
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

/// Who has not listened for this long serves no port; PM2 waits as long for an app to listen.
pub const SETTLED: Duration = Duration::from_secs(3);

/// The sign by which a worker is known to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Readiness {
    /// It listens: on every port of `ports`, or on any when there are none.
    Listening,
    /// It has run for `min_uptime`: for programs that serve no port.
    Running,
    /// It listens, or has run for [`SETTLED`] without, unless the app has served a port before: for programs of which
    /// nobody said whether they serve one.
    Settled,
    /// It says `READY=1` on the socket of `NOTIFY_SOCKET`, as programs for systemd do.
    Notified,
    /// It says `ready` on Node's IPC channel, `process.send('ready')`, as programs for PM2 do.
    Message,
}

/// A question that a fit worker answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    /// What is asked.
    pub what: ProbeTarget,
    /// From one answer to the next question.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// This many good answers in a row, and the worker passes; at least 1.
    pub successes: u32,
    /// This many bad answers in a row, and an online worker fails; at least 1.
    pub failures: u32,
}

/// What a probe asks. Without a port it is the only one that the app listens on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ProbeTarget {
    /// `GET path` over HTTP/1.1; 200 to 399 is good.
    Http {
        /// For the `Host` header, and to tell addresses of the same port apart; a name or address of this host.
        host: Option<String>,
        /// Which of the app's ports.
        port: Option<u16>,
        /// Begins with a slash; with the query, if there is one.
        path: String,
    },
    /// A connection is accepted by the kernel for the worker.
    Tcp {
        /// Which of the app's ports.
        port: Option<u16>,
    },
    /// A command line that exits with code 0, run like a script that is started.
    Command(String),
}

impl ProbeTarget {
    /// Whether it is asked through a port of the app.
    pub fn asks_port(&self) -> bool {
        match self {
            Self::Http { .. } | Self::Tcp { .. } => true,
            Self::Command(_) => false,
        }
    }

    /// The port it names; when it asks one and names none, the only one is meant.
    pub fn port(&self) -> Option<u16> {
        match self {
            Self::Http { port, .. } | Self::Tcp { port } => *port,
            Self::Command(_) => None,
        }
    }
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
    /// First wait before a replacement, growing while unstable, instead of none before the first one.
    #[serde(default, with = "optional_millis")]
    pub exp_backoff: Option<Duration>,
    /// Exit codes after which a worker is not replaced.
    pub stop_exit_codes: Vec<i32>,
}

/// How a worker is ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StopPolicy {
    /// Number of the signal that asks it to end.
    pub signal: i32,
    /// Whether it is asked by the message `shutdown` on Node's IPC channel instead.
    pub with_message: bool,
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

/// Durations as whole milliseconds, or null.
pub mod optional_millis {
    use std::time::Duration;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    /// Writes a duration.
    #[expect(clippy::ref_option, reason = "serde passes the field by reference")]
    pub fn serialize<S: Serializer>(duration: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        duration.map(millis).serialize(to)
    }

    /// Reads a duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Duration>, D::Error> {
        Ok(Option::<u64>::deserialize(from)?.map(Duration::from_millis))
    }
}
