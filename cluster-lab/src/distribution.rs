//! Distributions of service times: how long a worker is busy with a request.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use rand_distr::{Distribution as _, Exp, LogNormal, Pareto, StandardUniform};
use rand_pcg::Pcg64Mcg;
use serde::{Deserialize, Serialize};

use crate::{input, nearest, refusal::Refusal, span::Span, words::Words};

/// As experiments name them.
const NAMES: &[&str] = &["fixed", "exponential", "bimodal", "lognormal", "pareto", "trace"];

/// A distribution of service times.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Service {
    /// `fixed 1ms`: always the same.
    Fixed(Span),
    /// `exponential 2ms`: with this mean.
    Exponential(Span),
    /// `bimodal 1ms 100ms 0.5%`: short, long, and the share of long ones.
    Bimodal {
        /// Of most requests.
        short: Span,
        /// Of the others.
        long: Span,
        /// How many are long: above 0, below 1.
        share: f64,
    },
    /// `lognormal 2ms sigma=1.5`: with this mean, and the deviation of its logarithm.
    Lognormal {
        /// The mean, not the median.
        mean: Span,
        /// Standard deviation of the natural logarithm.
        sigma: f64,
    },
    /// `pareto 2ms alpha=1.5`: with this mean; the smaller `alpha`, the heavier the tail.
    Pareto {
        /// The mean.
        mean: Span,
        /// The shape: above 1, or there would be no mean.
        alpha: f64,
    },
    /// `trace FILE`: milliseconds, one number per line, in turn.
    Trace(PathBuf),
}

/// A distribution that is ready to be drawn from.
#[derive(Clone, Debug)]
pub struct Source {
    drawn: Drawn,
    /// In seconds.
    mean: f64,
}

#[derive(Clone, Debug)]
enum Drawn {
    Fixed(f64),
    Exponential(Exp<f64>),
    Bimodal { short: f64, long: f64, share: f64 },
    Lognormal(LogNormal<f64>),
    Pareto(Pareto<f64>),
    Trace { times: Vec<f64>, next: usize },
}

impl Service {
    /// Makes it ready; a trace is read.
    ///
    /// # Errors
    /// When its numbers are impossible, or its trace cannot be read.
    pub fn source(&self) -> Result<Source, Refusal> {
        let impossible = |_error| Refusal::usage(format!("`{self}` is an impossible distribution"));
        let (drawn, mean) = match self {
            Self::Fixed(time) => (Drawn::Fixed(time.seconds()), time.seconds()),
            Self::Exponential(mean) => {
                let rate = mean.seconds().recip();
                (
                    Drawn::Exponential(Exp::new(rate).map_err(|_error| impossible(()))?),
                    mean.seconds(),
                )
            }
            Self::Bimodal { short, long, share } => {
                let (short, long, share) = (short.seconds(), long.seconds(), *share);
                (Drawn::Bimodal { short, long, share }, short * (1.0 - share) + long * share)
            }
            Self::Lognormal { mean, sigma } => {
                // The mean of a lognormal distribution is exp(mu + sigma² / 2).
                let mu = mean.seconds().ln() - sigma * sigma / 2.0;
                let drawn = LogNormal::new(mu, *sigma).map_err(|_error| impossible(()))?;
                (Drawn::Lognormal(drawn), mean.seconds())
            }
            Self::Pareto { mean, alpha } => {
                // The mean of a Pareto distribution is scale * alpha / (alpha - 1).
                let scale = mean.seconds() * (alpha - 1.0) / alpha;
                let drawn = Pareto::new(scale, *alpha).map_err(|_error| impossible(()))?;
                (Drawn::Pareto(drawn), mean.seconds())
            }
            Self::Trace(file) => {
                let times = read_trace(file)?;
                let mean = times.iter().sum::<f64>() / times.len() as f64;
                (Drawn::Trace { times, next: 0 }, mean)
            }
        };
        if mean > 0.0 && mean.is_finite() {
            Ok(Source { drawn, mean })
        } else {
            Err(impossible(()))
        }
    }

