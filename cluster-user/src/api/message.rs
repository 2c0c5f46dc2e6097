//! What travels over the daemon's socket. A change here changes [`VERSION`].
//!
//! Requests are `GET` for nouns and `POST` for verbs. A verb answers with a stream of JSON lines
//! ([`Line`]): progress, then exactly one `done` or `failed`.

use std::{collections::BTreeMap, fmt, net::SocketAddr, path::PathBuf};

use serde::{Deserialize, Serialize};

use crate::{
    config::{change::Change, instances::Scale, pace::Pace, spec::AppSpec},
    datapath::{Mode, Protocol},
    id::{AppId, Generation, Instance},
};

/// Version of these messages; a command and a daemon that differ refuse each other.
pub const VERSION: u32 = 3;

/// A request to the supervisor, decoded.
#[derive(Clone, Debug)]
pub enum Request {
    /// `POST /v1/start`
    Start(Box<StartRequest>),
    /// `POST /v1/stop`
    Stop(TargetsRequest),
    /// `POST /v1/restart`: running ones stop first; stopped and errored ones start.
    Restart(TargetsRequest),
    /// `POST /v1/reload`: replaced by new ones, without a connection lost.
    Reload(Box<ReloadRequest>),
    /// `POST /v1/promote`: what a canary has shown, for all workers.
    Promote(TargetsRequest),
    /// `POST /v1/rollback`: back to what there was before.
    Rollback(TargetsRequest),
    /// `POST /v1/delete`: stopped and forgotten.
    Delete(TargetsRequest),
    /// `POST /v1/scale`
    Scale(ScaleRequest),
    /// `POST /v1/flush`: log files emptied.
    Flush(TargetsRequest),
    /// `POST /v1/upgrade`: the daemon becomes another program, and its workers go on. Understood by every version.
    Upgrade(UpgradeRequest),
    /// `POST /v1/handover`: the daemon ends and leaves its workers to the next one. Understood by every version.
    HandOver(HandOverRequest),
    /// `POST /v1/kill`: every app is stopped, then the daemon ends.
    Kill(KillRequest),
    /// `GET /v1/apps`, with `?target=` any number of times; answers `done` with the apps.
    Apps(AppsRequest),
    /// `GET /v1/ping`; answers `pong`.
    Ping,
}

impl Request {
    /// Whether it is the same in every version of these messages: what a command and a daemon of different releases
    /// need to get to the same one.
    pub fn is_timeless(&self) -> bool {
        match self {
            Self::Upgrade(_) | Self::HandOver(_) | Self::Ping => true,
            Self::Start(_)
            | Self::Stop(_)
            | Self::Restart(_)
            | Self::Reload(_)
            | Self::Promote(_)
            | Self::Rollback(_)
            | Self::Delete(_)
            | Self::Scale(_)
            | Self::Flush(_)
            | Self::Kill(_)
            | Self::Apps(_) => false,
        }
    }

    /// Where it is sent.
    pub fn path(&self) -> &'static str {
        match self {
            Self::Start(_) => "/v1/start",
            Self::Stop(_) => "/v1/stop",
            Self::Restart(_) => "/v1/restart",
            Self::Reload(_) => "/v1/reload",
            Self::Promote(_) => "/v1/promote",
            Self::Rollback(_) => "/v1/rollback",
            Self::Delete(_) => "/v1/delete",
            Self::Scale(_) => "/v1/scale",
            Self::Flush(_) => "/v1/flush",
            Self::Upgrade(_) => "/v1/upgrade",
            Self::HandOver(_) => "/v1/handover",
            Self::Kill(_) => "/v1/kill",
            Self::Apps(_) => "/v1/apps",
            Self::Ping => "/v1/ping",
        }
    }
}

/// Starts a new app.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StartRequest {
    /// The app.
    pub spec: AppSpec,
    /// Whether to answer only when all workers are ready or the start has failed.
    pub wait: bool,
}

/// Names apps and workers as typed: `name | id | name:instance | namespace | all | /regex/`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TargetsRequest {
    /// At least one for verbs; none means all for nouns.
    pub targets: Vec<String>,
    /// Whether to answer only when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Asks about apps.
#[derive(Clone, Debug, Default)]
pub struct AppsRequest {
    /// Which; none means all.
    pub targets: Vec<String>,
    /// What is wanted beyond the usual.
    pub detail: Detail,
}

/// What is wanted beyond what every answer about apps has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    #[default]
    Usual,
    /// `?detail=connections`: how many connections each worker has, which takes a look at all there are.
    Connections,
    /// `?detail=history`: what was deployed.
    History,
}

/// Changes the number of workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ScaleRequest {
    /// Which app.
    pub target: String,
    /// To how many, or by how many.
    pub to: Scale,
    /// Whether to answer only when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Replaces workers by new ones.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadRequest {
    /// Which apps; at least one.
    pub targets: Vec<String>,
    /// What is to be different about them.
    #[serde(default)]
    pub change: Change,
    /// How it is to go about.
    #[serde(default)]
    pub pace: Pace,
    /// Whether to take over from a reload that is under way.
    #[serde(default)]
    pub force: bool,
    /// Whether to answer only when it is done.
    #[serde(default = "yes")]
    pub wait: bool,
}

