//! Taking over from a supervisor that died: what it knew, set right by what is found.
//!
//! The journal is written before effects are carried out, so each of them may have been carried out or not. What is
//! found says which; what cannot be seen is asked for again, because doing it twice does no harm.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    sync::Arc,
};

use cluster_common::slot::Slot;

use super::{
    State,
    app::{App, Seat, SeatState},
    effect::Effect,
    event::Exit,
    group::{Group, Member, MemberState, Vacancy},
    worker::{Ending, Input, Phase, Worker},
};
use crate::{
    config::spec::{AppSpec, Readiness, User},
    datapath::{GroupKey, GroupOptions, OnMiss},
    id::{AppId, GroupId, Instance, WorkerId},
    moment::Moment,
};

/// What is found of what a journal tells.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Workers whose main process lives, with its pid.
    pub alive: BTreeMap<WorkerId, u32>,
    /// Groups that could be taken over, and whose sockets are in which of their slots.
    pub groups: BTreeMap<GroupId, BTreeMap<Slot, WorkerId>>,
}

/// A worker, for whoever looks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its number.
    pub worker: WorkerId,
    /// Its app.
    pub app: AppId,
    /// Its number within the app.
    pub instance: Instance,
    /// The pid of its main process, if it was known to run.
    pub pid: Option<u32>,
}

/// A worker that is found without a journal that knows it.
#[derive(Clone, Debug)]
pub struct Stray {
    /// Its app.
    pub app: AppId,
    /// Its number.
    pub worker: WorkerId,
    /// Its number within the app.
    pub instance: Instance,
    /// Its main process.
    pub pid: u32,
    /// Name of the app.
    pub name: String,
    /// The file it executes.
    pub program: PathBuf,
    /// Its arguments.
    pub args: Vec<String>,
    /// Its working folder.
    pub cwd: PathBuf,
    /// Its environment.
    pub env: BTreeMap<String, String>,
    /// Who it runs as.
    pub user: User,
    /// Whether it listens.
    pub listens: bool,
}

impl State {
    /// What can be known without a journal: apps with the settings that `start` has when nothing else is typed.
    pub fn of_strays(now: Moment, strays: &[Stray]) -> Self {
        let mut state = Self::default();
        state.take_in(now, strays, &BTreeMap::new());
        state
    }

    /// Puts in workers that a journal does not know, because it could not be written when they were spawned; `alive` are
    /// those that are found. The seats of others that it knows and that have gone are theirs.
    pub fn take_in(&mut self, now: Moment, strays: &[Stray], alive: &BTreeMap<WorkerId, u32>) {
        let before: BTreeSet<_> = self.apps.keys().copied().collect();
        for stray in strays {
            let Ok(name) = stray.name.parse() else { continue };
            self.drop_namesakes(stray, alive);
            let app = self.apps.entry(stray.app).or_insert_with(|| {
                let spec = AppSpec {
                    program: stray.program.clone(),
                    args: stray.args.clone(),
                    cwd: stray.cwd.clone(),
                    inherited: stray.env.clone(),
                    user: Some(stray.user.clone()),
                    readiness: if stray.listens {
                        Readiness::Listening
                    } else {
                        Readiness::Running
                    },
                    ..AppSpec::usual(name)
                };
                App::new(stray.app, Arc::new(spec), now)
            });
            let (generation, spec) = (app.generation, Arc::clone(app.spec()));
            let seat = app.seats.entry(stray.instance).or_insert_with(|| Seat::new(generation));
            let id = stray.worker;
            let strays = |id: &WorkerId| strays.iter().any(|stray| stray.worker == *id);
            // Whoever it took the place of has been stopped by now.
            let gone = seat.worker().filter(|id| !alive.contains_key(id) && !strays(id));
            seat.leaving.extend(gone);
            let seated = seat.worker().is_some() && gone.is_none();
            if seated {
                // It was in the middle of a reload; which one is the newer cannot be told.
                seat.leaving.insert(id);
            } else {
                (seat.state, seat.proven) = (SeatState::Taken(id), true);
            }
            let place = (stray.app, stray.instance);
            let mut worker = Worker::new(id, place, (generation, spec), now, false);
            worker.pid = Some(stray.pid);
            worker.health.taken_in();
            worker.phase = Phase::Online { since: now };
            worker.served = true;
            if seated {
                worker.ending = Some(Ending::Asked);
                worker.phase = Phase::Stopping { kill_at: now };
            }
            self.workers.insert(id, worker);
            self.next_worker = self.next_worker.max(id.0 + 1);
            self.next_app = self.next_app.max(stray.app.0 + 1);
        }
        for app in self.apps.values_mut().filter(|app| !before.contains(&app.id)) {
            let instances = app.seats.keys().last().map_or(1, |last| last.0 + 1);
            for definition in app.definitions.values_mut() {
                Arc::make_mut(definition).instances = instances;
            }
            let generation = app.generation;
            for instance in 0..instances {
                // Whoever sat there has ended, and is replaced as usual.
                let seat =
                    app.seats.entry(Instance(instance)).or_insert_with(|| Seat::new(generation));
                if seat.worker().is_none() {
                    seat.state = SeatState::Backoff { until: now };
                }
            }
        }
    }

