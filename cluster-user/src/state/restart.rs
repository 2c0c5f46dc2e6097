//! `restart`: stop, then start. Half of the workers serve while the other half is away.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    State,
    app::{Seat, SeatState},
    worker::{Input, Leave},
};
use crate::{
    id::{AppId, Instance},
    moment::Moment,
};

impl State {
    /// Restarts the workers of these seats, and starts those that do not run.
    pub(super) fn restart(&mut self, now: Moment, seats: &BTreeSet<(AppId, Instance)>) {
        let mut running: BTreeMap<AppId, Vec<Instance>> = BTreeMap::new();
        for &(id, instance) in seats {
            self.sit(now, id, instance);
            let Some(seat) = self.seat_mut(id, instance) else { continue };
            let SeatState::Taken(worker) = seat.state else { continue };
            (seat.unstable, seat.proven) = (0, false);
            if self.is_online(worker) {
                running.entry(id).or_default().push(instance);
            } else {
                self.restart_one(now, id, instance);
            }
        }
        for (id, mut first) in running {
            let later = first.split_off(first.len().div_ceil(2));
            if let Some(app) = self.apps.get_mut(&id) {
                app.restarting = later.into_iter().collect();
            }
            for instance in first {
                self.restart_one(now, id, instance);
            }
        }
    }

    /// Goes on with the restarts whose first half is back. When that failed, the other half is left to serve.
    pub(super) fn settle_restarts(&mut self, now: Moment) {
        let waiting: Vec<_> =
            self.apps.values().filter(|app| !app.restarting.is_empty()).map(|app| app.id).collect();
        for id in waiting {
            let Some(app) = self.apps.get_mut(&id) else { continue };
            let staying = |seat: &&Seat| seat.wanted && !seat.retiring;
            let seats = &app.seats;
            app.restarting.retain(|instance| seats.get(instance).as_ref().is_some_and(staying));
            let others =
                app.seats.iter().filter(|(instance, _)| !app.restarting.contains(instance));
            let others: Vec<_> = others.map(|(_, seat)| seat).filter(staying).collect();
            let failed = others.iter().any(|seat| seat.state == SeatState::Errored);
            let back = others.iter().all(|seat| match seat.state {
                SeatState::Taken(worker) => {
                    self.workers.get(&worker).is_some_and(super::worker::Worker::online)
                }
                SeatState::Empty { .. } => true,
                SeatState::Backoff { .. } | SeatState::Errored => false,
            });
            if !failed && !back {
                continue;
            }
            for instance in std::mem::take(&mut app.restarting) {
                if !failed {
                    self.restart_one(now, id, instance);
                }
            }
        }
    }

    fn restart_one(&mut self, now: Moment, id: AppId, instance: Instance) {
        let worker = self.seat_at(id, instance).and_then(Seat::worker);
        // One that was spawned this moment is as new as it can be.
        if let Some(worker) = worker
            && self.workers.get(&worker).is_some_and(|worker| worker.pid.is_some())
        {
            self.step(now, worker, Input::Retire(Leave::Soon));
        }
    }
}
