//! Everything the core can ask for: the closed list of its outputs.

use std::{net::SocketAddr, sync::Arc};

use cluster_common::slot::Slot;

use super::event::CallId;
use crate::{
    config::spec::AppSpec,
    datapath::{OnMiss, Protocol},
    id::{AppId, GroupId, Instance, Ticket, WorkerId},
};

/// To be carried out, in the order given.
#[derive(Clone, Debug)]
#[must_use = "an effect that is dropped leaves the core waiting for its answer"]
pub enum Effect {
    /// Spawn a worker. Answer: `Spawned` or `SpawnFailed`.
    Spawn {
        /// Which worker.
        worker: WorkerId,
        /// Of which app.
        app: AppId,
        /// In which of its seats.
        instance: Instance,
        /// How.
        spec: Arc<AppSpec>,
    },
    /// Send a signal to every process of a worker. No answer.
    Signal {
        /// Which worker.
        worker: WorkerId,
        /// Number of the signal.
        signal: i32,
    },
    /// End every process of a worker at once. Answer: `Exited`.
    Kill {
        /// Which worker.
        worker: WorkerId,
    },
    /// The main process has ended: end what it left and forget the worker. Answer: `Swept`.
    Sweep {
        /// Which worker.
        worker: WorkerId,
    },
    /// Ask what a worker has to do still. Answer: `Measured`.
    Measure {
        /// Which worker.
        worker: WorkerId,
    },
    /// Found a group. Answer: `Opened` or `OpenFailed`.
    Open {
        /// Which group.
        group: GroupId,
        /// The founder.
        ticket: Ticket,
        /// Name of the app.
        app: String,
        /// Whether decisions are logged.
        trace: bool,
    },
    /// Put a socket into a slot. Answer: `Joined` or `JoinFailed`.
    Join {
        /// The socket.
        ticket: Ticket,
        /// Which group.
        group: GroupId,
        /// Which slot, free.
        slot: Slot,
    },
    /// Let go of a socket. No answer.
    Refuse {
        /// The socket.
        ticket: Ticket,
    },
    /// Make a route the group's. No answer.
    Publish {
        /// Which group.
        group: GroupId,
        /// Slots in the order of their turns, one or more for each; empty leaves what `OnMiss` says.
        route: Vec<Slot>,
    },
    /// Look for sockets of a group that have gone; each is told by `Event::Lost`, before anything else joins.
    Compare {
        /// Which group.
        group: GroupId,
    },
    /// Empty a slot. No answer.
    Vacate {
        /// Which group.
        group: GroupId,
        /// Which slot.
        slot: Slot,
    },
    /// Say what becomes of connections that find no worker. No answer.
    OnMiss {
        /// Which group.
        group: GroupId,
        /// What becomes of them.
        on_miss: OnMiss,
    },
    /// End a group. No answer.
    Close {
        /// Which group.
        group: GroupId,
    },
    /// An app is gone, and nothing is left of its workers: let go of what is kept for it. No answer.
    Forget {
        /// Which app.
        app: AppId,
    },
    /// Empty a worker's log files. No answer.
    Flush {
        /// Name of the app.
        app: String,
        /// Which worker's.
        instance: Instance,
    },
    /// Tell a user. No answer.
    Tell {
        /// Whom.
        call: CallId,
        /// What.
        tale: Tale,
    },
    /// End the daemon: nothing is left to do.
    End,
}

/// What a user is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tale {
    /// A worker moved on.
    Progress {
        /// Which app.
        app: AppId,
        /// Which worker of it.
        instance: Instance,
        /// Seats that have reached the goal.
        reached: u32,
        /// Seats in all.
        wanted: u32,
    },
    /// It is done.
    Done {
        /// Apps concerned that are still there.
        apps: Vec<AppId>,
        /// Names of those that are gone.
        deleted: Vec<String>,
    },
    /// It cannot be done, and nothing was changed.
    Refused(Refusal),
    /// Workers did not come up.
    Failed {
        /// Which app.
        app: AppId,
        /// Name of the app.
        name: String,
        /// Which worker's last words explain it.
        instance: Instance,
        /// Why.
        reason: String,
        /// An address the worker tried to bind and never listened on.
        binding: Option<(Protocol, SocketAddr)>,
    },
}

/// Why a command cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// No app is meant by a target.
    Unknown {
        /// The target as typed.
        target: String,
        /// Names there are.
        names: Vec<String>,
    },
    /// The name is in use.
    NameInUse {
        /// The name.
        name: String,
        /// By which app.
        id: AppId,
    },
    /// Fewer than one worker, or more than there can be.
    BadScale {
        /// What there is.
        from: u32,
        /// What was asked for.
        to: i64,
    },
    /// More than one app is meant where one is expected.
    Ambiguous {
        /// Names of the apps meant.
        names: Vec<String>,
    },
    /// The daemon is ending.
    Ending,
    /// Superseded by another command.
    Superseded {
        /// Name of the app.
        name: String,
    },
}