    /// Forgets an app of which nothing is left, and whose name another one has by now.
    fn drop_namesakes(&mut self, stray: &Stray, alive: &BTreeMap<WorkerId, u32>) {
        let namesake = self
            .apps
            .values()
            .find(|app| app.id != stray.app && app.spec().name.as_str() == stray.name);
        let Some(id) = namesake.map(|app| app.id) else { return };
        if self.workers.values().any(|w| w.app == id && alive.contains_key(&w.id)) {
            return;
        }
        self.apps.remove(&id);
        self.workers.retain(|_, worker| worker.app != id);
        self.groups.retain(|_, group| group.app != id);
    }

    /// Puts in a group that is found without a journal that knows it.
    pub fn insert_group(&mut self, id: GroupId, key: GroupKey, slots: &BTreeMap<Slot, WorkerId>) {
        let mut workers = slots.values().filter_map(|worker| self.workers.get(worker));
        let Some(app) = workers.next().map(|worker| worker.app) else { return };
        let mut group = Group::new(id, key, app);
        group.open = true;
        let known = slots.iter().filter(|(_, worker)| self.workers.contains_key(worker));
        group.slots = known
            .map(|(slot, worker)| (*slot, Member { worker: *worker, state: MemberState::Joined }))
            .collect();
        self.groups.insert(id, group);
        self.next_group = self.next_group.max(id.0 + 1);
    }

    /// The workers there were.
    pub fn known_workers(&self) -> Vec<Known> {
        let known = |worker: &Worker| Known {
            worker: worker.id,
            app: worker.app,
            instance: worker.instance,
            pid: worker.pid,
        };
        self.workers.values().map(known).collect()
    }

    /// The groups there were, with what each of them needs to be opened again.
    pub fn known_groups(&self) -> Vec<(GroupId, GroupKey, GroupOptions)> {
        let open = self.groups.values().filter(|group| group.open);
        open.filter_map(|group| {
            let spec = self.apps.get(&group.app)?.spec();
            let options = GroupOptions { app: spec.name.to_string(), trace: spec.trace };
            Some((group.id, group.key.clone(), options))
        })
        .collect()
    }

    /// What a worker is, for what is to be found of it.
    pub fn spec_of(&self, id: WorkerId) -> Option<&Arc<AppSpec>> {
        self.workers.get(&id).map(|worker| &worker.spec)
    }

    /// Puts in what a journal keeps only once: the definition of each worker.
    ///
    /// # Errors
    /// A lowercase fragment that names what does not fit together.
    pub fn complete(&mut self) -> Result<(), String> {
        for worker in self.workers.values_mut() {
            let app = self.apps.get(&worker.app).ok_or_else(|| {
                format!("worker {} is of app {}, which is not there", worker.id, worker.app)
            })?;
            let spec = app.definitions.get(&worker.generation).ok_or_else(|| {
                format!(
                    "worker {} is of generation {} of app {}, which is not there",
                    worker.id, worker.generation, worker.app
                )
            })?;
            worker.spec = Arc::clone(spec);
        }
        for app in self.apps.values() {
            if !app.definitions.contains_key(&app.generation) {
                return Err(format!("app {} has no definition", app.id));
            }
            for seat in app.seats.values() {
                if let Some(worker) = seat.workers().find(|id| !self.workers.contains_key(id)) {
                    return Err(format!("worker {worker} of app {} is not there", app.id));
                }
            }
        }
        if let Some(group) = self.groups.values().find(|group| !self.apps.contains_key(&group.app))
        {
            return Err(format!("{} is of an app that is not there", group.key.address));
        }
        Ok(())
    }

    /// Takes out of apps' schedulings what an earlier release accepted and this one refuses, and says of which app and why.
    /// Otherwise no change of such an app would be accepted, whatever it is about.
    pub fn mend(&mut self) -> Vec<(String, String)> {
        let mut refused = Vec::new();
        let apps: Vec<_> = self.apps.keys().copied().collect();
        for id in apps {
            let Some(spec) = self.apps.get(&id).map(|app| Arc::clone(app.spec())) else { continue };
            let mut scheduling = spec.scheduling.clone();
            let why = scheduling.mend(spec.instances);
            if !why.is_empty() {
                self.define_scheduling(id, &scheduling);
                refused.extend(why.into_iter().map(|why| (spec.name.to_string(), why)));
            }
        }
        refused
    }

