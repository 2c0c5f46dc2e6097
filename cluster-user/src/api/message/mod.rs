//! What travels over the daemon's socket. A change here changes [`VERSION`].
//!
//! Requests are `GET` for nouns and `POST` for verbs. A verb answers with a stream of JSON lines
//! ([`Line`]): progress, then exactly one `done` or `failed`.

mod happening;
mod line;
mod telemetry;
mod view;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

// What is asked is here, what is answered beside it; those who speak with the daemon need not know where.
pub use self::{
    happening::{Happening, Subject, What},
    line::{Done, Failure, Line, Notice, Pong, Progress, Reason, Rolling, Step},
    telemetry::{
        AppReadiness, AppTelemetry, DaemonTelemetry, ExporterView, OtherTelemetry, PortTelemetry,
        Readiness, Snapshot, WorkerTelemetry,
    },
    view::{
        AppView, DeploymentView, LogFiles, OtherView, PortView, ReloadView, Stage, Status,
        WorkerView,
    },
};
use crate::config::{
    change::Change, instances::Scale, pace::Pace, scheduling::Switch, spec::AppSpec,
};

/// Version of these messages; a command and a daemon that differ refuse each other.
pub const VERSION: u32 = 5;

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
    /// `POST /v1/policy`: workers picked by another rule, without replacing any.
    Policy(Box<PolicyRequest>),
    /// `POST /v1/flush`: log files emptied.
    Flush(TargetsRequest),
    /// `POST /v1/reopen`: log files opened anew, after something has renamed them; answers `done` at once.
    Reopen,
    /// `POST /v1/signal`: a signal for workers as they are; whatever follows from it is their business.
    Signal(SignalRequest),
    /// `POST /v1/reset`: counters of restarts begin anew.
    Reset(TargetsRequest),
    /// `POST /v1/upgrade`: the daemon becomes another program, and its workers go on. Understood by every version.
    Upgrade(UpgradeRequest),
    /// `POST /v1/handover`: the daemon ends and leaves its workers to the next one. Understood by every version.
    HandOver(HandOverRequest),
    /// `POST /v1/kill`: every app is stopped, then the daemon ends.
    Kill(KillRequest),
    /// `GET /v1/apps`, with `?target=` any number of times; answers `done` with the apps.
    Apps(AppsRequest),
    /// `GET /v1/events`, with `?target=` any number of times; answers with events as they come.
    Events(EventsRequest),
    /// `POST /v1/send`: a message for workers with an IPC channel.
    Send(SendRequest),
    /// `GET /v1/telemetry`, with `?target=` any number of times; answers `telemetry`. `/v1/telemetry/stream` with
    /// `?every=1s` answers so again and again.
    Telemetry(TelemetryRequest),
    /// `GET /v1/readiness`; answers `readiness`. `/readyz` says the same in the words of probes.
    Readiness,
    /// `GET /v1/metrics`; answers `exporter`.
    Exporter,
    /// `POST /v1/metrics`: where metrics can be read besides the daemon's own socket; answers `exporter`.
    Export(ExportRequest),
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
            | Self::Policy(_)
            | Self::Flush(_)
            | Self::Reopen
            | Self::Signal(_)
            | Self::Reset(_)
            | Self::Kill(_)
            | Self::Events(_)
            | Self::Send(_)
            | Self::Telemetry(_)
            | Self::Readiness
            | Self::Exporter
            | Self::Export(_)
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
            Self::Policy(_) => "/v1/policy",
            Self::Flush(_) => "/v1/flush",
            Self::Reopen => "/v1/reopen",
            Self::Signal(_) => "/v1/signal",
            Self::Reset(_) => "/v1/reset",
            Self::Upgrade(_) => "/v1/upgrade",
            Self::HandOver(_) => "/v1/handover",
            Self::Kill(_) => "/v1/kill",
            Self::Apps(_) => "/v1/apps",
            Self::Events(_) => "/v1/events",
            Self::Send(_) => "/v1/send",
            Self::Telemetry(_) => "/v1/telemetry",
            Self::Readiness => "/v1/readiness",
            Self::Exporter | Self::Export(_) => "/v1/metrics",
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
    /// Whether it is only to be known, and started when somebody says so.
    #[serde(default)]
    pub idle: bool,
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

/// Sends a signal to workers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignalRequest {
    /// Which apps or workers; at least one.
    pub targets: Vec<String>,
    /// Its number, 1 to [`signal::MAX`](crate::config::signal::MAX).
    pub signal: i32,
    /// Whether every process of a worker gets it, and not only the main one.
    #[serde(default)]
    pub tree: bool,
}

/// Asks about apps.
#[derive(Clone, Debug, Default)]
pub struct AppsRequest {
    /// Which; none means all.
    pub targets: Vec<String>,
    /// What is wanted beyond the usual.
    pub detail: Detail,
}

/// Asks what happened, and what happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventsRequest {
    /// Of which apps and workers; none means all, and the daemon itself.
    pub targets: Vec<String>,
    /// `?last=N`: how many of those that are remembered; all when absent.
    pub last: Option<usize>,
    /// `?since=MS`: none from before that, in milliseconds since the epoch.
    pub since_ms: u64,
    /// `?follow=false`: whether to go on with what happens from now on.
    pub follow: bool,
}

/// Asks what was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TelemetryRequest {
    /// Of which apps; none means all.
    pub targets: Vec<String>,
}

/// Says where metrics can be read besides the daemon's own socket.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExportRequest {
    /// `127.0.0.1:9400`, `9400`, `[::1]:9400`, or `off`.
    pub listen: String,
}

/// Sends workers a message.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SendRequest {
    /// Which; at least one.
    pub targets: Vec<String>,
    /// What `process.on('message')` is called with, or what it is about when there is a `topic`.
    pub message: serde_json::Value,
    /// Puts the message into a packet as PM2's API sends them:
    /// `{"type":"process:msg","topic":…,"data":MESSAGE,"id":pm_id}`.
    #[serde(default)]
    pub topic: Option<String>,
}

/// What is wanted beyond what every answer about apps has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Detail {
    /// Nothing.
    #[default]
    Usual,
    /// `?detail=connections`: how many connections each worker has and what was counted for it, which takes a look at all
    /// there are.
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

/// Has workers picked by another rule.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyRequest {
    /// Which apps; at least one. All of them switch, or none.
    pub targets: Vec<String>,
    /// What is to be different.
    pub switch: Switch,
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
