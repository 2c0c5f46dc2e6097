//! Workers that accept nothing, as whoever looks at them from outside sees it.
//!
//! The guard looks at whom a policy picks. One at which connections wait already is not picked by least-conn, queue and p2c,
//! so that the guard has nothing to do with it, and does not find out.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use cluster_common::load::TICK_SHIFT;

/// Sockets at which connections waited at the last look, by cookie.
#[derive(Debug, Default)]
pub(super) struct Stalls(BTreeMap<u64, Waiting>);

#[derive(Clone, Copy, Debug)]
struct Waiting {
    /// Connections that its worker had accepted.
    accepted: u64,
    /// When connections were first seen to wait with as many accepted.
    since: Instant,
}

impl Stalls {
    /// Whether a socket at which `queued` connections wait has not accepted any for `patience` ticks, as far as looks tell:
    /// the first one never does.
    pub(super) fn look(
        &mut self,
        cookie: u64,
        accepted: u64,
        queued: u64,
        patience: u32,
        now: Instant,
    ) -> bool {
        if queued == 0 || patience == 0 {
            self.0.remove(&cookie);
            return false;
        }
        let seen = Waiting { accepted, since: now };
        let waiting = self.0.entry(cookie).or_insert(seen);
        if waiting.accepted != accepted {
            *waiting = seen;
        }
        let patience = Duration::from_nanos(u64::from(patience) << TICK_SHIFT);
        now.duration_since(waiting.since) >= patience
    }

    /// Forgets all sockets but these.
    pub(super) fn keep(&mut self, is_there: impl Fn(u64) -> bool) {
        self.0.retain(|cookie, _| is_there(*cookie));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PATIENCE: u32 = 8;

    #[test]
    fn who_accepts_nothing_between_two_looks_is_stalled() {
        let (mut stalls, began) = (Stalls::default(), Instant::now());
        let mut look = |after, accepted, queued| {
            let now = began + Duration::from_millis(after);
            stalls.look(1, accepted, queued, PATIENCE, now)
        };
        assert!(!look(0, 7, 1), "it may have come in this moment");
        assert!(!look(5, 7, 2), "it has had little time");
        assert!(look(1000, 7, 2));
        assert!(!look(2000, 8, 2), "it goes on");
        assert!(look(3000, 8, 2));
        assert!(!look(4000, 8, 0), "those that waited are gone");
        assert!(!look(5000, 8, 1), "this one has come since");
    }

    #[test]
    fn without_a_guard_nobody_is_and_who_is_gone_is_forgotten() {
        let (mut stalls, now) = (Stalls::default(), Instant::now());
        let later = now + Duration::from_secs(1);
        assert!(!stalls.look(1, 7, 1, 0, now) && !stalls.look(1, 7, 1, 0, later));
        assert!(!stalls.look(1, 7, 1, PATIENCE, now));
        stalls.keep(|cookie| cookie != 1);
        assert!(!stalls.look(1, 7, 1, PATIENCE, later));
    }
}
