//! Results: all records of an experiment, as files.

use std::{
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    experiment::Experiment,
    input,
    machine::Machine,
    outcome::{Figures, Outcome},
    point::{Cell, Point},
    refusal::Refusal,
    verdict::Verdict,
};

/// Of the files; another one is not read.
pub const FORMAT: u32 = 1;

/// One run, and what it came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of `cluster`.
    pub version: String,
    /// When it ended: RFC 3339.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// What was run.
    pub point: Point,
    /// What it came to.
    pub verdict: Verdict,
}

/// All runs of an experiment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Results {
    /// [`FORMAT`].
    pub format: u32,
    /// Version of `cluster`.
    pub version: String,
    /// When the last one ended: RFC 3339.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// What was asked for.
    pub experiment: Experiment,
    /// In the order of the matrix.
    pub records: Vec<Record>,
}

/// All runs of one policy under the same conditions: one per seed.
#[derive(Clone, Debug)]
pub struct Series<'a> {
    /// The conditions.
    pub cell: &'a Cell,
    /// Whose workers.
    pub policy: &'a str,
    /// Seeds, and what was measured with each.
    pub runs: Vec<(u64, &'a Outcome)>,
    /// Why there are fewer of them than were asked for.
    pub missing: Vec<String>,
}

/// A figure of a run.
pub type Metric = fn(&Outcome) -> f64;

/// What is compared, and its unit.
pub const METRICS: &[(&str, &str, Metric)] = &[
    ("mean", "ms", |it| it.latency.mean),
    ("p50", "ms", |it| it.latency.p50),
    ("p90", "ms", |it| it.latency.p90),
    ("p99", "ms", |it| it.latency.p99),
    ("p99.9", "ms", |it| it.latency.p999),
    ("max", "ms", |it| it.latency.max),
    ("throughput", "/s", |it| it.throughput),
];

impl Results {
    /// Reads a file that [`write`](Self::write) wrote.
    ///
    /// # Errors
    /// When it cannot be read, or is something else.
    pub fn read(path: &Path) -> Result<Self, Refusal> {
        let shown = path.display();
        // A folder of results is as good as its file.
        let inside = path.join("results.json");
        let path = if inside.is_file() { &inside } else { path };
        let text = input::read(path, input::RESULTS)
            .map_err(|error| Refusal::usage(format!("failed to read {shown}: {error}")))?;
        let results: Self = serde_json::from_str(&text).map_err(|error| {
            Refusal::usage(format!("{shown} has no results of `cluster lab`: {error}"))
        })?;
        if results.format != FORMAT {
            return Err(Refusal::usage(format!(
                "{shown} has format {}, and this is {FORMAT}",
                results.format
            )));
        }
        Ok(results)
    }

    /// Writes `results.json` and `results.csv`; returns their paths.
    ///
    /// # Errors
    /// When they cannot be written.
    pub fn write(&self, folder: &Path) -> Result<[PathBuf; 2], Refusal> {
        let (json, csv) = (folder.join("results.json"), folder.join("results.csv"));
        write_json(&json, self)?;
        write_file(&csv, self.csv().as_bytes())?;
        Ok([json, csv])
    }

