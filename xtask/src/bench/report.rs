//! Report: every value that was measured, as a table for people and as JSON for the record.

use std::{fs, process::Command, time::SystemTime};

use anyhow::Context as _;
use comfy_table::{Table, presets::UTF8_FULL_CONDENSED};
use serde_json::{Value, json};

use super::{
    WORKERS,
    contestant::{self, Contestant},
};
use crate::process;

/// Which of two values is the better one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

/// All rows measured so far.
pub(super) struct Report {
    contestants: Vec<Contestant>,
    rows: Vec<Row>,
}

struct Row {
    name: String,
    unit: &'static str,
    better: Better,
    cells: Vec<(Contestant, Vec<f64>)>,
}

impl Report {
    /// An empty one.
    pub(super) fn new(contestants: &[Contestant]) -> Self {
        Self { contestants: contestants.to_vec(), rows: Vec::new() }
    }

    /// Adds one value to a cell.
    pub(super) fn note(
        &mut self,
        name: &str,
        unit: &'static str,
        better: Better,
        contestant: Contestant,
        value: f64,
    ) {
        let at = self.rows.iter().position(|row| row.name == name).unwrap_or_else(|| {
            self.rows.push(Row { name: name.to_owned(), unit, better, cells: Vec::new() });
            self.rows.len() - 1
        });
        let cells = &mut self.rows[at].cells;
        match cells.iter_mut().find(|(whose, _)| *whose == contestant) {
            Some((_, values)) => values.push(value),
            None => cells.push((contestant, vec![value])),
        }
    }

    /// Prints medians, and how `cluster` compares.
    pub(super) fn print(&self) {
        let mut table = Table::new();
        let names = self.contestants.iter().map(|contestant| contestant.name().to_owned());
        let compared = self.compared().map(|other| format!("cluster / {}", other.name()));
        table.load_preset(UTF8_FULL_CONDENSED);
        table.set_header(std::iter::once(String::new()).chain(names).chain(compared));
        for row in &self.rows {
            let name = format!("{}{}", row.name, if row.unit.is_empty() { "" } else { ", " });
            let cells = self.contestants.iter().map(|contestant| show(row.median(*contestant)));
            let ratios = self.compared().map(|other| show_ratio(row, other));
            table
                .add_row(std::iter::once(format!("{name}{}", row.unit)).chain(cells).chain(ratios));
        }
        println!("{table}");
        println!(
            "medians; {WORKERS} workers of the same unmodified Node app; \
             SO_REUSEPORT is `cluster` in plain mode: the kernel's hash, and nothing of ours in its way"
        );
    }

    /// Writes every value, with where and when.
    pub(super) fn write(&self) -> anyhow::Result<()> {
        let rows: Vec<Value> = self.rows.iter().map(Row::to_json).collect();
        let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_secs();
        let report = json!({
            "seconds_since_1970": seconds,
            "machine": {
                "kernel": told(Command::new("uname").arg("-sr")),
                "cpus": std::thread::available_parallelism()?.get(),
                "node": told(Command::new("node").arg("--version")),
            },
            "workers": WORKERS,
            "rows": rows,
        });
        let folder = contestant::folder();
        fs::create_dir_all(&folder)?;
        let path = folder.join("report.json");
        fs::write(&path, serde_json::to_string_pretty(&report)?)
            .with_context(|| format!("failed to write {}", path.display()))?;
        println!("bench: every value is in {}", path.display());
        Ok(())
    }

    fn compared(&self) -> impl Iterator<Item = Contestant> {
        let others = [Contestant::Plain, Contestant::Pm2];
        others.into_iter().filter(|other| self.contestants.contains(other))
    }
}

impl Row {
    fn median(&self, contestant: Contestant) -> Option<f64> {
        let (_, values) = self.cells.iter().find(|(whose, _)| *whose == contestant)?;
        median(values)
    }

    fn to_json(&self) -> Value {
        let cells: serde_json::Map<String, Value> = self
            .cells
            .iter()
            .map(|(whose, values)| {
                let cell = json!({ "median": median(values), "values": values });
                (whose.name().to_owned(), cell)
            })
            .collect();
        let better = match self.better {
            Better::More => "more",
            Better::Less => "less",
        };
        json!({ "name": self.name, "unit": self.unit, "better": better, "cells": cells })
    }
}

/// The middle one, or between the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    let upper = *sorted.get(middle)?;
    if sorted.len() % 2 == 1 {
        return Some(upper);
    }
    Some(f64::midpoint(*sorted.get(middle.checked_sub(1)?)?, upper))
}

/// As few digits as tell values apart.
pub(super) fn show(value: Option<f64>) -> String {
    match value {
        None => "–".to_owned(),
        Some(value) if value.abs() >= 1_000.0 => format!("{:.1} k", value / 1e3),
        Some(value) if value.abs() >= 100.0 || value == 0.0 => format!("{value:.0}"),
        Some(value) if value.abs() >= 1.0 => format!("{value:.1}"),
        Some(value) => format!("{value:.3}"),
    }
}

fn show_ratio(row: &Row, other: Contestant) -> String {
    match (row.median(Contestant::Cluster), row.median(other)) {
        (Some(ours), Some(theirs)) if ours > 0.0 && theirs > 0.0 => format!("{:.2}", ours / theirs),
        (Some(_) | None, Some(_) | None) => "–".to_owned(),
    }
}

fn told(command: &mut Command) -> String {
    process::run(command)
        .map_or_else(|_unknown| "unknown".to_owned(), |text| text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle() {
        assert_eq!(median(&[]), None);
        assert_eq!(median(&[3.0]), Some(3.0));
        assert_eq!(median(&[9.0, 1.0, 4.0]), Some(4.0));
        assert_eq!(median(&[9.0, 1.0, 4.0, 6.0]), Some(5.0));
    }

    #[test]
    fn values_of_a_cell_come_together() {
        let mut report = Report::new(&[Contestant::Cluster, Contestant::Plain]);
        for value in [1.0, 3.0] {
            report.note("list", "ms", Better::Less, Contestant::Cluster, value);
        }
        report.note("list", "ms", Better::Less, Contestant::Plain, 4.0);
        assert_eq!(report.rows.len(), 1);
        assert_eq!(report.rows[0].median(Contestant::Cluster), Some(2.0));
        assert_eq!(show_ratio(&report.rows[0], Contestant::Plain), "0.50");
        assert_eq!(show_ratio(&report.rows[0], Contestant::Pm2), "–");
    }
}