    fn check(self) -> Result<Self, Refusal> {
        let wrong = |why: &str| Err(Refusal::usage(format!("`{self}` is impossible: {why}")));
        match &self {
            Self::Fixed(mean)
            | Self::Exponential(mean)
            | Self::Lognormal { mean, .. }
            | Self::Pareto { mean, .. }
                if mean.0.is_zero() =>
            {
                wrong("its mean is zero")
            }
            Self::Bimodal { share, .. } if !(*share > 0.0 && *share < 1.0) => {
                wrong("the share of long ones is between 0% and 100%")
            }
            Self::Bimodal { short, long, .. } if long <= short => {
                wrong("long ones are not longer than short ones")
            }
            Self::Lognormal { sigma, .. } if !(*sigma > 0.0 && *sigma < 10.0) => {
                wrong("sigma is above 0 and below 10")
            }
            Self::Pareto { alpha, .. } if !(*alpha > 1.0 && alpha.is_finite()) => {
                wrong("alpha is above 1, or there is no mean")
            }
            Self::Fixed(_)
            | Self::Exponential(_)
            | Self::Bimodal { .. }
            | Self::Lognormal { .. }
            | Self::Pareto { .. }
            | Self::Trace(_) => Ok(self),
        }
    }
}

impl Source {
    /// The mean, in seconds.
    pub fn mean(&self) -> f64 {
        self.mean
    }

    /// Draws the next time, in nanoseconds.
    pub fn draw(&mut self, chance: &mut Pcg64Mcg) -> u64 {
        let seconds = match &mut self.drawn {
            Drawn::Fixed(time) => *time,
            Drawn::Exponential(drawn) => drawn.sample(chance),
            Drawn::Bimodal { short, long, share } => {
                let at: f64 = StandardUniform.sample(chance);
                if at < *share { *long } else { *short }
            }
            Drawn::Lognormal(drawn) => drawn.sample(chance),
            Drawn::Pareto(drawn) => drawn.sample(chance),
            Drawn::Trace { times, next } => {
                let time = times[*next];
                *next = (*next + 1) % times.len();
                time
            }
        };
        (seconds * 1e9) as u64
    }
}

fn read_trace(file: &Path) -> Result<Vec<f64>, Refusal> {
    let text = input::read_again(file, input::TRACE).map_err(|error| {
        Refusal::usage(format!("failed to read the trace {}: {error}", file.display()))
    })?;
    let mut times = Vec::new();
    for (line, number) in text.lines().zip(1..).filter(|(line, _)| !line.trim().is_empty()) {
        let time: Option<f64> = line.trim().parse().ok();
        let Some(time) = time.filter(|time| time.is_finite() && *time >= 0.0) else {
            let place = format!("{}:{number}", file.display());
            return Err(Refusal::usage(format!("{place}: `{line}` is no time in milliseconds")));
        };
        times.push(time / 1e3);
    }
    if times.iter().any(|time| *time > 0.0) {
        return Ok(times);
    }
    Err(Refusal::usage(format!("the trace {} has no service time", file.display())))
}

impl FromStr for Service {
    type Err = Refusal;

    fn from_str(text: &str) -> Result<Self, Refusal> {
        let mut words = Words::new(text);
        let time = "a time such as 2ms";
        let mut keys: &[&str] = &[];
        let service = match words.name {
            "fixed" => Self::Fixed(words.next(time)?),
            "exponential" => Self::Exponential(words.next(time)?),
            "bimodal" => Self::Bimodal {
                short: words.next(time)?,
                long: words.next(time)?,
                share: words.next::<Percent>("a share such as 0.5%")?.0,
            },
            "lognormal" => {
                keys = &["sigma"];
                let sigma = words.keyed("sigma", "a number")?.unwrap_or(1.5);
                Self::Lognormal { mean: words.next(time)?, sigma }
            }
            "pareto" => {
                keys = &["alpha"];
                let alpha = words.keyed("alpha", "a number")?.unwrap_or(1.5);
                Self::Pareto { mean: words.next(time)?, alpha }
            }
            "trace" => Self::Trace(words.next("a file")?),
            other => {
                return Err(Refusal::usage(format!(
                    "`{other}` is no distribution of service times"
                ))
                .hint(nearest::hint(other, NAMES)));
            }
        };
        words.end(keys)?;
        service.check()
    }
}

