//! Apps and workers as users see them: the core's view, with what the host knows beyond it.

use std::{
    path::PathBuf,
    time::{Duration, Instant},
};

use super::{
    environment,
    host::{SHORTEST, millis, wall},
    perform,
    run::Supervisor,
    telemetry::{Counted, need},
};
use crate::{
    api::message::{
        AppView, DeploymentView, Detail, LogFiles, OtherView, PortView, ReloadView, Stage, Status,
        WorkerView,
    },
    config::duration,
    id::AppId,
    moment::Moment,
    process::usage,
    state::{
        deployment::{Deployment, Kind as Deployed, Outcome},
        view::{self, RolloutStage, RolloutView, SeatView},
        why::Why,
    },
};

impl Supervisor {
    /// The apps of those numbers as they are now.
    pub(super) fn views(&mut self, ids: &[AppId], detail: Detail) -> Vec<AppView> {
        let counted = match detail {
            Detail::Usual | Detail::History => Counted::new(),
            Detail::Connections => self.count(),
        };
        self.views_with(ids, detail, &counted)
    }

    /// The same, when it is known what was counted.
    pub(super) fn views_with(
        &mut self,
        ids: &[AppId],
        detail: Detail,
        counted: &Counted,
    ) -> Vec<AppView> {
        self.measure(Instant::now(), ids, counted);
        let apps = ids.iter().filter_map(|id| self.state.app_of(*id));
        let mut views: Vec<_> = apps.map(|app| self.app(&app, counted)).collect();
        if detail == Detail::Connections {
            for view in &mut views {
                if let Some(app) = self.state.app_of(view.id) {
                    view.telemetry = Some(self.total(&app, counted));
                }
                let totals = self.port_totals(view.id);
                for port in &mut view.ports {
                    let of = (port.protocol, port.address);
                    let total = totals.iter().find(|total| (total.protocol, total.address) == of);
                    port.telemetry = total.and_then(|total| total.telemetry.clone());
                }
            }
        }
        if detail == Detail::History {
            for view in &mut views {
                let history = self.state.app_of(view.id).map(|app| app.history);
                let history = history.unwrap_or_default();
                view.history = Some(history.iter().map(Self::deployment).collect());
            }
        }
        views
    }

    fn deployment(one: &Deployment) -> DeploymentView {
        let (outcome, reason) = match &one.outcome {
            Outcome::Done => ("done", None),
            Outcome::Failed { instance, why } => {
                ("failed", Some(format!("worker {instance} {why}")))
            }
            Outcome::RolledBack { who } => ("rolled_back", Some(format!("by {who}"))),
            Outcome::Superseded => ("superseded", None),
        };
        DeploymentView {
            generation: one.generation,
            from: one.from,
            kind: match one.kind {
                Deployed::Reload => "reload",
                Deployed::Rollback => "rollback",
            }
            .to_owned(),
            outcome: outcome.to_owned(),
            reason,
            who: one.who.clone(),
            began_ms: wall(one.began),
            took_ms: millis(one.took),
            moved: one.moved,
        }
    }

    fn reload(rollout: &RolloutView<'_>) -> ReloadView {
        ReloadView {
            generation: rollout.target,
            stage: match rollout.stage {
                RolloutStage::Canary => Stage::Canary,
                RolloutStage::Forward => Stage::Forward,
                RolloutStage::Back => Stage::Back,
            },
            canary: rollout.canary.map(|canary| canary.to_string()),
            who: rollout.who.to_owned(),
            began_ms: wall(rollout.began),
        }
    }

    /// Looks at the CPU time and memory of the workers of those apps.
    fn measure(&mut self, now: Instant, ids: &[AppId], counted: &Counted) {
        let (workers, trees): (Vec<_>, Vec<_>) = self
            .host
            .workers
            .iter()
            .filter(|(_, running)| ids.contains(&running.app))
            .map(|(id, running)| (*id, std::sync::Arc::clone(&running.tree)))
            .unzip();
        let usages = usage::measure(trees.iter().map(AsRef::as_ref));
        for (id, usage) in workers.into_iter().zip(usages) {
            let Some(running) = self.host.workers.get_mut(&id) else { continue };
            running.cpu = running.cpu.max(usage.cpu);
            if let Some(counted) = counted.get(&id) {
                running.rate.look(now, counted.selected);
            }
            let (before, last) = running.last;
            let passed = now.saturating_duration_since(before);
            if passed < SHORTEST {
                running.last.1.memory = usage.memory;
                continue;
            }
            running.cpu_percent =
                100.0 * usage.cpu.saturating_sub(last.cpu).as_secs_f64() / passed.as_secs_f64();
            running.last = (now, usage);
        }
    }

