//! Whether connections are kept away from a worker because it has fallen silent: its health and the guard of its app decide.
//!
//! Only of workers that serve, or are about to. Whoever drains gets no connections anyway, and is judged anew if it serves
//! again.

use super::{State, announcement::What, effect::Effect};
use crate::moment::Moment;

impl State {
    /// Tells the data path of every worker that has fallen silent, or has been heard again.
    pub(super) fn settle_heartbeats(&mut self, now: Moment) {
        let mut news = Vec::new();
        for worker in self.workers.values_mut().filter(|worker| worker.is_looked_after()) {
            let guard = self.apps.get(&worker.app).map(|app| app.spec().scheduling.guard);
            let silence = guard.and_then(|guard| guard.silence(worker.spec.watchdog));
            let before = worker.health.told();
            let distrusted = worker.health.listen(now, silence, worker.spec.watchdog.is_some());
            if before == Some(distrusted) {
                continue;
            }
            self.effects.push(Effect::Distrust { worker: worker.id, distrusted });
            let what = match worker.health.silent_for() {
                Some(silence) => What::Silent { silence },
                None => What::Heard,
            };
            // A supervisor that takes over says what has been so to the data path only.
            news.extend(before.map(|_| (worker.id, what)));
        }
        for (worker, what) in news {
            self.announce_worker(worker, what);
        }
    }
}
