//! Comparing results: which differences are more than chance.

use comfy_table::{Cell as Field, CellAlignment};
use serde::Serialize;

use crate::{
    refusal::Refusal,
    results::{METRICS, Metric, Results, Series},
    statistics::{self, Interval},
    table,
};

/// Shares of all requests, in percent: they may be 0, of which nothing is a multiple.
const SHARES: [(&str, Metric); 2] = [
    ("failed, %", |it| share(it.failures.all(), it.planned)),
    ("refused, %", |it| share(it.failures.refused, it.planned)),
];

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
    /// The second divided by the first, and where that lies with 95 % confidence; `None` for shares.
    pub ratio: Option<[f64; 3]>,
    /// The second less the first, and where that lies; `None` for all but shares, in percent.
    pub excess: Option<[f64; 3]>,
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
    table.set_header(["", "policy", "figure", "before", "after", "ratio or +", "95 %", ""]);
    let mut last = "";
    for it in differences {
        let cell = if it.cell == last { "" } else { it.cell.as_str() };
        last = &it.cell;
        let [a, b] = &it.policies;
        let policy = if a == b { a.clone() } else { format!("{a} → {b}") };
        let ([value, low, high], usual, sign) = match (it.ratio, it.excess) {
            (Some(ratio), _) => (ratio, 1.0, ""),
            (None, excess) => (excess.unwrap_or_default(), 0.0, "+"),
        };
        let signed = |value: f64, digits| match sign {
            "" => format!("{value:.digits$}"),
            _ => format!("{value:+.digits$}"),
        };
        let interval = if low.is_finite() && high.is_finite() {
            format!("{} – {}", signed(low, 2), signed(high, 2))
        } else {
            "one seed".to_owned()
        };
        let verdict = match (it.significant, value < usual) {
            // Of one seed there is no saying.
            (false, _) if !low.is_finite() => "",
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
            right(signed(value, 3)),
            right(interval),
            Field::new(verdict),
        ]);
    }
    table.to_string()
}

fn between(a: &Series<'_>, b: &Series<'_>) -> Vec<Difference> {
    let ratios = METRICS.iter().filter_map(|(name, _, metric)| ratio(a, b, name, *metric));
    let shares = SHARES.iter().filter_map(|(name, metric)| difference(a, b, name, *metric));
    ratios.chain(shares).collect()
}

fn ratio(a: &Series<'_>, b: &Series<'_>, name: &'static str, metric: Metric) -> Option<Difference> {
    let runs = Runs::of(a, b, metric);
    let ratio: Interval = match &runs.pairs {
        Some(pairs) => statistics::paired_ratio(pairs)?,
        None => statistics::ratio(&runs.values[0], &runs.values[1])?,
    };
    let significant = ratio.excludes(1.0);
    let ratio = Some([ratio.value, ratio.low, ratio.high]);
    Some(Difference { ratio, significant, ..runs.compared(a, b, name, metric)? })
}

/// A share that is nothing on both sides is left out.
fn difference(
    a: &Series<'_>,
    b: &Series<'_>,
    name: &'static str,
    metric: Metric,
) -> Option<Difference> {
    let runs = Runs::of(a, b, metric);
    if runs.values.iter().flatten().all(|share| *share <= 0.0) {
        return None;
    }
    let difference = match &runs.pairs {
        Some(pairs) => statistics::paired_difference(pairs)?,
        None => statistics::difference(&runs.values[0], &runs.values[1])?,
    };
    let significant = difference.excludes(0.0);
    let excess = Some([difference.value, difference.low, difference.high]);
    Some(Difference { excess, significant, ..runs.compared(a, b, name, metric)? })
}

/// A figure of all runs of two series.
struct Runs {
    /// Those of the same seeds, if each has a partner.
    pairs: Option<Vec<(f64, f64)>>,
    values: [Vec<f64>; 2],
}

impl Runs {
    fn of(a: &Series<'_>, b: &Series<'_>, metric: Metric) -> Self {
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
        Self { pairs: paired.then_some(pairs), values: [values(a), values(b)] }
    }

    fn compared(
        &self,
        a: &Series<'_>,
        b: &Series<'_>,
        name: &'static str,
        metric: Metric,
    ) -> Option<Difference> {
        Some(Difference {
            cell: format!("{}, {}", a.cell.label(), a.cell.load_label()),
            policies: [a.policy.to_owned(), b.policy.to_owned()],
            metric: name,
            values: [a.mean(metric)?, b.mean(metric)?],
            ratio: None,
            excess: None,
            paired: self.pairs.is_some(),
            significant: false,
        })
    }
}

fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { 100.0 * part as f64 / of as f64 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        experiment::Experiment,
        matrix,
        outcome::{Outcome, Tally},
    };

    #[test]
    fn who_was_refused_is_compared_though_nobody_was_before() {
        let runs: Vec<Outcome> = [0, 0, 0, 20, 21, 19].map(refused).to_vec();
        let cell = matrix::cells(&Experiment::default()).remove(0);
        let series = |policy, runs: &[Outcome]| -> Vec<Difference> {
            let (a, b) = runs.split_at(3);
            let of = |runs: &'static [Outcome]| Series {
                cell: Box::leak(Box::new(cell.clone())),
                policy,
                runs: (1..).zip(runs).collect(),
                missing: Vec::new(),
            };
            between(&of(a.to_vec().leak()), &of(b.to_vec().leak()))
        };
        let differences = series("default", &runs);
        let it = differences.iter().find(|it| it.metric == "refused, %").unwrap();
        assert!(it.significant && it.ratio.is_none(), "{it:?}");
        assert!((it.excess.unwrap()[0] - 20.0).abs() < 1e-9, "{it:?}");
        let text = shown(&differences, None);
        assert!(text.contains("refused, %") && text.contains("+20.0"), "{text}");
        // Nobody was on either side.
        let none: Vec<Outcome> = [0; 6].map(refused).to_vec();
        assert!(series("default", &none).iter().all(|it| !it.metric.contains('%')));
    }

    fn refused(count: u64) -> Outcome {
        let mut outcome = Tally::new(0, 1).outcome(4, 100, 1.0);
        outcome.failures.refused = count;
        outcome
    }
}
