//! Decision: what one choice of the kernel program takes, as the kernel counts it.

use std::{fs, process::Command};

use anyhow::Context as _;

use super::{
    Effort,
    contestant::{self, Contestant, Serving},
    empty::Attached,
    load::{self, Connections},
    report::{Better, Report},
};
use crate::{arena::Arena, process};

/// Switches the kernel's counting of BPF run times on; it costs every program a few nanoseconds.
const SWITCH: &str = "/proc/sys/kernel/bpf_stats_enabled";
/// `BPF_PROG_TYPE_SK_REUSEPORT` (linux/bpf.h).
const SK_REUSEPORT: &str = "21";

/// Run time and number of runs so far.
#[derive(Clone, Copy)]
pub(super) struct Runs {
    nanoseconds: u64,
    count: u64,
}

/// Counting, until this is dropped.
pub(super) struct Counting {
    before: String,
}

/// Nanoseconds per run under new connections, less those of a program that does nothing in the same place.
pub(super) fn measure(arena: &Arena, effort: Effort, report: &mut Report) -> anyhow::Result<()> {
    let _counting = Counting::start()?;
    for round in 1..=effort.rounds {
        println!("bench: decision, round {round} of {}", effort.rounds);
        let nothing = {
            let serving = Contestant::Plain.serve(arena)?;
            let worker = contestant::ask(super::PORT).context("no worker answers")?;
            let empty = Attached::to_groups_of(worker)?;
            load::wrk(arena, Connections::New, effort.seconds)?;
            drop(serving);
            empty.runs()?.each().context("the empty program did not run")?
        };
        let serving = Contestant::Cluster.serve(arena)?;
        let before = runs(&serving)?;
        load::wrk(arena, Connections::New, effort.seconds)?;
        let each = runs(&serving)?.since(before).each().context("the program did not run")?;
        let mut note =
            |name, value| report.note(name, "ns", Better::Less, Contestant::Cluster, value);
        note("decision, above an empty program", each - nothing);
        note("decision, counting included", each);
        note("empty program, counting included", nothing);
    }
    Ok(())
}

/// Of the daemon's program: from its descriptor if it keeps one, else from `bpftool`.
pub(super) fn runs(serving: &Serving<'_>) -> anyhow::Result<Runs> {
    let daemon = serving.daemon()?;
    let descriptors = fs::read_dir(format!("/proc/{daemon}/fdinfo"))?.flatten();
    let told = descriptors.filter_map(|entry| fs::read_to_string(entry.path()).ok());
    let own = told
        .filter(|info| field(info, "prog_type") == Some(SK_REUSEPORT))
        .filter_map(|info| Runs::read(&info))
        .max_by_key(|runs| runs.count);
    match own {
        Some(runs) => Ok(runs),
        None => runs_by_bpftool(),
    }
}

fn runs_by_bpftool() -> anyhow::Result<Runs> {
    let shown = process::run(Command::new("bpftool").args(["--json", "prog", "show"]))
        .context("the daemon keeps no descriptor of its program, and there is no `bpftool`")?;
    let programs: serde_json::Value = serde_json::from_str(&shown)?;
    let programs = programs.as_array().context("bpftool printed no list")?;
    let number =
        |program: &serde_json::Value, name: &str| program[name].as_u64().unwrap_or_default();
    programs
        .iter()
        .filter(|program| program["name"] == "cluster_select")
        .map(|program| Runs {
            nanoseconds: number(program, "run_time_ns"),
            count: number(program, "run_cnt"),
        })
        .max_by_key(|runs| runs.count)
        .context("no program of the name `cluster_select` is loaded")
}

fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let line = info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.map(str::trim)
}

impl Runs {
    /// Reads what `/proc/<pid>/fdinfo` says of a program.
    pub(super) fn read(info: &str) -> Option<Self> {
        let number = |name| field(info, name)?.parse().ok();
        Some(Self { nanoseconds: number("run_time_ns")?, count: number("run_cnt")? })
    }

    /// Nanoseconds of each run.
    pub(super) fn each(self) -> Option<f64> {
        (self.count > 0).then(|| self.nanoseconds as f64 / self.count as f64)
    }

    pub(super) fn since(self, before: Self) -> Self {
        Self {
            nanoseconds: self.nanoseconds.saturating_sub(before.nanoseconds),
            count: self.count.saturating_sub(before.count),
        }
    }
}

impl Counting {
    pub(super) fn start() -> anyhow::Result<Self> {
        let before =
            fs::read_to_string(SWITCH).context("failed to read the switch of BPF counting")?;
        fs::write(SWITCH, "1").context("failed to switch BPF counting on")?;
        Ok(Self { before })
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        if let Err(error) = fs::write(SWITCH, self.before.trim()) {
            eprintln!("bench: failed to restore {SWITCH}: {error}");
        }
    }
}
