//! What the core asks for, carried out: one of the two files that know both worlds.

use std::{
    os::fd::AsFd as _,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    environment,
    hooks::Turn,
    host::{Host, News},
    run::{End, Supervisor},
    sockets,
    verify::Wish,
};
use crate::{
    config::{
        scheduling::Scheduling,
        spec::{AppSpec, hooks::Hook},
    },
    datapath::{Admission, GroupOptions, JoinError, Place, Traffic, plain::filter},
    id::{AppId, GroupId, Instance, Ticket, WorkerId},
    process::{
        cgroup::{Lacking, WorkerCgroup},
        output::{Files, Origin},
        spawn::{self, Bounds, Launch},
        tree::{Marker, Tree},
        usage, watch,
    },
    state::{announcement::About, effect::Effect, event::Event},
};

/// Lines of a worker's output that explain its end.
const LAST_WORDS: usize = 30;
/// Workers whose last words are kept until somebody asks: a reload that failed has ended by then.
const WORDS_KEPT: usize = 64;

impl Supervisor {
    /// Carries out one effect. What is answered at once is returned; the rest comes as news.
    pub(super) fn perform(&mut self, effect: Effect) -> Option<Event> {
        let host = &mut self.host;
        match effect {
            Effect::Spawn { worker, app, instance, spec } => {
                if spec.hooks.pre_start.is_none() {
                    return Some(self.spawn_worker(worker, app, instance, &spec));
                }
                let generation = self.state.generation_of(worker);
                let hook = Hook::PreStart;
                return self.prepare(Turn {
                    hook,
                    app,
                    spec,
                    worker,
                    instance,
                    generation,
                    pid: None,
                    reason: None,
                });
            }
            Effect::Signal { worker, signal } => {
                if let Some(running) = host.workers.get(&worker) {
                    // A process that has ended in this moment needs no signal.
                    drop(running.tree.signal_all(signal));
                }
            }
            Effect::Kill { worker } => {
                if let Some(running) = host.workers.get(&worker) {
                    drop(running.tree.kill());
                }
            }
            Effect::Sweep { worker } => host.sweep(worker),
            Effect::Measure { worker } => {
                let traffic = host.datapath.traffic(worker).ok();
                return Some(Event::Measured { worker, traffic });
            }
            Effect::Drain { worker, idle } => {
                let traffic = host.drain(worker, idle);
                return Some(Event::Measured { worker, traffic });
            }
            Effect::Distrust { worker, distrusted } => {
                if let Err(error) = host.datapath.distrust(worker, distrusted) {
                    log::warn!("worker {worker} is silent and gets connections still: {error:#}");
                }
            }
            Effect::Resume { worker } => host.datapath.resume(worker),
            Effect::Rescue { worker } => {
                if let Err(error) = host.datapath.rescue(worker) {
                    log::warn!("failed to move what waits at worker {worker}: {error:#}");
                }
            }
            Effect::Probe { worker, probe } => {
                let listening = self.state.listens_on(worker);
                let asked = match self.state.spec_of(worker) {
                    Some(spec) => host.ask(worker, &probe, spec, &listening),
                    None => Err("it is gone".to_owned()),
                };
                return asked.err().map(|why| Event::Probed { worker, result: Err(why) });
            }
            Effect::Message { worker, text } => {
                if let Err(error) = host.message(worker, &text.as_str().into()) {
                    let error = format!("`{text}`: {error:#}");
                    self.not_told(worker, &error);
                }
            }
            Effect::Count { app, slots } => {
                let counters =
                    slots.iter().map(|(group, slot)| host.datapath.counters(*group, *slot));
                let moved = counters.map(|counters| counters.migrated_in).sum();
                return Some(Event::Counted { app, moved });
            }
            Effect::Open { group, ticket, app, trace, scheduling } => {
                let options = GroupOptions { app, trace };
                let opened = host.open(group, ticket, &options, *scheduling);
                if matches!(opened, Some(Event::Opened { .. })) {
                    self.learn_groups();
                }
                if matches!(opened, Some(Event::OpenFailed { .. })) {
                    // It may have been learned of with another one.
                    self.host.ledger.closed(group, None);
                }
                return opened;
            }
            Effect::Schedule { group, scheduling } => {
                return host.schedule(group, Wish { scheduling: *scheduling, founder: None });
            }
            Effect::Join { ticket, group, slot } => {
                return Some(match host.datapath.join(ticket, group, slot) {
                    Ok(()) => Event::Joined { group, slot },
                    Err(JoinError::Gone) => Event::JoinFailed { group, slot, reason: None },
                    Err(error @ (JoinError::Stranger { .. } | JoinError::Failed(_))) => {
                        Event::JoinFailed { group, slot, reason: Some(error.to_string()) }
                    }
                });
            }
            Effect::Refuse { ticket } => host.datapath.refuse(ticket),
            Effect::Publish { group, route } => {
                if let Err(error) = host.datapath.publish(group, &route) {
                    log::error!("failed to publish a route: {error:#}");
                }
            }
            Effect::Compare { group } => {
                for slot in host.datapath.lost(group) {
                    drop(host.news.send(News::Lost(group, slot)));
                }
            }
            Effect::Vacate { group, slot } => host.datapath.vacate(group, slot),
            Effect::OnMiss { group, on_miss } => host.datapath.on_miss(group, on_miss),
            Effect::Close { group } => {
                host.ledger.closed(group, host.datapath.group_telemetry(group));
                host.datapath.close(group);
                host.verifying.cancel(group);
            }
            Effect::Hook { about, app, spec, hook, why } => {
                let About { worker, instance, generation, pid } = about;
                let reason = why.map(|why| why.to_string());
                let generation = Some(generation);
                return self.run_hook(Turn {
                    hook,
                    app,
                    spec,
                    worker,
                    instance,
                    generation,
                    pid,
                    reason,
                });
            }
            Effect::Announce(announcement) => self.announce(*announcement),
            Effect::Forget { app } => host.forget_app(app),
            Effect::Flush { app, instance } => {
                let files = self.log_files(&app, instance);
                let flushed = self.host.output.flush(files);
                self.host.flushing.push(Box::pin(flushed));
            }
            Effect::Tell { call, tale } => self.tell(call, tale),
            Effect::End => self.end = Some(End::Orderly),
        }
        None
    }
}

