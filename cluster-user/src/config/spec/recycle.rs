//! When a worker that is well is replaced all the same.

use std::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use super::{super::duration, optional_millis};
use crate::config::{cron::Cron, size};

/// Share of a lifetime by which the lives of an app's workers differ, in per cent.
pub const JITTER: u32 = 10;

/// Shorter lives are a mistake.
const LEAST_LIFETIME: Duration = Duration::from_secs(1);

/// When a worker that is well is replaced all the same, through the reload that loses nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Recycle {
    /// One that uses more bytes of memory than this, with all its processes.
    #[serde(default)]
    pub max_memory: Option<u64>,
    /// One that has been online this long, less a share that differs from worker to worker.
    #[serde(default, with = "optional_millis")]
    pub max_lifetime: Option<Duration>,
    /// The whole app, at these times.
    #[serde(default)]
    pub cron: Option<Cron>,
}

impl Recycle {
    /// Whether single workers are to be looked at.
    pub fn of_workers(&self) -> bool {
        self.max_memory.is_some() || self.max_lifetime.is_some()
    }

    /// Checks what its types leave open.
    ///
    /// # Errors
    /// A lowercase fragment that names the field.
    pub fn check(&self) -> Result<(), String> {
        if self.max_memory.is_some_and(|bytes| bytes < 1 << 20) {
            // A mistyped unit; every worker would be replaced for ever.
            return Err("max_memory_restart is below 1M".to_owned());
        }
        match self.max_lifetime {
            Some(life) if life < LEAST_LIFETIME => Err("max_lifetime is below 1s".to_owned()),
            Some(life) if life > duration::MAX => {
                Err("max_lifetime is longer than a year".to_owned())
            }
            Some(_) | None => Ok(()),
        }?;
        let cron = self.cron.as_ref().map(Cron::schedule).transpose();
        cron.map(drop).map_err(|error| format!("cron_restart: {error}"))
    }

    /// How long this worker may be online: workers that came at the same time do not go at the same time.
    pub fn lifetime_of(&self, worker: crate::id::WorkerId) -> Option<Duration> {
        let whole = self.max_lifetime?;
        // Neighbouring numbers get far-apart shares, the same ones after the daemon was replaced (Knuth's
        // multiplicative hash, 2^64 / golden ratio).
        let share = (worker.0.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 48) as u32;
        Some(whole.saturating_sub(whole * JITTER / 100 * share / u32::from(u16::MAX)))
    }
}

/// Why one worker is recycled. Displays as a fragment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Worn {
    /// It uses more memory than it may.
    Memory {
        /// Bytes.
        used: u64,
        /// Bytes.
        max: u64,
    },
    /// It has been online for as long as it may.
    Lifetime {
        /// How long it has been.
        #[serde(with = "super::millis")]
        lived: Duration,
    },
}

impl fmt::Display for Worn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { used, max } => {
                write!(f, "uses {}, more than {}", size::show(*used), size::show(*max))
            }
            Self::Lifetime { lived } => {
                let seconds = Duration::from_secs(lived.as_secs());
                write!(
                    f,
                    "has been online for {}",
                    duration::format(seconds.max(Duration::from_secs(1)))
                )
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::id::WorkerId;

    #[test]
    fn workers_live_for_different_lengths_none_for_longer_than_allowed() {
        let hour = Duration::from_hours(1);
        let recycle = Recycle { max_lifetime: Some(hour), ..Recycle::default() };
        let lives: BTreeSet<_> =
            (0..100).filter_map(|id| recycle.lifetime_of(WorkerId(id))).collect();
        assert_eq!(lives.len(), 100);
        assert!(lives.iter().all(|life| *life <= hour && *life >= hour * 9 / 10));
        let spread = lives.last().unwrap().saturating_sub(*lives.first().unwrap());
        assert!(spread > hour * 8 / 100, "{spread:?}");
        let year = Recycle { max_lifetime: Some(duration::MAX), ..Recycle::default() };
        assert!(year.lifetime_of(WorkerId(u64::MAX)) > Some(duration::MAX * 8 / 10));
    }

    #[test]
    fn why_a_worker_is_worn_is_a_fragment() {
        let worn = Worn::Memory { used: 160 * 1024 * 1024, max: 150 * 1024 * 1024 };
        assert_eq!(worn.to_string(), "uses 160M, more than 150M");
        let worn = Worn::Lifetime { lived: Duration::from_millis(7_200_400) };
        assert_eq!(worn.to_string(), "has been online for 2h");
    }
}
