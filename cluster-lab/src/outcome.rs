//! Outcomes: what a run came to, in numbers.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A distribution of times in a few figures, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Figures {
    /// How many there were.
    pub count: u64,
    /// Arithmetic mean.
    pub mean: f64,
    /// Median.
    pub p50: f64,
    /// 90th percentile.
    pub p90: f64,
    /// 99th percentile.
    pub p99: f64,
    /// 99.9th percentile.
    pub p999: f64,
    /// Longest.
    pub max: f64,
}

/// What became of those who got no answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failures {
    /// No connection could be made: refused at once.
    pub refused: u64,
    /// A connection was there, and ended without an answer.
    pub reset: u64,
    /// No answer within the client's patience.
    pub timeout: u64,
    /// An answer that was none.
    pub bad: u64,
    /// The generator had no port or descriptor left: its own failure, not that of who was asked.
    pub unable: u64,
}

/// A tenth of a second of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moment {
    /// Requests that were due.
    pub due: u64,
    /// Those of them that got no answer.
    pub failed: u64,
    /// Median latency of the others, in milliseconds.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Longest.
    pub max: f64,
    /// Connections that each worker got, in the order of [`Outcome::workers`].
    pub connections: Vec<u64>,
}

/// Everything that was measured in a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outcome {
    /// Answers per second of the run.
    pub throughput: f64,
    /// Requests that were planned, the warm-up left out.
    pub planned: u64,
    /// Those that were answered.
    pub answered: u64,
    /// Those that were not.
    pub failures: Failures,
    /// Requests that were made again on a new connection, because a kept one had ended.
    pub retried: u64,
    /// From when a request was due to its whole answer. Who gave up counts with the time that was waited.
    pub latency: Figures,
    /// From when a connection was begun to its refusal.
    pub refusal: Figures,
    /// From when a request was due to when its connection was begun: the generator's own lateness.
    pub lag: Figures,
    /// How much longer than they were to be the workers were busy: what the machine took from them.
    pub overrun: Figures,
    /// What workers are called.
    pub workers: Vec<String>,
    /// Connections that each got; empty when an app does not say who answers.
    pub connections: Vec<u64>,
    /// Jain's index of these: 1 when all are equal, 1/n when one has all.
    pub jain: Option<f64>,
    /// The largest of these in proportion to their mean.
    pub max_over_mean: Option<f64>,
    /// The run, a tenth of a second at a time.
    pub timeline: Vec<Moment>,
    /// Latencies in microseconds, and how many there were.
    pub histogram: Vec<(u64, u64)>,
}

/// Length of a [`Moment`], in nanoseconds.
pub const MOMENT: u64 = 100_000_000;

/// What is counted while a run is under way.
#[derive(Debug)]
pub(crate) struct Tally {
    /// What is due before is not counted, in nanoseconds.
    warmup: u64,
    latency: Histogram<u64>,
    refusal: Histogram<u64>,
    lag: Histogram<u64>,
    overrun: Histogram<u64>,
    failures: Failures,
    retried: u64,
    moments: Vec<MomentTally>,
}

#[derive(Clone, Debug, Default)]
struct MomentTally {
    due: u64,
    failed: u64,
    /// In microseconds.
    latencies: Vec<u64>,
    connections: BTreeMap<String, u64>,
}

/// How a request ended without an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failure {
    Refused,
    Reset,
    Timeout,
    Bad,
    Unable,
}

impl Tally {
    /// Of a run with this warm-up and this length in all.
    pub(crate) fn new(warmup: u64, length: u64) -> Self {
        // An hour at the longest, to three digits.
        let histogram = || Histogram::new_with_bounds(1, 3_600_000_000, 3);
        let made = "bounds that make sense";
        let count = length.saturating_sub(warmup).div_ceil(MOMENT);
        Self {
            warmup,
            latency: histogram().expect(made),
            refusal: histogram().expect(made),
            lag: histogram().expect(made),
            overrun: histogram().expect(made),
            failures: Failures::default(),
            retried: 0,
            moments: vec![MomentTally::default(); count as usize],
        }
    }

    /// A request was begun so late.
    pub(crate) fn begun(&mut self, due: u64, now: u64) {
        if let Some(moment) = self.moment(due) {
            moment.due += 1;
            self.lag.saturating_record(micros(now.saturating_sub(due)));
        }
    }

    /// A request was answered.
    pub(crate) fn answered(&mut self, due: u64, now: u64) {
        let latency = micros(now.saturating_sub(due));
        if let Some(moment) = self.moment(due) {
            moment.latencies.push(latency);
            self.latency.saturating_record(latency);
        }
    }