    /// Runs that belong together, in the order of the matrix.
    pub fn series(&self) -> Vec<Series<'_>> {
        let mut all: Vec<Series<'_>> = Vec::new();
        for record in &self.records {
            let (cell, policy) = (&record.point.cell, record.point.policy.name.as_str());
            let at = all.iter().position(|it| it.cell == cell && it.policy == policy);
            let at = at.unwrap_or_else(|| {
                all.push(Series { cell, policy, runs: Vec::new(), missing: Vec::new() });
                all.len() - 1
            });
            match record.verdict.outcome() {
                Some(outcome) => all[at].runs.push((record.point.seed, outcome)),
                None => all[at].missing.extend(record.verdict.why()),
            }
        }
        let order = |policy: &str| {
            self.experiment.policies.iter().position(|it| it.name == policy).unwrap_or(usize::MAX)
        };
        let cells: Vec<&Cell> = distinct(all.iter().map(|it| it.cell));
        all.sort_by_key(|it| (cells.iter().position(|cell| *cell == it.cell), order(it.policy)));
        all
    }

    /// One line per run.
    fn csv(&self) -> String {
        let mut text = "policy,workers,load,rate,service,kind,reuse,fault,link,ip,syncookies,seed,\
                        verdict,throughput,planned,answered,refused,reset,timeout,bad,retried,\
                        mean_ms,p50_ms,p90_ms,p99_ms,p999_ms,max_ms,refusal_p99_ms,jain,\
                        max_over_mean,lag_p99_ms,overrun_p99_ms\n"
            .to_owned();
        for record in &self.records {
            let Point { cell, policy, seed, rate, .. } = &record.point;
            let mut fields = vec![
                policy.name.clone(),
                cell.workers.to_string(),
                cell.load.map(|load| load.to_string()).unwrap_or_default(),
                format!("{rate:.3}"),
                cell.service.to_string(),
                cell.kind.name().to_owned(),
                cell.reuse.to_string(),
                cell.fault.to_string(),
                cell.link.name().to_owned(),
                u8::from(cell.ip).to_string(),
                cell.syncookies.to_string(),
                seed.to_string(),
                record.verdict.why().unwrap_or_else(|| "measured".to_owned()),
            ];
            fields.extend(record.verdict.outcome().map(measured).unwrap_or_default());
            let fields: Vec<String> = fields.iter().map(|field| quote(field)).collect();
            text.push_str(&fields.join(","));
            text.push('\n');
        }
        text
    }
}

impl Series<'_> {
    /// The mean over the seeds; `None` when nothing was measured.
    pub fn mean(&self, metric: Metric) -> Option<f64> {
        let count = self.runs.len();
        (count > 0)
            .then(|| self.runs.iter().map(|(_, run)| metric(run)).sum::<f64>() / count as f64)
    }

    /// Requests without an answer, in all runs.
    pub fn failures(&self) -> u64 {
        self.runs.iter().map(|(_, run)| run.failures.all()).sum()
    }

    /// Requests in all runs.
    pub fn planned(&self) -> u64 {
        self.runs.iter().map(|(_, run)| run.planned).sum()
    }

    /// The mean of what some of the runs may have.
    pub fn mean_of(&self, figure: impl Fn(&Outcome) -> Option<f64>) -> Option<f64> {
        let known: Vec<f64> = self.runs.iter().filter_map(|(_, run)| figure(run)).collect();
        (!known.is_empty()).then(|| known.iter().sum::<f64>() / known.len() as f64)
    }
}

/// Each of several values once, in their order.
pub fn distinct<'a, T: PartialEq>(values: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut known: Vec<&T> = Vec::new();
    for value in values {
        if !known.contains(&value) {
            known.push(value);
        }
    }
    known
}

/// Writes a value as JSON, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), Refusal> {
    let text = serde_json::to_vec(value)
        .map_err(|error| Refusal::failed(format!("failed to write {}: {error}", path.display())))?;
    write_file(path, &text)
}

/// Writes a file, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub(crate) fn write_file(path: &Path, bytes: &[u8]) -> Result<(), Refusal> {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".part");
    let write = || {
        let mut file = BufWriter::new(File::create(&aside)?);
        file.write_all(bytes)?;
        file.flush()?;
        drop(file);
        fs::rename(&aside, path)
    };
    write().map_err(|error| Refusal::failed(format!("failed to write {}: {error}", path.display())))
}

fn measured(it: &Outcome) -> Vec<String> {
    let Figures { mean, p50, p90, p99, p999, max, .. } = it.latency;
    let share = |value: Option<f64>| value.map(|it| format!("{it:.4}")).unwrap_or_default();
    let counts = [
        it.planned,
        it.answered,
        it.failures.refused,
        it.failures.reset,
        it.failures.timeout,
        it.failures.bad,
        it.retried,
    ];
    let times = [mean, p50, p90, p99, p999, max, it.refusal.p99];
    let mut fields = vec![format!("{:.2}", it.throughput)];
    fields.extend(counts.map(|count| count.to_string()));
    fields.extend(times.map(|time| format!("{time:.3}")));
    fields.extend([share(it.jain), share(it.max_over_mean)]);
    fields.extend([it.lag.p99, it.overrun.p99].map(|time| format!("{time:.3}")));
    fields
}

fn quote(field: &str) -> String {
    if field.contains([',', '"', '\n']) {
        format!("\"{}\"", field.replace('"', "\"\""))
    } else {
        field.to_owned()
    }
}
