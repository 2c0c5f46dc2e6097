//! What users want: each command changes what is wanted, and the rest follows.

use std::{collections::BTreeSet, sync::Arc};

use super::{
    State,
    announcement::What,
    app::{App, Seat, SeatState},
    call::{Call, Goal},
    effect::{Aside, Effect, Refusal, Tale},
    event::{CallId, Command},
    worker::{Input, Leave},
};
use crate::{
    config::{
        instances::{MAX_INSTANCES, Scale},
        spec::AppSpec,
        target::{Scope, Target},
    },
    id::{AppId, Instance},
    moment::Moment,
};

type Seats = BTreeSet<(AppId, Instance)>;

impl State {
    pub(super) fn command(&mut self, now: Moment, call: CallId, command: Command) {
        if self.ending {
            return self.refuse(call, Refusal::Ending);
        }
        let mut deleted = Vec::new();
        let done = match command {
            Command::Start { spec, idle, wait } => {
                match self.start(now, call, Arc::new(*spec), idle) {
                    Ok((id, seats)) if seats.is_empty() => {
                        let (apps, deleted) = (vec![id], Vec::new());
                        return self.tell(call, Tale::Done { apps, deleted });
                    }
                    other => other.map(|(_, seats)| (Goal::Up, seats, wait)),
                }
            }
            Command::Stop { targets, wait } => self.select(&targets).map(|seats| {
                self.retire_all(now, &seats, Leave::WhenIdle);
                (Goal::Down, seats, wait)
            }),
            Command::Restart { targets, wait } => {
                self.select(&targets).and_then(|seats| self.staying(seats)).map(|seats| {
                    self.restart(now, &seats);
                    (Goal::Up, seats, wait)
                })
            }
            Command::Reload(reload) => {
                self.reload(now, call, &reload).map(|goal| (goal, Seats::new(), reload.wait))
            }
            Command::Promote { targets, wait } => {
                self.promote(wait.then_some(call), &targets).map(|goal| (goal, Seats::new(), wait))
            }
            Command::Rollback { targets, who, wait } => self
                .rollback(now, call, wait, &targets, &who)
                .map(|goal| (goal, Seats::new(), wait)),
            Command::Delete { targets, wait } => self.select_apps(&targets).map(|apps| {
                deleted = self.names(&apps);
                (Goal::Down, self.delete(now, &apps), wait)
            }),
            Command::Switch { targets, switch } => {
                return match self.switch(call, &targets, &switch) {
                    Ok(()) => {}
                    Err(refusal) => self.refuse(call, refusal),
                };
            }
            Command::Scale { target, to, wait } => {
                self.scale(now, call, &target, to).map(|(goal, seats)| (goal, seats, wait))
            }
            Command::Flush { targets } => self.select(&targets).map(|seats| {
                self.flush(&seats);
                (Goal::Down, seats, false)
            }),
            Command::Reset { targets } => self.select(&targets).map(|seats| {
                self.reset(&seats);
                (Goal::Down, seats, false)
            }),
            Command::Kill => {
                let apps = self.apps.keys().copied().collect();
                deleted = self.names(&apps);
                self.ending = true;
                Ok((Goal::End, self.delete(now, &apps), true))
            }
        };
        match done {
            Err(refusal) => self.refuse(call, refusal),
            Ok((goal, seats, true)) => {
                self.calls.insert(call, Call { deleted, ..Call::new(goal, seats) });
            }
            Ok((goal, seats, false)) => {
                let mut apps: BTreeSet<_> = seats.into_iter().map(|(app, _)| app).collect();
                if let Goal::Rolled(rolled) = goal {
                    apps.extend(rolled.into_keys());
                }
                let apps = apps.into_iter().filter(|app| self.apps.contains_key(app)).collect();
                self.tell(call, Tale::Done { apps, deleted });
            }
        }
    }

    /// What is started idle has seats, and nobody in them: nobody is waited for.
    fn start(
        &mut self,
        now: Moment,
        call: CallId,
        spec: Arc<AppSpec>,
        idle: bool,
    ) -> Result<(AppId, Seats), Refusal> {
        let idle = idle || !spec.autostart;
        let mut id = AppId(self.next_app);
        if let Some(app) = self.apps.values().find(|app| app.spec().name == spec.name) {
            self.not_switching(app.id)?;
            self.not_overtaken(call, app.id)?;
            if app.stopped() {
                let id = app.id;
                self.says(call, id);
                return Ok((id, self.define_anew(now, id, spec, idle)));
            }
            if !app.dead() {
                return Err(Refusal::NameInUse { name: spec.name.to_string(), id: app.id });
            }
            // What failed to start is replaced by the corrected attempt, under its old number.
            id = app.id;
            self.remove_app(id);
        } else {
            self.next_app += 1;
        }
        let instances = spec.instances;
        self.apps.insert(id, App { said_by: call, ..App::new(id, spec, now) });
        self.announce(id, What::Started);
        Ok((id, self.fill(now, id, instances, idle)))
    }

