//! What the daemon answers, line by line.

use std::{fmt, path::PathBuf};

use serde::{Deserialize, Serialize};

use super::{AppView, ExporterView, Happening, Readiness, Snapshot, Status};
use crate::{
    datapath::Mode,
    id::{Generation, Instance},
};

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
    /// Something happened; one of the answers to `events`, which has no last one.
    Event(Box<Happening>),
    /// Answer to `telemetry`, or one of its stream, which has no last one.
    Telemetry(Box<Snapshot>),
    /// Answer to `readiness`.
    Readiness(Readiness),
    /// Answer to `metrics`.
    Exporter(ExporterView),
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
    /// Workers that were sent a message.
    #[serde(default)]
    pub sent: u32,
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
    /// Connections cannot be given out by the policy that was asked for.
    Unschedulable,
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
