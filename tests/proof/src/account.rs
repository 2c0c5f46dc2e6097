//! Account: what became of every request of a load.

use std::{collections::BTreeMap, fmt, time::Duration};

use hdrhistogram::Histogram;

use crate::{
    failure::{Cause, Failure, Phase},
    request::Kind,
};

/// Microseconds; a request that took longer counts as if it had taken this.
const LONGEST: u64 = 600_000_000;

/// What became of every request.
#[derive(Debug, Default)]
pub struct Account {
    /// Requests that were due.
    pub asked: u64,
    /// Those that were answered as they should be, by app and manner.
    pub answered: BTreeMap<(String, Kind), Answered>,
    /// Those that were not, in the order in which they failed.
    pub failures: Vec<Failure>,
    /// What became of connections.
    pub connections: Connections,
    /// How many answers each process gave.
    pub workers: BTreeMap<u32, u64>,
    /// The longest time that the clients themselves were late with a request.
    pub lag: Duration,
}

/// Requests that were answered.
#[derive(Clone, Debug)]
pub struct Answered {
    /// How many.
    pub count: u64,
    /// Microseconds from when each was due to the last byte of its answer.
    pub latency: Histogram<u64>,
}

/// What became of connections, none of which is a failure but the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// Opened.
    pub opened: u64,
    /// Closed by the client because an answer said that it should.
    pub told_to_close: u64,
    /// Closed by the server while nobody used them.
    pub closed_idle: u64,
    /// Reset while nobody used them.
    pub reset_idle: u64,
    /// Closed by the client, which had been told how long the server keeps them.
    pub outdated: u64,
    /// Bytes came that nobody had asked for. This is a failure, though of no request.
    pub surplus_idle: u64,
}

impl Account {
    /// Requests that were answered as they should be.
    pub fn answered(&self) -> u64 {
        self.answered.values().map(|answered| answered.count).sum()
    }

    /// Requests that failed.
    pub fn failed(&self) -> usize {
        self.failures.len()
    }

    /// Whether each request was either answered or has failed, and no bytes came that belong to none.
    pub fn is_complete(&self) -> bool {
        self.asked == self.answered() + self.failures.len() as u64
            && self.connections.surplus_idle == 0
    }

    /// Microseconds of all answered requests, in whichever manner.
    pub fn latency(&self) -> Histogram<u64> {
        let mut all = histogram();
        for answered in self.answered.values() {
            all += &answered.latency;
        }
        all
    }

    /// How often each cause was met, in which phase of which manner of request.
    pub fn causes(&self) -> BTreeMap<(Kind, Phase, Cause), usize> {
        let mut causes = BTreeMap::new();
        for failure in &self.failures {
            let key = (failure.kind, failure.phase, failure.cause.clone());
            *causes.entry(key).or_default() += 1;
        }
        causes
    }

    pub(crate) fn note_answer(
        &mut self,
        target: &str,
        kind: Kind,
        worker: Option<u32>,
        latency: Duration,
    ) {
        let key = (target.to_owned(), kind);
        let answered =
            self.answered.entry(key).or_insert_with(|| Answered { count: 0, latency: histogram() });
        answered.count += 1;
        let microseconds = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        answered.latency.saturating_record(microseconds);
        if let Some(worker) = worker {
            *self.workers.entry(worker).or_default() += 1;
        }
    }
}

fn histogram() -> Histogram<u64> {
    Histogram::new_with_bounds(1, LONGEST, 3).expect("the bounds are possible")
}

impl fmt::Display for Account {
    /// Totals, a line for each app and manner, a line for each cause.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (answered, failed) = (self.answered(), self.failed());
        writeln!(f, "{} requests, {answered} answered, {failed} failed", self.asked)?;
        writeln!(
            f,
            "{:<10} {:<12} {:>9} {:>9} {:>9} {:>9} {:>9}",
            "app", "kind", "answered", "p50 ms", "p99 ms", "max ms", "failed"
        )?;
        let mut rows: BTreeMap<(&str, Kind), (Option<&Answered>, usize)> = BTreeMap::new();
        for ((target, kind), answered) in &self.answered {
            rows.entry((target, *kind)).or_default().0 = Some(answered);
        }
        for failure in &self.failures {
            rows.entry((&failure.target, failure.kind)).or_default().1 += 1;
        }
        for ((target, kind), (answered, failed)) in rows {
            let count = answered.map_or(0, |answered| answered.count);
            let at = |quantile| {
                let value = answered.map(|it| it.latency.value_at_quantile(quantile));
                value.map_or_else(|| "–".to_owned(), milliseconds)
            };
            writeln!(
                f,
                "{target:<10} {kind:<12} {count:>9} {:>9} {:>9} {:>9} {failed:>9}",
                at(0.5),
                at(0.99),
                at(1.0)
            )?;
        }
        for ((kind, phase, cause), count) in self.causes() {
            writeln!(f, "failed: {count} × {kind}: {cause}, {phase}")?;
        }
        let Connections { opened, told_to_close, closed_idle, reset_idle, outdated, surplus_idle } =
            self.connections;
        write!(
            f,
            "{opened} connections; {told_to_close} told to close, {closed_idle} closed and \
             {reset_idle} reset while idle, {outdated} left before the server's limit, \
             {surplus_idle} with bytes that nobody asked for; {} processes answered; the clients \
             were late by {} ms at most",
            self.workers.len(),
            self.lag.as_millis()
        )
    }
}

/// `1234` microseconds as `1.2`.
fn milliseconds(microseconds: u64) -> String {
    format!("{}.{}", microseconds / 1000, microseconds % 1000 / 100)
}
