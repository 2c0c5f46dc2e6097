//! Policies: what a choice takes by each of them, among few sockets and among many, what it costs whoever connects, and
//! what a group of very many workers costs its daemon.

use std::{
    ffi::{OsStr, OsString},
    fs, io,
    path::PathBuf,
    process::{Child, Command},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{
    Effort,
    contestant::{Contestant, Serving},
    decision::{self, Counting},
    empty::Attached,
    report::{Better, Report},
};
use crate::{arena::Arena, process, step};

/// Sizes of groups.
const CROWDS: [usize; 3] = [4, 64, 500];
/// Workers of the group for which the daemon is looked at.
const MANY: usize = 500;
/// As `cluster policy` is told of them; there is one worker, whose number is 0.
const POLICIES: [&str; 9] = [
    "round-robin",
    "least-conn",
    "p2c",
    "queue",
    "hash",
    "sticky",
    "cpu-local",
    "random",
    "class 127.0.0.0/8=0:least-conn *=0",
];
/// The name of the app.
const APP: &str = "crowd";
/// Longest time to begin.
const PATIENCE: Duration = Duration::from_mins(1);

/// Nanoseconds per run of each policy's program less those of an empty one, connections per second beside no program, and
/// what a large group costs.
pub(super) fn measure(arena: &Arena, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    for round in 1..=effort.rounds {
        for crowd in CROWDS {
            println!("bench: policies, round {round} of {}: {crowd} sockets", effort.rounds);
            let nothing = measure_nothing(arena, effort, crowd, report)?;
            measure_policies(arena, effort, crowd, nothing, report)?;
        }
    }
    if effort.quick { Ok(()) } else { measure_many(arena, report) }
}

/// Without a program or anything else of ours, and with an empty program.
fn measure_nothing(
    arena: &Arena,
    effort: Effort,
    crowd: usize,
    report: &mut Report,
) -> anyhow::Result<f64> {
    forget(arena)?;
    let mut alone = arena.command(program())?;
    let alone = Alone(alone.args(arguments(arena, crowd)).spawn()?);
    wait_for(arena)?;
    report.note(&connections(crowd), "", Better::More, Contestant::Plain, rate(arena, effort)?);
    let _counting = Counting::start()?;
    let empty = Attached::to_groups_of(alone.0.id())?;
    wait(effort);
    let nothing = empty.runs()?.each().context("the empty program did not run")?;
    let name = format!("empty program, {crowd} sockets, counting included");
    report.note(&name, "ns", Better::Less, Contestant::Cluster, nothing);
    Ok(nothing)
}

fn measure_policies(
    arena: &Arena,
    effort: Effort,
    crowd: usize,
    nothing: f64,
    report: &mut Report,
) -> anyhow::Result<()> {
    let serving = serve(arena, crowd)?;
    report.note(&connections(crowd), "", Better::More, Contestant::Cluster, rate(arena, effort)?);
    let _counting = Counting::start()?;
    for policy in POLICIES {
        let words = policy.split(' ');
        process::run(arena.command("cluster")?.args(["policy", APP]).args(words))?;
        let policy = policy.split(' ').next().unwrap_or_default();
        // Its program is a new one, which has not been counted yet.
        wait(effort);
        let each = decision::runs(&serving)?.each().context("the program did not run")?;
        let name = format!("decision above an empty program, {policy}, {crowd} sockets");
        report.note(&name, "ns", Better::Less, Contestant::Cluster, each - nothing);
    }
    Ok(())
}

/// The name of a figure.
fn connections(crowd: usize) -> String {
    format!("connections/s, {crowd} sockets (SO_REUSEPORT: without a manager)")
}

/// The program alone, ended with the value.
struct Alone(Child);

impl Drop for Alone {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill().and_then(|()| self.0.wait()));
    }
}

/// Starts a worker with so many sockets, which is its own client.
fn serve(arena: &Arena, crowd: usize) -> anyhow::Result<Serving<'_>> {
    let serving = Contestant::Cluster.wake(arena)?;
    forget(arena)?;
    let mut start = Contestant::Cluster.command(arena)?;
    start.arg("start").arg(program()).args(["--name", APP, "--"]).args(arguments(arena, crowd));
    process::run(&mut start)?;
    wait_for(arena)?;
    Ok(serving)
}

/// The program that is worker and client.
fn program() -> PathBuf {
    step::target().join("release/examples/crowd")
}

fn arguments(arena: &Arena, crowd: usize) -> [OsString; 3] {
    ["127.0.0.1:8090".into(), crowd.to_string().into(), counts(arena).into()]
}

/// Forgets how far the one before was.
fn forget(arena: &Arena) -> anyhow::Result<()> {
    match fs::remove_file(counts(arena)) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn wait_for(arena: &Arena) -> anyhow::Result<()> {
    process::until(PATIENCE, || read(arena).ok()).context("nothing connects")?;
    Ok(())
}

/// Where the worker says how far it is.
fn counts(arena: &Arena) -> PathBuf {
    arena.path("counts")
}

/// Connections and nanoseconds so far.
fn read(arena: &Arena) -> anyhow::Result<(f64, f64)> {
    let written = fs::read_to_string(counts(arena))?;
    let (count, nanoseconds) = written.trim().split_once(' ').context("no count was written")?;
    Ok((count.parse()?, nanoseconds.parse()?))
}

/// Connections per second.
fn rate(arena: &Arena, effort: Effort) -> anyhow::Result<f64> {
    let (count, nanoseconds) = read(arena)?;
    wait(effort);
    let (more, later) = read(arena)?;
    Ok((more - count) / (later - nanoseconds) * 1e9)
}

fn wait(effort: Effort) {
    thread::sleep(Duration::from_secs(effort.seconds));
}

/// What a daemon with so many workers takes.
fn measure_many(arena: &Arena, report: &mut Report) -> anyhow::Result<()> {
    println!("bench: policies: {MANY} workers");
    let serving = Contestant::Cluster.wake(arena)?;
    let mut start = arena.command("cluster")?;
    let cluster = which::which_in("cluster", path_of(&start), ".").context("no `cluster`")?;
    start.arg("start").arg(cluster).args(["--name", APP, "-i", &MANY.to_string()]);
    start.args(["--listen-timeout", "60s", "--", "lab-worker", "--address", "127.0.0.1:8090"]);
    timed("start", &mut start, report)?;
    for _ in 0..10 {
        timed("list", arena.command("cluster")?.arg("list"), report)?;
    }
    // What is kept, not what was needed for a moment: until it is quiet.
    thread::sleep(Duration::from_secs(3));
    let megabytes = process::resident(serving.daemon()?)? as f64 / 1e6;
    let name = format!("daemon, resident memory, {MANY} workers");
    report.note(&name, "MB", Better::Less, Contestant::Cluster, megabytes);
    timed("reload", arena.command("cluster")?.args(["reload", APP]), report)
}

/// Has a command done for all of them, and notes how long it took.
fn timed(what: &str, command: &mut Command, report: &mut Report) -> anyhow::Result<()> {
    let began = Instant::now();
    process::run(command)?;
    let took = began.elapsed().as_secs_f64() * 1e3;
    report.note(&format!("{what}, {MANY} workers"), "ms", Better::Less, Contestant::Cluster, took);
    Ok(())
}

/// The `PATH` that a command is given.
fn path_of(command: &Command) -> Option<&OsStr> {
    command.get_envs().find(|(name, _)| *name == "PATH").and_then(|(_, value)| value)
}
