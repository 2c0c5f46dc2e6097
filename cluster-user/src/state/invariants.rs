//! What must be true of the core and the world around it after every event.

use std::collections::BTreeMap;

use cluster_common::slot::Slot;

use super::{view::RolloutStage, world::World};
use crate::{
    config::scheduling::Policy,
    id::{AppId, Instance, WorkerId},
};

impl World {
    /// A seat has one worker, one successor, and whoever leaves it.
    pub(super) fn assert_there_is_a_place(&self, worker: WorkerId, app: AppId, instance: Instance) {
        let staying = self.alive.iter().filter(|(id, seat)| {
            **seat == (app, instance) && **id != worker && !self.state.is_leaving(**id)
        });
        let staying: Vec<_> = staying.collect();
        assert!(staying.len() <= 1, "{app}:{instance} has {staying:?} already");
    }

    /// What must be true after every event.
    pub(super) fn check(&self) {
        for (group, route) in &self.routes {
            let mut turns: BTreeMap<WorkerId, u32> = BTreeMap::new();
            let owner = |slot: &Slot| self.sockets.get(&(*group, *slot));
            // One that has ended is in the route until that is known.
            for worker in route.iter().filter_map(owner) {
                *turns.entry(*worker).or_insert(0) += 1;
            }
            let gone = route.iter().any(|slot| owner(slot).is_none());
            let canary = self.state.apps(&[]).iter().any(|app| app.rollout.is_some());
            let shares = turns.iter().map(|(worker, turns)| (*turns, self.weight(*worker)));
            let shares: Vec<_> = shares.collect();
            let even = shares.windows(2).all(|two| two[0].0 * two[1].1 == two[1].0 * two[0].1);
            assert!(even || gone || canary, "{group:?} favours a worker: {turns:?}");
        }
        if self.answers.is_empty() {
            self.check_rules();
        }
        self.check_silent();
        for view in self.state.apps(&[]) {
            for seat in view.seats.iter().filter(|seat| seat.online_since.is_some()) {
                for (group, slot) in &seat.slots {
                    let joined = self.sockets.get(&(*group, *slot)) == seat.worker.as_ref();
                    let joining = self.joining(*group, *slot);
                    let routed = self.routes[group].contains(slot);
                    assert!(
                        routed || !joined || joining,
                        "an online worker is missing from its route"
                    );
                }
            }
        }
    }

    /// The weight that a worker shall have.
    fn weight(&self, worker: WorkerId) -> u32 {
        let view = self.alive.get(&worker).and_then(|(app, instance)| {
            Some(self.state.app_of(*app)?.spec.scheduling.weight(instance.0))
        });
        view.unwrap_or(1)
    }

    /// When everything is answered, each group has the rule of its app, or takes turns for the sake of a canary.
    pub(super) fn check_rules(&self) {
        for group in self.state.open_groups().filter(|group| !self.stale.contains(group)) {
            let app = self.state.app_of_group(group).expect("a group has an app");
            let app = self.state.app_of(app).expect("an app is there");
            let mut wanted = app.spec.scheduling.clone();
            if app.takes_turns {
                let canary = app.rollout.as_ref().map(|rollout| rollout.stage);
                assert_eq!(canary, Some(RolloutStage::Canary), "{group:?} takes turns for nobody");
                wanted.policy = Policy::RoundRobin;
            }
            assert_eq!(self.rules.get(&group), Some(&wanted), "{group:?} of app {}", app.id);
        }
    }

    pub(super) fn assert_out_of_every_route(&self, worker: WorkerId) {
        for ((group, slot), of) in &self.sockets {
            let routed = self.routes.get(group).is_some_and(|route| route.contains(slot));
            assert!(*of != worker || !routed, "worker {worker} is told to end while in the route");
        }
    }

    /// When everything is carried out, the data path knows who has fallen silent. One that is about to end is judged no
    /// more.
    fn check_silent(&self) {
        for worker in self.state.workers.values().filter(|worker| worker.is_looked_after()) {
            assert_eq!(
                self.distrusted.contains(&worker.id),
                worker.silent_for().is_some(),
                "whether connections are kept away from worker {}",
                worker.id
            );
        }
    }
}
