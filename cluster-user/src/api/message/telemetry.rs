//! What was counted, as `GET /v1/telemetry` tells it.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::Status;
use crate::{
    datapath::{
        Mode, Protocol,
        telemetry::{GroupTelemetry, Telemetry},
    },
    id::{AppId, Generation, Instance},
};

/// Everything that is counted, at one moment. Sizes in bytes, times in milliseconds unless their names say otherwise.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// When, milliseconds since the epoch.
    pub at_ms: u64,
    /// How connections are carried.
    pub mode: Mode,
    /// The daemon itself.
    pub daemon: DaemonTelemetry,
    /// The apps that were asked for, by id.
    pub apps: Vec<AppTelemetry>,
}

/// What the daemon uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonTelemetry {
    /// Of the program.
    pub release: String,
    /// Since its start.
    pub uptime_ms: u64,
    /// CPU time since its start, in microseconds.
    pub cpu_us: u64,
    /// Its resident memory.
    pub memory_bytes: u64,
    /// Descriptors it has open.
    pub descriptors: u64,
}

/// An app, counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct AppTelemetry {
    /// Its number.
    pub id: AppId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Worst state of its workers.
    pub status: Status,
    /// Workers online.
    pub online: u32,
    /// Workers wanted.
    pub instances: u32,
    /// Which version of it is deployed.
    pub generation: Generation,
    /// The rule that picks a worker.
    pub policy: String,
    /// Replacements of workers, all together.
    pub restarts: u32,
    /// Since the oldest online worker got ready; absent when none is online.
    pub uptime_ms: Option<u64>,
    /// Per cent of one CPU since the last look.
    pub cpu_percent: f64,
    /// CPU time of all workers that there are and were, in microseconds.
    pub cpu_us: u64,
    /// Resident memory of all processes of all workers.
    pub memory_bytes: u64,
    /// What was counted for all workers that there are and were since it was started.
    pub total: Telemetry,
    /// Its workers, by instance.
    pub workers: Vec<WorkerTelemetry>,
    /// Its ports.
    pub groups: Vec<PortTelemetry>,
}

/// A worker, counted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct WorkerTelemetry {
    /// Its number within the app.
    pub instance: Instance,
    /// Which version of the app it is.
    pub generation: Generation,
    /// Process id; absent when not running.
    pub pid: Option<u32>,
    /// Its state.
    pub status: Status,
    /// Times it was replaced.
    pub restarts: u32,
    /// Since it got ready.
    pub uptime_ms: Option<u64>,
    /// Per cent of one CPU since the last look.
    pub cpu_percent: f64,
    /// CPU time of all processes that there are and were in its place, in microseconds.
    pub cpu_us: u64,
    /// Resident memory of all its processes.
    pub memory_bytes: u64,
    /// What was counted for the process that is there now.
    pub telemetry: Telemetry,
    /// The same with all that were in its place before it or are there beside it; histograms are those of who is there.
    pub total: Telemetry,
    /// Processes that are to take its place, or had it and finish what they have.
    pub others: Vec<OtherTelemetry>,
}

/// A process beside a worker, counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OtherTelemetry {
    /// Process id.
    pub pid: Option<u32>,
    /// Which version of the app it is.
    pub generation: Generation,
    /// Its state.
    pub status: Status,
    /// What was counted for it.
    pub telemetry: Telemetry,
}

/// A port of an app, counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PortTelemetry {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Address and port.
    pub address: SocketAddr,
    /// What was counted for it since the app was started; absent in plain mode.
    pub telemetry: Option<GroupTelemetry>,
}

/// Whether what should run is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// Whether the daemon has started what was saved.
    pub begun: bool,
    /// Every app, by id.
    pub apps: Vec<AppReadiness>,
}

/// Whether an app is there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppReadiness {
    /// Its name.
    pub name: String,
    /// Workers that should run.
    pub wanted: u32,
    /// Those of them that are online.
    pub online: u32,
    /// The worst state of those that are not.
    pub worst: Option<Status>,
}

/// Where metrics can be read besides the daemon's own socket.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExporterView {
    /// The address; absent when there is none.
    pub listen: Option<SocketAddr>,
    /// Why it does not listen there now.
    pub failure: Option<String>,
}
