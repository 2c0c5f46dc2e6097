//! Moments that one process can write down and the next one understand.

use std::{
    ops::{Add, Sub},
    time::{Duration, Instant},
};

use serde::{Deserialize, Serialize};

use crate::config::spec::millis;

/// A moment of `CLOCK_MONOTONIC`, which counts from the boot of the host and which all its processes share; unlike an
/// [`Instant`] it can be kept in a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Moment(#[serde(with = "millis")] Duration);

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
        // Whole milliseconds, so that what is read back from a file is what was written.
        let millis = u64::try_from(now.tv_nsec).unwrap_or_default() / 1_000_000;
        Self(Duration::from_secs(seconds) + Duration::from_millis(millis))
    }

    /// How long after `earlier` it is; zero if it is not.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// When a timer has to ring for it not to be too early.
    pub fn instant(self) -> Instant {
        // Rounding took up to a millisecond away from `now`.
        Instant::now() + self.since(Self::now())
    }
}

impl Add<Duration> for Moment {
    type Output = Self;

    fn add(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(duration))
    }
}

impl Sub for Moment {
    type Output = Duration;

    fn sub(self, earlier: Self) -> Duration {
        self.since(earlier)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_survives_a_file() {
        let now = Moment::now();
        let text = serde_json::to_string(&now).unwrap();
        assert_eq!(serde_json::from_str::<Moment>(&text).unwrap(), now);
    }

    #[test]
    fn a_timer_for_a_moment_does_not_ring_early() {
        let later = Moment::now() + Duration::from_millis(20);
        std::thread::sleep(later.instant().saturating_duration_since(Instant::now()));
        // A millisecond at most is lost to rounding.
        assert!(Moment::now() + Duration::from_millis(1) >= later);
    }

    #[test]
    fn what_is_later_is_not_before() {
        let now = Moment::now();
        assert_eq!(now.since(now + Duration::from_secs(1)), Duration::ZERO);
        assert_eq!((now + Duration::from_secs(1)) - now, Duration::from_secs(1));
    }
}
