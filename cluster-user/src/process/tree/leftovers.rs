//! What a killed daemon of the same home left running where it had no cgroups to keep it in.

use std::{collections::BTreeSet, os::fd::AsFd as _};

use super::{Marker, ROUNDS, open, send};
use crate::process::proc::{self, Stat};

/// Ends every process that carries a marker of this home, and says how many there were.
///
/// Must not be called while the daemon has workers. Neither this process nor those it descends from are
/// ended, even if a worker of the same home started them. Processes of other users cannot be read and are
/// left alone.
pub fn end_leftovers(home_id: &str) -> usize {
    let spared = ancestors();
    let prefix = format!("{}={home_id}:", Marker::NAME);
    let mut ended = BTreeSet::new();
    // Until nobody is found: those that were forked meanwhile carry the marker too.
    for _ in 0..ROUNDS {
        let found: Vec<u32> = proc::pids()
            .into_iter()
            .filter(|pid| !spared.contains(pid) && is_marked(*pid, &prefix))
            .collect();
        if found.is_empty() {
            break;
        }
        for pid in found {
            // The descriptor is taken before the last look: the pid may have gone to somebody else.
            let Some(process) = open(pid) else { continue };
            if is_marked(pid, &prefix) && send(process.as_fd(), libc::SIGKILL).is_ok() {
                ended.insert(pid);
            }
        }
    }
    ended.len()
}

fn is_marked(pid: u32, prefix: &str) -> bool {
    Stat::of(pid).is_some_and(|stat| !matches!(stat.state, 'Z' | 'X'))
        && proc::has_variable_like(pid, prefix)
}

fn ancestors() -> BTreeSet<u32> {
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
    fn what_carries_the_homes_marker_is_ended_and_nothing_else() {
        let sleeper = |home: &str| {
            let marker = format!("{home}:7");
            Command::new("sleep").arg("100").env(Marker::NAME, marker).spawn().unwrap()
        };
        let (mut ours, mut other) = (sleeper("test-left"), sleeper("test-other"));
        assert_eq!(end_leftovers("test-left"), 1);
        assert!(!ours.wait().unwrap().success());
        assert!(other.try_wait().unwrap().is_none(), "another home's worker lives");
        other.kill().unwrap();
        other.wait().unwrap();
    }
}
