//! CPUs that workers run on: `0-3,6`, or `spread` for one each.

use std::{collections::BTreeSet, fmt, fs, str::FromStr};

/// The number of the last CPU that a kernel can have (`CONFIG_NR_CPUS` is at most 8192).
const LAST: u32 = 8191;

/// CPUs that workers run on.
///
/// It is written as one text; its definition makes it so (`definition/resources.rs`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cpus {
    /// Any of these; at least one.
    List(BTreeSet<u32>),
    /// Each worker on one, in turn.
    Spread,
}

impl Cpus {
    /// Those that a worker may run on, of all that this host lets it have; empty when there are none of its list.
    pub fn of(&self, instance: u32, available: &BTreeSet<u32>) -> BTreeSet<u32> {
        match self {
            Self::List(list) => list.intersection(available).copied().collect(),
            Self::Spread => {
                let turn = usize::try_from(instance).unwrap_or(0) % available.len().max(1);
                available.iter().nth(turn).copied().into_iter().collect()
            }
        }
    }
}

impl FromStr for Cpus {
    type Err = CpusError;

    fn from_str(text: &str) -> Result<Self, CpusError> {
        if matches!(text, "spread" | "auto") {
            return Ok(Self::Spread);
        }
        list(text)
            .map(Self::List)
            .ok_or_else(|| CpusError(text.escape_default().take(40).collect()))
    }
}

impl fmt::Display for Cpus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::List(list) => f.write_str(&show(list)),
            Self::Spread => f.write_str("spread"),
        }
    }
}

/// CPUs that are there and running (`/sys/devices/system/cpu/online`); `None` where that cannot be read.
pub fn online() -> Option<BTreeSet<u32>> {
    list(fs::read_to_string("/sys/devices/system/cpu/online").ok()?.trim())
}

/// Writes a list in the kernel's form: `0-3,6`.
pub fn show(list: &BTreeSet<u32>) -> String {
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for cpu in list {
        match ranges.last_mut() {
            Some((_, last)) if *last + 1 == *cpu => *last = *cpu,
            Some(_) | None => ranges.push((*cpu, *cpu)),
        }
    }
    let one = |(first, last): (u32, u32)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    ranges.into_iter().map(one).collect::<Vec<_>>().join(",")
}

/// Reads numbers in the kernel's form; `None` when it is something else.
pub(super) fn list(text: &str) -> Option<BTreeSet<u32>> {
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| text.parse::<u32>().ok())?.filter(|cpu| *cpu <= LAST)
    };
    let mut list = BTreeSet::new();
    for part in text.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (number(first.trim())?, number(last.trim())?);
        if first > last {
            return None;
        }
        list.extend(first..=last);
    }
    Some(list)
}

/// No CPUs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpusError(String);

impl fmt::Display for CpusError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` names no CPUs: expected a list such as 0-3,6, or `spread`", self.0)
    }
}

impl std::error::Error for CpusError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_numbers_and_ranges() {
        for (text, shown) in [("0-3,6", "0-3,6"), ("1", "1"), ("3, 1,2", "1-3"), ("auto", "spread")]
        {
            assert_eq!(text.parse::<Cpus>().unwrap().to_string(), shown, "{text}");
        }
        for text in ["", ",", "3-1", "-1", "a", "0-99999", "8192", "1-2-3", "+1"] {
            assert!(text.parse::<Cpus>().is_err(), "{text}");
        }
        assert!(online().unwrap().contains(&0));
    }

    #[test]
    fn spread_workers_get_one_each_in_turn() {
        let available = BTreeSet::from([2, 5, 7]);
        let spread: Vec<_> =
            (0..4).map(|instance| show(&Cpus::Spread.of(instance, &available))).collect();
        assert_eq!(spread, ["2", "5", "7", "2"]);
        let list = "0-5".parse::<Cpus>().unwrap();
        assert_eq!(show(&list.of(1, &available)), "2,5");
        assert!(Cpus::Spread.of(0, &BTreeSet::new()).is_empty());
    }
}
