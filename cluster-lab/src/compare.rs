//! Comparing results: which differences are more than chance.

use comfy_table::{Cell as Field, CellAlignment};
use serde::Serialize;

use crate::{
    refusal::Refusal,
    results::{METRICS, Metric, Results, Series},
    statistics::{self, Interval},
    table,
};

/// One figure under one condition, here and there.
#[derive(Clone, Debug, Serialize)]
pub struct Difference {
    /// The conditions.
    pub cell: String,
    /// Which policies.
    pub policies: [String; 2],
    /// Which figure.
    pub metric: &'static str,
    /// Means over the seeds.
    pub values: [f64; 2],
    /// The second divided by the first, and where that lies with 95 % confidence.
    pub ratio: [f64; 3],
    /// Whether the seeds were the same, so that each was compared with its own.
    pub paired: bool,
    /// Whether it is more than chance.
    pub significant: bool,
}

/// What is in both, policy by policy.
///
/// # Errors
/// When they have nothing in common.
pub fn two(a: &Results, b: &Results) -> Result<Vec<Difference>, Refusal> {
    let (first, second) = (a.series(), b.series());
    let mut differences = Vec::new();
    for one in &first {
        let same = |other: &&Series<'_>| other.cell == one.cell && other.policy == one.policy;
        if let Some(other) = second.iter().find(same) {
            differences.extend(between(one, other));
        }
    }
    if differences.is_empty() {
        return Err(Refusal::failed("the two have no point in common that was measured in both")
            .hint("both need the same workers, loads, service times, and policies"));
    }
    Ok(differences)
}

/// Every policy of one experiment with its first one that was measured.
///
/// # Errors
/// When there are not two.
pub fn policies(results: &Results) -> Result<Vec<Difference>, Refusal> {
    let series = results.series();
    let mut differences = Vec::new();
    for one in &series {
        let reference = series.iter().find(|it| it.cell == one.cell && !it.runs.is_empty());
        if let Some(reference) = reference.filter(|it| it.policy != one.policy) {
            differences.extend(between(reference, one));
        }
    }
    if differences.is_empty() {
        return Err(Refusal::failed("there are no two policies that were measured alike"));
    }
    Ok(differences)
}

/// For a terminal.
pub fn shown(differences: &[Difference], width: Option<u16>) -> String {
    let mut table = table::new(width);
    table.set_header(["", "policy", "figure", "before", "after", "ratio", "95 %", ""]);
    let mut last = "";
    for it in differences {
        let cell = if it.cell == last { "" } else { it.cell.as_str() };
        last = &it.cell;
        let [a, b] = &it.policies;
        let policy = if a == b { a.clone() } else { format!("{a} → {b}") };
        let [ratio, low, high] = it.ratio;
        let interval = if high.is_finite() && low > 0.0 {
            format!("{low:.2} – {high:.2}")
        } else {
            "one seed".to_owned()
        };
        let verdict = match (it.significant, ratio < 1.0) {
            (false, _) => "chance",
            (true, true) => "less",
            (true, false) => "more",
        };
        let right = |text: String| Field::new(text).set_alignment(CellAlignment::Right);
        table.add_row([
            Field::new(cell),
            Field::new(policy),
            Field::new(it.metric),
            right(table::number(it.values[0])),
            right(table::number(it.values[1])),
            right(format!("{ratio:.3}")),
            right(interval),
            Field::new(verdict),
        ]);
    }
    table.to_string()
}

fn between(a: &Series<'_>, b: &Series<'_>) -> Vec<Difference> {
    METRICS.iter().filter_map(|(name, _, metric)| difference(a, b, name, *metric)).collect()
}

fn difference(
    a: &Series<'_>,
    b: &Series<'_>,
    name: &'static str,
    metric: Metric,
) -> Option<Difference> {
    let pairs: Vec<(f64, f64)> = a
        .runs
        .iter()
        .filter_map(|(seed, run)| {
            let (_, other) = b.runs.iter().find(|(other, _)| other == seed)?;
            Some((metric(run), metric(other)))
        })
        .collect();
    let paired = pairs.len() == a.runs.len() && pairs.len() == b.runs.len();
    let values = |series: &Series<'_>| -> Vec<f64> {
        series.runs.iter().map(|(_, run)| metric(run)).collect()
    };
    let ratio: Interval = if paired {
        statistics::paired_ratio(&pairs)?
    } else {
        statistics::ratio(&values(a), &values(b))?
    };
    Some(Difference {
        cell: format!("{}, {}", a.cell.label(), a.cell.load_label()),
        policies: [a.policy.to_owned(), b.policy.to_owned()],
        metric: name,
        values: [a.mean(metric)?, b.mean(metric)?],
        ratio: [ratio.value, ratio.low, ratio.high],
        paired,
        significant: ratio.excludes(1.0),
    })
}