    /// Another definition of an app that is stopped.
    fn define_anew(&mut self, now: Moment, id: AppId, spec: Arc<AppSpec>, idle: bool) -> Seats {
        let Some(app) = self.apps.get_mut(&id) else { return Seats::new() };
        let (instances, scheduling) = (spec.instances, spec.scheduling.clone());
        if **app.spec() != *spec {
            let generation = app.define(spec);
            app.previous = Some(std::mem::replace(&mut app.generation, generation));
            // As with a scale: what is gone back to has as many workers as there are seats.
            for definition in app.definitions.values_mut() {
                let definition = Arc::make_mut(definition);
                definition.instances = instances;
                definition.scheduling.clone_from(&scheduling);
            }
        }
        let generation = app.generation;
        app.seats.retain(|instance, _| instance.0 < instances);
        app.seats.values_mut().for_each(|seat| seat.generation = generation);
        self.forget_definitions(id);
        self.announce(id, What::Started);
        self.fill(now, id, instances, idle)
    }

    /// Has workers in that many seats, or nobody.
    fn fill(&mut self, now: Moment, id: AppId, instances: u32, idle: bool) -> Seats {
        if !idle {
            return (0..instances).map(|instance| self.sit(now, id, Instance(instance))).collect();
        }
        if let Some(app) = self.apps.get_mut(&id) {
            let generation = app.generation;
            for instance in (0..instances).map(Instance) {
                let empty = Seat { wanted: false, ..Seat::new(generation) };
                app.seats.entry(instance).or_insert(empty);
            }
        }
        Seats::new()
    }

    fn reset(&mut self, seats: &Seats) {
        for (id, instance) in seats {
            if let Some(seat) = self.seat_mut(*id, *instance) {
                (seat.restarts, seat.unstable) = (0, 0);
            }
        }
    }

    /// Makes sure that a wanted worker sits there, or will.
    pub(super) fn sit(&mut self, now: Moment, id: AppId, instance: Instance) -> (AppId, Instance) {
        let Some(app) = self.apps.get_mut(&id) else { return (id, instance) };
        let deployed = app.generation;
        let seat = app.seats.entry(instance).or_insert_with(|| Seat::new(deployed));
        (seat.wanted, seat.retiring) = (true, false);
        if seat.worker().is_none() {
            seat.generation = deployed;
            (seat.unstable, seat.proven, seat.reason, seat.binding) = (0, false, None, None);
            self.spawn(now, id, instance);
        }
        (id, instance)
    }

    fn retire(&mut self, now: Moment, id: AppId, instance: Instance, leave: Leave) {
        let Some(seat) = self.apps.get_mut(&id).and_then(|app| app.seats.get_mut(&instance)) else {
            return;
        };
        seat.wanted = false;
        // Whoever was to take the seat leaves like those who had it.
        let successor = seat.successor.take();
        seat.leaving.extend(successor);
        let (state, leaving) = (seat.state, seat.leaving.clone());
        for worker in leaving {
            self.step(now, worker, Input::Retire(leave));
        }
        let Some(seat) = self.apps.get_mut(&id).and_then(|app| app.seats.get_mut(&instance)) else {
            return;
        };
        match state {
            SeatState::Taken(worker) => self.step(now, worker, Input::Retire(leave)),
            SeatState::Empty { .. } | SeatState::Backoff { .. } | SeatState::Errored => {
                (seat.state, seat.reason) = (SeatState::Empty { failed: false }, None);
                self.left(id, instance);
            }
        }
    }

    fn retire_all(&mut self, now: Moment, seats: &Seats, leave: Leave) {
        for &(app, instance) in seats {
            self.retire(now, app, instance, leave);
        }
    }

    /// Those of `seats` that will be there still: what is scaled away or deleted does not come back with a restart.
    fn staying(&self, mut seats: Seats) -> Result<Seats, Refusal> {
        let leaving = seats.first().copied();
        seats.retain(|(id, instance)| {
            let seat = self.apps.get(id).and_then(|app| app.seats.get(instance));
            seat.is_some_and(|seat| !seat.retiring)
        });
        match leaving.and_then(|(id, _)| self.apps.get(&id)).filter(|_| seats.is_empty()) {
            Some(app) => Err(Refusal::Superseded { name: app.spec().name.to_string() }),
            None => self.not_rolling(seats.iter().map(|(id, _)| *id)).map(|()| seats),
        }
    }

    fn delete(&mut self, now: Moment, apps: &BTreeSet<AppId>) -> Seats {
        let mut seats = Seats::new();
        for id in apps {
            let Some(app) = self.apps.get_mut(id) else { continue };
            app.deleting = true;
            app.seats.values_mut().for_each(|seat| seat.retiring = true);
            let instances: Vec<_> = app.seats.keys().copied().collect();
            for instance in instances {
                seats.insert((*id, instance));
                self.retire(now, *id, instance, Leave::WhenIdle);
            }
        }
        seats
    }

