//! The report: one HTML file with everything in it, to be read on a screen or on paper.

mod figures;
mod plot;

use std::fmt::Write as _;

use crate::{
    column::{Column, MAX, MEAN, P50, P90, P99, P999, THROUGHPUT},
    outcome::Outcome,
    point::Cell,
    results::{Metric, Results, Series, distinct},
    statistics,
    table::number,
};

const STYLE: &str = include_str!("style.css");

/// Columns of the tables.
const COLUMNS: [Column; 7] = [THROUGHPUT, MEAN, P50, P90, P99, P999, MAX];

/// The report as HTML.
///
/// # Errors
/// When a plot cannot be drawn.
pub fn html(results: &Results) -> anyhow::Result<String> {
    let series = results.series();
    let name = escape(&results.experiment.name);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>{name} – cluster lab</title><style>{STYLE}</style></head><body>\n<h1>{name}</h1>\n"
    );
    facts(&mut page, results);
    let missing = crate::table::missing(results);
    if !missing.is_empty() {
        page.push_str("<h2>What is no result</h2><ul class=\"no\">");
        for line in missing {
            write!(page, "<li>{}</li>", escape(&line))?;
        }
        page.push_str("</ul>\n");
    }
    let curves = figures::against_load(&series)?;
    if !curves.is_empty() {
        page.push_str("<h2>Latency against load</h2>\n");
        page.push_str(&curves);
    }
    for cell in distinct(series.iter().map(|it| it.cell)) {
        let here: Vec<&Series<'_>> =
            series.iter().filter(|it| it.cell == cell && !it.runs.is_empty()).collect();
        if here.is_empty() {
            continue;
        }
        write!(page, "<h2>{}</h2>\n{}", escape(&title(cell)), table(&here)?)?;
        page.push_str(&figures::of_cell(cell, &here)?);
    }
    write!(page, "<h2>The experiment</h2><pre>{}</pre>", escape(&results.experiment.to_toml()))?;
    page.push_str("</body></html>\n");
    Ok(page)
}

fn facts(page: &mut String, results: &Results) {
    let measured = results.records.iter().filter(|it| it.verdict.outcome().is_some()).count();
    let place = if results.machine.private {
        "a network namespace of its own"
    } else {
        "the host's network"
    };
    let seeds: Vec<String> = results.experiment.seeds.iter().map(u64::to_string).collect();
    page.push_str("<dl>");
    for (name, value) in [
        ("date", results.date.clone()),
        ("machine", results.machine.label()),
        ("each run in", place.to_owned()),
        ("cluster", results.version.clone()),
        ("runs", format!("{measured} of {} are results", results.records.len())),
        ("seeds", seeds.join(", ")),
        (
            "each run",
            format!("{} after {}", results.experiment.duration, results.experiment.warmup),
        ),
    ] {
        // A String takes everything.
        write!(page, "<dt>{name}</dt><dd>{}</dd>", escape(&value)).unwrap_or_default();
    }
    page.push_str(
        "</dl>\n<p>Open loop: latency counts from when a request was due, whatever became of those before it. \
         All times are milliseconds, and means over the seeds with their 95 % confidence. Lag is how late the \
         generator was, and overrun how much longer workers were busy than they were to be: what the machine \
         itself adds.</p>\n",
    );
}

fn table(here: &[&Series<'_>]) -> anyhow::Result<String> {
    let mut text = "<div class=\"scroll\"><table><thead><tr><th>policy</th>".to_owned();
    for (name, _) in COLUMNS {
        write!(text, "<th>{name}</th>")?;
    }
    text.push_str(
        "<th>failed</th><th>of</th><th>refused in</th><th>Jain</th><th>max/mean</th><th>lag p99</th><th>overrun p99</th>\
         </tr></thead><tbody>",
    );
    for one in here {
        write!(text, "<tr><td>{}</td>", escape(one.policy))?;
        for (_, metric) in COLUMNS {
            write!(text, "<td>{}</td>", with_interval(one, metric))?;
        }
        let share = |figure: fn(&Outcome) -> Option<f64>| {
            one.mean_of(figure).map(|it| format!("{it:.3}")).unwrap_or_default()
        };
        let refusal = one.mean_of(|it| (it.refusal.count > 0).then_some(it.refusal.p99));
        write!(
            text,
            "<td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            one.failures(),
            one.planned(),
            refusal.map(number).unwrap_or_default(),
            share(|it| it.jain),
            share(|it| it.max_over_mean),
            one.mean(|it| it.lag.p99).map(number).unwrap_or_default(),
            one.mean(|it| it.overrun.p99).map(number).unwrap_or_default(),
        )?;
    }
    text.push_str("</tbody></table></div>\n");
    Ok(text)
}

fn with_interval(one: &Series<'_>, metric: Metric) -> String {
    let values: Vec<f64> = one.runs.iter().map(|(_, run)| metric(run)).collect();
    let Some(interval) = statistics::mean(&values) else { return String::new() };
    let half = interval.high - interval.value;
    if half.is_finite() {
        format!("{} ±{}", number(interval.value), number(half))
    } else {
        number(interval.value)
    }
}

fn title(cell: &Cell) -> String {
    format!("{}, {}", cell.label(), cell.load_label())
}

/// Text that is no markup.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
