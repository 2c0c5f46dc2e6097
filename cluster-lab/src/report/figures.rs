//! Figures of a report: what is plotted, and what is said of it.

use std::fmt::Write as _;

use super::{
    escape,
    plot::{Legend, Line, Plot},
    title,
};
use crate::{
    fault::{Fault, FaultKind},
    outcome::{Moment, Outcome},
    point::Cell,
    results::{Metric, Series, distinct},
    span::Span,
};

/// A latency that is plotted against the load.
const CURVES: [(&str, Metric); 3] =
    [("mean", |it| it.latency.mean), ("p99", |it| it.latency.p99), ("p99.9", |it| it.latency.p999)];
/// More workers than these are no lines that anybody can tell apart.
const MOST_LINES: usize = 16;
/// Moments of one point of a line about a whole run: half a second.
const STEP: usize = 5;

/// Latency against load, for conditions that there are several loads of.
pub(super) fn against_load(series: &[Series<'_>]) -> anyhow::Result<String> {
    let mut text = String::new();
    let without: Vec<Cell> = series.iter().map(|it| unloaded(it.cell)).collect();
    for cell in distinct(without.iter()) {
        let here: Vec<&Series<'_>> = series
            .iter()
            .zip(&without)
            .filter(|(it, own)| *own == cell && !it.runs.is_empty())
            .map(|(it, _)| it)
            .collect();
        if distinct(here.iter().map(|it| it.cell)).len() < 2 {
            continue;
        }
        write!(text, "<h3>{}</h3>", escape(&cell.label()))?;
        for (name, metric) in CURVES {
            let mut lines: Vec<Line> = Vec::new();
            for one in &here {
                let Some(value) = one.mean(metric) else { continue };
                let load = one.cell.load.or(one.cell.rate).unwrap_or_default();
                match lines.iter_mut().find(|line| line.name == one.policy) {
                    Some(line) => line.points.push((load, value)),
                    None => lines
                        .push(Line { name: one.policy.to_owned(), points: vec![(load, value)] }),
                }
            }
            for line in &mut lines {
                line.points.sort_by(|a, b| a.0.total_cmp(&b.0));
            }
            let x = if here[0].cell.load.is_some() { "load" } else { "requests per second" };
            let (x, y) = (x.to_owned(), format!("{name}, ms"));
            let plot = Plot { x, y, lines, log_y: true, dots: true, ..Plot::default() };
            figure(
                &mut text,
                &plot,
                &format!("{name} latency against offered load, over all seeds"),
            )?;
        }
    }
    Ok(text)
}

/// What one set of conditions shows: distribution, time line, and balance.
pub(super) fn of_cell(cell: &Cell, here: &[&Series<'_>]) -> anyhow::Result<String> {
    let mut text = String::new();
    let lines = here.iter().map(|one| Line { name: one.policy.to_owned(), points: slower(one) });
    let plot = Plot {
        x: "latency, ms".to_owned(),
        y: "share of requests that took longer".to_owned(),
        lines: lines.collect(),
        log_x: true,
        log_y: true,
        legend: Legend::Below,
        ..Plot::default()
    };
    figure(
        &mut text,
        &plot,
        "distribution of latency, over all seeds: 0.01 is the 99th percentile",
    )?;
    if cell.fault.kind != FaultKind::None {
        let lines = here.iter().map(|one| {
            let points = times(first(one)).map(|(at, moment)| (at, moment.max.max(0.01)));
            Line { name: one.policy.to_owned(), points: points.collect() }
        });
        let plot = Plot {
            x: "seconds".to_owned(),
            y: "slowest, ms".to_owned(),
            lines: lines.collect(),
            log_y: true,
            mark: mark(&cell.fault),
            ..Plot::default()
        };
        let caption =
            format!("the slowest request that was due in each tenth of a second, {}", cell.fault);
        figure(&mut text, &plot, &caption)?;
        failures(&mut text, cell, here)?;
    }
    for one in here {
        balance(&mut text, cell, one)?;
    }
    Ok(text)
}

fn failures(text: &mut String, cell: &Cell, here: &[&Series<'_>]) -> anyhow::Result<()> {
    let failed: Vec<&&Series<'_>> = here.iter().filter(|one| one.failures() > 0).collect();
    if failed.is_empty() {
        return Ok(());
    }
    let lines = failed.iter().map(|one| {
        let points = times(first(one)).map(|(at, moment)| (at, moment.failed as f64));
        Line { name: one.policy.to_owned(), points: points.collect() }
    });
    let plot = Plot {
        x: "seconds".to_owned(),
        y: "failed".to_owned(),
        lines: lines.collect(),
        mark: mark(&cell.fault),
        ..Plot::default()
    };
    figure(text, &plot, "requests that got no answer, in each tenth of a second")
}

/// Connections of each worker over time, with the first seed.
fn balance(text: &mut String, cell: &Cell, one: &Series<'_>) -> anyhow::Result<()> {
    let run = first(one);
    let named = run.timeline.first().map_or(0, |moment| moment.connections.len());
    if named == 0 || named != run.workers.len() {
        return Ok(());
    }
    let steps: Vec<(f64, Vec<f64>)> = run
        .timeline
        .chunks(STEP)
        .zip(0_u32..)
        .map(|(moments, step)| {
            let sum = |worker: usize| moments.iter().map(|it| it.connections[worker]).sum::<u64>();
            let at = f64::from(step) * STEP as f64 / 10.0;
            (at, (0..named).map(|it| sum(it) as f64 / moments.len() as f64).collect())
        })
        .collect();
    let line = |name: String, value: &dyn Fn(&[f64]) -> f64| Line {
        name,
        points: steps.iter().map(|(at, counts)| (*at, value(counts))).collect(),
    };
    let lines = if named <= MOST_LINES {
        (0..named).map(|it| line(format!("worker {}", run.workers[it]), &|all| all[it])).collect()
    } else {
        vec![
            line("most".to_owned(), &|all| all.iter().copied().fold(0.0, f64::max)),
            line("mean".to_owned(), &|all| all.iter().sum::<f64>() / all.len() as f64),
            line("least".to_owned(), &|all| all.iter().copied().fold(f64::INFINITY, f64::min)),
        ]
    };
    let plot = Plot {
        x: "seconds".to_owned(),
        y: "connections per 100 ms".to_owned(),
        lines,
        legend: Legend::Below,
        mark: mark(&cell.fault),
        ..Plot::default()
    };
    let caption = format!("{}: connections of each worker, {}", one.policy, title(cell));
    figure(text, &plot, &caption)
}

fn figure(text: &mut String, plot: &Plot, caption: &str) -> anyhow::Result<()> {
    if let Some(svg) = plot.svg() {
        writeln!(text, "<figure>{}<figcaption>{}</figcaption></figure>", svg?, escape(caption))?;
    }
    Ok(())
}

/// Share of requests that took longer than each latency, in milliseconds; the last one is left out, which is none.
fn slower(one: &Series<'_>) -> Vec<(f64, f64)> {
    let mut counts: Vec<(u64, u64)> =
        one.runs.iter().flat_map(|(_, run)| run.histogram.iter().copied()).collect();
    counts.sort_unstable();
    let all: u64 = counts.iter().map(|(_, count)| count).sum();
    let mut left = all;
    let mut points: Vec<(f64, f64)> = Vec::new();
    for (micros, count) in counts {
        left -= count;
        let point = (micros as f64 / 1e3, left as f64 / all as f64);
        // As many points as can be seen: each at least 1 % further than the last.
        let is_far =
            points.last().is_none_or(|last| point.0 > last.0 * 1.01 || point.1 < last.1 * 0.97);
        if left > 0 && is_far {
            points.push(point);
        }
    }
    points
}

fn first<'a>(one: &Series<'a>) -> &'a Outcome {
    one.runs[0].1
}

fn times(run: &Outcome) -> impl Iterator<Item = (f64, &Moment)> {
    run.timeline.iter().zip(0_u32..).map(|(moment, at)| (f64::from(at) / 10.0, moment))
}

fn mark(fault: &Fault) -> Option<(f64, f64)> {
    let at = fault.at?.seconds();
    (fault.kind != FaultKind::None).then(|| (at, at + fault.lasts.map_or(0.05, Span::seconds)))
}

fn unloaded(cell: &Cell) -> Cell {
    Cell { load: None, rate: None, ..cell.clone() }
}
