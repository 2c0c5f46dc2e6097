//! Reload: what deploys, a dead daemon and draining cost the clients; PM2 in the same run.
//!
//! The clients account for every request and try none again, so each figure is what a user would have seen.

mod figures;
mod side;

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::ValueEnum;
use cluster_proof::{
    account::Account,
    load::{Load, Plan, Target},
    request::Kind,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use self::{
    figures::Figures,
    side::{Column, Side},
};
use super::load;
use crate::{arena::Arena, chaos::schedule::Fault, process};

/// Longest wait of a client.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most requests under way: more than are due while a client waits as long as it does.
const CROWD: usize = 10_000;
/// Connections that are kept in use.
const CONNECTIONS: usize = 64;
/// How many failures are told one by one.
const SHOWN: usize = 5;
/// How long the load goes on after what it is there for.
const AFTERWARDS: Duration = Duration::from_secs(2);

/// How workers are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// New ones beside the old ones
    Reload,
    /// Stop, then start: what it would cost without
    Restart,
}

/// What is measured, and for how long.
#[derive(Clone, Copy)]
pub(super) struct Effort {
    /// Reloads for each kind of load.
    pub(super) reloads: u32,
    /// Longest time for all of them.
    pub(super) limit: Duration,
    /// How long each load for throughput lasts, in seconds.
    pub(super) seconds: u64,
    pub(super) by: By,
}

/// Measures everything for all columns and prints it, for people and for the documentation.
pub(super) fn run(arena: &Arena, effort: Effort, with_pm2: bool) -> anyhow::Result<()> {
    let columns: Vec<Column> =
        Column::ALL.into_iter().filter(|column| with_pm2 || *column != Column::Pm2).collect();
    let mut figures = Figures::new(&columns);
    for column in columns {
        for kind in [Kind::Kept, Kind::Fresh] {
            reloads(arena, column, kind, effort, &mut figures)?;
        }
        bad_deploy(arena, column, &mut figures)?;
        daemon_killed(arena, column, &mut figures)?;
        if column == Column::Node {
            draining(arena, column, effort, &mut figures)?;
        }
    }
    figures.print();
    figures.write()
}

/// Reload after reload under one kind of load.
fn reloads(
    arena: &Arena,
    column: Column,
    kind: Kind,
    effort: Effort,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    let (name, load_name) = (column.name(), if kind == Kind::Kept { "kept" } else { "new" });
    let side = Side::start(arena, column, effort.by)?;
    let load = clients(&side, kind)?;
    let (began, mut times, mut done) = (Instant::now(), Vec::new(), 0);
    while done < effort.reloads && began.elapsed() < effort.limit {
        let old = side.pids()?;
        let asked = Instant::now();
        let code = side.reload()?;
        anyhow::ensure!(code == Some(0), "{name}: a reload ended with {code:?}");
        let gone = process::until(Duration::from_mins(1), || {
            old.iter().all(|pid| !process::is_alive(*pid)).then_some(())
        });
        gone.with_context(|| format!("{name}: of {old:?} some do not end"))?;
        times.push(milliseconds(asked.elapsed()));
        done += 1;
        if done % 10 == 0 || done == effort.reloads {
            let failed = load.so_far().failed();
            println!("bench: {name}, {load_name} connections: {done} reloads, {failed} failed");
        }
    }
    let account = finish(load)?;
    let row = |what: &str| format!("{load_name} connections: {what}");
    let latency = account.latency();
    figures.note(&row("reloads"), column, f64::from(done));
    figures.note(&row("requests"), column, account.asked as f64);
    figures.note(&row("failed"), column, account.failed() as f64);
    figures.note(&row("p99, ms"), column, latency.value_at_quantile(0.99) as f64 / 1e3);
    figures.note(&row("slowest, ms"), column, latency.max() as f64 / 1e3);
    times.sort_by(f64::total_cmp);
    if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
        figures.note(&row("until the old are gone, median, ms"), column, *median);
        figures.note(&row("until the old are gone, longest, ms"), column, *longest);
    }
    Ok(())
}

