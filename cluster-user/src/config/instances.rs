//! How many workers: `N`, `max`, `-N` as typed after `-i`, and what `scale` takes.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Most workers one app can have: both generations of a reload fit into a group's slots.
pub const MAX_INSTANCES: u32 = 1024;

/// As typed: a number, all CPUs, or all but some.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Instances {
    /// That many.
    Exactly(u32),
    /// One per available CPU: `0` or `max`.
    PerCpu,
    /// That many fewer than CPUs, at least one: `-N`.
    PerCpuLess(u32),
}

impl Instances {
    /// The number on a host with `cpus` available CPUs.
    pub fn resolve(self, cpus: u32) -> u32 {
        match self {
            Self::Exactly(count) => count,
            Self::PerCpu => cpus.clamp(1, MAX_INSTANCES),
            Self::PerCpuLess(less) => cpus.saturating_sub(less).clamp(1, MAX_INSTANCES),
        }
    }
}

impl fmt::Display for Instances {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exactly(count) => count.fmt(f),
            Self::PerCpu => f.write_str("max"),
            Self::PerCpuLess(less) => write!(f, "-{less}"),
        }
    }
}

impl FromStr for Instances {
    type Err = InstancesError;

    fn from_str(text: &str) -> Result<Self, InstancesError> {
        match text {
            "max" | "0" => return Ok(Self::PerCpu),
            _ => {}
        }
        let bad = || InstancesError(shorten(text));
        let (less, digits) = match text.strip_prefix('-') {
            Some(digits) => (true, digits),
            None => (false, text),
        };
        match digits.parse::<u32>() {
            Ok(0) => Ok(Self::PerCpu),
            Ok(count) if count <= MAX_INSTANCES && digits.bytes().all(|b| b.is_ascii_digit()) => {
                Ok(if less { Self::PerCpuLess(count) } else { Self::Exactly(count) })
            }
            Ok(_) | Err(_) => Err(bad()),
        }
    }
}

/// As typed after `scale app`: `N`, `+N` or `-N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Scale {
    /// To that many; `max` is resolved by the command.
    To(u32),
    /// By that many, up or down.
    By(i32),
}

impl FromStr for Scale {
    type Err = InstancesError;

    fn from_str(text: &str) -> Result<Self, InstancesError> {
        let bad = || InstancesError(shorten(text));
        let digits = text.trim_start_matches(['+', '-']);
        if digits.is_empty()
            || text.len() - digits.len() > 1
            || !digits.bytes().all(|b| b.is_ascii_digit())
        {
            return Err(bad());
        }
        let count =
            digits.parse::<u32>().ok().filter(|count| *count <= MAX_INSTANCES).ok_or_else(bad)?;
        let signed = i32::try_from(count).ok().ok_or_else(bad)?;
        Ok(match text.as_bytes()[0] {
            b'+' => Self::By(signed),
            b'-' => Self::By(-signed),
            _ => Self::To(count),
        })
    }
}

/// Not a number of workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstancesError(String);

impl fmt::Display for InstancesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "`{}` is not a number of workers: expected 1 to {MAX_INSTANCES}, `max`, or `-N`",
            self.0
        )
    }
}

impl std::error::Error for InstancesError {}

fn shorten(text: &str) -> String {
    text.escape_default().take(40).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_max_and_fewer() {
        for (text, cpus, expected) in
            [("8", 2, 8), ("max", 2, 2), ("0", 6, 6), ("-1", 4, 3), ("-9", 4, 1), ("1024", 1, 1024)]
        {
            assert_eq!(text.parse::<Instances>().unwrap().resolve(cpus), expected, "-i {text}");
        }
    }

    #[test]
    fn what_is_no_number_of_workers_is_refused() {
        for text in ["0.5", "99999999", "abc", "", "+2", "--1", "1e3", "-", " 4"] {
            assert!(text.parse::<Instances>().is_err(), "-i {text:?}");
        }
    }

    #[test]
    fn scaling_is_absolute_or_by() {
        assert_eq!("3".parse::<Scale>().unwrap(), Scale::To(3));
        assert_eq!("+2".parse::<Scale>().unwrap(), Scale::By(2));
        assert_eq!("-1".parse::<Scale>().unwrap(), Scale::By(-1));
        for text in ["", "+", "-", "+-1", "x", "1.5", "99999999"] {
            assert!(text.parse::<Scale>().is_err(), "scale {text:?}");
        }
    }
}
