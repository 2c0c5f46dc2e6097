//! Flood: a worker that writes log lines as fast as they are taken.

use std::{fs, time::Duration};

use anyhow::Context as _;

use super::{
    Effort,
    contestant::{self, Contestant},
    report::{Better, Report},
};
use crate::{arena::Arena, process};

const BYTES: u64 = 200_000_000;

/// How fast lines are taken, as the worker sees it, and what taking them costs the daemon.
pub(super) fn measure(
    arena: &Arena,
    contestants: &[Contestant],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let bytes = if effort.quick { BYTES / 20 } else { BYTES };
    for round in 1..=effort.rounds.min(3) {
        for contestant in contestants.iter().copied().filter(|it| it.has_daemon()) {
            println!("bench: flood, round {round}: {}", contestant.name());
            let (seconds, cpu) = flood(arena, contestant, bytes)?;
            let rate = bytes as f64 / 1e6 / seconds;
            let cost = cpu.as_secs_f64() / (bytes as f64 / 1e9);
            report.note("log flood", "MB/s", Better::More, contestant, rate);
            report.note("log flood, CPU of the daemon", "s/GB", Better::Less, contestant, cost);
        }
    }
    Ok(())
}

/// Seconds until the last line was taken, and the CPU time that the daemon spent meanwhile.
fn flood(arena: &Arena, contestant: Contestant, bytes: u64) -> anyhow::Result<(f64, Duration)> {
    let times = arena.path("flood.times");
    fs::remove_file(&times).unwrap_or_default();
    let serving = contestant.wake(arena)?;
    let daemon = serving.daemon()?;
    let before = process::cpu_time(daemon)?;

    let mut start = contestant.command(arena)?;
    start.arg("start").arg(contestant::source("flood.py")).args(["--interpreter", "python3"]);
    if contestant != Contestant::Pm2 {
        start.args(["--no-port", "--no-wait"]);
    }
    process::run(start.env("BYTES", bytes.to_string()).env("TIMES", &times))?;
    let written = process::until(Duration::from_mins(1), || fs::read_to_string(&times).ok());
    let written =
        written.with_context(|| format!("{} did not take the flood", contestant.name()))?;
    let spent = process::cpu_time(daemon)?.saturating_sub(before);
    Ok((written.trim().parse().context("no time was written")?, spent))
}
