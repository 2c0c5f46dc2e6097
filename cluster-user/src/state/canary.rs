//! A canary: a few workers of the new generation with a share of the connections, until they are promoted or go back.

use std::time::Duration;

use super::{
    State,
    effect::{Aside, Effect, Tale},
    rollout::{Rollout, Stage},
    why::Why,
    worker::Input,
};
use crate::{
    id::{AppId, WorkerId},
    moment::Moment,
};

/// How often it is looked how a canary does that is to be promoted by itself.
const LOOK: Duration = Duration::from_secs(1);
/// Connections may wait for a new worker: so many more than twice those for an old one, at so many looks in a row,
/// are no chance any more.
const WAITING: u32 = 4;
const LOOKS: u32 = 3;

impl State {
    pub(super) fn drive_canary(&mut self, now: Moment, id: AppId, rollout: &Rollout) {
        let Stage::Canary { since, look, bad } = rollout.stage else { return };
        let seats = self.canary_seats(id, rollout);
        for instance in &seats {
            if self.seat_at(id, *instance).is_some_and(|seat| seat.successor.is_none()) {
                self.spawn_beside(now, id, *instance, rollout.target);
            }
        }
        let canaries: Vec<_> = seats
            .iter()
            .filter_map(|instance| self.seat_at(id, *instance).and_then(|seat| seat.successor))
            .collect();
        let ready = |canary: &WorkerId| {
            let worker = self.workers.get(canary);
            worker.is_some_and(|worker| worker.online() || worker.ready_since().is_some())
        };
        let stage = match since {
            None if canaries.iter().all(ready) => {
                for canary in canaries {
                    self.step(now, canary, Input::Promote);
                }
                Stage::Canary { since: Some(now), look: now + LOOK, bad: 0 }
            }
            None => return,
            // Who waits hears by which rule it has its share.
            Some(_) if rollout.pace.soak.is_zero() && self.is_settling(id) => return,
            // It stays until somebody says what becomes of it; who asked for it need not wait for that.
            Some(_) if rollout.pace.soak.is_zero() => {
                let calls = self
                    .apps
                    .get_mut(&id)
                    .and_then(|app| app.rollout.as_mut())
                    .map(|rollout| std::mem::take(&mut rollout.calls));
                let done = Tale::Done { apps: vec![id], deleted: Vec::new() };
                return self.rolled(calls.unwrap_or_default(), id, &done);
            }
            Some(_) if now < look => return,
            Some(since) => {
                let bad = match self.congestion(id, rollout) {
                    None => 0,
                    Some((worker, why)) if bad + 1 >= LOOKS => {
                        return self.congested(id, worker, why);
                    }
                    Some(_) => bad + 1,
                };
                if now >= since + rollout.pace.soak && bad == 0 {
                    self.tell_of_nothing(id, rollout);
                    Stage::Forward
                } else {
                    self.measure_all(id);
                    // The end of the soak is not slept through.
                    let end = since + rollout.pace.soak;
                    let look = now + LOOK;
                    let look = if end > now { look.min(end) } else { look };
                    Stage::Canary { since: Some(since), look, bad }
                }
            }
        };
        if let Some(rollout) = self.apps.get_mut(&id).and_then(|app| app.rollout.as_mut()) {
            rollout.stage = stage;
        }
    }

    /// Tells who waits for a reload that nothing came to its canary, so that nothing is proved.
    fn tell_of_nothing(&mut self, id: AppId, rollout: &Rollout) {
        let canaries = self.workers.values().filter(|worker| {
            worker.app == id && worker.generation == rollout.target && worker.online()
        });
        let received: Option<u64> =
            canaries.map(|worker| worker.traffic.and_then(|traffic| traffic.received)).sum();
        if received == Some(0) {
            for call in &rollout.calls {
                let name = self.name(id);
                self.tell(*call, Tale::Aside(Aside::Untried { name }));
            }
        }
    }

    /// Asks what the workers of an app have to do.
    fn measure_all(&mut self, id: AppId) {
        let of_app = self.workers.values().filter(|worker| worker.app == id && worker.online());
        let measures: Vec<_> = of_app.map(|worker| Effect::Measure { worker: worker.id }).collect();
        self.effects.extend(measures);
    }

    /// Whether many more connections wait for a new worker than for an old one: for which, and how many.
    fn congestion(&self, id: AppId, rollout: &Rollout) -> Option<(WorkerId, Why)> {
        let (mut new, mut old) = (Vec::new(), Vec::new());
        for worker in self.workers.values().filter(|worker| worker.app == id && worker.online()) {
            let Some(traffic) = worker.traffic else { continue };
            let side = if worker.generation == rollout.target { &mut new } else { &mut old };
            // What the guard keeps away from one that hangs would wait for it as well.
            side.push((worker.id, traffic.queued.saturating_add(traffic.spared)));
        }
        let mean = |side: &[(WorkerId, u32)]| {
            let sum = side.iter().fold(0_u32, |sum, (_, waiting)| sum.saturating_add(*waiting));
            sum / u32::try_from(side.len()).ok().filter(|count| *count > 0).unwrap_or(1)
        };
        let (for_new, for_old) = (mean(&new), mean(&old));
        let (worker, _) = new.into_iter().max_by_key(|(_, waiting)| *waiting)?;
        (for_new > for_old.saturating_mul(2).saturating_add(WAITING))
            .then_some((worker, Why::Congested { new: for_new, old: for_old }))
    }
}
