//! Verdicts: what a point is worth, which is a result only when the machine could do what was asked of it.

use serde::{Deserialize, Serialize};

use crate::{experiment::Kind, outcome::Outcome, point::Point};

/// The generator may be so late whatever the latencies are, in milliseconds.
const LEAST_LAG: f64 = 1.0;
/// Above that, it may make up this share of what is measured.
const SHARE: f64 = 0.25;

/// What became of a point.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It was measured.
    Measured(Box<Outcome>),
    /// The machine cannot offer this load: no result.
    NotOffered(String),
    /// This policy is not to be had here: no result.
    NotAvailable(String),
    /// Its workers serve another port, or none: no result, and that of every other point would be the same.
    NotServing(String),
    /// Something went wrong: no result.
    Failed(String),
}

impl Verdict {
    /// What was measured, if it was.
    pub fn outcome(&self) -> Option<&Outcome> {
        match self {
            Self::Measured(outcome) => Some(outcome),
            Self::NotOffered(_) | Self::NotAvailable(_) | Self::NotServing(_) | Self::Failed(_) => {
                None
            }
        }
    }

    /// Why there is no result.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Measured(_) => None,
            Self::NotOffered(why) => Some(format!("the machine cannot offer this load: {why}")),
            Self::NotAvailable(why) => Some(format!("not available: {why}")),
            Self::NotServing(why) => Some(why.clone()),
            Self::Failed(why) => Some(format!("failed: {why}")),
        }
    }
}

/// Why a load cannot be offered, before it is tried.
pub(crate) fn hopeless(point: &Point, mean: f64, cpus: usize) -> Option<String> {
    let wanted = point.rate * mean;
    let able = cpus.min(point.cell.workers as usize) as f64;
    (point.cell.kind == Kind::Cpu
        && point.setup.app.is_none()
        && wanted > able
        && !is_overload(point))
    .then(|| format!("it needs {wanted:.1} CPUs, and {able} are there for the workers"))
}

/// What a run is worth.
pub(crate) fn judge(point: &Point, outcome: Outcome) -> Verdict {
    let unable = outcome.failures.unable;
    if unable > 0 {
        return Verdict::NotOffered(format!(
            "the generator had no port or descriptor left for {unable} of {} requests",
            outcome.planned
        ));
    }
    let lag = outcome.lag.p99;
    let bound = match point.setup.max_lag {
        Some(bound) => bound.seconds() * 1e3,
        None => (outcome.latency.p99 * SHARE).max(LEAST_LAG),
    };
    if lag > bound {
        return Verdict::NotOffered(format!(
            "the generator was {lag:.1} ms late (99th percentile), and {bound:.1} ms is what may be"
        ));
    }
    if outcome.answered == 0 && outcome.failures.refused == 0 {
        return Verdict::Failed("no request was answered".to_owned());
    }
    Verdict::Measured(Box::new(outcome))
}

fn is_overload(point: &Point) -> bool {
    point.cell.load.is_some_and(|load| load >= 1.0)
}