impl Supervisor {
    /// The log files of a worker: those it would have now, and those that the running ones have.
    fn log_files(&self, app: &str, instance: Instance) -> Vec<PathBuf> {
        let apps = self.state.apps(&[]);
        let Some(app) = apps.iter().find(|known| known.spec.name.as_str() == app) else {
            return Vec::new();
        };
        let host = &self.host;
        let mut files = host.output.files(&origin(app.spec, instance)).all();
        for (worker, running) in &host.workers {
            if running.app == app.id && running.instance == instance {
                files.extend(host.output.files_of(*worker).map(Files::all).unwrap_or_default());
            }
        }
        files.sort();
        files.dedup();
        files
    }
}

/// Whose output a worker's is, and what becomes of it.
pub(super) fn origin(spec: &AppSpec, instance: Instance) -> Origin<'_> {
    let (app, instances) = (spec.name.as_str(), spec.instances);
    Origin { app, instance, instances, logs: &spec.logs }
}

impl Supervisor {
    /// Spawns a worker, and says what came of it.
    pub(super) fn spawn_worker(
        &mut self,
        worker: WorkerId,
        app: AppId,
        instance: Instance,
        spec: &AppSpec,
    ) -> Event {
        match self.host.spawn(worker, app, instance, spec) {
            Ok(pid) => {
                self.write_pid_file(worker);
                Event::Spawned { worker, pid }
            }
            Err(error) => {
                self.host.datapath.dismiss(worker);
                self.host.output.detach(worker);
                self.host.last_words.remove(&(app, instance));
                Event::SpawnFailed { worker, reason: self.why_not_spawned(&error) }
            }
        }
    }
}

impl Host {
    fn spawn(
        &mut self,
        worker: WorkerId,
        app: AppId,
        instance: Instance,
        spec: &AppSpec,
    ) -> anyhow::Result<u32> {
        self.disregard(app, instance, spec);
        let cgroup = self.hierarchy.as_ref().map(|hierarchy| hierarchy.create_worker(app, worker));
        let cgroup = cgroup.transpose().context("failed to make the worker's cgroup")?;
        let place = Place {
            app,
            cgroup: cgroup.as_ref().map(WorkerCgroup::id),
            cgroup_path: cgroup.as_ref().map(WorkerCgroup::path),
            ports: &spec.ports,
            number: instance.0,
        };
        let result = (|| {
            self.open_shared(app, spec).map_err(anyhow::Error::msg)?;
            match (&self.hierarchy, &cgroup) {
                (Some(hierarchy), Some(cgroup)) => {
                    hierarchy.enable(app, &spec.resources)?;
                    cgroup.limit(&spec.resources)?;
                }
                (_, _) if spec.resources.files().is_empty() => {}
                (_, _) => return Err(Lacking::Cgroups.into()),
            }
            let admission =
                self.datapath.admit(worker, &place).context("failed to prepare joining")?;
            let ends = self
                .output
                .attach(worker, &origin(spec, instance))
                .context("failed to capture the worker's output")?;
            let marker = Marker::new(&self.home.id(), worker);
            let equipment = self.health.equip(spec)?;
            let mut env = environment::whole(spec, app, instance);
            env.push(marker.variable());
            env.extend_from_slice(&equipment.env);
            env.extend(sockets::for_itself(spec));
            let mut inherited = equipment.inherited();
            inherited.extend(self.shared_of(app, spec));
            let mut args = vec![spec.program.display().to_string()];
            args.extend(spec.args.iter().cloned());
            let launch = Launch {
                program: &spec.program,
                args: &args,
                env: &env,
                cwd: &spec.cwd,
                user: spec.user.as_ref(),
                cgroup: cgroup.as_ref().map(WorkerCgroup::folder),
                stdout: ends.stdout.as_fd(),
                stderr: ends.stderr.as_fd(),
                inherited: &inherited,
                sockets: &sockets::own(spec),
                filter: match admission {
                    Admission::Cgroup => None,
                    Admission::Seccomp => Some(&filter::PROGRAM),
                },
                bounds: &Bounds::of(&spec.resources, instance),
            };
            let spawned = spawn::spawn(&launch)?;
            anyhow::Ok((spawned, marker, equipment))
        })();
        let (spawned, marker, equipment) = match result {
            Ok(spawned) => spawned,
            Err(error) => {
                // Nothing runs in it.
                if let Some(Err(error)) = cgroup.map(|cgroup| cgroup.remove()) {
                    log::error!("failed to remove the cgroup of worker {worker}: {error}");
                }
                return Err(error);
            }
        };
        let pid = spawned.pid;
        self.datapath.started(worker, pid, spawned.process.as_fd(), spawned.notifier);
        if !spec.listen.is_empty() {
            self.datapath.look_at(worker);
        }
        let tree = Arc::new(Tree::new(pid, spawned.process, cgroup, marker));
        if let Err(error) = self.keep(worker, app, instance, Arc::clone(&tree)) {
            // Rare enough, out of descriptors say, that waiting for a killed process does no harm.
            drop(tree.kill());
            drop(watch::reap_killed(tree.process()));
            drop(tree.remove());
            return Err(error).context("failed to watch the worker");
        }
        if let Some(running) = self.workers.get_mut(&worker) {
            // The first look tells the rate since its start.
            running.rate.look(Instant::now(), 0);
        }
        self.health.started(worker, equipment);
        Ok(pid)
    }

