//! Load: what clients get, over new connections and over kept ones.

use anyhow::Context as _;
use serde::Deserialize;

use super::{
    Effort, PORT,
    contestant::{self, Contestant},
    report::{Better, Report},
};
use crate::{arena::Arena, process};

/// Connections that wrk keeps open.
const CONNECTIONS: &str = "64";

/// What `report.lua` prints.
#[derive(Deserialize)]
pub(super) struct Measured {
    requests: f64,
    microseconds: f64,
    failed: f64,
    p50: f64,
    p99: f64,
}

/// Whether each request has a connection of its own.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Connections {
    New,
    Kept,
}

/// All contestants in turn, then all again: what changes on the machine changes for all of them.
pub(super) fn measure(
    arena: &Arena,
    contestants: &[Contestant],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    for round in 1..=effort.rounds {
        for contestant in contestants {
            println!("bench: load, round {round} of {}: {}", effort.rounds, contestant.name());
            let _serving = contestant.serve(arena)?;
            wrk(arena, Connections::Kept, 1)?;
            for (connections, kind) in [(Connections::New, "new"), (Connections::Kept, "kept")] {
                let measured = wrk(arena, connections, effort.seconds)?;
                let mut note = |what: &str, unit, better, value| {
                    report.note(
                        &format!("{kind} connections, {what}"),
                        unit,
                        better,
                        *contestant,
                        value,
                    );
                };
                note("requests/s", "", Better::More, measured.rate());
                note("p50", "ms", Better::Less, measured.p50 / 1e3);
                note("p99", "ms", Better::Less, measured.p99 / 1e3);
                note("failed", "", Better::Less, measured.failed);
            }
        }
    }
    Ok(())
}

/// One run of the load generator.
pub(super) fn wrk(
    arena: &Arena,
    connections: Connections,
    seconds: u64,
) -> anyhow::Result<Measured> {
    wrk_at(arena, connections, seconds, &format!("http://127.0.0.1:{PORT}/"))
}

/// The same, for another address.
pub(super) fn wrk_at(
    arena: &Arena,
    connections: Connections,
    seconds: u64,
    url: &str,
) -> anyhow::Result<Measured> {
    let mut wrk = arena.command("wrk")?;
    wrk.args(["--threads", "1", "--connections", CONNECTIONS, "--timeout", "5s"])
        .args(["--duration", &format!("{seconds}s")])
        .arg("--script")
        .arg(contestant::source("report.lua"));
    if connections == Connections::New {
        wrk.args(["--header", "Connection: close"]);
    }
    let printed = process::run(wrk.arg(url))?;
    let line = printed.lines().find(|line| line.starts_with('{'));
    let line = line.with_context(|| format!("wrk did not report: {printed}"))?;
    serde_json::from_str(line).context("wrk reported no JSON")
}

impl Measured {
    /// Requests per second.
    pub(super) fn rate(&self) -> f64 {
        self.requests / (self.microseconds / 1e6)
    }
}
