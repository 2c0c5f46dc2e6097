//! What the core shows of itself.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use cluster_common::slot::Slot;

use super::{
    State,
    app::{App, Seat, SeatState},
    deployment::Deployment,
    group::{Group, Vacancy},
    rollout::Stage,
    why::Why,
    worker::{Phase, Worker},
};
use crate::{
    config::{
        pace::Canary,
        spec::AppSpec,
        target::{Scope, Target},
    },
    datapath::Protocol,
    id::{AppId, Generation, GroupId, Instance, WorkerId},
    moment::Moment,
};

/// An app as it is now.
#[derive(Debug)]
pub struct AppView<'a> {
    /// Its number.
    pub id: AppId,
    /// What it is.
    pub spec: &'a AppSpec,
    /// Which version of it that is.
    pub generation: Generation,
    /// The reload that is under way.
    pub rollout: Option<RolloutView<'a>>,
    /// What was deployed, the latest last.
    pub history: &'a [Deployment],
    /// When it was started.
    pub created: Moment,
    /// Groups it has: protocol, address, workers that serve it.
    pub ports: Vec<(Protocol, SocketAddr, u32)>,
    /// Why a group has not its rule, when one has not.
    pub unscheduled: Option<&'a str>,
    /// Whether workers take turns for the sake of a canary, and not by the rule that is wanted.
    pub takes_turns: bool,
    /// Its seats, by instance.
    pub seats: Vec<SeatView<'a>>,
}

/// A reload that is under way.
#[derive(Debug)]
pub struct RolloutView<'a> {
    /// What is rolled out.
    pub target: Generation,
    /// How far it is.
    pub stage: RolloutStage,
    /// The share of the new generation, when there is one.
    pub canary: Option<Canary>,
    /// Who wanted it.
    pub who: &'a str,
    /// When it began.
    pub began: Moment,
}

/// How far a reload is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RolloutStage {
    /// A few new workers have a share, or are to get it.
    Canary,
    /// Worker by worker.
    Forward,
    /// Everything as it was.
    Back,
}

/// A seat as it is now.
#[derive(Debug)]
pub struct SeatView<'a> {
    /// Its number.
    pub instance: Instance,
    /// Its state.
    pub status: Status,
    /// Why, when that is no matter of course.
    pub reason: Option<&'a Why>,
    /// The worker that sits there.
    pub worker: Option<WorkerId>,
    /// That worker's process id.
    pub pid: Option<u32>,
    /// Whether a worker should be online there: one that was stopped or has ended as it may should not.
    pub wanted: bool,
    /// Since when it is online.
    pub online_since: Option<Moment>,
    /// Workers after the first.
    pub restarts: u32,
    /// How long its worker, which serves, was silent at least when connections were kept away from it for that.
    pub silent: Option<Duration>,
    /// Unstable runs in a row.
    pub unstable: u32,
    /// Slots of its worker.
    pub slots: Vec<(GroupId, Slot)>,
    /// What its worker is one of.
    pub generation: Generation,
    /// Workers that are to sit there or have sat there.
    pub others: Vec<OtherView>,
}

/// A worker that is to have a seat, or has had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OtherView {
    /// The worker.
    pub worker: WorkerId,
    /// Its process id.
    pub pid: Option<u32>,
    /// What it is one of.
    pub generation: Generation,
    /// Its state.
    pub status: Status,
}

/// State of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Spawned, not ready.
    Starting,
    /// Ready, not in the route yet.
    Ready,
    /// Ready, in the route.
    Online,
    /// Out of the route, finishing.
    Draining,
    /// Told to end, or ending.
    Stopping,
    /// Waiting before the next attempt.
    Backoff,
    /// Given up.
    Errored,
    /// Not running.
    Stopped,
}