    /// A worker was busy for so much longer than it was to be.
    pub(crate) fn overran(&mut self, due: u64, nanos: u64) {
        if self.moment(due).is_some() {
            self.overrun.saturating_record(micros(nanos));
        }
    }

    /// A request got no answer; its connection was begun then.
    pub(crate) fn failed(&mut self, failure: Failure, due: u64, begun: u64, now: u64) {
        let Some(moment) = self.moment(due) else { return };
        moment.failed += 1;
        match failure {
            Failure::Refused => {
                self.failures.refused += 1;
                self.refusal.saturating_record(micros(now.saturating_sub(begun)));
            }
            Failure::Reset => self.failures.reset += 1,
            Failure::Bad => self.failures.bad += 1,
            Failure::Unable => self.failures.unable += 1,
            Failure::Timeout => {
                self.failures.timeout += 1;
                self.latency.saturating_record(micros(now.saturating_sub(due)));
            }
        }
    }

    /// A request is made once more.
    pub(crate) fn retried(&mut self, due: u64) {
        if self.moment(due).is_some() {
            self.retried += 1;
        }
    }

    /// A worker answered on a connection for the first time.
    pub(crate) fn connected(&mut self, due: u64, worker: &str) {
        let Some(moment) = self.moment(due) else { return };
        match moment.connections.get_mut(worker) {
            Some(count) => *count += 1,
            None => drop(moment.connections.insert(worker.to_owned(), 1)),
        }
    }

    /// Adds what another thread counted in the same run.
    pub(crate) fn add(&mut self, other: Self) {
        for (own, others) in [
            (&mut self.latency, &other.latency),
            (&mut self.refusal, &other.refusal),
            (&mut self.lag, &other.lag),
            (&mut self.overrun, &other.overrun),
        ] {
            own.add(others).expect("the same bounds");
        }
        self.failures.refused += other.failures.refused;
        self.failures.reset += other.failures.reset;
        self.failures.timeout += other.failures.timeout;
        self.failures.bad += other.failures.bad;
        self.failures.unable += other.failures.unable;
        self.retried += other.retried;
        for (own, others) in self.moments.iter_mut().zip(other.moments) {
            own.due += others.due;
            own.failed += others.failed;
            own.latencies.extend(others.latencies);
            for (worker, count) in others.connections {
                *own.connections.entry(worker).or_default() += count;
            }
        }
    }

    /// What it came to, with so many workers, in so many seconds.
    pub(crate) fn outcome(self, workers: u32, planned: u64, seconds: f64) -> Outcome {
        let mut named: BTreeMap<String, u64> = BTreeMap::new();
        for (worker, count) in self.moments.iter().flat_map(|moment| &moment.connections) {
            *named.entry(worker.clone()).or_default() += count;
        }
        // Who got nothing counts too; then nobody says a name.
        if !named.is_empty() {
            for number in 0..workers {
                if named.len() < workers as usize {
                    named.entry(number.to_string()).or_default();
                }
            }
        }
        let mut names: Vec<String> = named.keys().cloned().collect();
        names.sort_by_key(|name| (name.len(), name.clone()));
        let connections: Vec<u64> = names.iter().map(|name| named[name]).collect();
        let timeline = self.moments.into_iter().map(|moment| moment.figures(&names)).collect();
        let timeouts = self.failures.timeout;
        let answered = self.latency.len().saturating_sub(timeouts);
        Outcome {
            throughput: answered as f64 / seconds,
            planned,
            answered,
            failures: self.failures,
            retried: self.retried,
            latency: figures(&self.latency),
            refusal: figures(&self.refusal),
            lag: figures(&self.lag),
            overrun: figures(&self.overrun),
            jain: jain(&connections),
            max_over_mean: max_over_mean(&connections),
            workers: names,
            connections,
            timeline,
            histogram: self
                .latency
                .iter_recorded()
                .map(|step| (step.value_iterated_to(), step.count_at_value()))
                .collect(),
        }
    }

    fn moment(&mut self, due: u64) -> Option<&mut MomentTally> {
        let after = due.checked_sub(self.warmup)?;
        self.moments.get_mut((after / MOMENT) as usize)
    }
}

