//! The table of an experiment, for a terminal.

use comfy_table::{Cell as Field, CellAlignment, ContentArrangement, Table, presets};

use crate::results::{Metric, Results, Series};

/// Columns of times.
const TIMES: [(&str, Metric); 5] = [
    ("mean", |it| it.latency.mean),
    ("p50", |it| it.latency.p50),
    ("p99", |it| it.latency.p99),
    ("p99.9", |it| it.latency.p999),
    ("max", |it| it.latency.max),
];

/// An empty table; wide enough for a terminal of this width, or for anything.
pub(crate) fn new(width: Option<u16>) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_HORIZONTAL_ONLY);
    if let Some(width) = width {
        table.set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    }
    table
}

/// One row per policy and condition; times are in milliseconds, and means over the seeds.
pub fn shown(results: &Results, width: Option<u16>) -> String {
    let mut table = new(width);
    let mut head = vec!["", "policy", "req/s", "failed"];
    head.extend(TIMES.iter().map(|(name, _)| *name));
    head.extend(["mean/first", "Jain", "lag p99"]);
    table.set_header(head);
    let series = results.series();
    let mut last = None;
    for one in &series {
        let is_new = last != Some(one.cell);
        last = Some(one.cell);
        let label = format!("{}, {}", one.cell.label(), one.cell.load_label());
        let mut row = vec![Field::new(if is_new { label } else { String::new() })];
        row.push(Field::new(one.policy));
        if one.runs.is_empty() {
            row.push(Field::new("–"));
        } else {
            let first = series.iter().find(|it| it.cell == one.cell && !it.runs.is_empty());
            row.extend(
                figures(one, first)
                    .into_iter()
                    .map(|text| Field::new(text).set_alignment(CellAlignment::Right)),
            );
        }
        table.add_row(row);
    }
    table.to_string()
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
    figures.push(mean(|it| it.lag.p99));
    figures
}
