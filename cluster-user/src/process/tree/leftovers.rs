//! What a killed daemon of the same home left running where it had no cgroups to keep it in.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
};

use super::{Marker, open, send};
use crate::{
    environ,
    id::WorkerId,
    process::proc::{self, Stat},
};

/// Looks for those that were forked while others were killed.
const ROUNDS: usize = 100;

/// Living processes that carry a marker of this home, by worker. Neither this process nor those it descends from are
/// among them, even if a worker of the same home started them; nor are those of other users, which cannot be read.
pub fn marked(home_id: &str) -> BTreeMap<WorkerId, Vec<u32>> {
    let spared = ancestors();
    let mut found: BTreeMap<WorkerId, Vec<u32>> = BTreeMap::new();
    for pid in proc::pids().into_iter().filter(|pid| !spared.contains(pid)) {
        if let Some(worker) = worker_of(pid, home_id) {
            found.entry(worker).or_default().push(pid);
        }
    }
    found
}

/// Ends every process that carries a marker of this home, except those of the workers in `claimed`, and says how many
/// there were.
pub fn end_unclaimed(home_id: &str, claimed: &BTreeSet<WorkerId>) -> usize {
    let mut ended = BTreeSet::new();
    // Until nobody is found: those that were forked meanwhile carry the marker too.
    for _ in 0..ROUNDS {
        let mut found = marked(home_id);
        found.retain(|worker, _| !claimed.contains(worker));
        if found.is_empty() {
            break;
        }
        for (worker, pid) in found
            .into_iter()
            .flat_map(|(worker, pids)| pids.into_iter().map(move |pid| (worker, pid)))
        {
            // The descriptor is taken before the last look: the pid may have gone to somebody else.
            let Some(process) = open(pid) else { continue };
            if worker_of(pid, home_id) == Some(worker)
                && send(process.as_fd(), libc::SIGKILL).is_ok()
            {
                ended.insert(pid);
            }
        }
    }
    ended.len()
}

fn worker_of(pid: u32, home_id: &str) -> Option<WorkerId> {
    let lives = Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'));
    let value = lives.then(|| environ::variable(pid, Marker::NAME)).flatten()?;
    Marker::worker_of(home_id, &value)
}

/// This process, and those it descends from.
pub(super) fn ancestors() -> BTreeSet<u32> {
    let mut ancestors = BTreeSet::new();
    let mut pid = std::process::id();
    while pid != 0 && ancestors.insert(pid) {
        pid = Stat::of(pid).map_or(0, |stat| stat.parent);
    }
    ancestors
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_carries_the_homes_marker_and_is_not_claimed_is_ended_and_nothing_else() {
        let sleeper = |home: &str, worker: u64| {
            let marker = format!("{home}:{worker}");
            Command::new("sleep").arg("100").env(Marker::NAME, marker).spawn().unwrap()
        };
        let (mut ours, mut other) = (sleeper("test-left", 7), sleeper("test-other", 7));
        let mut claimed = sleeper("test-left", 8);
        let found = marked("test-left");
        assert_eq!(found[&WorkerId(7)], [ours.id()]);
        assert_eq!(found[&WorkerId(8)], [claimed.id()]);
        assert_eq!(end_unclaimed("test-left", &BTreeSet::from([WorkerId(8)])), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "another home's worker lives");
        assert!(claimed.try_wait().unwrap().is_none(), "and so does one that is known");
        for mut sleeper in [other, claimed] {
            sleeper.kill().unwrap();
            sleeper.wait().unwrap();
        }
    }
}
