//! `xtask figures`: what the policies do for clients, measured by `cluster lab`, held against what is aimed at, and written
//! down with plots (`docs/scheduling.md`).
//!
//! Each experiment is one of the laboratory's own, so that anybody can repeat it: `cluster lab run --preset NAME`.
#![expect(clippy::cast_precision_loss, reason = "no figure here has more than fifteen digits")]

mod aim;
mod page;
mod plot;

use std::{fs, path::PathBuf, process::Command};

use anyhow::Context as _;
use cluster_lab::{
    outcome::Outcome,
    point::Cell,
    results::{Metric, Results},
};

use crate::step;

/// An experiment that is written down.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Shown {
    Frozen,
    Bimodal,
    Overload,
    Scale,
}

/// All of them, in the order of the page.
const ALL: [Shown; 4] = [Shown::Frozen, Shown::Bimodal, Shown::Overload, Shown::Scale];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// A smoke run: every point once, and short; nothing is written down
    #[arg(long)]
    quick: bool,
    /// Measure nothing, and write down again what was measured last
    #[arg(long, conflicts_with = "quick")]
    again: bool,
}

/// What was measured in an experiment.
struct Measured {
    shown: Shown,
    results: Results,
    /// The report, which has the plots.
    report: String,
}

/// Runs the experiments one after the other, prints the aims, and writes the page.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    if !args.again {
        step::run(&mut step::cargo([
            "build",
            "--release",
            "--package",
            "cluster-user",
            "--bin",
            "cluster",
        ]))?;
    }
    let measured: Vec<Measured> = ALL
        .into_iter()
        .map(|shown| {
            if !args.again {
                shown.measure(args.quick)?;
            }
            shown.read(args.quick)
        })
        .collect::<anyhow::Result<_>>()?;
    let aims = aim::aims(&measured)?;
    println!("{}", aim::table(&aims));
    if args.quick {
        return Ok(());
    }
    let docs = step::root().join("docs");
    for plot in plot::all(&measured)? {
        let path = docs.join("plots").join(plot.file);
        fs::create_dir_all(docs.join("plots"))?;
        fs::write(&path, &plot.svg)
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    let path = docs.join("scheduling.md");
    fs::write(&path, page::text(&measured, &aims)?)?;
    println!("figures: written to {}", path.display());
    Ok(())
}

impl Shown {
    /// As the laboratory knows it.
    fn name(self) -> &'static str {
        match self {
            Self::Frozen => "frozen",
            Self::Bimodal => "bimodal",
            Self::Overload => "overload",
            Self::Scale => "scale",
        }
    }

    /// Where its results are. A smoke run is never taken for a real one.
    fn folder(self, quick: bool) -> PathBuf {
        let all = if quick { "figures-quick" } else { "figures" };
        step::target().join(all).join(self.name())
    }

    fn measure(self, quick: bool) -> anyhow::Result<()> {
        let folder = self.folder(quick);
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        let mut run = Command::new(step::target().join("release/cluster"));
        run.args(["lab", "run", "--preset", self.name(), "--out"]).arg(&folder);
        if quick {
            run.arg("--quick");
        }
        step::run(&mut run)
    }

    fn read(self, quick: bool) -> anyhow::Result<Measured> {
        let folder = self.folder(quick);
        let results = Results::read(&folder)
            .map_err(|refusal| anyhow::anyhow!("{refusal}; without --again it is measured"))?;
        Ok(Measured {
            shown: self,
            results,
            report: fs::read_to_string(folder.join("report.html"))?,
        })
    }
}

impl Measured {
    /// A figure of a policy under the first conditions that fit, as the mean over the seeds.
    ///
    /// # Errors
    /// When it was not measured: then there is nothing to write down.
    fn figure(
        &self,
        policy: &str,
        fits: impl Fn(&Cell) -> bool,
        metric: Metric,
    ) -> anyhow::Result<f64> {
        let series = self.results.series();
        let found = series.iter().find(|one| one.policy == policy && fits(one.cell));
        let found =
            found.with_context(|| format!("{} has no {policy} like that", self.shown.name()))?;
        let missing = found.missing.join("; ");
        anyhow::ensure!(
            missing.is_empty(),
            "{}, {policy}: no result: {missing}",
            self.shown.name()
        );
        found.mean(metric).with_context(|| format!("{}, {policy}: no run", self.shown.name()))
    }
}

fn mean(outcome: &Outcome) -> f64 {
    outcome.latency.mean
}

fn p50(outcome: &Outcome) -> f64 {
    outcome.latency.p50
}

fn p99(outcome: &Outcome) -> f64 {
    outcome.latency.p99
}

fn p999(outcome: &Outcome) -> f64 {
    outcome.latency.p999
}

fn refusal(outcome: &Outcome) -> f64 {
    outcome.refusal.p99
}
