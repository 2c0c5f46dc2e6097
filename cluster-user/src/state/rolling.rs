//! A reload, step by step: what is to be done follows from how every seat is, whatever happened before.
//!
//! A seat is *touched* when a worker of the goal's generation sits there or is to; it is *settled* when that worker
//! serves and nobody else is left. Going forward, the next batch is touched when the last one is settled; going back,
//! everything is touched at once, because it has been good before.

use super::{
    State,
    app::{App, Seat, SeatState},
    backoff::UNPROVEN_ATTEMPTS,
    deployment::Outcome,
    effect::{Effect, Tale},
    rollout::{Rollout, Setback, Stage},
    why::Why,
    worker::{Input, Leave, Worker},
};
use crate::{
    id::{AppId, Generation, Instance, WorkerId},
    moment::Moment,
};

impl State {
    /// Takes every reload as far as it can go now.
    pub(super) fn settle_rollouts(&mut self, now: Moment) {
        let rolling = self.apps.values().filter(|app| app.rollout.is_some());
        let rolling: Vec<_> = rolling.map(|app| app.id).collect();
        for id in rolling {
            // One stage may end where the next begins.
            loop {
                let before = self.stage(id);
                self.drive(now, id);
                if self.stage(id) == before {
                    break;
                }
            }
            self.tell_doings(id);
        }
    }

    fn stage(&self, id: AppId) -> Option<Stage> {
        Some(self.apps.get(&id)?.rollout.as_ref()?.stage.clone())
    }

    /// When a reload has to be looked at again, at the latest.
    pub(super) fn rollout_deadline(&self, app: &App) -> Option<Moment> {
        let rollout = app.rollout.as_ref()?;
        let successors = app.seats.values().filter_map(|seat| self.workers.get(&seat.successor?));
        let untried = |seat: &&Seat| seat.generation != rollout.goal() && seat.successor.is_none();
        let attempts = app.seats.values().filter(untried).filter_map(|seat| seat.attempts.1);
        match rollout.stage {
            Stage::Forward => {
                // Whoever is ready waits for the others of the batch, and is told when they are.
                // A canary has nothing to wait for any more.
                let soaking = successors.filter(|worker| !worker.online());
                let ready: Option<Vec<_>> = soaking.map(Worker::ready_since).collect();
                ready?.into_iter().max().map(|since| since + rollout.pace.soak)
            }
            // Without an end to its soak it stays until somebody says what becomes of it.
            Stage::Canary { since: Some(_), look, .. } => {
                (!rollout.pace.soak.is_zero()).then_some(look)
            }
            Stage::Canary { since: None, .. } | Stage::Counting(_) => None,
            Stage::Back(_) => attempts.min(),
        }
    }

    fn drive(&mut self, now: Moment, id: AppId) {
        let Some(app) = self.apps.get(&id) else { return };
        let Some(rollout) = app.rollout.clone() else { return };
        if app.deleting || !app.running() {
            self.supersede(now, id);
            return;
        }
        let goal = rollout.goal();
        self.dismiss_successors(now, id, goal);
        match rollout.stage {
            Stage::Canary { .. } => self.drive_canary(now, id, &rollout),
            Stage::Forward => {
                if self.swap_batch(now, id, &rollout) {
                    let instances = u32::try_from(self.rolling_seats(id).len()).unwrap_or(u32::MAX);
                    self.touch(now, id, goal, rollout.pace.batch.of(instances));
                    self.end_if_settled(id, None);
                }
            }
            Stage::Back(setback) => {
                for instance in self.ready_successors(id, now, std::time::Duration::ZERO).0 {
                    self.swap(now, id, instance, goal);
                }
                self.touch(now, id, goal, u32::MAX);
                self.end_if_settled(id, Some(setback));
            }
            Stage::Counting(_) => {}
        }
    }

    /// Seats that a reload is about.
    fn rolling_seats(&self, id: AppId) -> Vec<Instance> {
        let Some(app) = self.apps.get(&id) else { return Vec::new() };
        let seats = app.seats.iter().filter(|(_, seat)| seat.wanted && !seat.retiring);
        seats.map(|(instance, _)| *instance).collect()
    }

