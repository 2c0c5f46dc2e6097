//! Apps and workers as they are shown.

use std::{collections::BTreeMap, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    config::spec::AppSpec,
    datapath::{
        Mode, Protocol,
        telemetry::{GroupTelemetry, Telemetry},
    },
    id::{AppId, Generation, Instance},
};

/// State of an app or a worker, in PM2's words where it has one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Spawned, not ready yet.
    Starting,
    /// Ready, not chosen for connections yet.
    Ready,
    /// Ready, and chosen for connections.
    Online,
    /// Out of the route, finishing what it has.
    Draining,
    /// Told to end.
    Stopping,
    /// Waits before it is started again.
    Backoff,
    /// Given up after too many failures.
    Errored,
    /// Not running, because asked to or by its exit code.
    Stopped,
}

impl Status {
    /// Whether nothing runs, and nothing will without somebody asking for it.
    pub fn is_down(self) -> bool {
        match self {
            Self::Stopped | Self::Errored => true,
            Self::Starting
            | Self::Ready
            | Self::Online
            | Self::Draining
            | Self::Stopping
            | Self::Backoff => false,
        }
    }
}

/// An app as `list`, `describe` and `--json` show it. Sizes in bytes, times in milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct AppView {
    /// Number of the app.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// How connections are carried.
    pub mode: Mode,
    /// Worst state of its workers.
    pub status: Status,
    /// Workers online.
    pub online: u32,
    /// Workers wanted.
    pub instances: u32,
    /// Which version of it is deployed; a reload makes the next one.
    pub generation: Generation,
    /// The reload that is under way.
    pub reload: Option<ReloadView>,
    /// What was deployed since it was started, the latest last; absent unless [`Detail::History`](super::Detail::History) was asked for.
    #[serde(default)]
    pub history: Option<Vec<DeploymentView>>,
    /// Every port it serves.
    pub ports: Vec<PortView>,
    /// The rule that picks a worker.
    pub policy: String,
    /// Why workers are not picked by it at one of its ports, when they are not.
    #[serde(default)]
    pub unscheduled: Option<String>,
    /// Replacements of workers that died or were restarted, all workers together.
    pub restarts: u32,
    /// Fraction of one CPU since the last look, in per cent, all workers together.
    pub cpu_percent: f64,
    /// Resident memory of all processes of all workers.
    pub memory_bytes: u64,
    /// Since the oldest online worker got ready; absent when none is online.
    pub uptime_ms: Option<u64>,
    /// When it was started, milliseconds since the epoch.
    pub created_ms: u64,
    /// What was counted for all workers that there are and were; absent unless
    /// [`Detail::Connections`](super::Detail::Connections) was asked for.
    #[serde(default)]
    pub telemetry: Option<Telemetry>,
    /// Its workers, by instance.
    pub workers: Vec<WorkerView>,
    /// The specification, environment included.
    pub spec: AppSpec,
}

/// A reload that is under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadView {
    /// What is being deployed.
    pub generation: Generation,
    /// `canary`, `forward`, or `back`.
    pub stage: Stage,
    /// The share of the new generation, such as `5%`, while it is a canary.
    pub canary: Option<String>,
    /// Who wanted it.
    pub who: String,
    /// When it began, milliseconds since the epoch.
    pub began_ms: u64,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// A few new workers have a share of the connections, or are to get it.
    Canary,
    /// Old workers are being replaced by new ones.
    Forward,
    /// New workers are being replaced by old ones.
    Back,
}

/// Something that was deployed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeploymentView {
    /// Its generation.
    pub generation: Generation,
    /// What was there before.
    pub from: Option<Generation>,
    /// `reload` or `rollback`.
    pub kind: String,
    /// `done`, `failed`, `rolled_back` or `superseded`.
    pub outcome: String,
    /// Why, when it failed.
    pub reason: Option<String>,
    /// Who wanted it.
    pub who: String,
    /// When it began, milliseconds since the epoch.
    pub began_ms: u64,
    /// How long it took.
    pub took_ms: u64,
    /// Connections that moved from the queue of a worker that left to one that stayed.
    pub moved: u64,
}

