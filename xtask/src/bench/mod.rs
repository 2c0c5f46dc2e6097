//! `xtask bench`: `cluster` beside what people use today, measured in turn in one run.
//!
//! One unmodified Node app, four workers, one machine. Everything runs in a private network namespace
//! with a `CLUSTER_HOME` and a `PM2_HOME` of its own, and is ended by process id. Compare columns, not
//! absolute numbers: the load generator has the same CPUs as what it loads.
#![expect(clippy::cast_precision_loss, reason = "no figure here has more than fifteen digits")]

mod contestant;
mod decision;
mod empty;
mod flood;
mod footprint;
mod load;
mod policies;
mod reaction;
mod reload;
mod report;

use std::time::Duration;

use clap::ValueEnum;

use self::{contestant::Contestant, report::Report};
use crate::{arena::Arena, tools};

/// Workers of every contestant but the bare process.
const WORKERS: usize = 4;
/// Where all of them serve.
const PORT: u16 = 8080;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What to measure; everything but `reload` when nothing is named
    what: Vec<What>,
    /// A smoke run: every measurement once, and short
    #[arg(long)]
    quick: bool,
    /// How often each measurement is made
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// How long each load lasts, in seconds
    #[arg(long, default_value_t = 3)]
    seconds: u64,
    /// How many reloads there are under each kind of load
    #[arg(long, default_value_t = 100)]
    reloads: u32,
    /// The longest time for these, in seconds; then it is as many as were made
    #[arg(long, default_value_t = 60)]
    limit: u64,
    /// How workers are replaced
    #[arg(long, value_enum, default_value_t = reload::By::Reload)]
    by: reload::By,
}

/// What can be measured.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Connections and requests per second, latency, errors
    Load,
    /// Memory of the daemon, its CPU time when idle, and how long `list` takes
    Footprint,
    /// From start, and from a crash, to serving
    Reaction,
    /// Time of one decision in the kernel
    Decision,
    /// Time of one decision by each policy, among 4, 64 and 500 sockets, and what 500 workers cost
    Policies,
    /// Capture of 200 MB of log lines
    Flood,
    /// Reloads, bad deploys and the death of the daemon under load, in three languages; takes some minutes
    Reload,
}

/// How often and how long.
#[derive(Clone, Copy)]
struct Effort {
    rounds: u32,
    seconds: u64,
    quick: bool,
}

/// Measures, prints a table and writes JSON into `target/bench`.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    tools::ensure(tools::FOR_BENCHMARKS)?;
    if args.what.contains(&What::Reload) {
        tools::ensure(tools::FOR_CHAOS)?;
    }
    let effort = if args.quick {
        Effort { rounds: 1, seconds: 1, quick: true }
    } else {
        Effort { rounds: args.rounds.max(1), seconds: args.seconds.max(1), quick: false }
    };
    let contestants = contestant::prepare(effort.quick)?;
    let arena = Arena::enter()?;
    let mut report = Report::new(&contestants);
    let named = |what: &What| args.what.contains(what) || args.what.is_empty();
    let measured: Vec<What> = What::value_variants().iter().copied().filter(named).collect();
    for what in &measured {
        what.measure(&arena, &contestants, effort, &mut report)?;
    }
    if measured.iter().any(|what| *what != What::Reload) {
        report.print();
        report.write()?;
    }
    if args.what.contains(&What::Reload) {
        let effort = reload::Effort {
            reloads: if args.quick { args.reloads.min(2) } else { args.reloads },
            limit: Duration::from_secs(args.limit),
            seconds: effort.seconds,
            by: args.by,
        };
        reload::run(&arena, effort, contestants.contains(&Contestant::Pm2))?;
    }
    Ok(())
}

impl What {
    fn measure(
        self,
        arena: &Arena,
        contestants: &[Contestant],
        effort: Effort,
        report: &mut Report,
    ) -> anyhow::Result<()> {
        match self {
            Self::Load => load::measure(arena, contestants, effort, report),
            Self::Footprint => footprint::measure(arena, contestants, effort, report),
            Self::Reaction => reaction::measure(arena, contestants, effort, report),
            Self::Decision => decision::measure(arena, effort, report),
            Self::Policies => policies::measure(arena, effort, report),
            Self::Flood => flood::measure(arena, contestants, effort, report),
            // It has other columns, and a report of its own.
            Self::Reload => Ok(()),
        }
    }
}