    /// Sets right what was known by what is found, and says what to do.
    pub fn adopt(&mut self, now: Moment, found: &Found) -> Vec<Effect> {
        self.adopt_groups(found);
        let workers: Vec<_> = self.workers.keys().copied().collect();
        for id in workers {
            self.adopt_worker(now, id, found.alive.get(&id).copied());
        }
        self.count_again();
        self.settle(now);
        self.due = self.next();
        // Nobody knows what was published last, nor what becomes of those who find nobody. Routes come before everything
        // else, as always.
        let mut effects = Vec::new();
        for group in self.groups.values().filter(|group| group.open) {
            let (group, route) = (group.id, group.route.clone());
            effects.push(Effect::OnMiss { group, on_miss: OnMiss::Wait });
            effects.push(Effect::Publish { group, route });
        }
        effects.append(&mut self.effects);
        effects
    }

    fn adopt_groups(&mut self, found: &Found) {
        self.groups.retain(|id, group| group.open && found.groups.contains_key(id));
        let none = BTreeMap::new();
        for (id, group) in &mut self.groups {
            let slots = found.groups.get(id).unwrap_or(&none);
            group.slots.retain(|slot, member| slots.get(slot) == Some(&member.worker));
            for member in group.slots.values_mut() {
                member.state = MemberState::Joined;
            }
            // The journal may be older than that.
            let missed = slots.iter().filter(|(slot, worker)| {
                !group.slots.contains_key(slot) && self.workers.contains_key(worker)
            });
            let missed: Vec<_> = missed.map(|(slot, worker)| (*slot, *worker)).collect();
            for (slot, worker) in missed {
                group.slots.insert(slot, Member { worker, state: MemberState::Joined });
            }
            // A socket that nobody knows of must not keep its slot.
            let unknown: BTreeSet<_> =
                slots.keys().filter(|slot| !group.slots.contains_key(slot)).copied().collect();
            let vacate = |slot| Effect::Vacate { group: *id, slot };
            self.effects.extend(unknown.into_iter().map(vacate));
            group.vacancy = Vacancy::None;
        }
    }

    fn adopt_worker(&mut self, now: Moment, id: WorkerId, pid: Option<u32>) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(pid) = pid else {
            // It ended while nobody looked, or was never spawned; nothing may be left of it in either case.
            return match worker.phase {
                Phase::Sweeping => self.effects.push(Effect::Sweep { worker: id }),
                // Asked for and not seen since: it has not failed because its supervisor was killed.
                Phase::Spawning if worker.ending.is_none() => {
                    let (app, instance, spec) =
                        (worker.app, worker.instance, Arc::clone(&worker.spec));
                    self.effects.push(Effect::Spawn { worker: id, app, instance, spec });
                }
                Phase::Spawning
                | Phase::Starting { .. }
                | Phase::Probing { .. }
                | Phase::Ready { .. }
                | Phase::Online { .. }
                | Phase::Draining { .. }
                | Phase::Hooking { .. }
                | Phase::Stopping { .. }
                | Phase::Killing { .. } => self.step(now, id, Input::Exited(Exit::Unknown)),
            };
        };
        worker.pid = Some(pid);
        worker.traffic = None;
        match worker.phase.clone() {
            Phase::Spawning => self.step(now, id, Input::Spawned(pid)),
            Phase::Starting { deadline } => {
                // It may have given its sign to nobody.
                worker.phase = Phase::Starting { deadline: deadline.max(now + worker.patience()) };
            }
            Phase::Probing { deadline, passed, last, .. } => {
                let deadline = deadline.max(now + worker.patience());
                let interval = worker.spec.probe.as_ref().map(|probe| probe.interval);
                let next = Some(now + interval.unwrap_or_default());
                worker.phase = Phase::Probing { deadline, next, passed, last };
            }
            Phase::Ready { .. } | Phase::Online { .. } => {
                let spec = Arc::clone(&worker.spec);
                worker.health.again(now, &spec);
            }
            Phase::Draining { until, pause, leave, .. } => {
                worker.phase = Phase::Draining { until, look: now + pause, pause, leave };
                let look = worker.look(leave);
                self.effects.push(look);
            }
            // Whether its hook has ended is not known; it is not run twice.
            Phase::Hooking { .. } | Phase::Stopping { .. } => {
                let again = worker.signal(now);
                self.effects.extend(again.effects);
            }
            // When it is swept, its main process is there after all: nothing may be left of it in either case.
            Phase::Killing { .. } | Phase::Sweeping => {
                let again = worker.kill(now);
                self.effects.extend(again.effects);
            }
        }
        self.adopted_listener(now, id);
    }

    /// A worker whose sockets are seated may have become ready in the moment the supervisor died.
    fn adopted_listener(&mut self, now: Moment, id: WorkerId) {
        let seated = self.groups.values().filter(|group| group.serves(id));
        let first = seated.flat_map(|group| {
            let mine = group.slots.iter().filter(|(_, member)| member.worker == id);
            mine.map(|(slot, _)| (group.id, *slot))
        });
        if let Some((group, slot)) = first.collect::<Vec<_>>().into_iter().next() {
            self.joined(now, group, slot);
        }
    }
}