    /// Whoever was to take a seat and is not of this generation leaves.
    fn dismiss_successors(&mut self, now: Moment, id: AppId, goal: Generation) {
        for instance in self.rolling_seats(id) {
            let Some(successor) = self.seat_at(id, instance).and_then(|seat| seat.successor) else {
                continue;
            };
            if self.workers.get(&successor).is_some_and(|worker| worker.generation == goal) {
                continue;
            }
            if let Some(seat) = self.seat_mut(id, instance) {
                seat.successor = None;
                seat.leaving.insert(successor);
            }
            self.step(now, successor, Input::Retire(Leave::WhenClosed));
        }
    }

    /// Seats whose successors could take them, and how many have successors that could not yet.
    fn ready_successors(
        &self,
        id: AppId,
        now: Moment,
        soak: std::time::Duration,
    ) -> (Vec<Instance>, usize) {
        let mut waiting = 0;
        let mut ready = Vec::new();
        for instance in self.rolling_seats(id) {
            let Some(successor) = self.seat_at(id, instance).and_then(|seat| seat.successor) else {
                continue;
            };
            let Some(worker) = self.workers.get(&successor) else { continue };
            // A canary has proved itself in the route.
            if worker.online() || worker.ready_since().is_some_and(|since| since + soak <= now) {
                ready.push(instance);
            } else {
                waiting += 1;
            }
        }
        (ready, waiting)
    }

    /// Swaps the batch when all of it is ready, so that one publication does it. False while it is waited for.
    fn swap_batch(&mut self, now: Moment, id: AppId, rollout: &Rollout) -> bool {
        let (ready, waiting) = self.ready_successors(id, now, rollout.pace.soak);
        if waiting > 0 {
            return false;
        }
        for instance in ready {
            self.swap(now, id, instance, rollout.target);
        }
        true
    }

    /// The successor takes the seat; who sat there leaves it in the same step.
    pub(super) fn swap(&mut self, now: Moment, id: AppId, instance: Instance, goal: Generation) {
        let Some(seat) = self.seat_mut(id, instance) else { return };
        let Some(successor) = seat.successor.take() else { return };
        let before = seat.worker();
        seat.state = SeatState::Taken(successor);
        seat.generation = goal;
        seat.restarts += 1;
        (seat.unstable, seat.proven, seat.reason, seat.binding) = (0, true, None, None);
        seat.leaving.extend(before);
        self.step(now, successor, Input::Promote);
        if let Some(before) = before {
            self.step(now, before, Input::Retire(Leave::WhenClosed));
        }
    }

    /// Begins with as many seats as may be under way at once, if none is.
    fn touch(&mut self, now: Moment, id: AppId, goal: Generation, limit: u32) {
        let seats = self.rolling_seats(id);
        let underway = |state: &Self, instance: &Instance| {
            state.touched(id, *instance, goal) && !state.settled(id, *instance, goal)
        };
        if limit != u32::MAX && seats.iter().any(|instance| underway(self, instance)) {
            return;
        }
        let untouched = seats.into_iter().filter(|instance| !self.touched(id, *instance, goal));
        let next: Vec<_> = untouched.take(usize::try_from(limit).unwrap_or(usize::MAX)).collect();
        for instance in next {
            self.replace(now, id, instance, goal);
        }
    }

    fn touched(&self, id: AppId, instance: Instance, goal: Generation) -> bool {
        self.seat_at(id, instance)
            .is_none_or(|seat| seat.generation == goal || seat.successor.is_some())
    }

    /// Whether nothing is to be done about a seat any more, or nothing can be done.
    fn settled(&self, id: AppId, instance: Instance, goal: Generation) -> bool {
        let Some(seat) = self.seat_at(id, instance) else { return true };
        let serves = match seat.state {
            SeatState::Taken(worker) => self.workers.get(&worker).is_some_and(|worker| {
                let stuck = seat.attempts.0 >= UNPROVEN_ATTEMPTS;
                worker.online() && (worker.generation == goal || stuck)
            }),
            SeatState::Errored | SeatState::Empty { .. } => true,
            SeatState::Backoff { .. } => false,
        };
        seat.generation == goal && seat.is_left() && serves
    }