/// A version that crashes at boot is rolled out.
fn bad_deploy(arena: &Arena, column: Column, figures: &mut Figures) -> anyhow::Result<()> {
    println!("bench: {}: a deploy that crashes at boot", column.name());
    let side = Side::start(arena, column, By::Reload)?;
    let load = clients(&side, Kind::Kept)?;
    side.app.break_like(Fault::Crash)?;
    let code = side.reload()?;
    thread::sleep(AFTERWARDS);
    side.app.mend()?;
    let account = finish(load)?;
    figures.note("bad deploy: failed", column, account.failed() as f64);
    figures.note("bad deploy: exit code", column, code.map_or(-1.0, f64::from));
    Ok(())
}

/// The daemon is killed, and with `cluster` the next command finds all as it was.
fn daemon_killed(arena: &Arena, column: Column, figures: &mut Figures) -> anyhow::Result<()> {
    println!("bench: {}: the daemon is killed", column.name());
    let side = Side::start(arena, column, By::Reload)?;
    let (workers, daemon) = (side.pids()?, side.daemon()?);
    let load = clients(&side, Kind::Kept)?;
    let killed = Instant::now();
    kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL)?;
    if column != Column::Pm2 {
        let is_adopted = || side.pids().is_ok_and(|now| now == workers).then_some(());
        let adopted = process::until(Duration::from_secs(5), is_adopted);
        if adopted.is_some() {
            let took = milliseconds(killed.elapsed());
            figures.note("daemon killed: in control again, ms", column, took);
        } else {
            println!("bench: {}: the workers were not adopted", column.name());
        }
    }
    thread::sleep(AFTERWARDS);
    let account = finish(load)?;
    figures.note("daemon killed: requests", column, account.asked as f64);
    figures.note("daemon killed: failed", column, account.failed() as f64);
    Ok(())
}

/// Throughput of new workers while their predecessors are being drained, and without.
fn draining(
    arena: &Arena,
    column: Column,
    effort: Effort,
    figures: &mut Figures,
) -> anyhow::Result<()> {
    println!("bench: {}: throughput with and without a drain", column.name());
    let side = Side::start(arena, column, effort.by)?;
    let url = format!("http://127.0.0.1:{}/?id=1&size=16", side.app.port);
    let without = load::wrk_at(arena, load::Connections::Kept, effort.seconds, &url)?;
    // One request at each worker that takes as long as the load: it drains until that is answered.
    let wait = Duration::from_secs(effort.seconds) + AFTERWARDS;
    let held = side::hold(wait)?;
    let old = side.pids()?;
    thread::scope(|scope| {
        let reload = scope.spawn(|| side.reload_at_once());
        let has_begun = || side.pids().is_ok_and(|now| now.is_disjoint(&old) || now.len() > 4);
        let begun = process::until(Duration::from_secs(5), || has_begun().then_some(()));
        begun.context("no drain began")?;
        let with = load::wrk_at(arena, load::Connections::Kept, effort.seconds, &url)?;
        let lasted = old.iter().filter(|pid| process::is_alive(**pid)).count();
        println!("bench: {lasted} old workers were still draining at the end of the load");
        figures.note("requests/s, nothing draining", column, without.rate());
        figures.note("requests/s, four workers draining", column, with.rate());
        reload.join().expect("reloading does not panic")
    })?;
    drop(held);
    Ok(())
}

fn clients(side: &Side<'_>, kind: Kind) -> anyhow::Result<Load> {
    let target = Target {
        name: side.app.name.to_owned(),
        address: side::address(),
        rate: side.column.rate(),
        connections: CONNECTIONS,
        mix: vec![(kind, 1)],
    };
    let targets = vec![target];
    let load = Load::start(Plan { seed: 1, targets, patience: PATIENCE, limit: CROWD })?;
    let warm = process::until(PATIENCE, || (load.so_far().answered() >= 100).then_some(()));
    warm.context("no client was answered")?;
    Ok(load)
}

fn finish(load: Load) -> anyhow::Result<Account> {
    let account = load.stop();
    anyhow::ensure!(account.is_complete(), "not every request is accounted for: {account}");
    for ((kind, phase, cause), count) in account.causes() {
        println!("bench: failed: {count} × {kind}: {cause}, {phase}");
    }
    for failure in account.failures.iter().take(SHOWN) {
        println!("bench: {failure}");
    }
    Ok(account)
}

fn milliseconds(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
