//! What is shown while an experiment runs.

use std::time::Duration;

use cluster_lab::{point::Point, results::Record, run::Audience};
use indicatif::ProgressBar;

use crate::{api::message::Notice, cli::output};

/// A terminal, or a log.
#[derive(Debug, Default)]
pub(super) struct Screen {
    bar: Option<ProgressBar>,
    points: usize,
    done: usize,
    now: String,
}

impl Screen {
    /// Takes away what is shown in passing.
    pub(super) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }

    fn show(&self, left: Duration) {
        if let Some(bar) = &self.bar {
            let (minutes, seconds) = (left.as_secs() / 60, left.as_secs() % 60);
            bar.set_message(format!("{} · {minutes}:{seconds:02} left", self.now));
        }
    }
}

impl Audience for Screen {
    fn left(&mut self, what: &str) {
        output::notice(&Notice {
            message: format!("something of a run is left: {what}"),
            hint: Some("end the processes in it, then: cluster lab clean".to_owned()),
        });
    }

    fn begin(&mut self, points: usize, there: usize) {
        (self.points, self.done) = (points, there);
        self.bar = output::bar(points);
        if there > 0 {
            output::quiet(&format!("{there} of {points} points are there already"));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(u64::try_from(there).unwrap_or_default());
        }
    }

    fn point(&mut self, point: &Point, left: Duration) {
        self.now = format!(
            "{}, {}, {}, seed {}",
            point.policy,
            point.cell.label(),
            point.cell.load_label(),
            point.seed
        );
        self.show(left);
    }

    fn pass(&mut self, left: Duration) {
        self.show(left);
    }

    fn done(&mut self, record: &Record) {
        self.done += 1;
        if let Some(bar) = &self.bar {
            bar.inc(1);
            return;
        }
        let came = match (record.verdict.outcome(), record.verdict.why()) {
            (Some(outcome), _) => {
                let latency = outcome.latency;
                format!("mean {:.2} ms, p99 {:.2} ms", latency.mean, latency.p99)
            }
            (None, why) => why.unwrap_or_default(),
        };
        output::quiet(&format!("{} of {}: {}: {came}", self.done, self.points, self.now));
    }
}
