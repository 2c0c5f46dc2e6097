//! Who sits where: workers spawned into seats, and what follows when one has gone.

use std::sync::Arc;

use super::{
    State,
    announcement::What,
    app::SeatState,
    backoff::{self, Verdict},
    effect::Effect,
    group::MemberState,
    rollout::Rollout,
    view::Status,
    worker::{Ending, Worker},
};
use crate::{
    config::spec::hooks::Hook,
    id::{AppId, Generation, Instance, WorkerId},
    moment::Moment,
};

impl State {
    /// Spawns a worker into an empty seat.
    pub(super) fn spawn(&mut self, now: Moment, id: AppId, instance: Instance) {
        let Some(seat) = self.apps.get(&id).and_then(|app| app.seats.get(&instance)) else {
            return;
        };
        let worker = self.spawn_one(now, id, instance, seat.generation, false);
        if let Some(seat) = self.apps.get_mut(&id).and_then(|app| app.seats.get_mut(&instance)) {
            seat.state = SeatState::Taken(worker);
        }
    }

    /// Spawns a worker that takes a seat when it is told to.
    pub(super) fn spawn_beside(
        &mut self,
        now: Moment,
        id: AppId,
        instance: Instance,
        generation: Generation,
    ) {
        let worker = self.spawn_one(now, id, instance, generation, true);
        if let Some(seat) = self.apps.get_mut(&id).and_then(|app| app.seats.get_mut(&instance)) {
            seat.successor = Some(worker);
        }
    }

    fn spawn_one(
        &mut self,
        now: Moment,
        id: AppId,
        instance: Instance,
        generation: Generation,
        standby: bool,
    ) -> WorkerId {
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        let Some(app) = self.apps.get(&id) else { return worker };
        let spec = Arc::clone(app.definition(generation));
        let mut new =
            Worker::new(worker, (id, instance), (generation, Arc::clone(&spec)), now, standby);
        new.must_listen = self.groups.values().any(|group| group.app == id);
        self.workers.insert(worker, new);
        self.announce_worker(worker, What::Phase(Status::Starting));
        self.effects.push(Effect::Spawn { worker, app: id, instance, spec });
        worker
    }

    /// Nothing is left of a worker: its slots are free, and its seat is filled again or not.
    pub(super) fn gone(&mut self, now: Moment, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else { return };
        self.free_slots(id);
        self.announce_gone(&worker);
        if worker.pid.is_some() {
            self.effects.extend(worker.hook(Hook::PostStop, None));
        }
        if let Some(why) = worker.failure() {
            self.effects.extend(worker.hook(Hook::OnFailure, Some(why.clone())));
        }
        let Some(app) = self.apps.get_mut(&worker.app) else { return };
        let back_to =
            app.rollout.as_ref().filter(|rollout| !rollout.advancing()).map(Rollout::goal);
        let Some(seat) = app.seats.get_mut(&worker.instance) else { return };
        if seat.leaving.remove(&id) {
            return self.left(worker.app, worker.instance);
        }
        if seat.successor == Some(id) {
            seat.successor = None;
            // It is as it was.
            app.renewals.remove(&worker.instance);
            if back_to.is_some() && worker.failure().is_some() {
                let attempts = seat.attempts.0 + 1;
                let wait = match backoff::judge(&worker.spec.restart, attempts, false) {
                    Verdict::Wait(wait) => Some(now + wait),
                    Verdict::GiveUp => None,
                };
                seat.attempts = (attempts, wait);
            }
            return self.left(worker.app, worker.instance);
        }
        if seat.state != SeatState::Taken(id) {
            return;
        }
        seat.state = SeatState::Empty { failed: false };
        seat.proven |= worker.served;
        if !seat.wanted {
            seat.reason = None;
            return self.left(worker.app, worker.instance);
        }
        // What a reload brought and takes back is not started again.
        seat.generation = back_to.unwrap_or(seat.generation);
        if seat.generation != worker.generation {
            // What comes next is another program, as it were: it is not judged by this one's end.
            (seat.unstable, seat.proven, seat.reason) = (0, false, None);
            seat.restarts += 1;
            return self.spawn(now, worker.app, worker.instance);
        }
        let (policy, about) = (&worker.spec.restart, Some(worker.about()));
        let wait = match worker.ending.unwrap_or(Ending::Asked) {
            Ending::Asked => {
                // The next one has to show anew that it can run.
                (seat.reason, seat.unstable, seat.proven) = (None, 0, false);
                seat.restarts += 1;
                return self.spawn(now, worker.app, worker.instance);
            }
            Ending::Finished { why, ok } => {
                (seat.wanted, seat.state) = (false, SeatState::Empty { failed: !ok });
                (seat.reason, seat.binding) = (Some(why), worker.binding);
                return;
            }
            Ending::Failed { why, fatal } => {
                let lasted = now.since(worker.spawned) >= policy.min_uptime;
                seat.unstable = if worker.served && lasted { 0 } else { seat.unstable + 1 };
                (seat.reason, seat.binding) = (Some(why), worker.binding);
                if fatal && !seat.proven {
                    Verdict::GiveUp
                } else {
                    backoff::judge(policy, seat.unstable, seat.proven)
                }
            }
        };
        match wait {
            Verdict::GiveUp => {
                seat.state = SeatState::Errored;
                self.announce_about(worker.app, about, What::GivenUp);
            }
            Verdict::Wait(wait) if wait.is_zero() => {
                seat.restarts += 1;
                self.spawn(now, worker.app, worker.instance);
            }
            Verdict::Wait(wait) => {
                seat.state = SeatState::Backoff { until: now + wait };
                self.announce_about(worker.app, about, What::Backoff { wait });
            }
        }
    }

