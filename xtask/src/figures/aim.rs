//! Aims: ratios of what was measured side by side in one run, and what they are to be.

use std::fmt::Write as _;

use cluster_lab::{point::Cell, results::Metric};

use super::{Measured, Shown, mean, p50, p99, p999, refusal};

/// A figure that is aimed at.
pub(super) struct Aim {
    /// What it is.
    what: String,
    /// What was seen.
    seen: f64,
    /// The most that it is to be.
    most: f64,
}

/// Policies that the cost of cheap uniform work is aimed at.
const ALL: [&str; 3] = ["default", "p2c", "least-conn"];

/// Every aim that the laboratory can say something about.
///
/// # Errors
/// When something was not measured.
pub(super) fn aims(measured: &[Measured]) -> anyhow::Result<Vec<Aim>> {
    let of = |shown: Shown| measured.iter().find(|one| one.shown == shown);
    let mut aims = Vec::new();
    if let Some(frozen) = of(Shown::Frozen) {
        for load in [0.25, 0.5] {
            for policy in ["least-conn", "default"] {
                let at = |cell: &Cell| cell.load == Some(load);
                let seen = ratio(frozen, policy, "none", at, p999)?;
                let what =
                    format!("one of four frozen for 3 s, load {load}: p99.9 of `{policy}` / hash");
                aims.push(Aim { what, seen, most: 1.0 / 500.0 });
            }
        }
    }
    if let Some(bimodal) = of(Shown::Bimodal) {
        for load in [0.7, 0.85] {
            let at = |cell: &Cell| cell.load == Some(load);
            for (name, other, metric, most) in [
                ("mean", "none", mean as Metric, 0.25),
                ("p99", "none", p99, 0.5),
                ("mean", "shared", mean, 1.25),
            ] {
                let seen = ratio(bimodal, "least-conn", other, at, metric)?;
                let other = if other == "none" { "hash" } else { "one shared queue" };
                let what = format!("bimodal, load {load}: {name} of `least-conn` / {other}");
                aims.push(Aim { what, seen, most });
            }
        }
    }
    if let Some(overload) = of(Shown::Overload) {
        let (none, twice) =
            (|cell: &Cell| cell.load == Some(0.1), |cell: &Cell| cell.load == Some(2.0));
        for policy in ["default --shed 4", "least-conn --shed 4"] {
            let seen = overload.figure(policy, twice, p99)? / overload.figure(policy, none, p99)?;
            let what = format!("overload × 2, `{policy}`: p99 of who is admitted / at load 0.1");
            aims.push(Aim { what, seen, most: 3.0 });
            let refused = overload.figure(policy, twice, |it| it.refusal.count as f64)?;
            anyhow::ensure!(refused > 0.0, "{policy} refused nobody under twice the load");
            let seen = overload.figure(policy, twice, refusal)?;
            let what = format!("overload × 2, `{policy}`: p99 of a refusal, ms");
            aims.push(Aim { what, seen, most: 1.0 });
        }
    }
    if let Some(scale) = of(Shown::Scale) {
        for workers in [2, 8, 32, 128] {
            for policy in ALL {
                // Not the mean, which a pause of the machine moves by more than what is looked for.
                let seen = ratio(scale, policy, "none", |cell| cell.workers == workers, p50)?;
                let what =
                    format!("cheap uniform work, {workers} workers: p50 of `{policy}` / hash");
                aims.push(Aim { what, seen, most: 1.05 });
            }
        }
    }
    Ok(aims)
}

fn ratio(
    measured: &Measured,
    policy: &str,
    other: &str,
    fits: impl Fn(&Cell) -> bool + Copy,
    metric: Metric,
) -> anyhow::Result<f64> {
    Ok(measured.figure(policy, fits, metric)? / measured.figure(other, fits, metric)?)
}

/// The aims as a table in Markdown.
pub(super) fn table(aims: &[Aim]) -> String {
    let mut text = "| | seen | aim | |\n|---|--:|--:|---|\n".to_owned();
    for aim in aims {
        let reached = if aim.seen <= aim.most { "reached" } else { "missed" };
        // A String takes everything.
        writeln!(
            text,
            "| {} | {} | ≤ {} | {reached} |",
            aim.what,
            shown(aim.seen),
            shown(aim.most)
        )
        .unwrap_or_default();
    }
    text
}

/// A ratio far below one as one of so many.
fn shown(value: f64) -> String {
    if value > 0.0 && value < 0.02 {
        format!("1/{:.0}", 1.0 / value)
    } else {
        format!("{value:.3}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_the_aim_is_missed() {
        let aims = [("a", 0.001), ("b", 0.3)].map(|(what, seen)| Aim {
            what: what.to_owned(),
            seen,
            most: 0.25,
        });
        let table = table(&aims);
        assert!(table.contains("| a | 1/1000 | ≤ 0.250 | reached |"), "{table}");
        assert!(table.contains("| b | 0.300 | ≤ 0.250 | missed |"), "{table}");
    }
}
