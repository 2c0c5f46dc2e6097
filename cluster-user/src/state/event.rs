//! Everything that can happen to the core: the closed list of its inputs.

use crate::{
    config::{
        change::Change,
        instances::Scale,
        pace::Pace,
        scheduling::Switch,
        spec::{AppSpec, recycle::Worn},
        target::Target,
    },
    datapath::{GroupKey, Protocol, Traffic},
    id::{AppId, GroupId, Ticket, WorkerId},
};
use cluster_common::slot::Slot;
use serde::{Deserialize, Serialize};
use std::{net::SocketAddr, time::Duration};

/// Names a user's command until it is answered: the later it was asked for, the higher.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CallId(pub u64);

/// Something happened. Each effect that can fail is answered by one of these.
#[derive(Debug)]
pub enum Event {
    /// A user wants something.
    Command {
        /// To be answered.
        call: CallId,
        /// What is wanted.
        command: Command,
    },
    /// `Effect::Spawn` was carried out.
    Spawned {
        /// Which worker.
        worker: WorkerId,
        /// Its process id.
        pid: u32,
    },
    /// `Effect::Spawn` was not carried out; nothing is left of the worker.
    SpawnFailed {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// A worker is about to bind.
    Binding {
        /// Which worker.
        worker: WorkerId,
        /// TCP or UDP.
        protocol: Protocol,
        /// Where.
        address: SocketAddr,
    },
    /// A worker's socket listens.
    Listening {
        /// Which worker.
        worker: WorkerId,
        /// The socket; to be opened, joined or refused.
        ticket: Ticket,
        /// The group it belongs to.
        key: GroupKey,
    },
    /// A worker listens with a socket that no group can take.
    Unusable {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        reason: String,
    },
    /// `Effect::Open` was carried out.
    Opened {
        /// Which group.
        group: GroupId,
        /// The founder, still to be joined.
        ticket: Ticket,
        /// Why workers are picked in turns there instead of by the user's program that they should be picked by.
        unscheduled: Option<String>,
    },
    /// `Effect::Open` was not carried out; nothing is left of the group, and the ticket is spent.
    OpenFailed {
        /// Which group.
        group: GroupId,
        /// Why.
        reason: String,
        /// Whether trying again is in vain.
        fatal: bool,
    },
    /// Answer to `Effect::Schedule`: whether the data path has taken the rule. It has the one before when it has not.
    Scheduled {
        /// Which group.
        group: GroupId,
        /// Why it has not.
        result: Result<(), String>,
    },
    /// `Effect::Join` was carried out.
    Joined {
        /// Which group.
        group: GroupId,
        /// Which slot.
        slot: Slot,
    },
    /// `Effect::Join` was not carried out; the slot is free and the ticket spent.
    JoinFailed {
        /// Which group.
        group: GroupId,
        /// Which slot.
        slot: Slot,
        /// Why; `None` when the socket was closed by its worker in the meantime.
        reason: Option<String>,
    },
    /// A socket has gone although its worker lives: the worker closed it.
    Lost {
        /// Which group.
        group: GroupId,
        /// Which slot.
        slot: Slot,
    },
    /// A worker says something of itself.
    Said {
        /// Which worker.
        worker: WorkerId,
        /// What it says.
        word: Word,
    },
    /// A worker uses more than it may, or has been there for long enough.
    Worn {
        /// Which worker.
        worker: WorkerId,
        /// Why.
        worn: Worn,
    },
    /// Answer to `Effect::Hook`, when it was the hook before the stop.
    Hooked {
        /// Which worker.
        worker: WorkerId,
    },
    /// Answer to `Effect::Probe`.
    Probed {
        /// Which worker.
        worker: WorkerId,
        /// Why it did not succeed.
        result: Result<(), String>,
    },
    /// Answer to `Effect::Count`.
    Counted {
        /// Which app.
        app: AppId,
        /// Connections that moved from the queue of one worker to another.
        moved: u64,
    },
    /// Answer to `Effect::Measure` and `Effect::Drain`; `None` when it could not be told.
    Measured {
        /// Which worker.
        worker: WorkerId,
        /// What it has to do still.
        traffic: Option<Traffic>,
    },
    /// A worker's main process has ended.
    Exited {
        /// Which worker.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// Answer to `Effect::Sweep`: no process of the worker is left.
    Swept {
        /// Which worker.
        worker: WorkerId,
    },
    /// `State::deadline` has passed.
    Tick,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Exit {
    /// By itself.
    Code(i32),
    /// By a signal.
    Signal(i32),
    /// While no daemon was there, or before one was that could have asked.
    Unknown,
}

/// What a worker can say of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Word {
    /// `READY=1` (`sd_notify(3)`).
    Ready,
    /// `process.send('ready')`, as PM2's `wait_ready` has it.
    ReadyMessage,
    /// `WATCHDOG=1` (`sd_notify(3)`).
    Watchdog,
    /// `WATCHDOG=trigger`: it knows that it has failed.
    Trigger,
    /// `STOPPING=1`: it ends by itself.
    Stopping,
    /// `EXTEND_TIMEOUT_USEC=…`: its start, or its end, takes so much longer from now on.
    Extend(Duration),
}

/// What a user can want.
#[derive(Clone, Debug)]
pub enum Command {
    /// A new app, or another definition of one that is stopped.
    Start {
        /// What it is.
        spec: Box<AppSpec>,
        /// Whether it is only to be known, and started when somebody says so.
        idle: bool,
        /// Whether to answer only when it is up or has failed.
        wait: bool,
    },
    /// Workers stopped and not replaced.
    Stop {
        /// Which.
        targets: Vec<Target>,
        /// Whether to answer only when it is done.
        wait: bool,
    },
    /// Workers stopped and started again; those not running are started.
    Restart {
        /// Which.
        targets: Vec<Target>,
        /// Whether to answer only when it is done.
        wait: bool,
    },
    /// Workers replaced by new ones, one batch after the other, without a connection lost.
    Reload(Box<Reload>),
    /// What a canary has shown to be good, for all workers.
    Promote {
        /// Which.
        targets: Vec<Target>,
        /// Whether to answer only when it is done.
        wait: bool,
    },
    /// Back to what there was before.
    Rollback {
        /// Which.
        targets: Vec<Target>,
        /// Who wants it.
        who: String,
        /// Whether to answer only when it is done.
        wait: bool,
    },
    /// Apps stopped and forgotten.
    Delete {
        /// Which.
        targets: Vec<Target>,
        /// Whether to answer only when it is done.
        wait: bool,
    },
    /// Another number of workers.
    Scale {
        /// Of which app.
        target: Target,
        /// How many.
        to: Scale,
        /// Whether to answer only when it is done.
        wait: bool,
    },
    /// Workers picked by another rule, from now on and without replacing any.
    Switch {
        /// Of which apps.
        targets: Vec<Target>,
        /// What is to be different.
        switch: Box<Switch>,
    },
    /// Log files emptied.
    Flush {
        /// Of which workers.
        targets: Vec<Target>,
    },
    /// Counters of restarts begin anew.
    Reset {
        /// Of which workers.
        targets: Vec<Target>,
    },
    /// Everything stopped, and the daemon ended.
    Kill,
}

/// A reload, as wanted.
#[derive(Clone, Debug)]
pub struct Reload {
    /// Which apps.
    pub targets: Vec<Target>,
    /// What is to be different about them.
    pub change: Change,
    /// How it is to go about.
    pub pace: Pace,
    /// Whether to take over from another reload that is under way.
    pub force: bool,
    /// Who wants it.
    pub who: String,
    /// Whether nobody asked for it, but files that changed or the clock: it gives way to one that somebody asks for.
    pub yields: bool,
    /// Whether to answer only when it is done.
    pub wait: bool,
}