    fn free_slots(&mut self, id: WorkerId) {
        for group in self.groups.values_mut() {
            group.queue.retain(|(_, of)| *of != id);
            let free: Vec<_> =
                group.slots.iter().filter(|(_, m)| m.worker == id).map(|(slot, _)| *slot).collect();
            for slot in free {
                if group
                    .slots
                    .remove(&slot)
                    .is_some_and(|member| member.state == MemberState::Joined)
                {
                    self.effects.push(Effect::Vacate { group: group.id, slot });
                }
            }
        }
    }

    /// Somebody has left a seat; one that is not wanted goes with the last of them.
    pub(super) fn left(&mut self, id: AppId, instance: Instance) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let over = |seat: &super::app::Seat| {
            let empty = match seat.state {
                SeatState::Empty { .. } => true,
                SeatState::Taken(_) | SeatState::Backoff { .. } | SeatState::Errored => false,
            };
            seat.retiring && !seat.wanted && empty && seat.is_left()
        };
        if app.seats.get(&instance).is_some_and(over) {
            app.seats.remove(&instance);
        }
        if app.deleting && app.seats.is_empty() {
            self.remove_app(id);
        }
    }

    /// Forgets an app without workers.
    pub(super) fn remove_app(&mut self, id: AppId) {
        if let Some(rollout) = self.apps.get_mut(&id).and_then(|app| app.rollout.take()) {
            self.superseded(id, rollout.calls);
        }
        self.announce(id, What::Deleted);
        self.apps.remove(&id);
        let groups = &mut self.groups;
        let effects = &mut self.effects;
        groups.retain(|group, entry| {
            if entry.app == id {
                // Also one that is being opened: its waiting room listens already.
                effects.push(Effect::Close { group: *group });
            }
            entry.app != id
        });
        effects.push(Effect::Forget { app: id });
    }

    /// Spawns into the seats whose wait is over.
    pub(super) fn end_backoffs(&mut self, now: Moment) {
        let due = self.apps.values().flat_map(|app| {
            let due = app.seats.iter().filter(|(_, seat)| match seat.state {
                SeatState::Backoff { until } => until <= now,
                SeatState::Empty { .. } | SeatState::Taken(_) | SeatState::Errored => false,
            });
            due.map(|(instance, _)| (app.id, *instance))
        });
        let due: Vec<_> = due.collect();
        for (app, instance) in due {
            if let Some(seat) = self.apps.get_mut(&app).and_then(|app| app.seats.get_mut(&instance))
            {
                seat.restarts += 1;
            }
            self.spawn(now, app, instance);
        }
    }
}