    /// Founds a group with its rule; `None` when the answer follows.
    fn open(
        &mut self,
        group: GroupId,
        ticket: Ticket,
        options: &GroupOptions,
        scheduling: Scheduling,
    ) -> Option<Event> {
        if let Err(error) = self.datapath.open(group, ticket, options) {
            let fatal = matches!(error, JoinError::Stranger { .. });
            return Some(Event::OpenFailed { group, reason: error.to_string(), fatal });
        }
        self.schedule(group, Wish { scheduling, founder: Some(ticket) })
    }

    /// Has a worker's connections closed where nothing is lost, and says what is left.
    fn drain(&mut self, worker: WorkerId, idle: Option<Duration>) -> Option<Traffic> {
        if let Some(idle) = idle
            && let Err(error) = self.datapath.hang_up(worker, idle)
        {
            log::warn!("failed to close the idle connections of worker {worker}: {error:#}");
        }
        let traffic = self.datapath.drain(worker);
        traffic.map_err(|error| log::warn!("failed to drain worker {worker}: {error:#}")).ok()
    }

    /// Ends what a worker's main process left, in a task of its own; `News::Swept` follows.
    fn sweep(&mut self, worker: WorkerId) {
        let Some(running) = self.workers.get(&worker) else {
            drop(self.news.send(News::Swept(worker, Vec::new())));
            return;
        };
        let tree = Arc::clone(&running.tree);
        drop(tree.kill());
        let tail = self.output.tail(worker, LAST_WORDS);
        let news = self.news.clone();
        tokio::spawn(async move {
            if let Err(error) = tree.end().await {
                log::error!("failed to wait for the processes of worker {worker}: {error}");
            }
            let tail = tail.await;
            // What a program says of its failure is on standard error, if it says anything there.
            let mut words = if tail.error.is_empty() { tail.out } else { tail.error };
            match tree.cgroup().map_or(0, WorkerCgroup::oom_kills) {
                0 => {}
                1 => words.push("the kernel killed it: it used more than memory_max".to_owned()),
                killed => words.push(format!(
                    "the kernel killed {killed} of its processes: they used more than memory_max"
                )),
            }
            drop(news.send(News::Swept(worker, words)));
        });
    }

    /// Lets go of everything that an app had.
    fn forget_app(&mut self, app: AppId) {
        self.last_words.retain(|(of, _), _| *of != app);
        self.ledger.forget(app);
        if let Some(hierarchy) = &self.hierarchy
            && let Err(error) = hierarchy.remove_app(app)
            // The last hook takes it away.
            && !self.hooks.has_of(app)
        {
            log::error!("failed to remove the cgroup of app {app}: {error}");
        }
    }

    /// Lets go of everything that a worker had.
    pub(super) fn forget(&mut self, worker: WorkerId, words: Vec<String>) {
        self.end_messages(worker);
        self.forget_health(worker);
        self.output.detach(worker);
        self.datapath.dismiss(worker);
        let Some(running) = self.workers.remove(&worker) else { return };
        let usage = usage::measure([running.tree.as_ref()]);
        let cpu = usage.first().map_or(running.cpu, |usage| usage.cpu.max(running.cpu));
        let cpu_us = u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX);
        self.ledger.used(running.app, running.instance, cpu_us);
        self.words_of.insert(worker, words.clone());
        if self.words_of.len() > WORDS_KEPT {
            self.words_of.pop_first();
        }
        self.last_words.insert((running.app, running.instance), words);
        if let Err(error) = running.tree.remove() {
            log::error!("failed to remove the cgroup of worker {worker}: {error}");
        }
    }
}
