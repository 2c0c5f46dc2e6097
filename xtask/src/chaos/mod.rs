//! `xtask chaos`: unmodified apps under load while all that can happen to them does; every request is accounted
//! for.
//!
//! Only a request that a worker was executing when it was killed with SIGKILL may fail. Which those are is no
//! guess: a worker is stopped before it is killed, and what it has accepted by then is looked up in the kernel's
//! table of sockets. Any other failed request, a move that does not come to what it has to, and anything that is
//! left behind at the end make the command fail.

pub(crate) mod app;
pub(crate) mod manager;
pub(crate) mod schedule;
mod moves;
mod timeline;
mod verdict;
mod victim;

use std::{fs, sync::Mutex, thread, time::Duration};

use clap::ValueEnum as _;
use cluster_proof::{
    leftover::Leftover,
    load::{Load, Plan},
};
use nix::unistd::geteuid;

use self::{
    app::App,
    manager::{Called, Manager},
    moves::{Mover, lock},
    schedule::{Schedule, What},
    timeline::Timeline,
    verdict::Verdict,
};
use crate::{arena::Arena, process, run, step, tools};

/// Longest time that a client waits. What takes longer is lost, and nothing here should.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most requests under way for one app: what is due while a client waits as long as it does, many times over.
const CROWD: usize = 10_000;
/// Length of a smoke run.
const QUICK: Duration = Duration::from_secs(20);
/// Longest time until nothing is left of a daemon that has ended.
const CLEARING: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// For how long
    #[arg(long, default_value_t = 2.0)]
    minutes: f64,
    /// The same seed makes the same moves and the same requests; by default another one each time
    #[arg(long)]
    seed: Option<u64>,
    /// A smoke run: 20 seconds
    #[arg(long, conflicts_with = "minutes")]
    quick: bool,
    /// Only these moves
    #[arg(long, value_delimiter = ',', conflicts_with = "without")]
    only: Vec<What>,
    /// All moves but these
    #[arg(long, value_delimiter = ',')]
    without: Vec<What>,
    /// This many times the usual number of requests per second
    #[arg(long, default_value_t = 1.0)]
    rate: f64,
}

/// Does its worst; an error says what was lost.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        geteuid().is_root(),
        "chaos loads kernel programs and makes a network namespace, which needs root\n\
         hint: sudo env \"PATH=$PATH\" cargo xtask chaos"
    );
    anyhow::ensure!(args.minutes > 0.0 && args.rate > 0.0, "nothing would happen");
    tools::ensure(tools::FOR_CHAOS)?;
    run::build()?;
    let seed = args.seed.unwrap_or_else(|| fastrand::u64(..1_000_000_000));
    let time = if args.quick { QUICK } else { Duration::from_secs_f64(args.minutes * 60.0) };
    let is_wanted = |what: &What| {
        let is_named = args.only.is_empty() || args.only.contains(what);
        is_named && !args.without.contains(what)
    };
    let kinds: Vec<What> = What::value_variants().iter().copied().filter(is_wanted).collect();
    let names = kinds.iter().filter_map(clap::ValueEnum::to_possible_value);
    let names: Vec<_> = names.map(|value| value.get_name().to_owned()).collect();
    println!("chaos: seed {seed}, {} s, moves: {}", time.as_secs(), names.join(", "));

    let arena = Arena::enter()?;
    let apps = app::all(&arena)?;
    let manager = Manager { arena: &arena };
    for app in &apps {
        let line = app.start()?;
        manager.call(&line.iter().map(String::as_str).collect::<Vec<_>>())?.ok()?;
        println!("chaos: {} serves port {} with {} workers", app.name, app.port, app.workers);
    }
    let workers: Vec<u32> = apps.iter().map(|app| app.workers).collect();
    let schedule = Schedule::new(seed, time, &kinds, &workers);
    let load = Load::start(Plan {
        seed,
        targets: apps.iter().map(|app| app.target(args.rate)).collect(),
        patience: PATIENCE,
        limit: CROWD,
    })?;
    let problems = judge(manager, &apps, &schedule, time, load);
    let left = end(manager);
    let problems = problems.into_iter().chain(left).collect::<Vec<_>>();
    for problem in &problems {
        println!("chaos: {problem}");
    }
    if !problems.is_empty() {
        keep_log(&arena);
    }
    anyhow::ensure!(
        problems.is_empty(),
        "{} things went wrong that must not\n\
         hint: the same moves again: cargo xtask chaos --seed {seed} …",
        problems.len()
    );
    println!("chaos: nothing was lost (seed {seed})");
    Ok(())
}

