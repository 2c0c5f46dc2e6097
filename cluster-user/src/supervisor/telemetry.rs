//! What is counted, as users see it: what the kernel tells of those that are there, and the ledger of those before.

use std::{
    collections::BTreeMap,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    host::{Host, millis},
    run::Supervisor,
};
use crate::{
    api::message::{
        AppReadiness, AppTelemetry, AppView, DaemonTelemetry, Detail, Failure, Line,
        OtherTelemetry, PortTelemetry, Readiness, Snapshot, Status, WorkerTelemetry, WorkerView,
    },
    datapath::telemetry::{GroupTelemetry, Telemetry},
    id::{AppId, WorkerId},
    process::usage,
    state::view,
};

/// What was counted for the workers that are there.
pub(super) type Counted = BTreeMap<WorkerId, Telemetry>;

impl Supervisor {
    /// What is counted now for every worker that is there; nothing when the kernel cannot be asked.
    pub(super) fn count(&mut self) -> Counted {
        let mut counted = self.host.datapath.telemetry().unwrap_or_else(|error| {
            log::warn!("{error:#}");
            Counted::new()
        });
        if counted.values().any(|telemetry| telemetry.live.is_none())
            && let Ok(connections) = self.host.datapath.connections()
        {
            for (worker, count) in connections {
                counted.entry(worker).or_default().live.get_or_insert_with(|| count.into());
            }
        }
        for (worker, telemetry) in &mut counted {
            self.host.hold(*worker, telemetry);
        }
        counted
    }

    /// Keeps what was counted for a worker that has ended, before the data path forgets it.
    pub(super) fn settle_account(&mut self, worker: WorkerId) {
        let Some(running) = self.host.workers.get(&worker) else { return };
        let (app, instance) = (running.app, running.instance);
        let mut counted = self.host.datapath.counted(worker);
        self.host.hold(worker, &mut counted);
        self.host.ledger.ended(app, instance, &counted);
    }

    /// Learns what the groups are that were taken over.
    pub(super) fn learn_groups(&mut self) {
        for (group, app, protocol, address) in self.state.places() {
            self.host.ledger.opened(group, app, protocol, address);
        }
    }

    /// Everything that is counted for some apps, all of them when none is named.
    ///
    /// # Errors
    /// When a target means nothing.
    pub(super) fn snapshot(&mut self, targets: &[String]) -> Result<Line, Failure> {
        let ids = self.meant(targets)?;
        let counted = self.count();
        let views = self.views_with(&ids, Detail::Connections, &counted);
        let apps = views.into_iter().filter_map(|view| self.app_telemetry(view, &counted));
        let apps = apps.collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(Line::Telemetry(Box::new(Snapshot {
            at_ms: millis(now),
            mode: self.host.datapath.mode(),
            daemon: self.own_telemetry(),
            apps,
        })))
    }

    fn own_telemetry(&self) -> DaemonTelemetry {
        let own = usage::own();
        DaemonTelemetry {
            release: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: millis(self.host.started.elapsed()),
            cpu_us: u64::try_from(own.usage.cpu.as_micros()).unwrap_or(u64::MAX),
            memory_bytes: own.usage.memory,
            descriptors: own.descriptors,
        }
    }

    fn app_telemetry(&self, view: AppView, counted: &Counted) -> Option<AppTelemetry> {
        let app = self.state.app_of(view.id)?;
        let of = |worker: Option<WorkerId>| {
            worker.and_then(|worker| counted.get(&worker)).cloned().unwrap_or_default()
        };
        let seats = app.seats.iter().zip(view.workers);
        let workers =
            seats.map(|(seat, worker)| {
                let telemetry = of(seat.worker);
                let others = seat.others.iter().map(|other| OtherTelemetry {
                    pid: other.pid,
                    generation: other.generation,
                    status: super::view::status(other.status),
                    telemetry: of(Some(other.worker)),
                });
                let others: Vec<_> = others.collect();
                let (mut total, before) = self.host.ledger.seat(view.id, seat.instance);
                for one in others.iter().map(|other| &other.telemetry) {
                    total.add(&Telemetry::of_counts(one.counts()));
                }
                total.add(&telemetry);
                let WorkerView { instance, generation, pid, status, restarts, .. } = worker;
                let WorkerView { uptime_ms, cpu_percent, memory_bytes, .. } = worker;
                WorkerTelemetry {
                    instance,
                    generation,
                    pid,
                    status,
                    restarts,
                    uptime_ms,
                    cpu_percent,
                    cpu_us: before.saturating_add(self.cpu_us(|running| {
                        (running.app, running.instance) == (view.id, seat.instance)
                    })),
                    memory_bytes,
                    telemetry,
                    total,
                    others,
                }
            });
        let (_, before) = self.host.ledger.app(view.id);
        Some(AppTelemetry {
            id: view.id,
            name: view.name,
            namespace: view.namespace,
            status: view.status,
            online: view.online,
            instances: view.instances,
            generation: view.generation,
            policy: view.policy,
            restarts: view.restarts,
            uptime_ms: view.uptime_ms,
            cpu_percent: view.cpu_percent,
            cpu_us: before.saturating_add(self.cpu_us(|running| running.app == view.id)),
            memory_bytes: view.memory_bytes,
            total: view.telemetry.unwrap_or_default(),
            workers: workers.collect(),
            groups: self.port_totals(view.id),
        })
    }