    /// Brings a worker of the goal's generation to a seat: the one that was there before, if it still could serve.
    fn replace(&mut self, now: Moment, id: AppId, instance: Instance, goal: Generation) {
        let Some(app) = self.apps.get(&id) else { return };
        let overlap = app.definition(goal).overlap;
        let Some(seat) = app.seats.get(&instance) else { return };
        let known = |id: &&WorkerId| {
            let worker = self.workers.get(id);
            worker.is_some_and(|worker| worker.generation == goal && worker.resumable())
        };
        let back = seat.leaving.iter().find(known).copied();
        // Whoever is ending is replaced when nothing is left of it; going back, by one of what there was before.
        let going_back = app.rollout.as_ref().is_some_and(|rollout| goal == rollout.origin);
        let ends = |id| self.workers.get(&id).is_some_and(|worker| worker.ending.is_some());
        let replaced = going_back && seat.worker().is_some_and(ends);
        let (state, attempts) = (seat.state, seat.attempts);
        let Some(seat) = self.seat_mut(id, instance) else { return };
        match (back, state) {
            (Some(back), state) => {
                seat.leaving.remove(&back);
                (seat.state, seat.generation) = (SeatState::Taken(back), goal);
                (seat.unstable, seat.proven, seat.reason, seat.binding) = (0, true, None, None);
                self.step(now, back, Input::Resume);
                if let SeatState::Taken(other) = state {
                    if let Some(seat) = self.seat_mut(id, instance) {
                        seat.leaving.insert(other);
                    }
                    self.step(now, other, Input::Retire(Leave::WhenClosed));
                }
            }
            (None, SeatState::Taken(_)) if replaced => seat.generation = goal,
            (None, SeatState::Taken(_)) if overlap && attempts.0 < UNPROVEN_ATTEMPTS => {
                if attempts.1.is_none_or(|at| at <= now) {
                    seat.attempts.1 = None;
                    self.spawn_beside(now, id, instance, goal);
                }
            }
            // Who sits there serves on for as long as it lives; its replacement is of the goal's generation.
            (None, SeatState::Taken(_)) if overlap => seat.generation = goal,
            (None, SeatState::Taken(worker)) => {
                seat.generation = goal;
                self.step(now, worker, Input::Retire(Leave::WhenClosed));
            }
            (None, SeatState::Empty { .. } | SeatState::Backoff { .. } | SeatState::Errored) => {
                seat.generation = goal;
                (seat.unstable, seat.proven, seat.reason, seat.binding) = (0, false, None, None);
                self.spawn(now, id, instance);
            }
        }
    }

    /// Ends the reload when every seat is settled, but for counting what moved.
    fn end_if_settled(&mut self, id: AppId, setback: Option<Setback>) {
        let Some(rollout) = self.apps.get(&id).and_then(|app| app.rollout.as_ref()) else { return };
        let (goal, target) = (rollout.goal(), rollout.target);
        if self.rolling_seats(id).iter().any(|instance| !self.settled(id, *instance, goal)) {
            return;
        }
        self.count(id, target);
        if let Some(rollout) = self.apps.get_mut(&id).and_then(|app| app.rollout.as_mut()) {
            rollout.stage = Stage::Counting(setback);
        }
    }

    /// Asks how many connections moved to workers of a generation.
    fn count(&mut self, id: AppId, target: Generation) {
        let of_target =
            |id: &WorkerId| self.workers.get(id).is_some_and(|worker| worker.generation == target);
        let slots = self.groups.values().flat_map(|group| {
            let members = group.slots.iter().filter(|(_, member)| of_target(&member.worker));
            members.map(|(slot, _)| (group.id, *slot))
        });
        let slots = slots.collect();
        self.effects.push(Effect::Count { app: id, slots });
    }