/// Has the daemon become another program.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UpgradeRequest {
    /// Its absolute path.
    pub program: PathBuf,
    /// Its release.
    pub release: String,
    /// The newest format of the journal that it reads.
    pub journal: u32,
}

/// Has the daemon end and leave its workers to the next one.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HandOverRequest {
    /// The release of whoever takes over.
    pub release: String,
    /// The newest format of the journal that it reads.
    pub journal: u32,
}

/// Ends the daemon.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KillRequest {}

fn yes() -> bool {
    true
}

/// One line of an answer.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "type")]
pub enum Line {
    /// A worker moved on, while a verb is being carried out.
    Progress(Progress),
    /// A worker moved on, while an app is being reloaded.
    Rolling(Rolling),
    /// Something the user should know that is no failure.
    Notice(Notice),
    /// Carried out; the apps concerned as they are now.
    Done(Done),
    /// Not carried out.
    Failed(Failure),
    /// Answer to `ping`.
    Pong(Pong),
}

/// A worker moved on.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Progress {
    /// Name of the app.
    pub app: String,
    /// Which of its workers.
    pub instance: Instance,
    /// Its phase now.
    pub status: Status,
    /// Workers of the app that have reached what the command waits for, and of how many.
    pub reached: u32,
    /// See `reached`.
    pub wanted: u32,
}

/// A worker moved on, while its app is being reloaded.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rolling {
    /// Name of the app.
    pub app: String,
    /// Which of its workers.
    pub instance: Instance,
    /// Which generation it is of.
    pub generation: Generation,
    /// Where it is.
    pub step: Step,
    /// What it waits for, in words; absent when that is a matter of course.
    pub detail: Option<String>,
}

/// Where a worker is while its app is being reloaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Started, has given no sign that it is ready.
    Starting,
    /// Its probe has not passed yet.
    Probing,
    /// Ready, and has to stay so for a while.
    Soaking,
    /// Ready, and waits for the others of its batch.
    Ready,
    /// Gets its share of the connections.
    Canary,
    /// Gets connections like every other.
    Serving,
    /// Gets no more connections and finishes what it has.
    Draining,
    /// Told to end.
    Stopping,
    /// Has ended.
    Gone,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Starting => "starting",
            Self::Probing => "probing",
            Self::Soaking => "soaking",
            Self::Ready => "ready",
            Self::Canary => "canary",
            Self::Serving => "serving",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Gone => "gone",
        })
    }
}

/// Something the user should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Notice {
    /// A lowercase fragment.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
}

/// Carried out.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Done {
    /// The apps concerned, by id.
    pub apps: Vec<AppView>,
    /// Names of the apps that were deleted.
    #[serde(default)]
    pub deleted: Vec<String>,
}

/// Not carried out.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Failure {
    /// Decides the exit code; stable.
    pub reason: Reason,
    /// A lowercase fragment that says what happened to what.
    pub message: String,
    /// The next step.
    pub hint: Option<String>,
    /// The last lines a failed worker wrote, oldest first.
    #[serde(default)]
    pub output: Vec<String>,
}

impl Failure {
    /// A failure without output.
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), hint: None, output: Vec::new() }
    }

    /// The same with a next step.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Stable reason of a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The request makes no sense.
    BadRequest,
    /// No app or worker is meant by a target.
    NotFound,
    /// The name, or something else asked for, is in use.
    Conflict,
    /// Workers failed to come up, or to do what was asked.
    Failed,
    /// The peer may not use this daemon.
    NotPermitted,
    /// The host lacks what was asked for.
    Unsupported,
    /// The daemon is ending.
    Unavailable,
}

/// The daemon about itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pong {
    /// Of these messages.
    pub version: u32,
    /// Of the program.
    pub release: String,
    /// Its process id.
    pub pid: u32,
    /// Everything it keeps.
    pub home: PathBuf,
    /// How connections are carried.
    pub mode: Mode,
    /// What is missing for kernel mode, when in plain mode.
    pub missing: Vec<Notice>,
    /// What it found at its start, such as workers of a daemon that was killed.
    #[serde(default)]
    pub found: Vec<Notice>,
    /// Since its start.
    pub uptime_ms: u64,
}

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
    /// What was deployed since it was started, the latest last; absent unless [`Detail::History`] was asked for.
    #[serde(default)]
    pub history: Option<Vec<DeploymentView>>,
    /// Every port it serves.
    pub ports: Vec<PortView>,
    /// The rule that picks a worker.
    pub policy: String,
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
    /// Open connections, queued ones included; absent unless [`Detail::Connections`] was asked for.
    pub connections: Option<u32>,
    /// Connections sent to it by the kernel program; absent in plain mode.
    pub selected: Option<u64>,
    /// Connections that moved to it when the socket they waited at was closed; absent in plain mode. With
    /// `selected` they are its turns, which is what round robin keeps equal.
    #[serde(default)]
    pub migrated: Option<u64>,
    /// Its log files.
    pub logs: LogFiles,
    /// Bytes that the running one wrote and that could not be kept, because the disk was full for example.
    pub dropped_bytes: u64,
    /// The last lines of one that failed or ended by itself and has no replacement, oldest first.
    pub last_words: Vec<String>,
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

/// Where a worker's output goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogFiles {
    /// Standard output.
    pub out: PathBuf,
    /// Standard error.
    pub err: PathBuf,
}