/// Makes all moves, stops the load and says what must not have happened.
fn judge(
    manager: Manager<'_>,
    apps: &[App],
    schedule: &Schedule,
    time: Duration,
    load: Load,
) -> Vec<String> {
    let timeline = Timeline::new();
    let tell = |entry: &timeline::Entry| {
        let shown = timeline.show(entry);
        let (asked, failed) = {
            let account = load.so_far();
            (account.asked, account.failed())
        };
        println!("{shown} (so far {asked} requests, {failed} failed)");
    };
    let mover = Mover {
        manager,
        apps,
        timeline: &timeline,
        files: apps.iter().map(|_| Mutex::default()).collect(),
        victims: Mutex::default(),
        tell: &tell,
    };
    thread::scope(|scope| {
        scope.spawn(|| mover.make_all(&schedule.operator, time));
        scope.spawn(|| mover.make_all(&schedule.fate, time));
    });
    thread::sleep(time.saturating_sub(timeline.began.elapsed()));
    let victims = std::mem::take(&mut *lock(&mover.victims));
    let mut problems = timeline.problems();
    // One that does not settle is enough: with no daemon, each would take its time.
    if let Err(error) = apps.iter().try_for_each(|app| manager.settle(app.name).map(drop)) {
        problems.push(format!("{error:#}"));
    }
    let account = load.stop();

    println!("chaos: {account}");
    let verdict = Verdict::of(&account, &victims, &timeline);
    for line in &verdict.explained {
        println!("explained: {line}");
    }
    println!(
        "chaos: {} moves; {} requests failed: {} in service at one of {} killed workers, {} lost",
        timeline.len(),
        account.failed(),
        verdict.explained.len(),
        victims.len(),
        verdict.lost.len()
    );
    problems.extend(verdict.lost.into_iter().map(|line| format!("lost: {line}")));
    if !account.is_complete() {
        let (asked, failed) = (account.asked, account.failed());
        problems.push(format!("{asked} requests are not the sum of answered and {failed} failed"));
    }
    problems
}

/// Saves what the daemon wrote from the folder that goes with the arena.
fn keep_log(arena: &Arena) {
    let kept = step::target().join("chaos/daemon.log");
    match fs::copy(arena.path("cluster").join("daemon.log"), &kept) {
        Ok(_) => println!("chaos: what the daemon wrote is in {}", kept.display()),
        Err(error) => println!("chaos: what the daemon wrote is lost: {error}"),
    }
}

/// Ends the daemon and says what is left of it.
fn end(manager: Manager<'_>) -> Vec<String> {
    let arena = manager.arena;
    let before = Leftover::expected(&arena.path("cluster"), &arena.processes());
    let killed = manager.call(&["kill"]).and_then(Called::ok);
    let is_clear =
        process::until(CLEARING, || before.of(&arena.processes()).is_empty().then_some(()));
    let left = if is_clear.is_some() { Vec::new() } else { before.of(&arena.processes()) };
    before.clean(&arena.processes());
    let killed = killed.err().map(|error| format!("the daemon did not end in order: {error:#}"));
    let left = left.into_iter().map(|what| format!("left behind: {what}"));
    killed.into_iter().chain(left).collect()
}
