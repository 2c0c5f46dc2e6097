//! Who sits where: workers spawned into seats, and what follows when one has gone.

use std::{sync::Arc, time::Instant};

use super::{
    State,
    app::SeatState,
    backoff::{self, Verdict},
    effect::Effect,
    group::MemberState,
    worker::{Ending, Worker},
};
use crate::id::{AppId, Instance, WorkerId};

impl State {
    /// Spawns a worker into an empty seat.
    pub(super) fn spawn(&mut self, now: Instant, id: AppId, instance: Instance) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        let Some(seat) = app.seats.get_mut(&instance) else { return };
        let worker = WorkerId(self.next_worker);
        self.next_worker += 1;
        seat.state = SeatState::Taken(worker);
        let spec = Arc::clone(&app.spec);
        self.workers.insert(worker, Worker::new(worker, id, instance, Arc::clone(&spec), now));
        self.effects.push(Effect::Spawn { worker, app: id, instance, spec });
    }

    /// Nothing is left of a worker: its slots are free, and its seat is filled again or not.
    pub(super) fn gone(&mut self, now: Instant, id: WorkerId) {
        let Some(worker) = self.workers.remove(&id) else { return };
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
        let Some(seat) =
            self.apps.get_mut(&worker.app).and_then(|app| app.seats.get_mut(&worker.instance))
        else {
            return;
        };
        seat.state = SeatState::Empty { failed: false };
        seat.proven |= worker.served;
        if !seat.wanted {
            seat.reason = None;
            return self.left(worker.app, worker.instance);
        }
        let policy = &worker.spec.restart;
        let wait = match worker.ending.unwrap_or(Ending::Asked) {
            Ending::Asked => {
                seat.reason = None;
                seat.restarts += 1;
                return self.spawn(now, worker.app, worker.instance);
            }
            Ending::Finished { reason, ok } => {
                (seat.wanted, seat.state) = (false, SeatState::Empty { failed: !ok });
                (seat.reason, seat.binding) = (Some(reason), worker.binding);
                return;
            }
            Ending::Failed { reason, fatal } => {
                let lasted = now.saturating_duration_since(worker.spawned) >= policy.min_uptime;
                seat.unstable = if worker.served && lasted { 0 } else { seat.unstable + 1 };
                (seat.reason, seat.binding) = (Some(reason), worker.binding);
                if fatal && !seat.proven {
                    Verdict::GiveUp
                } else {
                    backoff::judge(policy, seat.unstable, seat.proven)
                }
            }
        };
        match wait {
            Verdict::GiveUp => seat.state = SeatState::Errored,
            Verdict::Wait(wait) if wait.is_zero() => {
                seat.restarts += 1;
                self.spawn(now, worker.app, worker.instance);
            }
            Verdict::Wait(wait) => seat.state = SeatState::Backoff { until: now + wait },
        }
    }

    /// A seat that is not wanted has become empty.
    pub(super) fn left(&mut self, id: AppId, instance: Instance) {
        let Some(app) = self.apps.get_mut(&id) else { return };
        if app.seats.get(&instance).is_some_and(|seat| seat.retiring) {
            app.seats.remove(&instance);
        }
        if app.deleting && app.seats.is_empty() {
            self.remove_app(id);
        }
    }

    /// Forgets an app without workers.
    pub(super) fn remove_app(&mut self, id: AppId) {
        self.apps.remove(&id);
        let groups = &mut self.groups;
        let effects = &mut self.effects;
        groups.retain(|group, entry| {
            if entry.app == id && entry.open {
                effects.push(Effect::Close { group: *group });
            }
            entry.app != id
        });
        effects.push(Effect::Forget { app: id });
    }

    /// Spawns into the seats whose wait is over.
    pub(super) fn end_backoffs(&mut self, now: Instant) {
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