    /// Asks again what a supervisor that died was not told.
    pub(super) fn count_again(&mut self) {
        let counting = self.apps.values().filter_map(|app| {
            let rollout = app.rollout.as_ref()?;
            matches!(rollout.stage, Stage::Counting(_)).then_some((app.id, rollout.target))
        });
        for (id, target) in counting.collect::<Vec<_>>() {
            self.count(id, target);
        }
    }

    /// The last step of a reload.
    pub(super) fn counted(&mut self, now: Moment, id: AppId, moved: u64) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let setback = match app.rollout.as_ref().map(|rollout| rollout.stage.clone()) {
            Some(Stage::Counting(setback)) => setback,
            Some(Stage::Canary { .. } | Stage::Forward | Stage::Back(_)) | None => return,
        };
        let Some(rollout) = app.rollout.take() else { return };
        let name = app.spec().name.to_string();
        let (outcome, tale) = match setback {
            None => {
                app.previous = Some(rollout.origin);
                app.generation = rollout.target;
                // Seats where nobody sits, because they were stopped, are of the new generation too.
                app.seats.values_mut().for_each(|seat| seat.generation = rollout.target);
                (Outcome::Done, Tale::Done { apps: vec![id], deleted: Vec::new() })
            }
            Some(Setback::Failed { worker, instance, why, binding }) => {
                let outcome = Outcome::Failed { instance, why: why.clone() };
                let (worker, why, rolled_back) = (Some(worker), Some(why), true);
                (
                    outcome,
                    Tale::Failed { app: id, name, instance, worker, why, binding, rolled_back },
                )
            }
            Some(Setback::Asked { who }) => {
                (Outcome::RolledBack { who }, Tale::Done { apps: vec![id], deleted: Vec::new() })
            }
        };
        self.rolled(rollout.calls.clone(), id, &tale);
        self.remember(now, id, &rollout, outcome, moved);
        self.forget_definitions(id);
    }

    pub(super) fn forget_definitions(&mut self, id: AppId) {
        let workers = &self.workers;
        let used = |generation| {
            workers.values().any(|worker| worker.app == id && worker.generation == generation)
        };
        if let Some(app) = self.apps.get_mut(&id) {
            app.forget_definitions(used);
        }
    }

    /// A new worker failed: everything back.
    pub(super) fn set_back(&mut self, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let Some(why) = worker.failure() else { return };
        let app = worker.app;
        let (instance, binding) = (worker.instance, worker.binding);
        let setback = Setback::Failed { worker: id, instance, why: why.clone(), binding };
        let generation = worker.generation;
        let Some(rollout) = self.apps.get_mut(&app).and_then(|app| app.rollout.as_mut()) else {
            return;
        };
        if rollout.target == generation && rollout.advancing() {
            rollout.stage = Stage::Back(setback);
            self.tell_back(app);
        }
    }

    /// New workers let connections wait: everything back.
    pub(super) fn congested(&mut self, id: AppId, worker: WorkerId, why: Why) {
        let Some(instance) = self.workers.get(&worker).map(|worker| worker.instance) else {
            return;
        };
        if let Some(rollout) = self.apps.get_mut(&id).and_then(|app| app.rollout.as_mut()) {
            rollout.stage = Stage::Back(Setback::Failed { worker, instance, why, binding: None });
            self.tell_back(id);
        }
    }

    pub(super) fn seat_at(&self, id: AppId, instance: Instance) -> Option<&Seat> {
        self.apps.get(&id)?.seats.get(&instance)
    }

    pub(super) fn seat_mut(&mut self, id: AppId, instance: Instance) -> Option<&mut Seat> {
        self.apps.get_mut(&id)?.seats.get_mut(&instance)
    }

    /// The first seats, which a canary is beside.
    pub(super) fn canary_seats(&self, id: AppId, rollout: &Rollout) -> Vec<Instance> {
        let mut seats = self.rolling_seats(id);
        let instances = u32::try_from(seats.len()).unwrap_or(u32::MAX);
        let workers = rollout.pace.canary.map_or(1, |canary| canary.workers(instances));
        seats.truncate(usize::try_from(workers).unwrap_or(usize::MAX));
        seats
    }
}
