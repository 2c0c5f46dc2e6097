//! What workers use: CPU time and memory.

use std::{sync::OnceLock, time::Duration};

use nix::unistd::{SysconfVar, sysconf};

use super::{
    proc,
    tree::{Snapshot, Tree},
};

/// What a worker's processes use, all together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time. With a cgroup that of ended processes is included; without, it shrinks when one ends.
    pub cpu: Duration,
    /// Resident memory in bytes, pages shared between its processes counted for each.
    pub memory: u64,
}

/// Measures many workers at once, in their order; where there are no cgroups `/proc` is read once for all.
/// A worker that is gone uses nothing.
pub fn measure<'a>(trees: impl IntoIterator<Item = &'a Tree>) -> Vec<Usage> {
    let mut snapshot = None;
    let units = units();
    let usage = |tree: &Tree| {
        if let Some(cgroup) = tree.cgroup() {
            let pids = cgroup.pids().unwrap_or_default();
            let pages: u64 = pids.into_iter().map(proc::resident).sum();
            let cpu = Duration::from_micros(cgroup.cpu_usec().unwrap_or(0));
            return Usage { cpu, memory: pages * units.page };
        }
        let members = tree.members(snapshot.get_or_insert_with(Snapshot::take));
        let ticks: u64 = members.iter().map(|stat| stat.ticks).sum();
        let pages: u64 = members.iter().map(|stat| stat.resident).sum();
        let cpu = Duration::from_nanos(ticks * (1_000_000_000 / units.ticks_per_second));
        Usage { cpu, memory: pages * units.page }
    };
    trees.into_iter().map(usage).collect()
}

/// What this process uses itself.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Own {
    /// CPU time and memory.
    pub usage: Usage,
    /// Descriptors it has open.
    pub descriptors: u64,
}

/// Measures this process.
pub fn own() -> Own {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let cpu = Duration::try_from(time).unwrap_or_default();
    let memory = proc::resident(std::process::id()) * page();
    let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
    // One of them is what they are read from.
    let descriptors = u64::try_from(open.saturating_sub(1)).unwrap_or_default();
    Own { usage: Usage { cpu, memory }, descriptors }
}

/// Bytes of a page.
pub(super) fn page() -> u64 {
    units().page
}

/// What `/proc` counts in.
#[derive(Clone, Copy, Debug)]
struct Units {
    page: u64,
    ticks_per_second: u64,
}

fn units() -> Units {
    static UNITS: OnceLock<Units> = OnceLock::new();
    let ask = |variable, otherwise| {
        let value = sysconf(variable).ok().flatten().and_then(|value| u64::try_from(value).ok());
        value.filter(|value| *value > 0).unwrap_or(otherwise)
    };
    *UNITS.get_or_init(|| Units {
        page: ask(SysconfVar::PAGE_SIZE, 4096),
        ticks_per_second: ask(SysconfVar::CLK_TCK, 100),
    })
}
