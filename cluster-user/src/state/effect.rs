//! Everything the core can ask for: the closed list of its outputs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use cluster_common::slot::Slot;

use super::{
    announcement::{About, Announcement},
    event::CallId,
    why::Why,
};
use crate::{
    config::{
        pace::Canary,
        scheduling::{Guard, Policy, Scheduling},
        spec::{AppSpec, Probe, hooks::Hook},
    },
    datapath::{OnMiss, Protocol},
    id::{AppId, Generation, GroupId, Instance, Ticket, WorkerId},
    moment::Moment,
};

/// To be carried out, in the order given.
#[derive(Clone, Debug)]
#[must_use = "an effect that is dropped leaves the core waiting for its answer"]
pub enum Effect {
    /// Run the hook before the start, if there is one, and spawn a worker. Answer: `Spawned` or `SpawnFailed`.
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
    /// Ask what a worker has to do. Answer: `Measured`.
    Measure {
        /// Which worker.
        worker: WorkerId,
    },
    /// Have a worker's connections closed where nothing is lost, and ask what it has to do still. Answer: `Measured`.
    Drain {
        /// Which worker.
        worker: WorkerId,
        /// Connections that were silent for this long may be closed between two requests.
        idle: Option<Duration>,
    },
    /// Keep new connections away from a worker while there are others, or no longer. No answer.
    Distrust {
        /// Which worker.
        worker: WorkerId,
        /// Whether.
        distrusted: bool,
    },
    /// A worker that was drained serves on. No answer.
    Resume {
        /// Which worker.
        worker: WorkerId,
    },
    /// Move what waits at a worker to others; it shall take no more. No answer.
    Rescue {
        /// Which worker.
        worker: WorkerId,
    },
    /// Ask a worker whether it is well. Answer: `Probed`.
    Probe {
        /// Which worker.
        worker: WorkerId,
        /// How.
        probe: Box<Probe>,
    },
    /// Send a message over the channel that Node knows. No answer.
    Message {
        /// Which worker.
        worker: WorkerId,
        /// What.
        text: String,
    },
    /// Run a hook. Answer, for the one before the stop: `Hooked`, whatever becomes of it.
    ///
    /// The one before the start belongs to `Spawn`.
    Hook {
        /// Which worker.
        about: About,
        /// Of which app.
        app: AppId,
        /// What that is.
        spec: Arc<AppSpec>,
        /// Which hook.
        hook: Hook,
        /// Why the worker failed, if it did.
        why: Option<Why>,
    },
    /// Tell whoever follows the events. No answer.
    Announce(Box<Announcement>),
    /// Count the connections that moved to these sockets from others. Answer: `Counted`.
    Count {
        /// Which app.
        app: AppId,
        /// The sockets.
        slots: Vec<(GroupId, Slot)>,
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
        /// By which rule workers are picked there. Where the data path refuses it, nothing is opened,
        /// unless it is a program of the user's: then workers take turns.
        scheduling: Box<Scheduling>,
    },
    /// Pick workers by another rule. Answer: `Scheduled`.
    Schedule {
        /// In which group.
        group: GroupId,
        /// The rule.
        scheduling: Box<Scheduling>,
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
    /// A reload moved on.
    Rolling {
        /// Which app.
        app: AppId,
        /// Which seat of it.
        instance: Instance,
        /// Which generation the worker is of that moved on.
        generation: Generation,
        /// Where it is.
        doing: Doing,
    },
    /// A reload goes back.
    Back {
        /// Which app.
        app: AppId,
        /// Why, when it is a failure.
        why: Option<(Instance, Why)>,
    },
    /// Something to know while it goes on.
    Aside(Aside),
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
        /// Which of its workers.
        instance: Instance,
        /// Whose last words explain it, when it is not the last one of that instance.
        worker: Option<WorkerId>,
        /// Why.
        why: Option<Why>,
        /// Whether the old generation serves instead.
        rolled_back: bool,
        /// An address the worker tried to bind and never listened on.
        binding: Option<(Protocol, SocketAddr)>,
    },
}

/// Something to know besides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aside {
    /// Datagrams of one client may reach more than one worker.
    Datagrams {
        /// Where they arrive.
        address: SocketAddr,
        /// The rule, which is not the one that keeps them together.
        policy: Policy,
    },
    /// Weights were fitted to another number of workers.
    Weights {
        /// Name of the app.
        name: String,
        /// What they are now.
        weights: Vec<u32>,
    },
    /// Weights ended with the rule that they are for.
    WeightsEnded {
        /// Name of the app.
        name: String,
    },
    /// Datagrams know nothing of a guard or a limit that somebody asked for.
    Unguarded {
        /// Name of the app, which serves nothing but datagrams.
        name: String,
        /// The guard, unless it is the usual one or none.
        guard: Option<Guard>,
        /// The limit.
        shed: Option<u32>,
    },
    /// A canary is promoted to which nothing came.
    Untried {
        /// Name of the app.
        name: String,
    },
    /// Workers take turns as long as a canary has its share.
    Turns {
        /// Name of the app.
        name: String,
        /// The rule that gives no shares.
        policy: Policy,
    },
    /// Workers are not picked by the rule that they shall be picked by.
    NotScheduled {
        /// Name of the app.
        name: String,
        /// Why.
        why: String,
    },
}

/// Where a worker is while its app is reloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// It is being started, and has given no sign yet.
    Starting,
    /// Its probe has not succeeded yet; what the last attempt said.
    Probing(String),
    /// It is ready, and has to stay so until then.
    Soaking(Moment),
    /// It is ready, and waits for the others of its batch.
    Ready,
    /// It has a share of the connections.
    Canary(Canary),
    /// It is in the route.
    Serving,
    /// It is out of the route, and has so many connections left.
    Draining(Option<u32>),
    /// It was told to end.
    Stopping,
    /// Nothing is left of it.
    Gone,
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
    /// Nothing of the app runs.
    NotRunning {
        /// Name of the app.
        name: String,
    },
    /// The app is being reloaded already.
    Rolling {
        /// Name of the app.
        name: String,
        /// By whom.
        who: String,
        /// Since when.
        since: Moment,
        /// Whether it is a canary, which may wait for a word for as long as it likes.
        canary: bool,
    },
    /// More workers are asked for as a canary than the app has.
    BigCanary {
        /// Name of the app.
        name: String,
        /// How many are asked for.
        asked: u32,
        /// How many there are.
        instances: u32,
    },
    /// The reload that was waited for has been turned back.
    TurnedBack {
        /// Name of the app.
        name: String,
        /// By whom.
        who: String,
    },
    /// A rule contradicts itself, or the number of workers.
    Unschedulable {
        /// Name of the app.
        name: String,
        /// How.
        why: String,
    },
    /// The data path does not take a rule; the one before holds.
    NotScheduled {
        /// Name of the app.
        name: String,
        /// Why.
        why: String,
    },
    /// There is no canary.
    NothingToPromote {
        /// Name of the app.
        name: String,
    },
    /// Nothing else was deployed before.
    NothingToRollBack {
        /// Name of the app.
        name: String,
    },
}