    fn scale(
        &mut self,
        now: Moment,
        call: CallId,
        target: &Target,
        to: Scale,
    ) -> Result<(Goal, Seats), Refusal> {
        let ids: Vec<_> = self.select_apps(std::slice::from_ref(target))?.into_iter().collect();
        let &[id] = ids.as_slice() else {
            let names = ids
                .iter()
                .filter_map(|id| self.apps.get(id))
                .map(|app| app.spec().name.to_string());
            return Err(Refusal::Ambiguous { names: names.collect() });
        };
        let Some(app) = self.apps.get_mut(&id) else { return Ok((Goal::Up, Seats::new())) };
        if app.deleting {
            return Err(Refusal::Superseded { name: app.spec().name.to_string() });
        }
        let from = u32::try_from(app.seats.values().filter(|seat| !seat.retiring).count())
            .unwrap_or(u32::MAX);
        let count = match to {
            Scale::To(count) => i64::from(count),
            Scale::By(by) => i64::from(from) + i64::from(by),
        };
        let Some(count) =
            u32::try_from(count).ok().filter(|count| (1..=MAX_INSTANCES).contains(count))
        else {
            return Err(Refusal::BadScale { from, to: count });
        };
        self.reschedule(call, id, count)?;
        let Some(app) = self.apps.get_mut(&id) else { return Ok((Goal::Up, Seats::new())) };
        // Also for the generation that is being rolled out.
        for definition in app.definitions.values_mut() {
            Arc::make_mut(definition).instances = count;
        }
        self.announce(id, What::Scaled { to: count });
        let Some(app) = self.apps.get_mut(&id) else { return Ok((Goal::Up, Seats::new())) };
        // The highest numbers leave first; the lowest free ones are taken.
        let leaving: Seats = app.seats.keys().filter(|i| i.0 >= count).map(|i| (id, *i)).collect();
        for (_, instance) in &leaving {
            if let Some(seat) = app.seats.get_mut(instance) {
                seat.retiring = true;
            }
        }
        if count < from {
            self.retire_all(now, &leaving, Leave::WhenClosed);
            return Ok((Goal::Down, leaving));
        }
        Ok((Goal::Up, (0..count).map(|instance| self.sit(now, id, Instance(instance))).collect()))
    }

    /// Fits how an app is scheduled to another number of workers.
    fn reschedule(&mut self, call: CallId, id: AppId, count: u32) -> Result<(), Refusal> {
        self.not_switching(id)?;
        let Some(before) = self.apps.get(&id).map(|app| app.spec().scheduling.clone()) else {
            return Ok(());
        };
        let mut scheduling = before.clone();
        if let Err(why) = scheduling.resize(count) {
            return Err(Refusal::Unschedulable { name: self.name(id), why });
        }
        if scheduling != before {
            let (name, weights) = (self.name(id), scheduling.weights.clone());
            self.tell(call, Tale::Aside(Aside::Weights { name, weights }));
            self.define_scheduling(id, &scheduling);
        }
        Ok(())
    }

    fn flush(&mut self, seats: &Seats) {
        for (id, instance) in seats {
            let Some(app) = self.apps.get(id) else { continue };
            self.effects
                .push(Effect::Flush { app: app.spec().name.to_string(), instance: *instance });
        }
    }

    /// The seats that targets mean; each target must mean something, `all` apart.
    fn select(&self, targets: &[Target]) -> Result<Seats, Refusal> {
        let mut seats = Seats::new();
        for target in targets {
            let mut found = target.is_all();
            for app in self.apps.values() {
                let (name, namespace) = (app.spec().name.as_str(), app.spec().namespace.as_str());
                match target.matches(app.id, name, namespace) {
                    Some(Scope::App) => {
                        found = true;
                        seats.extend(app.seats.keys().map(|instance| (app.id, *instance)));
                    }
                    Some(Scope::Worker(instance)) if app.seats.contains_key(&instance) => {
                        found = true;
                        seats.insert((app.id, instance));
                    }
                    Some(Scope::Worker(_)) | None => {}
                }
            }
            if !found {
                return Err(self.unknown(target));
            }
        }
        Ok(seats)
    }

    pub(super) fn select_apps(&self, targets: &[Target]) -> Result<BTreeSet<AppId>, Refusal> {
        let mut apps = BTreeSet::new();
        for target in targets {
            let whole = self.apps.values().filter(|app| {
                let (name, namespace) = (app.spec().name.as_str(), app.spec().namespace.as_str());
                target.matches(app.id, name, namespace) == Some(Scope::App)
            });
            let before = apps.len();
            apps.extend(whole.map(|app| app.id));
            if apps.len() == before && !target.is_all() {
                return Err(self.unknown(target));
            }
        }
        Ok(apps)
    }

    fn names(&self, apps: &BTreeSet<AppId>) -> Vec<String> {
        let apps = apps.iter().filter_map(|id| self.apps.get(id));
        apps.map(|app| app.spec().name.to_string()).collect()
    }

    fn unknown(&self, target: &Target) -> Refusal {
        let names = self.apps.values().map(|app| app.spec().name.to_string()).collect();
        Refusal::Unknown { target: target.as_str().to_owned(), names }
    }
}
