//! Faults: what happens to the workers while they are asked.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{nearest, refusal::Refusal, span::Span, words::Words};

/// As experiments name them.
const NAMES: &[&str] = &["none", "freeze", "kill", "slow", "reload", "noise"];

/// What happens, to whom, and when. `freeze worker=0 at=1s for=3s`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Fault {
    /// What happens.
    pub kind: FaultKind,
    /// Which worker it happens to.
    pub worker: u32,
    /// When, after the warm-up; a quarter of the run when nothing is said.
    pub at: Option<Span>,
    /// For how long; three tenths of the run when nothing is said.
    pub lasts: Option<Span>,
    /// How many times slower a slow worker is.
    pub factor: f64,
}

/// What may happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FaultKind {
    /// Nothing.
    #[default]
    None,
    /// A worker is stopped (SIGSTOP), and continued.
    Freeze,
    /// A worker is killed (SIGKILL).
    Kill,
    /// A worker takes several times as long.
    Slow,
    /// All workers are replaced.
    Reload,
    /// A neighbour takes all CPUs that the workers have.
    Noise,
}

impl Default for Fault {
    /// Nothing.
    fn default() -> Self {
        Self { kind: FaultKind::None, worker: 0, at: None, lasts: None, factor: 1.0 }
    }
}

impl FaultKind {
    /// As experiments name it.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Freeze => "freeze",
            Self::Kill => "kill",
            Self::Slow => "slow",
            Self::Reload => "reload",
            Self::Noise => "noise",
        }
    }

    /// Whether it happens to one worker.
    pub fn has_victim(self) -> bool {
        matches!(self, Self::Freeze | Self::Kill | Self::Slow)
    }

    /// Whether it lasts.
    pub fn lasts(self) -> bool {
        matches!(self, Self::Freeze | Self::Slow | Self::Noise)
    }

    fn keys(self) -> &'static [&'static str] {
        match self {
            Self::None => &[],
            Self::Freeze => &["worker", "at", "for"],
            Self::Kill => &["worker", "at"],
            Self::Slow => &["worker", "at", "for", "factor"],
            Self::Reload => &["at"],
            Self::Noise => &["at", "for"],
        }
    }
}

impl Fault {
    /// The same with its times filled in for a run of this length.
    #[must_use]
    pub fn within(mut self, length: Span) -> Self {
        if self.kind != FaultKind::None {
            let part = |tenths| Span(length.0 * tenths / 20);
            let at = *self.at.get_or_insert(part(5));
            if self.kind.lasts() {
                self.lasts.get_or_insert(Span(part(6).0.min(length.0.saturating_sub(at.0))));
            }
        }
        self
    }
}

impl FromStr for Fault {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut words = Words::new(text);
        let kind = match words.name {
            "none" => FaultKind::None,
            "freeze" => FaultKind::Freeze,
            "kill" => FaultKind::Kill,
            "slow" => FaultKind::Slow,
            "reload" => FaultKind::Reload,
            "noise" => FaultKind::Noise,
            other => {
                return Err(Refusal::usage(format!("`{other}` is no fault"))
                    .hint(nearest::hint(other, NAMES)));
            }
        };
        let keys = kind.keys();
        let mut fault = Self { kind, ..Self::default() };
        if keys.contains(&"worker") {
            fault.worker = words.keyed("worker", "the number of a worker")?.unwrap_or(0);
        }
        if keys.contains(&"at") {
            fault.at = words.keyed("at", "a span of time")?;
        }
        if keys.contains(&"for") {
            fault.lasts = words.keyed("for", "a span of time")?;
        }
        if keys.contains(&"factor") {
            fault.factor = words.keyed("factor", "a number")?.unwrap_or(10.0);
            if !(fault.factor > 1.0 && fault.factor <= 1e6) {
                return Err(Refusal::usage(format!("`{text}` is impossible: factor is above 1")));
            }
        }
        words.end(keys)?;
        Ok(fault)
    }
}

impl TryFrom<String> for Fault {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Fault> for String {
    fn from(fault: Fault) -> Self {
        fault.to_string()
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.kind.name())?;
        if self.kind.has_victim() {
            write!(f, " worker={}", self.worker)?;
        }
        if let Some(at) = self.at {
            write!(f, " at={at}")?;
        }
        if let Some(lasts) = self.lasts {
            write!(f, " for={lasts}")?;
        }
        if self.kind == FaultKind::Slow {
            write!(f, " factor={}", self.factor)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for text in [
            "none",
            "freeze worker=0 at=1s for=3s",
            "kill worker=2",
            "slow worker=0 factor=4",
            "reload at=1s",
        ] {
            assert_eq!(text.parse::<Fault>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn times_that_are_not_said_are_parts_of_the_run() {
        let fault: Fault = "freeze".parse().unwrap();
        let fault = fault.within(Span::millis(10_000));
        assert_eq!(fault.to_string(), "freeze worker=0 at=2500ms for=3s");
    }

    #[test]
    fn what_is_no_fault_is_refused_with_the_nearest() {
        let refused = "freze".parse::<Fault>().unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("did you mean `freeze`?"));
        let refused = "kill for=3s".parse::<Fault>().unwrap_err();
        assert!(refused.message.contains("`for`"), "{}", refused.message);
        assert!("slow factor=0.5".parse::<Fault>().is_err());
        let refused = "freeze worker=1 at=1s worker=2".parse::<Fault>().unwrap_err();
        assert!(refused.message.starts_with("`worker` is given twice"), "{}", refused.message);
    }
}