impl State {
    /// The apps that any of `targets` means, by id; all of them when there are no targets.
    pub fn apps(&self, targets: &[Target]) -> Vec<AppView<'_>> {
        let meant = |app: &App| {
            let (name, namespace) = (app.spec().name.as_str(), app.spec().namespace.as_str());
            targets.is_empty()
                || targets.iter().any(|target| target.matches(app.id, name, namespace).is_some())
        };
        self.apps.values().filter(|app| meant(app)).map(|app| self.app(app)).collect()
    }

    /// The app of that number.
    pub fn app_of(&self, id: AppId) -> Option<AppView<'_>> {
        self.apps.get(&id).map(|app| self.app(app))
    }

    /// What the app of that number is.
    pub fn spec_of_app(&self, id: AppId) -> Option<&AppSpec> {
        self.apps.get(&id).map(|app| &**app.spec())
    }

    /// How a seat is.
    pub fn status_at(&self, app: AppId, instance: Instance) -> Option<Status> {
        let seat = self.seat_at(app, instance)?;
        Some(status(seat, seat.worker().and_then(|worker| self.workers.get(&worker))))
    }

    /// Whether connections may be waiting for a worker now.
    pub fn anybody_waits(&self) -> bool {
        self.groups.values().any(|group| matches!(group.vacancy, Vacancy::Waiting(_)))
    }

    /// Every group: whose it is, and where.
    pub fn places(&self) -> impl Iterator<Item = (GroupId, AppId, Protocol, SocketAddr)> + '_ {
        let groups = self.groups.values();
        groups.map(|group| (group.id, group.app, group.key.protocol, group.key.address))
    }

    /// Every open group.
    pub fn open_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.values().filter(|group| group.open).map(|group| group.id)
    }

    /// The open groups of an app.
    pub(super) fn open_groups_of(&self, app: AppId) -> impl Iterator<Item = &Group> + '_ {
        self.groups.values().filter(move |group| group.app == app && group.open)
    }

    /// The app of a group.
    #[cfg(test)]
    pub(super) fn app_of_group(&self, group: GroupId) -> Option<AppId> {
        self.groups.get(&group).map(|group| group.app)
    }

    /// Addresses of the TCP groups that a worker has a socket in.
    pub fn listens_on(&self, worker: WorkerId) -> Vec<SocketAddr> {
        let tcp = self.groups.values().filter(|group| group.key.protocol == Protocol::Tcp);
        tcp.filter(|group| group.serves(worker)).map(|group| group.key.address).collect()
    }

    /// App and seat of a worker.
    pub fn seat_of(&self, worker: WorkerId) -> Option<(AppId, Instance)> {
        self.workers.get(&worker).map(|worker| (worker.app, worker.instance))
    }

    /// What is to be kept up: every app, what it is, and whether it is to run at all.
    pub fn kept(&self) -> impl Iterator<Item = (AppId, &AppSpec, bool)> + '_ {
        self.apps.values().map(|app| {
            let runs = app.seats.values().any(|seat| match seat.state {
                SeatState::Taken(_) | SeatState::Backoff { .. } => seat.wanted,
                SeatState::Empty { .. } | SeatState::Errored => false,
            });
            (app.id, &**app.spec(), runs && !app.deleting)
        })
    }

    /// Whether workers of an app are being replaced, all of them or some.
    pub fn is_busy(&self, app: AppId) -> bool {
        let busy = |app: &App| app.rollout.is_some() || !app.restarting.is_empty();
        self.apps.get(&app).is_some_and(busy)
    }

    /// Which generation a worker is of.
    pub fn generation_of(&self, worker: WorkerId) -> Option<Generation> {
        self.workers.get(&worker).map(|worker| worker.generation)
    }

    /// The workers that any of `targets` means, those that are to take a seat and those that had one included.
    pub fn workers_of(&self, targets: &[Target]) -> Vec<WorkerId> {
        let meant = |worker: &&Worker| {
            let Some(app) = self.apps.get(&worker.app) else { return false };
            let (name, namespace) = (app.spec().name.as_str(), app.spec().namespace.as_str());
            targets.iter().any(|target| match target.matches(app.id, name, namespace) {
                Some(Scope::App) => true,
                Some(Scope::Worker(instance)) => instance == worker.instance,
                None => false,
            })
        };
        self.workers.values().filter(meant).map(|worker| worker.id).collect()
    }

    /// Whether a worker is to end, or has.
    pub fn is_ending(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_none_or(|worker| worker.ending.is_some())
    }

    /// Whether a worker leaves its seat or has been told to end.
    #[cfg(test)]
    pub(super) fn is_leaving(&self, worker: WorkerId) -> bool {
        let Some(worker) = self.workers.get(&worker) else { return true };
        let seat = self.apps.get(&worker.app).and_then(|app| app.seats.get(&worker.instance));
        seat.is_none_or(|seat| seat.leaving.contains(&worker.id))
    }

    fn app<'a>(&'a self, app: &'a App) -> AppView<'a> {
        let mut ports: Vec<_> = self
            .open_groups_of(app.id)
            .map(|group| {
                // Not the turns of the route: a worker may have several.
                let online = |id| self.workers.get(&id).is_some_and(Worker::online);
                let workers = u32::try_from(group.served_by(online).len()).unwrap_or(u32::MAX);
                (group.key.protocol, group.key.address, workers)
            })
            .collect();
        ports.sort_by_key(|(protocol, address, _)| (address.port(), *protocol, *address));
        let mut slots = self.slots(app);
        let seats = app.seats.iter().map(|(instance, seat)| {
            let slots = seat.worker().and_then(|worker| slots.remove(&worker));
            self.seat(*instance, seat, slots.unwrap_or_default())
        });
        let seats = seats.collect();
        let rollout = app.rollout.as_ref().map(|rollout| RolloutView {
            target: rollout.target,
            stage: match rollout.stage {
                Stage::Canary { .. } => RolloutStage::Canary,
                Stage::Forward | Stage::Counting(None) => RolloutStage::Forward,
                Stage::Back(_) | Stage::Counting(Some(_)) => RolloutStage::Back,
            },
            canary: rollout.pace.canary,
            who: &rollout.who,
            began: rollout.began,
        });
        let unscheduled =
            self.open_groups_of(app.id).find_map(|group| group.rule.refused.as_deref());
        AppView {
            id: app.id,
            spec: app.spec(),
            generation: app.generation,
            rollout,
            history: &app.history,
            created: app.created,
            ports,
            unscheduled,
            takes_turns: app.in_effect(&app.spec().scheduling).policy
                != app.spec().scheduling.policy,
            seats,
        }
    }

    fn seat<'a>(
        &'a self,
        instance: Instance,
        seat: &'a Seat,
        slots: Vec<(GroupId, Slot)>,
    ) -> SeatView<'a> {
        let worker = seat.worker().and_then(|id| self.workers.get(&id));
        SeatView {
            instance,
            status: status(seat, worker),
            reason: seat.reason.as_ref(),
            worker: worker.map(|worker| worker.id),
            pid: worker.and_then(|worker| worker.pid),
            wanted: seat.wanted && seat.state != SeatState::Empty { failed: false },
            online_since: worker.and_then(|worker| match worker.phase {
                Phase::Online { since } => Some(since),
                Phase::Spawning
                | Phase::Starting { .. }
                | Phase::Probing { .. }
                | Phase::Ready { .. }
                | Phase::Draining { .. }
                | Phase::Hooking { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. }
                | Phase::Sweeping => None,
            }),
            restarts: seat.restarts,
            silent: worker.and_then(Worker::silent_for),
            unstable: seat.unstable,
            slots,
            generation: worker.map_or(seat.generation, |worker| worker.generation),
            others: self.others(seat),
        }
    }

    fn others(&self, seat: &Seat) -> Vec<OtherView> {
        let others = seat.successor.iter().chain(&seat.leaving);
        let others = others.filter_map(|id| self.workers.get(id));
        let view = |worker: &Worker| OtherView {
            worker: worker.id,
            pid: worker.pid,
            generation: worker.generation,
            status: worker.status(),
        };
        others.map(view).collect()
    }

    /// Slots of all workers of an app. In one look at its groups, since there may be hundreds of workers.
    fn slots(&self, app: &App) -> BTreeMap<WorkerId, Vec<(GroupId, Slot)>> {
        let mut slots: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for group in self.groups.values().filter(|group| group.app == app.id) {
            for (slot, member) in &group.slots {
                slots.entry(member.worker).or_default().push((group.id, *slot));
            }
        }
        slots
    }
}

fn status(seat: &Seat, worker: Option<&Worker>) -> Status {
    match seat.state {
        SeatState::Empty { .. } => Status::Stopped,
        SeatState::Errored => Status::Errored,
        SeatState::Backoff { .. } => Status::Backoff,
        SeatState::Taken(_) => worker.map_or(Status::Starting, Worker::status),
    }
}

impl Worker {
    /// Its phase, as it is shown.
    pub(super) fn status(&self) -> Status {
        match self.phase {
            Phase::Spawning | Phase::Starting { .. } | Phase::Probing { .. } => Status::Starting,
            Phase::Ready { .. } => Status::Ready,
            Phase::Online { .. } => Status::Online,
            Phase::Draining { .. } => Status::Draining,
            Phase::Hooking { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Sweeping => Status::Stopping,
        }
    }
}
