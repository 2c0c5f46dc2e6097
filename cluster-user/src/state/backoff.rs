//! How long to wait before a worker that failed is started again.

use std::time::Duration;

use crate::config::spec::RestartPolicy;

/// First wait that is not zero.
const FIRST: Duration = Duration::from_millis(100);
/// Longest wait, as PM2's `exp_backoff_restart_delay` has it.
const LONGEST: Duration = Duration::from_secs(15);
/// A worker that was never ready since it was asked for is given up after this many attempts: what fails
/// three times at boot is a broken start, and the user waits for the answer.
pub(super) const UNPROVEN_ATTEMPTS: u32 = 3;

/// What follows a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start again after this long.
    Wait(Duration),
    /// Start no more.
    GiveUp,
}

/// Judges a worker whose last `unstable` runs in a row were too short (0: the last one was long enough).
pub(super) fn judge(policy: &RestartPolicy, unstable: u32, proven: bool) -> Verdict {
    let limit =
        if proven { policy.max_restarts } else { policy.max_restarts.min(UNPROVEN_ATTEMPTS) };
    if unstable > 0 && unstable >= limit {
        return Verdict::GiveUp;
    }
    if !policy.restart_delay.is_zero() {
        return Verdict::Wait(policy.restart_delay);
    }
    // The first failure is replaced at once; from then on each wait is half as long again.
    let (first, steps) = match policy.exp_backoff {
        Some(first) => (first, unstable.saturating_sub(1)),
        None => match unstable.checked_sub(2) {
            Some(steps) => (FIRST, steps),
            None => return Verdict::Wait(Duration::ZERO),
        },
    };
    let mut wait = first.min(LONGEST);
    for _ in 0..steps.min(32) {
        wait = (wait * 3 / 2).min(LONGEST);
    }
    Verdict::Wait(wait)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_first_failure_is_replaced_at_once_and_the_next_ones_wait_ever_longer() {
        let waits: Vec<_> = (0..6).map(|unstable| judge(&policy(16, 0), unstable, true)).collect();
        let millis = |ms| Verdict::Wait(Duration::from_millis(ms));
        assert_eq!(
            waits,
            [
                millis(0),
                millis(0),
                millis(100),
                millis(150),
                millis(225),
                Verdict::Wait(Duration::from_micros(337_500))
            ]
        );
    }

    #[test]
    fn sixteen_unstable_runs_are_enough() {
        assert_eq!(judge(&policy(16, 0), 16, true), Verdict::GiveUp);
        assert_ne!(judge(&policy(16, 0), 15, true), Verdict::GiveUp);
    }

    #[test]
    fn what_was_never_ready_is_given_up_soon() {
        assert_eq!(judge(&policy(16, 0), 3, false), Verdict::GiveUp);
        assert_eq!(judge(&policy(1, 0), 1, false), Verdict::GiveUp);
    }

    #[test]
    fn a_fixed_delay_is_kept() {
        assert_eq!(judge(&policy(16, 700), 0, true), Verdict::Wait(Duration::from_millis(700)));
        assert_eq!(judge(&policy(16, 700), 9, true), Verdict::Wait(Duration::from_millis(700)));
    }

    #[test]
    fn a_first_wait_that_was_asked_for_grows_from_the_first_failure_on() {
        let policy =
            RestartPolicy { exp_backoff: Some(Duration::from_millis(200)), ..policy(99, 0) };
        let waits = [0, 1, 2, 3].map(|unstable| judge(&policy, unstable, true));
        let millis =
            [200, 200, 300, 450, 15_000].map(|ms| Verdict::Wait(Duration::from_millis(ms)));
        assert_eq!(waits[..], millis[..4]);
        assert_eq!(judge(&policy, 98, true), millis[4]);
    }

    proptest! {
        #[test]
        fn waits_grow_and_stay_below_the_longest(unstable in 0u32..10_000) {
            let policy = policy(u32::MAX, 0);
            let (Verdict::Wait(now), Verdict::Wait(next)) =
                (judge(&policy, unstable, true), judge(&policy, unstable + 1, true)) else { panic!() };
            prop_assert!(now <= next && next <= LONGEST);
        }
    }

    fn policy(max_restarts: u32, restart_delay: u64) -> RestartPolicy {
        RestartPolicy {
            autorestart: true,
            max_restarts,
            min_uptime: Duration::from_secs(1),
            restart_delay: Duration::from_millis(restart_delay),
            exp_backoff: None,
            stop_exit_codes: vec![],
        }
    }
}
