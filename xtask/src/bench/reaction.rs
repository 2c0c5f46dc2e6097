//! Reaction: from start to serving, and from a crash to serving again, above what the app itself needs.

use std::{
    collections::BTreeSet,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    Effort, PORT, WORKERS,
    contestant::{self, Contestant},
    report::{Better, Report},
};
use crate::{arena::Arena, process};

/// Both reactions of every contestant that has workers, less the boot of as many bare processes.
pub(super) fn measure(
    arena: &Arena,
    contestants: &[Contestant],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    for round in 1..=effort.rounds {
        println!("bench: start and crash, round {round} of {}", effort.rounds);
        let (one, all) = (boot(arena, 1)?, boot(arena, WORKERS)?);
        report.note("boot of the app alone", "ms", Better::Less, Contestant::Bare, one);
        for contestant in contestants.iter().copied().filter(|it| *it != Contestant::Bare) {
            let mut serving = contestant.wake(arena)?;
            let began = Instant::now();
            serving.launch()?;
            let mut workers = serving.await_workers(&BTreeSet::new(), WORKERS)?;
            let started = milliseconds(began) - all;
            report.note(
                "start to all serving, above boot",
                "ms",
                Better::Less,
                contestant,
                started,
            );

            let victim = workers.pop_first().context("no worker to kill")?;
            let began = Instant::now();
            kill(Pid::from_raw(victim.cast_signed()), Signal::SIGKILL)?;
            workers.insert(victim);
            serving.await_workers(&workers, 1)?;
            let replaced = milliseconds(began) - one;
            report.note("crash to replaced, above boot", "ms", Better::Less, contestant, replaced);
        }
    }
    Ok(())
}

/// From spawning so many bare processes at once, each with its own port, until all of them serve.
fn boot(arena: &Arena, count: usize) -> anyhow::Result<f64> {
    let ports = (PORT..).take(count);
    let began = Instant::now();
    let mut children = Vec::new();
    for port in ports.clone() {
        let mut command = Contestant::Bare.command(arena)?;
        command.arg(contestant::source("app.js")).env("PORT", port.to_string());
        children.push(command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?);
    }
    let mut waiting: Vec<u16> = ports.collect();
    let up = process::until(Duration::from_secs(30), || {
        waiting.retain(|port| contestant::ask(*port).is_none());
        waiting.is_empty().then(|| milliseconds(began))
    });
    arena.clear();
    for child in &mut children {
        child.wait()?;
    }
    up.context("the bare app does not serve")
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1e3
}
