//! What happened, as `GET /v1/events` tells it.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::id::{AppId, Generation, Instance};

/// Something that happened to an app or a worker, or that a worker said.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Happening {
    /// Counts from 1 since the daemon's start, without gaps.
    pub number: u64,
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
    /// What.
    pub what: What,
    /// To which app, or whose worker; absent when it is about the daemon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub app: Option<Subject>,
    /// To which worker of it; absent when it is about the whole app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance: Option<Instance>,
    /// Which version of the app.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generation: Option<Generation>,
    /// The worker's process id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pid: Option<u32>,
    /// In words; what a worker says of itself is its own text.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// The message, when it is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Value>,
}

/// An app, by all that a target can mean.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subject {
    /// Its number.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
}

/// What can happen. The names are stable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// The daemon runs.
    DaemonStarted,
    /// The daemon ends, or another takes its place.
    DaemonEnding,
    /// Whoever reads the events is too slow, and missed some.
    Missed,
    /// An app was started.
    AppStarted,
    /// An app was deleted.
    AppDeleted,
    /// An app has another number of workers.
    AppScaled,
    /// An app's workers are picked by another rule.
    AppScheduled,
    /// A reload has begun.
    ReloadBegun,
    /// A reload is done.
    ReloadDone,
    /// A reload has failed, and the old version serves.
    ReloadFailed,
    /// A reload was turned back.
    RolledBack,
    /// Another command took the place of a reload.
    ReloadSuperseded,
    /// A worker was spawned.
    WorkerStarting,
    /// A worker is ready, and not chosen for connections yet.
    WorkerReady,
    /// A worker is chosen for connections.
    WorkerOnline,
    /// A worker is out of the route and finishes what it has.
    WorkerDraining,
    /// A worker was told to end.
    WorkerStopping,
    /// A worker is being replaced although it is well: it uses too much memory, or is too old.
    WorkerWorn,
    /// A worker that says regularly that it lives has not said so: connections are kept away from it.
    WorkerSilent,
    /// It has said so again.
    WorkerHeard,
    /// A worker has ended, because it was told to or by itself.
    WorkerExited,
    /// A worker has failed, and has ended.
    WorkerFailed,
    /// Another worker takes the place of one that failed, after a while.
    WorkerBackoff,
    /// A worker was given up.
    WorkerErrored,
    /// A worker sent a message.
    Message,
    /// Messages of a worker were dropped.
    MessagesDropped,
    /// Somebody sent a worker a message.
    Sent,
    /// A message for a worker could not be sent.
    SendFailed,
    /// `STATUS=` of `sd_notify(3)`.
    Status,
    /// `STOPPING=1` of `sd_notify(3)`.
    Stopping,
    /// `RELOADING=1` of `sd_notify(3)`.
    Reloading,
    /// `MAINPID=` of `sd_notify(3)`.
    MainPid,
    /// `ERRNO=` of `sd_notify(3)`.
    Errno,
    /// `EXTEND_TIMEOUT_USEC=` of `sd_notify(3)`.
    Extended,
    /// Something about a worker did not work that it can live without, such as its pid file.
    Trouble,
}

impl fmt::Display for What {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::DaemonStarted => "daemon started",
            Self::DaemonEnding => "daemon ending",
            Self::Missed => "missed",
            Self::AppStarted => "app started",
            Self::AppDeleted => "app deleted",
            Self::AppScaled => "app scaled",
            Self::AppScheduled => "app scheduled",
            Self::ReloadBegun => "reload begun",
            Self::ReloadDone => "reload done",
            Self::ReloadFailed => "reload failed",
            Self::RolledBack => "rolled back",
            Self::ReloadSuperseded => "reload superseded",
            Self::WorkerStarting => "starting",
            Self::WorkerReady => "ready",
            Self::WorkerOnline => "online",
            Self::WorkerDraining => "draining",
            Self::WorkerStopping => "stopping",
            Self::WorkerWorn => "worn",
            Self::WorkerSilent => "silent",
            Self::WorkerHeard => "heard again",
            Self::WorkerExited => "exited",
            Self::WorkerFailed => "failed",
            Self::WorkerBackoff => "backoff",
            Self::WorkerErrored => "errored",
            Self::Message => "message",
            Self::MessagesDropped => "messages dropped",
            Self::Sent => "sent",
            Self::SendFailed => "send failed",
            Self::Status => "status",
            Self::Stopping => "says stopping",
            Self::Reloading => "says reloading",
            Self::MainPid => "main pid",
            Self::Errno => "errno",
            Self::Extended => "needs longer",
            Self::Trouble => "trouble",
        })
    }
}
