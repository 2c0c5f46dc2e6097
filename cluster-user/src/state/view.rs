//! What the core shows of itself.

use std::{net::SocketAddr, time::Instant};

use cluster_common::slot::Slot;

use super::{
    State,
    app::{App, Seat, SeatState},
    worker::{Phase, Worker},
};
use crate::{
    config::{spec::AppSpec, target::Target},
    datapath::Protocol,
    id::{AppId, GroupId, Instance, WorkerId},
};

/// An app as it is now.
#[derive(Debug)]
pub struct AppView<'a> {
    /// Its number.
    pub id: AppId,
    /// What it is.
    pub spec: &'a AppSpec,
    /// When it was started.
    pub created: Instant,
    /// Groups it has: protocol, address, workers that serve it.
    pub ports: Vec<(Protocol, SocketAddr, u32)>,
    /// Its seats, by instance.
    pub seats: Vec<SeatView<'a>>,
}

/// A seat as it is now.
#[derive(Debug)]
pub struct SeatView<'a> {
    /// Its number.
    pub instance: Instance,
    /// Its state.
    pub status: Status,
    /// Why, when that is no matter of course.
    pub reason: Option<&'a str>,
    /// The worker that sits there.
    pub worker: Option<WorkerId>,
    /// That worker's process id.
    pub pid: Option<u32>,
    /// Since when it is online.
    pub online_since: Option<Instant>,
    /// Workers after the first.
    pub restarts: u32,
    /// Unstable runs in a row.
    pub unstable: u32,
    /// Slots of its worker.
    pub slots: Vec<(GroupId, Slot)>,
}

/// State of a seat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Spawned, not ready.
    Starting,
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
            let (name, namespace) = (app.spec.name.as_str(), app.spec.namespace.as_str());
            targets.is_empty()
                || targets.iter().any(|target| target.matches(app.id, name, namespace).is_some())
        };
        self.apps.values().filter(|app| meant(app)).map(|app| self.app(app)).collect()
    }

    /// The app of that number.
    pub fn app_of(&self, id: AppId) -> Option<AppView<'_>> {
        self.apps.get(&id).map(|app| self.app(app))
    }

    /// Every open group.
    pub fn open_groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.values().filter(|group| group.open).map(|group| group.id)
    }

    /// App and seat of a worker.
    pub fn seat_of(&self, worker: WorkerId) -> Option<(AppId, Instance)> {
        self.workers.get(&worker).map(|worker| (worker.app, worker.instance))
    }

    fn app<'a>(&'a self, app: &'a App) -> AppView<'a> {
        let mut ports: Vec<_> = self
            .groups
            .values()
            .filter(|group| group.app == app.id && group.open)
            .map(|group| {
                // Not the turns of the route: a worker may have several.
                let online = |id| self.workers.get(&id).is_some_and(Worker::online);
                let workers = u32::try_from(group.served_by(online).len()).unwrap_or(u32::MAX);
                (group.key.protocol, group.key.address, workers)
            })
            .collect();
        ports.sort_by_key(|(protocol, address, _)| (address.port(), *protocol, *address));
        let seats = app.seats.iter().map(|(instance, seat)| self.seat(*instance, seat)).collect();
        AppView { id: app.id, spec: &app.spec, created: app.created, ports, seats }
    }

    fn seat<'a>(&'a self, instance: Instance, seat: &'a Seat) -> SeatView<'a> {
        let worker = seat.worker().and_then(|id| self.workers.get(&id));
        let slots = worker.map(|worker| self.slots(worker)).unwrap_or_default();
        SeatView {
            instance,
            status: status(seat, worker),
            reason: seat.reason.as_deref(),
            worker: worker.map(|worker| worker.id),
            pid: worker.and_then(|worker| worker.pid),
            online_since: worker.and_then(|worker| match worker.phase {
                Phase::Online { since } => Some(since),
                Phase::Spawning
                | Phase::Starting { .. }
                | Phase::Draining { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. }
                | Phase::Sweeping => None,
            }),
            restarts: seat.restarts,
            unstable: seat.unstable,
            slots,
        }
    }

    fn slots(&self, worker: &Worker) -> Vec<(GroupId, Slot)> {
        let of = |group: &super::group::Group| {
            let id = group.id;
            let slots = group.slots.iter().filter(|(_, member)| member.worker == worker.id);
            slots.map(|(slot, _)| (id, *slot)).collect::<Vec<_>>()
        };
        self.groups.values().flat_map(of).collect()
    }
}

fn status(seat: &Seat, worker: Option<&Worker>) -> Status {
    match seat.state {
        SeatState::Empty { .. } => Status::Stopped,
        SeatState::Errored => Status::Errored,
        SeatState::Backoff { .. } => Status::Backoff,
        SeatState::Taken(_) => match worker.map(|worker| worker.phase) {
            None | Some(Phase::Spawning | Phase::Starting { .. }) => Status::Starting,
            Some(Phase::Online { .. }) => Status::Online,
            Some(Phase::Draining { .. }) => Status::Draining,
            Some(Phase::Stopping { .. } | Phase::Killing { .. } | Phase::Sweeping) => {
                Status::Stopping
            }
        },
    }
}
