//! The page: aims, tables and plots, as Markdown.

use std::fmt::Write as _;

use cluster_lab::{
    column::{Column, MAX, MEAN, P50, P99, P999, THROUGHPUT},
    machine::Machine,
    point::Cell,
    results::{Series, distinct},
};

use super::{Measured, Shown, aim, aim::Aim};

/// Columns of the tables.
const COLUMNS: [Column; 7] = [
    THROUGHPUT,
    MEAN,
    P50,
    P99,
    P999,
    ("longest", MAX.1),
    ("refused, %", |it| share(it.failures.refused, it.planned)),
];

/// The text of the page.
///
/// # Errors
/// Never, but for a writer's.
pub(super) fn text(measured: &[Measured], aims: &[Aim]) -> anyhow::Result<String> {
    let mut text = "# What policies do for clients\n\n".to_owned();
    if let Some(results) = measured.last().map(|one| &one.results) {
        let date = results.date.split('T').next().unwrap_or_default();
        writeln!(
            text,
            "Measured on {date} by `cargo xtask figures` on {}, the load generator on the same CPUs. Workers are \
             real processes of their own; they sleep as long as a request takes, so that there are as many servers as there \
             are workers, however few CPUs there are. Requests are due by a Poisson process, each on a connection of its own, \
             and latency counts from when they were due, in milliseconds, over three seeds. Compare rows, not absolute \
             numbers: `none` is the kernel's hash over plain SO_REUSEPORT sockets, without anything of ours, `shared` one \
             socket that all workers accept from, which no policy for sockets can beat, and `default` is `cluster` without \
             any option.\n",
            machine(&results.machine)
        )?;
    }
    write!(text, "## Aims\n\n{}", aim::table(aims))?;
    for one in measured {
        write!(text, "\n## {}\n\n{}\n", one.shown.title(), one.shown.about())?;
        for (file, alt) in one.shown.plots() {
            writeln!(text, "\n![{alt}](plots/{file})")?;
        }
        let series = one.results.series();
        for cell in distinct(series.iter().map(|it| it.cell)) {
            let here: Vec<_> =
                series.iter().filter(|it| it.cell == cell && !it.runs.is_empty()).collect();
            write!(text, "\n{}:\n\n{}", title(cell), table(&here)?)?;
        }
        writeln!(text, "\nAgain: `cluster lab run --preset {}`.", one.shown.name())?;
    }
    Ok(text)
}

/// A machine as far as it matters for comparing rows.
fn machine(machine: &Machine) -> String {
    let release: Vec<&str> = machine.kernel.split('.').take(2).collect();
    format!("a machine with {} CPUs and Linux {}", machine.cpus, release.join("."))
}

fn title(cell: &Cell) -> String {
    match cell.load {
        Some(load) => format!("{}, load {load}", cell.label()),
        None => cell.label(),
    }
}

fn table(series: &[&Series<'_>]) -> anyhow::Result<String> {
    let mut text = "| policy |".to_owned();
    for (name, _) in COLUMNS {
        write!(text, " {name} |")?;
    }
    writeln!(text, "\n|---|{}", "--:|".repeat(COLUMNS.len()))?;
    for one in series {
        write!(text, "| `{}` |", one.policy)?;
        for (_, metric) in COLUMNS {
            write!(text, " {} |", one.mean(metric).map(digits).unwrap_or_default())?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

/// Three digits of a number.
fn digits(value: f64) -> String {
    match value {
        value if value >= 100.0 => format!("{value:.0}"),
        value if value >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

fn share(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { 100.0 * part as f64 / whole as f64 }
}

impl Shown {
    fn title(self) -> &'static str {
        match self {
            Self::Frozen => "A worker that stands still",
            Self::Bimodal => "Few requests that take long",
            Self::Overload => "Twice too much",
            Self::Scale => "Nothing to gain",
        }
    }

    fn about(self) -> &'static str {
        match self {
            Self::Frozen => {
                "One of four workers is stopped (SIGSTOP) two seconds after the beginning, for three. The hash sends it \
                 a quarter of all connections, which wait until it goes on. The guard, on unless told otherwise, sees \
                 that it accepts nothing and sends it no more; the few that wait at it already wait on."
            }
            Self::Bimodal => {
                "99.5 % of the requests take 1 ms and the others 100 ms. Behind one of these, others wait long: how \
                 often depends on the policy alone."
            }
            Self::Overload => {
                "Twice as many requests as four workers can serve. With `--shed` they are refused at once when every \
                 worker has as many as that."
            }
            Self::Scale => {
                "A thousand requests a second of 0.1 ms, over more and more workers: there is nothing that a policy \
                 could make better, and what it costs would be seen. That is held by the median: a pause of the \
                 machine itself moves a mean by more."
            }
        }
    }

    fn plots(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Frozen => &[
                ("frozen-time.svg", "slowest request in each tenth of a second"),
                ("frozen-tail.svg", "distribution of latency with a frozen worker"),
            ],
            Self::Bimodal => &[
                ("bimodal-mean.svg", "mean latency against load"),
                ("bimodal-tail.svg", "distribution of latency at load 0.85"),
            ],
            Self::Overload => {
                &[("overload-tail.svg", "distribution of latency under twice the load")]
            }
            Self::Scale => &[],
        }
    }
}