impl MomentTally {
    fn figures(mut self, names: &[String]) -> Moment {
        self.latencies.sort_unstable();
        let at = |share: f64| {
            let last = self.latencies.len().checked_sub(1)?;
            self.latencies.get((last as f64 * share).round() as usize).copied()
        };
        let millis = |share| at(share).map_or(0.0, |micros| micros as f64 / 1e3);
        Moment {
            due: self.due,
            failed: self.failed,
            p50: millis(0.5),
            p99: millis(0.99),
            max: millis(1.0),
            connections: names
                .iter()
                .map(|name| self.connections.get(name).copied().unwrap_or_default())
                .collect(),
        }
    }
}

impl Outcome {
    /// What the kernel gave to each worker, where the workers do not say who they are.
    pub(crate) fn take_selected(&mut self, selected: impl Iterator<Item = u64>) {
        self.connections = selected.collect();
        self.workers = (0..self.connections.len()).map(|number| number.to_string()).collect();
        self.jain = jain(&self.connections);
        self.max_over_mean = max_over_mean(&self.connections);
    }
}

impl Failures {
    /// All of them.
    pub fn all(&self) -> u64 {
        self.refused + self.reset + self.timeout + self.bad + self.unable
    }
}

fn figures(histogram: &Histogram<u64>) -> Figures {
    if histogram.is_empty() {
        return Figures::default();
    }
    let at = |quantile| histogram.value_at_quantile(quantile) as f64 / 1e3;
    Figures {
        count: histogram.len(),
        mean: histogram.mean() / 1e3,
        p50: at(0.5),
        p90: at(0.9),
        p99: at(0.99),
        p999: at(0.999),
        max: histogram.max() as f64 / 1e3,
    }
}

fn jain(counts: &[u64]) -> Option<f64> {
    let sum: f64 = counts.iter().map(|count| *count as f64).sum();
    let squares: f64 = counts.iter().map(|count| (*count as f64).powi(2)).sum();
    (squares > 0.0).then(|| sum * sum / (counts.len() as f64 * squares))
}

fn max_over_mean(counts: &[u64]) -> Option<f64> {
    let sum: u64 = counts.iter().sum();
    let most = *counts.iter().max()?;
    (sum > 0).then(|| most as f64 * counts.len() as f64 / sum as f64)
}

fn micros(nanos: u64) -> u64 {
    (nanos / 1_000).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn what_is_due_in_the_warm_up_is_not_counted() {
        let mut tally = Tally::new(MOMENT, 3 * MOMENT);
        for due in [0, MOMENT, 2 * MOMENT] {
            tally.begun(due, due + MILLI);
            tally.answered(due, due + 5 * MILLI);
        }
        let outcome = tally.outcome(2, 2, 0.2);
        assert_eq!((outcome.answered, outcome.latency.count, outcome.lag.count), (2, 2, 2));
        assert!((outcome.latency.p50 - 5.0).abs() < 0.01, "{:?}", outcome.latency);
        assert_eq!(outcome.timeline.len(), 2);
    }

    #[test]
    fn who_waited_in_vain_counts_with_the_time_waited() {
        let mut tally = Tally::new(0, MOMENT);
        tally.failed(Failure::Timeout, 0, 0, 1_000 * MILLI);
        tally.failed(Failure::Refused, 0, 10, 10 + MILLI);
        let outcome = tally.outcome(1, 2, 0.1);
        assert_eq!(outcome.answered, 0);
        assert_eq!(outcome.failures.all(), 2);
        assert!((outcome.latency.max - 1_000.0).abs() < 1.0, "{:?}", outcome.latency);
        assert!((outcome.refusal.max - 1.0).abs() < 0.01, "{:?}", outcome.refusal);
    }

    #[test]
    fn a_worker_that_got_nothing_spoils_the_balance() {
        let mut tally = Tally::new(0, MOMENT);
        for worker in ["0", "0", "1", "1"] {
            tally.connected(0, worker);
        }
        let outcome = tally.outcome(4, 4, 0.1);
        assert_eq!(outcome.connections, [2, 2, 0, 0]);
        assert_eq!(outcome.jain, Some(0.5));
        assert_eq!(outcome.max_over_mean, Some(2.0));
    }

    #[test]
    fn two_threads_are_one_run() {
        let mut first = Tally::new(0, MOMENT);
        first.answered(0, MILLI);
        let mut second = Tally::new(0, MOMENT);
        second.answered(0, 3 * MILLI);
        second.connected(0, "1");
        first.add(second);
        let outcome = first.outcome(2, 2, 0.1);
        assert_eq!(outcome.answered, 2);
        assert_eq!(outcome.connections, [0, 1]);
    }
}
