//! How a reload goes, for those who wait for it: each worker's step once.

use super::{
    State,
    effect::{Doing, Tale},
    rollout::{Rollout, Setback, Stage},
    worker::{Phase, Worker},
};
use crate::id::AppId;

impl State {
    /// Tells those who wait where the workers of a reload are now, if that is somewhere else than before.
    pub(super) fn tell_doings(&mut self, id: AppId) {
        let Some(app) = self.apps.get(&id) else { return };
        let Some(rollout) = &app.rollout else { return };
        if rollout.calls.is_empty() {
            return;
        }
        let mut tales = Vec::new();
        let mut told = rollout.told.clone();
        let concerned = |worker: &&Worker| {
            worker.app == id && (worker.generation == rollout.target || worker.ending.is_some())
        };
        for worker in self.workers.values().filter(concerned) {
            let doing = doing(worker, rollout);
            if told.get(&worker.id) == Some(&doing) {
                continue;
            }
            told.insert(worker.id, doing.clone());
            let (instance, generation) = (worker.instance, worker.generation);
            tales.push(Tale::Rolling { app: id, instance, generation, doing });
        }
        let calls = rollout.calls.clone();
        if let Some(rollout) = self.apps.get_mut(&id).and_then(|app| app.rollout.as_mut()) {
            rollout.told = told;
        }
        for tale in tales {
            for call in &calls {
                self.tell(*call, tale.clone());
            }
        }
    }

    /// Tells those who wait that everything goes back.
    pub(super) fn tell_back(&mut self, id: AppId) {
        let Some(rollout) = self.apps.get(&id).and_then(|app| app.rollout.as_ref()) else { return };
        let why = match &rollout.stage {
            Stage::Back(Setback::Failed { instance, why, .. }) => Some((*instance, why.clone())),
            Stage::Back(Setback::Asked { .. })
            | Stage::Canary { .. }
            | Stage::Forward
            | Stage::Counting(_) => None,
        };
        for call in rollout.calls.clone() {
            self.tell(call, Tale::Back { app: id, why: why.clone() });
        }
    }
}

fn doing(worker: &Worker, rollout: &Rollout) -> Doing {
    match &worker.phase {
        Phase::Spawning | Phase::Starting { .. } => Doing::Starting,
        Phase::Probing { last, .. } => Doing::Probing(last.clone()),
        Phase::Ready { since } if !rollout.pace.soak.is_zero() && rollout.pace.canary.is_none() => {
            Doing::Soaking(*since + rollout.pace.soak)
        }
        Phase::Ready { .. } => Doing::Ready,
        Phase::Online { .. } => match (&rollout.stage, rollout.pace.canary) {
            (Stage::Canary { .. }, Some(canary)) => Doing::Canary(canary),
            (Stage::Canary { .. } | Stage::Forward | Stage::Back(_) | Stage::Counting(_), _) => {
                Doing::Serving
            }
        },
        Phase::Draining { .. } => {
            Doing::Draining(worker.traffic.map(|traffic| traffic.established))
        }
        Phase::Hooking { .. } | Phase::Stopping { .. } | Phase::Killing { .. } => Doing::Stopping,
        Phase::Sweeping => Doing::Gone,
    }
}