impl TryFrom<String> for Service {
    type Error = Refusal;

    fn try_from(text: String) -> Result<Self, Refusal> {
        text.parse()
    }
}

impl From<Service> for String {
    fn from(service: Service) -> Self {
        service.to_string()
    }
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fixed(time) => write!(f, "fixed {time}"),
            Self::Exponential(mean) => write!(f, "exponential {mean}"),
            Self::Bimodal { short, long, share } => {
                write!(f, "bimodal {short} {long} {}", Percent(*share))
            }
            Self::Lognormal { mean, sigma } => write!(f, "lognormal {mean} sigma={sigma}"),
            Self::Pareto { mean, alpha } => write!(f, "pareto {mean} alpha={alpha}"),
            Self::Trace(file) => write!(f, "trace {}", file.display()),
        }
    }
}

/// A share as people write it.
struct Percent(f64);

impl FromStr for Percent {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let number = text.strip_suffix('%').ok_or(())?;
        number.parse::<f64>().map(|number| Self(number / 100.0)).map_err(|_error| ())
    }
}

impl fmt::Display for Percent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // As short as it was written: 0.5 and not 0.50000000001.
        write!(f, "{}%", (self.0 * 1e8).round() / 1e6)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use rand_pcg::rand_core::SeedableRng as _;

    use super::*;

    #[test]
    fn what_is_shown_can_be_read() {
        for text in [
            "fixed 1ms",
            "exponential 2ms",
            "bimodal 1ms 100ms 0.5%",
            "lognormal 2ms sigma=1.5",
            "pareto 2ms alpha=2.5",
            "trace /tmp/times",
        ] {
            assert_eq!(text.parse::<Service>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn impossible_ones_are_refused() {
        for (text, why) in [
            ("fixed 0ms", "mean is zero"),
            ("bimodal 1ms 100ms 150%", "share"),
            ("bimodal 100ms 1ms 1%", "longer"),
            ("pareto 1ms alpha=1", "alpha"),
            ("lognormal 1ms sigma=-1", "sigma"),
            ("exponential", "lacks"),
            ("exponential 2ms 3ms", "too many"),
            ("exponential soon", "soon"),
            ("lognormal 1ms sgima=1", "sgima"),
        ] {
            let refused = text.parse::<Service>().unwrap_err();
            assert!(refused.message.contains(why), "{text}: {}", refused.message);
        }
        let refused = "exponental 2ms".parse::<Service>().unwrap_err();
        assert_eq!(refused.hint.as_deref(), Some("did you mean `exponential`?"));
    }

    #[test]
    fn what_is_drawn_has_the_mean_that_is_said() {
        for text in [
            "fixed 2ms",
            "exponential 2ms",
            "bimodal 1ms 100ms 0.5%",
            "lognormal 2ms sigma=1",
            "pareto 2ms alpha=3",
        ] {
            let mut source = text.parse::<Service>().unwrap().source().unwrap();
            let mut chance = Pcg64Mcg::seed_from_u64(1);
            let count = 200_000;
            let sum: f64 = (0..count).map(|_| source.draw(&mut chance) as f64 / 1e9).sum();
            let mean = sum / f64::from(count);
            assert!((mean / source.mean() - 1.0).abs() < 0.05, "{text}: {mean}");
        }
    }

    #[test]
    fn a_trace_is_taken_in_turn() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "1\n3\n\n2\n").unwrap();
        let mut source = Service::Trace(file.path().to_owned()).source().unwrap();
        let mut chance = Pcg64Mcg::seed_from_u64(1);
        let drawn: Vec<u64> = (0..4).map(|_| source.draw(&mut chance) / 1_000_000).collect();
        assert_eq!(drawn, [1, 3, 2, 1]);

        fs::write(file.path(), "1\nsoon\n").unwrap();
        let refused = Service::Trace(file.path().to_owned()).source().unwrap_err();
        assert!(refused.message.contains(":2: `soon`"), "{}", refused.message);
    }
}