    /// CPU time of some of the workers that are there, as it was last measured.
    fn cpu_us(&self, of: impl Fn(&super::host::Running) -> bool) -> u64 {
        let workers = self.host.workers.values().filter(|running| of(running));
        let times = workers.map(|running| running.cpu.as_micros());
        u64::try_from(times.sum::<u128>()).unwrap_or(u64::MAX)
    }

    /// What was counted for all workers that an app has and had.
    pub(super) fn total(&self, app: &view::AppView<'_>, counted: &Counted) -> Telemetry {
        let (mut total, _) = self.host.ledger.app(app.id);
        let others = app.seats.iter().flat_map(|seat| seat.others.iter().map(|other| other.worker));
        for worker in app.seats.iter().filter_map(|seat| seat.worker).chain(others) {
            if let Some(telemetry) = counted.get(&worker) {
                total.add(telemetry);
            }
        }
        total
    }

    /// What was counted for each port of an app. Groups of one port that differ in something else are one here.
    pub(super) fn port_totals(&self, app: AppId) -> Vec<PortTelemetry> {
        let mut totals: BTreeMap<_, Option<GroupTelemetry>> = BTreeMap::new();
        let places = self.state.places().filter(|(_, of, ..)| *of == app);
        for (group, _, protocol, address) in places {
            let total = totals.entry((protocol, address)).or_default();
            if let Some(counted) = self.host.datapath.group_telemetry(group) {
                let before = || self.host.ledger.port(app, protocol, address);
                total.get_or_insert_with(before).add(&counted);
            }
        }
        let port =
            |((protocol, address), telemetry)| PortTelemetry { protocol, address, telemetry };
        totals.into_iter().map(port).collect()
    }

    /// Whether all that should run is there.
    pub(super) fn readiness(&self) -> Readiness {
        let apps = self.state.apps(&[]);
        let apps = apps.iter().map(|app| {
            let wanted: Vec<_> = app.seats.iter().filter(|seat| seat.wanted).collect();
            let is_online = |seat: &&&view::SeatView<'_>| seat.status == view::Status::Online;
            let absent = wanted.iter().filter(|seat| !is_online(seat));
            let worst = absent
                .map(|seat| super::view::status(seat.status))
                .max_by_key(|status| need(*status));
            AppReadiness {
                name: app.spec.name.to_string(),
                wanted: u32::try_from(wanted.len()).unwrap_or(u32::MAX),
                online: u32::try_from(wanted.iter().filter(is_online).count()).unwrap_or(u32::MAX),
                worst,
            }
        });
        Readiness { begun: self.begun, apps: apps.collect() }
    }
}

impl Host {
    /// Has counts not go back. Of accepted connections it is what came in without what waits, which are read one after the
    /// other; what was dropped is known to a socket only, for as long as it is there.
    fn hold(&mut self, worker: WorkerId, counted: &mut Telemetry) {
        let Some(running) = self.workers.get_mut(&worker) else { return };
        if let Some(accepted) = &mut counted.accepted {
            running.accepted = running.accepted.max(*accepted);
            *accepted = running.accepted;
        }
        running.dropped = running.dropped.max(counted.dropped);
        counted.dropped = running.dropped;
    }
}

/// How much a state needs the user.
pub(super) fn need(status: Status) -> u8 {
    match status {
        Status::Stopped => 0,
        Status::Online => 1,
        Status::Stopping => 2,
        Status::Draining => 3,
        Status::Ready | Status::Starting => 4,
        Status::Backoff => 5,
        Status::Errored => 6,
    }
}
