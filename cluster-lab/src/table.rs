//! The table of an experiment, for a terminal.

use std::fmt::Write as _;

use comfy_table::{Cell as Field, CellAlignment, ContentArrangement, Table, presets};

use crate::{
    column::{Column, MAX, MEAN, P50, P99, P999},
    fault::FaultKind,
    results::{Results, Series, distinct},
};

/// What the machine may add to service times without a word, in proportion.
const STRAIN: f64 = 0.1;

/// Columns of times.
const TIMES: [Column; 5] = [MEAN, P50, P99, P999, MAX];

/// An empty table; wide enough for a terminal of this width, or for anything.
pub(crate) fn new(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

/// One table per set of conditions, one row per policy; times are in milliseconds, and means over the seeds.
pub fn shown(results: &Results, width: Option<u16>) -> String {
    let series = results.series();
    let mut text = String::new();
    for cell in distinct(series.iter().map(|it| it.cell)) {
        let here = || series.iter().filter(|it| it.cell == cell);
        let first = here().find(|it| !it.runs.is_empty());
        let mut table = new(width);
        let mut head = vec!["policy", "req/s", "failed"];
        head.extend(TIMES.iter().map(|(name, _)| *name));
        head.extend(["×", "Jain", "lag", "overrun"]);
        table.set_header(head);
        for one in here() {
            let mut row = vec![Field::new(one.policy)];
            if one.runs.is_empty() {
                row.push(Field::new("–"));
            } else {
                let right = |text| Field::new(text).set_alignment(CellAlignment::Right);
                row.extend(figures(one, first).into_iter().map(right));
            }
            table.add_row(row);
        }
        let between = if text.is_empty() { "" } else { "\n" };
        let conditions = format!("{}, {}", cell.label(), cell.load_label());
        // A String takes everything.
        writeln!(text, "{between}{conditions}\n{table}").unwrap_or_default();
    }
    text
}

/// Where the machine itself may have made the difference: a note for each.
pub fn doubts(results: &Results) -> Vec<String> {
    // How much longer workers were busy than they were to be, in proportion.
    let strain = |one: &Series<'_>| {
        let asked = one.cell.service.source().map_or(f64::INFINITY, |source| source.mean() * 1e3);
        one.mean(|it| it.overrun.mean).unwrap_or_default() / asked
    };
    let series = results.series();
    let undisturbed: Vec<f64> =
        series.iter().filter(|it| it.cell.fault.kind == FaultKind::None).map(strain).collect();
    let strained = undisturbed.iter().filter(|strain| **strain > STRAIN).count();
    let worst = undisturbed.iter().copied().fold(0.0, f64::max);
    if strained == 0 {
        return Vec::new();
    }
    vec![format!(
        "the machine is busy: in {strained} of {} rows workers were busy for up to {:.0} % longer than they were to \
         be, as if there were more load",
        undisturbed.len(),
        worst * 100.0
    )]
}

/// Why some points are no results, each reason once.
pub fn missing(results: &Results) -> Vec<String> {
    let mut lines: Vec<(String, usize)> = Vec::new();
    for one in results.series() {
        for why in &one.missing {
            let line =
                format!("{}, {}, {}: {why}", one.policy, one.cell.label(), one.cell.load_label());
            match lines.iter_mut().find(|(known, _)| *known == line) {
                Some((_, count)) => *count += 1,
                None => lines.push((line, 1)),
            }
        }
    }
    lines
        .into_iter()
        .map(|(line, count)| if count > 1 { format!("{line} ({count} times)") } else { line })
        .collect()
}

/// A number with three digits that count.
pub(crate) fn number(value: f64) -> String {
    if value.abs() >= 100.0 {
        format!("{value:.0}")
    } else if value.abs() >= 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.2}")
    }
}

fn figures(one: &Series<'_>, first: Option<&Series<'_>>) -> Vec<String> {
    let mean = |metric| one.mean(metric).map(number).unwrap_or_default();
    let mut figures = vec![mean(|it| it.throughput), one.failures().to_string()];
    figures.extend(TIMES.iter().map(|(_, metric)| mean(*metric)));
    let own = one.mean(|it| it.latency.mean);
    let other = first.and_then(|it| it.mean(|it| it.latency.mean)).filter(|it| *it > 0.0);
    figures.push(own.zip(other).map(|(own, other)| number(own / other)).unwrap_or_default());
    figures.push(one.mean_of(|it| it.jain).map(|it| format!("{it:.3}")).unwrap_or_default());
    figures.extend([mean(|it| it.lag.p99), mean(|it| it.overrun.p99)]);
    figures
}
