//! How a reload goes about: how many workers at once, how long each has to prove itself, and to whom it is shown first.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};

use super::spec::millis;

/// How a reload goes about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pace {
    /// Workers replaced at once.
    #[serde(default)]
    pub batch: Batch,
    /// How long a new worker has to stay healthy before it counts: before it gets connections, or, with a canary, while
    /// it gets its share of them.
    #[serde(default, with = "millis")]
    pub soak: Duration,
    /// Which share of the connections the new generation gets before all of them.
    #[serde(default)]
    pub canary: Option<Canary>,
}

/// Workers replaced at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Batch {
    /// So many.
    Workers(u32),
    /// So many in a hundred, rounded up.
    Percent(u32),
}

/// A share of the connections for a few workers of the new generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Canary {
    /// `part` of `of` connections.
    Share {
        /// At least 1.
        part: u32,
        /// More than `part`.
        of: u32,
    },
    /// So many workers, with as many connections each as any other.
    Workers(u32),
}

/// Why what was typed is no batch or no canary.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaceError(String);

impl fmt::Display for PaceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for PaceError {}

impl Default for Batch {
    /// A quarter: three quarters go on serving while the new ones warm up.
    fn default() -> Self {
        Self::Percent(25)
    }
}

impl Batch {
    /// How many workers of `instances` that is; at least one.
    pub fn of(self, instances: u32) -> u32 {
        match self {
            Self::Workers(workers) => workers,
            Self::Percent(percent) => {
                let share = (u64::from(instances) * u64::from(percent)).div_ceil(100);
                u32::try_from(share).unwrap_or(u32::MAX)
            }
        }
        .clamp(1, instances.max(1))
    }
}

impl TryFrom<String> for Batch {
    type Error = PaceError;

    fn try_from(text: String) -> Result<Self, PaceError> {
        text.parse()
    }
}

impl From<Batch> for String {
    fn from(typed: Batch) -> Self {
        typed.to_string()
    }
}

impl FromStr for Batch {
    type Err = PaceError;

    fn from_str(text: &str) -> Result<Self, PaceError> {
        let refused = || {
            PaceError(format!(
                "`{}` is neither a number of workers nor 1% to 100%",
                text.escape_default()
            ))
        };
        match text.strip_suffix('%') {
            Some(percent) => match percent.parse() {
                Ok(percent @ 1..=100) => Ok(Self::Percent(percent)),
                Ok(_) | Err(_) => Err(refused()),
            },
            None => match text.parse() {
                Ok(workers @ 1..) => Ok(Self::Workers(workers)),
                Ok(0) | Err(_) => Err(refused()),
            },
        }
    }
}

impl fmt::Display for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Workers(workers) => workers.fmt(f),
            Self::Percent(percent) => write!(f, "{percent}%"),
        }
    }
}

/// Finest share that can be asked for.
const FINEST: u32 = 1000;

impl Canary {
    /// New workers that it takes beside `instances` old ones.
    pub fn workers(self, instances: u32) -> u32 {
        match self {
            Self::Share { part, of } => {
                let workers = (u64::from(instances) * u64::from(part)).div_ceil(u64::from(of));
                u32::try_from(workers).unwrap_or(u32::MAX)
            }
            Self::Workers(workers) => workers,
        }
        .clamp(1, instances.max(1))
    }

    /// Turns of each new and of each old worker, so that the new ones together have exactly their share. `new` and `old`
    /// are how many there are, or what their weights add up to: each has so many turns for each of its weight.
    pub fn turns(self, new: u32, old: u32) -> (u32, u32) {
        match self {
            Self::Workers(_) => (1, 1),
            Self::Share { part, of } => {
                let (for_new, for_old) = (
                    u64::from(old) * u64::from(part),
                    u64::from(new) * u64::from(of.saturating_sub(part)),
                );
                let divisor = greatest_common_divisor(for_new, for_old).max(1);
                let turns = |turns: u64| u32::try_from(turns / divisor).unwrap_or(u32::MAX).max(1);
                (turns(for_new), turns(for_old))
            }
        }
    }
}

fn greatest_common_divisor(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { greatest_common_divisor(b, a % b) }
}

impl TryFrom<String> for Canary {
    type Error = PaceError;

    fn try_from(text: String) -> Result<Self, PaceError> {
        text.parse()
    }
}

