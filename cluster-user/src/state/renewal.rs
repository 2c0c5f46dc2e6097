//! Workers that are well and worn: each is replaced by a new one of the same generation, one at a time.
//!
//! It is a reload of one seat: the new worker starts beside the old one and takes its seat when it is ready. One that
//! does not get ready leaves everything as it was.

use serde::{Deserialize, Serialize};

use super::{
    State,
    announcement::What,
    app::Seat,
    worker::{Input, Leave},
};
use crate::{
    config::spec::recycle::Worn,
    id::{AppId, Instance, WorkerId},
    moment::Moment,
};

/// A worker whose replacement failed is not worn again so soon.
const AGAIN: std::time::Duration = std::time::Duration::from_mins(1);

/// After this many renewals for memory in a row, each soon after the one before, the next one waits for [`AGAIN`]: who
/// uses more than he may as soon as he has started would be replaced without end.
const QUICK: u32 = 3;

/// A worker that is to be replaced.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(super) struct Renewal {
    /// Which; another one in its seat is as new as can be.
    pub(super) worker: WorkerId,
    /// Why.
    pub(super) worn: Worn,
}

impl State {
    /// A worker uses more than it may, or has been there for long enough.
    pub(super) fn worn(&mut self, now: Moment, id: WorkerId, worn: Worn) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (app, instance) = (worker.app, worker.instance);
        if !worker.online() || worker.renewed.is_some_and(|at| now < at + AGAIN) {
            return;
        }
        worker.renewed = Some(now);
        let Some(app) = self.apps.get_mut(&app) else { return };
        let Some(seat) = app.seats.get_mut(&instance) else { return };
        let seated = seat.worker() == Some(id);
        // Whoever is reloaded or restarted is replaced anyway.
        if !seated || app.rollout.is_some() || !app.restarting.is_empty() {
            return;
        }
        let mut endless = false;
        if let Worn::Memory { .. } = worn {
            let (in_a_row, last) = seat.grown;
            let in_a_row = if last.is_some_and(|at| now < at + AGAIN * 2) { in_a_row } else { 0 };
            let waits = in_a_row >= QUICK && last.is_some_and(|at| now < at + AGAIN);
            if waits {
                worker.renewed = None;
                return;
            }
            seat.grown = (in_a_row + 1, Some(now));
            endless = in_a_row + 1 == QUICK;
        }
        app.renewals.insert(instance, Renewal { worker: id, worn });
        self.announce_worker(id, What::Worn(worn));
        if endless {
            self.announce_worker(id, What::Outgrown { pause: AGAIN });
        }
    }

    /// Takes every renewal as far as it can go now.
    pub(super) fn settle_renewals(&mut self, now: Moment) {
        let renewing = self.apps.values().filter(|app| !app.renewals.is_empty());
        for id in renewing.map(|app| app.id).collect::<Vec<_>>() {
            self.drop_renewals(now, id);
            self.renew(now, id);
        }
    }

    /// Gives up the renewals that make no sense any more; whoever was to take such a seat leaves.
    fn drop_renewals(&mut self, now: Moment, id: AppId) {
        let Some(app) = self.apps.get(&id) else { return };
        let busy = app.deleting || app.rollout.is_some() || !app.restarting.is_empty();
        let useless = app.renewals.iter().filter(|(instance, renewal)| {
            let seat = app.seats.get(instance);
            let same = seat.is_some_and(|seat| {
                seat.wanted && !seat.retiring && seat.worker() == Some(renewal.worker)
            });
            busy || !same || !self.is_online(renewal.worker)
        });
        let useless: Vec<_> = useless.map(|(instance, _)| *instance).collect();
        // A reload knows what to do with those who wait beside its seats.
        let reloading = app.rollout.is_some();
        for instance in useless {
            if let Some(app) = self.apps.get_mut(&id) {
                app.renewals.remove(&instance);
            }
            if !reloading {
                self.dismiss_successor(now, id, instance);
            }
        }
    }

    fn dismiss_successor(&mut self, now: Moment, id: AppId, instance: Instance) {
        let Some(seat) = self.seat_mut(id, instance) else { return };
        let Some(successor) = seat.successor.take() else { return };
        seat.leaving.insert(successor);
        self.step(now, successor, Input::Retire(Leave::WhenClosed));
    }

    /// Brings the first one forward: a new worker is started, and takes the seat when it is ready.
    fn renew(&mut self, now: Moment, id: AppId) {
        let Some(app) = self.apps.get(&id) else { return };
        let generation = app.generation;
        let begun =
            app.renewals.keys().copied().find(|instance| {
                app.seats.get(instance).is_some_and(|seat| seat.successor.is_some())
            });
        if let Some(instance) = begun {
            let successor = app.seats.get(&instance).and_then(|seat| seat.successor);
            let ready = successor.and_then(|id| self.workers.get(&id)?.ready_since());
            if ready.is_some() {
                if let Some(app) = self.apps.get_mut(&id) {
                    app.renewals.remove(&instance);
                }
                self.swap(now, id, instance, generation);
            }
            return;
        }
        // One at a time: nobody who was there before is left anywhere.
        let left = app.seats.values().filter(|seat| !seat.retiring).all(Seat::is_left);
        let Some((&instance, renewal)) = app.renewals.first_key_value().filter(|_| left) else {
            return;
        };
        if app.spec().overlap {
            return self.spawn_beside(now, id, instance, generation);
        }
        let worker = renewal.worker;
        if let Some(app) = self.apps.get_mut(&id) {
            app.renewals.remove(&instance);
        }
        self.step(now, worker, Input::Retire(Leave::WhenClosed));
    }
}