/// A port that an app serves.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortView {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
    /// Workers that serve it.
    pub workers: u32,
    /// What was counted for it; absent in plain mode, and unless
    /// [`Detail::Connections`](super::Detail::Connections) was asked for.
    #[serde(default)]
    pub telemetry: Option<GroupTelemetry>,
}

/// A worker as shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct WorkerView {
    /// Its number within the app.
    pub instance: Instance,
    /// Which version of the app it is.
    pub generation: Generation,
    /// Process id; absent when not running.
    pub pid: Option<u32>,
    /// Its state.
    pub status: Status,
    /// Why it is in that state, when that is no matter of course.
    pub reason: Option<String>,
    /// What its main process exited with, where that is the reason; 128 and the number for a signal, as in a shell.
    #[serde(default)]
    pub exit_code: Option<i32>,
    /// Times it was replaced.
    pub restarts: u32,
    /// Unstable runs in a row.
    pub unstable: u32,
    /// Per cent of one CPU since the last look.
    pub cpu_percent: f64,
    /// Resident memory of all its processes.
    pub memory_bytes: u64,
    /// Since it got ready.
    pub uptime_ms: Option<u64>,
    /// Open connections, queued ones included; absent unless [`Detail::Connections`](super::Detail::Connections) was asked for.
    pub connections: Option<u32>,
    /// Connections sent to it by the kernel program; absent in plain mode.
    pub selected: Option<u64>,
    /// Connections that moved to it when the socket they waited at was closed; absent in plain mode. With
    /// `selected` they are its turns, which is what round robin keeps equal.
    #[serde(default)]
    pub migrated: Option<u64>,
    /// What was counted for it; absent unless [`Detail::Connections`](super::Detail::Connections) was asked for.
    #[serde(default)]
    pub telemetry: Option<Telemetry>,
    /// Connections sent to it per second since the last look; absent where they are not counted, and unless
    /// [`Detail::Connections`](super::Detail::Connections) was asked for.
    #[serde(default)]
    pub connections_per_second: Option<f64>,
    /// Its log files.
    pub logs: LogFiles,
    /// Bytes that the running one wrote and that could not be kept, because the disk was full for example.
    pub dropped_bytes: u64,
    /// The last lines of one that failed or ended by itself and has no replacement, oldest first.
    pub last_words: Vec<String>,
    /// What it says of itself, in its own words (`STATUS=` of `sd_notify(3)`).
    #[serde(default)]
    pub status_text: Option<String>,
    /// Why it fails, in its own words (`ERRNO=` of `sd_notify(3)`).
    #[serde(default)]
    pub errno: Option<i32>,
    /// Its main process, when it has said that this is not the first one (`MAINPID=` of `sd_notify(3)`).
    #[serde(default)]
    pub main_pid: Option<u32>,
    /// Environment particular to this worker.
    pub env: BTreeMap<String, String>,
    /// Processes that are to take its place, or had it and finish what they have.
    #[serde(default)]
    pub others: Vec<OtherView>,
}

/// A process beside a worker: its successor, or one that had its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherView {
    /// Process id.
    pub pid: Option<u32>,
    /// Which version of the app it is.
    pub generation: Generation,
    /// Its state.
    pub status: Status,
}

/// The files that a worker's output goes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    /// Standard output; [`LogFiles::NOWHERE`] when it goes to no file.
    pub out: PathBuf,
    /// Standard error, in the same way.
    pub err: PathBuf,
    /// Both together; absent when there is no such file.
    #[serde(default)]
    pub combined: Option<PathBuf>,
}

impl LogFiles {
    /// Stands for no file.
    pub const NOWHERE: &str = "/dev/null";
}