impl From<Canary> for String {
    fn from(typed: Canary) -> Self {
        typed.to_string()
    }
}

impl FromStr for Canary {
    type Err = PaceError;

    fn from_str(text: &str) -> Result<Self, PaceError> {
        let refused = |why: &str| {
            Err(PaceError(format!(
                "`{}` is no canary: {why}",
                text.escape_default().take(20).collect::<String>()
            )))
        };
        let share = if let Some(percent) = text.strip_suffix('%') {
            // One decimal at most: 0.1 % is the finest.
            let (whole, tenths) = percent.split_once('.').unwrap_or((percent, "0"));
            match (whole.parse::<u32>(), tenths.parse::<u32>()) {
                (Ok(whole), Ok(tenths @ 0..=9)) if tenths.to_string() == tenths_of(percent) => {
                    Some((whole.saturating_mul(10).saturating_add(tenths), FINEST))
                }
                _ => return refused("a percentage is a number like 5% or 0.5%"),
            }
        } else if let Some((part, of)) = text.split_once('/') {
            match (part.parse(), of.parse()) {
                (Ok(part), Ok(of)) => Some((part, of)),
                _ => return refused("a fraction is of the form 1/16"),
            }
        } else {
            None
        };
        match share {
            Some((0, _)) => refused("a share of nothing shows nothing"),
            Some((_, FINEST.. | 0)) if !text.ends_with('%') => refused("the finest share is 1/999"),
            Some((part, of)) if part >= of => {
                refused("the old generation must keep a share; without --canary all of it moves")
            }
            Some((part, of)) => {
                let divisor =
                    u32::try_from(greatest_common_divisor(part.into(), of.into())).unwrap_or(1);
                Ok(Self::Share { part: part / divisor, of: of / divisor })
            }
            None => match text.parse() {
                Ok(workers @ 1..) => Ok(Self::Workers(workers)),
                Ok(0) | Err(_) => refused("it is a share like 5% or 1/16, or a number of workers"),
            },
        }
    }
}

/// The decimals of a percentage as typed.
fn tenths_of(percent: &str) -> &str {
    percent.split_once('.').map_or("0", |(_, tenths)| tenths)
}

impl fmt::Display for Canary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Share { part, of } if FINEST.is_multiple_of(*of) => {
                let tenths = part * (FINEST / of);
                match tenths % 10 {
                    0 => write!(f, "{}%", tenths / 10),
                    tenth => write!(f, "{}.{tenth}%", tenths / 10),
                }
            }
            Self::Share { part, of } => write!(f, "{part}/{of}"),
            Self::Workers(workers) => workers.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_batch_is_a_number_or_a_share_of_the_workers() {
        let of = |text: &str, instances| text.parse::<Batch>().unwrap().of(instances);
        assert_eq!(
            [of("3", 8), of("3", 2), of("50%", 5), of("1%", 4), of("100%", 7)],
            [3, 2, 3, 1, 7]
        );
        for text in ["0", "-1", "0%", "101%", "x", "", "%"] {
            assert!(text.parse::<Batch>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_canary_is_a_share_or_a_number_of_workers() {
        let parse = |text: &str| text.parse::<Canary>().unwrap();
        assert_eq!(parse("5%"), Canary::Share { part: 1, of: 20 });
        assert_eq!(parse("0.5%"), Canary::Share { part: 1, of: 200 });
        assert_eq!(parse("1/16"), Canary::Share { part: 1, of: 16 });
        assert_eq!(parse("1"), Canary::Workers(1));
        for text in ["5%", "0.5%", "1/16", "12.5%", "3"] {
            assert_eq!(parse(&parse(text).to_string()), parse(text));
        }
    }

    #[test]
    fn what_is_no_share_is_refused() {
        for text in
            ["0%", "100%", "-5%", "0/5", "5/5", "7/5", "1/0", "0", "-1", "", "x", "1.05%", "1/5000"]
        {
            assert!(text.parse::<Canary>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn the_share_is_exact(part in 1u32..50, rest in 1u32..50, new in 1u32..9, old in 1u32..30) {
            let canary = Canary::Share { part, of: part + rest };
            let (for_new, for_old) = canary.turns(new, old);
            let (new, old) = (u64::from(new) * u64::from(for_new), u64::from(old) * u64::from(for_old));
            prop_assert_eq!(new * u64::from(part + rest), (new + old) * u64::from(part));
        }
    }
}