    fn app(&self, app: &view::AppView<'_>, counted: &Counted) -> AppView {
        let seats = app.seats.iter();
        let workers: Vec<_> = seats
            .map(|seat| {
                let telemetry = seat.worker.and_then(|worker| counted.get(&worker));
                let view = self.worker(app, seat);
                let Some(telemetry) = telemetry else { return view };
                let live = telemetry.live.map(|live| u32::try_from(live).unwrap_or(u32::MAX));
                let running = seat.worker.and_then(|worker| self.host.workers.get(&worker));
                let rate = running.filter(|_| view.selected.is_some());
                WorkerView {
                    connections: live,
                    telemetry: Some(telemetry.clone()),
                    connections_per_second: rate.and_then(|running| running.rate.per_second),
                    ..view
                }
            })
            .collect();
        let online = workers.iter().filter(|worker| worker.status == Status::Online).count();
        let ports = app.ports.iter().map(|(protocol, address, workers)| PortView {
            protocol: *protocol,
            address: *address,
            workers: *workers,
            telemetry: None,
        });
        AppView {
            id: app.id,
            name: app.spec.name.to_string(),
            namespace: app.spec.namespace.to_string(),
            mode: self.host.datapath.mode(),
            status: worst(&workers),
            online: u32::try_from(online).unwrap_or(u32::MAX),
            instances: app.spec.instances,
            generation: app.generation,
            reload: app.rollout.as_ref().map(Self::reload),
            history: None,
            ports: ports.collect(),
            policy: match self.host.datapath.mode() {
                crate::datapath::Mode::Kernel if app.takes_turns && app.unscheduled.is_none() => {
                    crate::config::scheduling::Policy::RoundRobin.name().to_owned()
                }
                crate::datapath::Mode::Kernel => app.spec.scheduling.policy.name().to_owned(),
                crate::datapath::Mode::Plain => "hash".to_owned(),
            },
            unscheduled: app.unscheduled.map(str::to_owned),
            restarts: workers.iter().map(|worker| worker.restarts).sum(),
            cpu_percent: workers.iter().map(|worker| worker.cpu_percent).sum(),
            memory_bytes: workers.iter().map(|worker| worker.memory_bytes).sum(),
            uptime_ms: workers.iter().filter_map(|worker| worker.uptime_ms).max(),
            created_ms: wall(app.created),
            telemetry: None,
            workers,
            spec: app.spec.clone(),
        }
    }

    /// Where a worker's output goes, or would go were it started now.
    fn logs(&self, app: &view::AppView<'_>, seat: &SeatView<'_>) -> LogFiles {
        let output = &self.host.output;
        let known = seat.worker.and_then(|worker| output.files_of(worker)).cloned();
        let files =
            known.unwrap_or_else(|| output.files(&perform::origin(app.spec, seat.instance)));
        let nowhere = || PathBuf::from(LogFiles::NOWHERE);
        LogFiles {
            out: files.out.unwrap_or_else(nowhere),
            err: files.error.unwrap_or_else(nowhere),
            combined: files.combined,
        }
    }

    fn worker(&self, app: &view::AppView<'_>, seat: &SeatView<'_>) -> WorkerView {
        let running = seat.worker.and_then(|worker| self.host.workers.get(&worker));
        let said = seat.worker.and_then(|worker| self.host.health.said.get(&worker));
        let kernel = self.host.datapath.mode() == crate::datapath::Mode::Kernel;
        let counters =
            seat.slots.iter().map(|(group, slot)| self.host.datapath.counters(*group, *slot));
        let (selected, migrated) = counters.fold((0, 0), |(selected, migrated), counters| {
            (selected + counters.selected, migrated + counters.migrated_in)
        });
        WorkerView {
            instance: seat.instance,
            generation: seat.generation,
            pid: seat.pid,
            status: status(seat.status),
            reason: (seat.silent.map(silent)).or_else(|| seat.reason.map(ToString::to_string)),
            exit_code: seat.reason.and_then(Why::exit_code),
            restarts: seat.restarts,
            unstable: seat.unstable,
            cpu_percent: running.map_or(0.0, |running| running.cpu_percent),
            memory_bytes: running.map_or(0, |running| running.last.1.memory),
            uptime_ms: seat.online_since.map(|since| millis(Moment::now().since(since))),
            connections: None,
            telemetry: None,
            connections_per_second: None,
            selected: kernel.then_some(selected),
            migrated: kernel.then_some(migrated),
            logs: self.logs(app, seat),
            dropped_bytes: seat.worker.map_or(0, |worker| self.host.output.dropped(worker)),
            last_words: is_explained(seat)
                .then(|| self.host.last_words.get(&(app.id, seat.instance)).cloned())
                .flatten()
                .unwrap_or_default(),
            status_text: said.and_then(|said| said.status.clone()),
            errno: said.and_then(|said| said.errno),
            main_pid: said.and_then(|said| said.main_pid),
            env: environment::particular(app.spec, app.id, seat.instance),
            others: seat
                .others
                .iter()
                .map(|other| OtherView {
                    pid: other.pid,
                    generation: other.generation,
                    status: status(other.status),
                })
                .collect(),
        }
    }
}

/// What is to be known of a worker that serves and is kept away from.
fn silent(silence: Duration) -> String {
    format!("silent: no WATCHDOG=1 for {}", duration::format(silence))
}

/// Whether the last lines of the worker that was there before explain the state of a seat.
fn is_explained(seat: &SeatView<'_>) -> bool {
    match seat.status {
        view::Status::Errored | view::Status::Backoff => true,
        // Without a reason it was the user who wanted it.
        view::Status::Stopped => seat.reason.is_some(),
        view::Status::Starting
        | view::Status::Ready
        | view::Status::Online
        | view::Status::Draining
        | view::Status::Stopping => false,
    }
}

/// The state of an app: that of the worker that needs the user most.
fn worst(workers: &[WorkerView]) -> Status {
    workers
        .iter()
        .map(|worker| worker.status)
        .max_by_key(|status| need(*status))
        .unwrap_or(Status::Stopped)
}

/// A state in the words of the API.
pub(super) fn status(status: view::Status) -> Status {
    match status {
        view::Status::Starting => Status::Starting,
        view::Status::Ready => Status::Ready,
        view::Status::Online => Status::Online,
        view::Status::Draining => Status::Draining,
        view::Status::Stopping => Status::Stopping,
        view::Status::Backoff => Status::Backoff,
        view::Status::Errored => Status::Errored,
        view::Status::Stopped => Status::Stopped,
    }
}
