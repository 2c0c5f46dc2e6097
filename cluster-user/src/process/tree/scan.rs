//! All processes at one moment, and which of them belong together.

use std::collections::BTreeSet;

use super::{
    super::proc::{self, Stat},
    Marker,
};
use crate::environ;

/// All living processes at one moment, zombies left out.
#[derive(Debug)]
pub(in super::super) struct Snapshot(Vec<Stat>);

impl Snapshot {
    /// Reads all of `/proc`.
    pub(in super::super) fn take() -> Self {
        let me = std::process::id();
        let all = proc::pids().into_iter().filter(|pid| *pid != me).filter_map(Stat::of);
        Self(all.filter(|stat| !matches!(stat.state, 'Z' | 'X')).collect())
    }

    /// The processes of the worker whose main process is, or was, `main`, started at `started`.
    ///
    /// Its session's number cannot be reused while anyone is in it. Environments are looked into only
    /// where a marker is given, and only those of processes that are younger than the worker.
    pub(in super::super) fn members(
        &self,
        main: u32,
        started: u64,
        marker: Option<&Marker>,
    ) -> Vec<Stat> {
        let marker = marker.map(ToString::to_string);
        // Somebody else has the pid: nobody is left in that session, and it may be one of his.
        let is_another = |stat: &Stat| stat.pid == main && started != 0 && stat.started != started;
        let reused = self.0.iter().any(is_another);
        let founds = |stat: &Stat| {
            stat.started >= started
                && (!reused && (stat.pid == main || stat.session == main)
                    || marker
                        .as_ref()
                        .is_some_and(|marker| environ::has_variable(stat.pid, marker)))
        };
        let mut pids: BTreeSet<u32> =
            self.0.iter().filter(|stat| founds(stat)).map(|stat| stat.pid).collect();
        // Children of members are members; pids wrap, so one pass in their order may not do.
        loop {
            let before = pids.len();
            for stat in &self.0 {
                if pids.contains(&stat.parent) {
                    pids.insert(stat.pid);
                }
            }
            if pids.len() == before {
                break;
            }
        }
        self.0.iter().filter(|stat| pids.contains(&stat.pid)).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn session_and_ancestry_make_a_tree() {
        let all = Snapshot(vec![
            stat(10, 1, 10, 5),
            stat(11, 10, 10, 6),
            stat(5, 11, 5, 7),
            stat(12, 1, 10, 8),
            stat(13, 1, 13, 9),
        ]);
        let found: Vec<_> = all.members(10, 5, None).iter().map(|stat| stat.pid).collect();
        assert_eq!(found, [10, 11, 5, 12]);
    }

    #[test]
    fn a_pid_that_was_reused_is_not_taken_for_the_worker() {
        for later in [4, 6] {
            let all = Snapshot(vec![stat(10, 1, 10, later), stat(11, 1, 10, 7)]);
            assert_eq!(all.members(10, 5, None), []);
        }
    }

    fn stat(pid: u32, parent: u32, session: u32, started: u64) -> Stat {
        Stat { pid, state: 'S', parent, session, ticks: 0, started, resident: 0 }
    }
}
