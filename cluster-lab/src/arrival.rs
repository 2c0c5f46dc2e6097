//! Arrivals: when each request is due, and how long it keeps a worker busy.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
    time::Duration,
};

use rand_distr::{Distribution as _, Exp1};
use rand_pcg::{Pcg64Mcg, rand_core::SeedableRng as _};
use serde::{Deserialize, Serialize};

use crate::{distribution::Source, input, nearest, refusal::Refusal, words::Words};

/// More of them would be no experiment but an accident.
const MOST: usize = 50_000_000;

/// How requests arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Arrivals {
    /// `poisson`: at random, as independent clients do.
    #[default]
    Poisson,
    /// `uniform`: at the same distance from each other.
    Uniform,
    /// `trace FILE`: seconds since its beginning, one number per line, stretched to the rate that is asked for.
    Trace(PathBuf),
}

/// One request as it is planned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Nanoseconds after the beginning.
    pub due: u64,
    /// Nanoseconds that it keeps a worker busy.
    pub service: u64,
}

impl Arrivals {
    /// Whether there is something to plan by.
    ///
    /// # Errors
    /// When a trace cannot be read.
    pub fn check(&self) -> Result<(), Refusal> {
        match self {
            Self::Poisson | Self::Uniform => Ok(()),
            Self::Trace(file) => Gaps::read(file, 1.0).map(drop),
        }
    }

    /// All requests of a run: the same seed makes the same ones, whoever answers them.
    ///
    /// # Errors
    /// When a trace cannot be read, or there would be too many.
    pub fn plan(
        &self,
        rate: f64,
        length: Duration,
        service: &mut Source,
        seed: u64,
    ) -> Result<Vec<Arrival>, Refusal> {
        if rate * length.as_secs_f64() > MOST as f64 {
            return Err(Refusal::usage(format!(
                "{rate:.0} requests/s for {} s are more than {MOST}",
                length.as_secs()
            )));
        }
        // Two streams, so that the times between requests stay the same whatever is served.
        let mut when = Pcg64Mcg::seed_from_u64(seed);
        let mut what = Pcg64Mcg::seed_from_u64(!seed);
        let end = length.as_nanos() as u64;
        let mean = 1e9 / rate;
        let mut trace = match self {
            Self::Poisson | Self::Uniform => None,
            Self::Trace(file) => Some(Gaps::read(file, mean)?),
        };
        let mut arrivals = Vec::new();
        let mut at = 0.0;
        loop {
            at += match (&self, &mut trace) {
                (_, Some(gaps)) => gaps.next(),
                (Self::Uniform, None) => mean,
                (Self::Poisson | Self::Trace(_), None) => {
                    let gap: f64 = Exp1.sample(&mut when);
                    gap * mean
                }
            };
            let due = at as u64;
            if due >= end {
                return Ok(arrivals);
            }
            arrivals.push(Arrival { due, service: service.draw(&mut what) });
        }
    }
}

/// Distances between the arrivals of a trace, again and again.
struct Gaps {
    gaps: Vec<f64>,
    next: usize,
}

impl Gaps {
    /// Reads a trace and stretches it until its mean distance is this, in nanoseconds.
    fn read(file: &Path, mean: f64) -> Result<Self, Refusal> {
        let name = file.display();
        let text = input::read_again(file, input::TRACE)
            .map_err(|error| Refusal::usage(format!("failed to read the trace {name}: {error}")))?;
        let mut gaps = Vec::new();
        let mut last = 0.0;
        for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
            let at: Option<f64> = line.trim().parse().ok();
            let at = at.filter(|at| at.is_finite() && *at >= last).ok_or_else(|| {
                Refusal::usage(format!(
                    "{name}:{number}: `{line}` is no time in seconds after {last}"
                ))
            })?;
            gaps.push(at - last);
            last = at;
        }
        if last <= 0.0 {
            return Err(Refusal::usage(format!("the trace {name} has no arrivals")));
        }
        let stretch = mean * gaps.len() as f64 / last;
        for gap in &mut gaps {
            *gap *= stretch;
        }
        Ok(Self { gaps, next: 0 })
    }

    fn next(&mut self) -> f64 {
        let gap = self.gaps[self.next];
        self.next = (self.next + 1) % self.gaps.len();
        gap
    }
}

impl FromStr for Arrivals {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut words = Words::new(text);
        let arrivals = match words.name {
            "poisson" => Self::Poisson,
            "uniform" => Self::Uniform,
            "trace" => Self::Trace(words.next("a file")?),
            other => {
                return Err(Refusal::usage(format!("`{other}` is no way of arriving"))
                    .hint(nearest::hint(other, &["poisson", "uniform", "trace"])));
            }
        };
        words.end(&[])?;
        Ok(arrivals)
    }
}

impl TryFrom<String> for Arrivals {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Arrivals> for String {
    fn from(arrivals: Arrivals) -> Self {
        arrivals.to_string()
    }
}

impl fmt::Display for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Poisson => f.write_str("poisson"),
            Self::Uniform => f.write_str("uniform"),
            Self::Trace(file) => write!(f, "trace {}", file.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::distribution::Service;

    const LONG: Duration = Duration::from_secs(100);

    #[test]
    fn the_same_seed_makes_the_same_arrivals() {
        let plan = |seed| plan(&Arrivals::Poisson, 1_000.0, seed);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
    }

    #[test]
    fn the_rate_is_that_which_was_asked_for() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "0.5\n1\n4\n").unwrap();
        for arrivals in
            [Arrivals::Poisson, Arrivals::Uniform, Arrivals::Trace(file.path().to_owned())]
        {
            let count = plan(&arrivals, 1_000.0, 7).len();
            assert!((98_000..102_000).contains(&count), "{arrivals}: {count}");
        }
    }

    #[test]
    fn times_between_arrivals_do_not_depend_on_what_is_served() {
        let due = |service: &str| {
            let mut source = service.parse::<Service>().unwrap().source().unwrap();
            let plan = Arrivals::Poisson.plan(100.0, LONG, &mut source, 3).unwrap();
            plan.into_iter().map(|arrival| arrival.due).collect::<Vec<_>>()
        };
        assert_eq!(due("fixed 1ms"), due("exponential 9ms"));
    }

    #[test]
    fn a_trace_that_goes_back_in_time_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "2\n1\n").unwrap();
        let mut source = "fixed 1ms".parse::<Service>().unwrap().source().unwrap();
        let trace = Arrivals::Trace(file.path().to_owned());
        let refused = trace.plan(1.0, LONG, &mut source, 1).unwrap_err();
        assert!(refused.message.contains(":2:"), "{}", refused.message);
    }

    fn plan(arrivals: &Arrivals, rate: f64, seed: u64) -> Vec<Arrival> {
        let mut source = "fixed 1ms".parse::<Service>().unwrap().source().unwrap();
        arrivals.plan(rate, LONG, &mut source, seed).unwrap()
    }
}
