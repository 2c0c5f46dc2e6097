//! What a worker has to do still, the connections included that have moved to it.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{Kernel, group::Group, watch};
use crate::{
    datapath::{Traffic, diag},
    id::WorkerId,
};

/// A flow of which nothing came for this long is at its end, as far as a worker that drains waits for it: a client that asks
/// again because an answer was lost does so within a second (RFC 9002, section 6.2.2), and one that has something to say
/// does not wait.
const QUIET: Duration = Duration::from_secs(2);

impl Kernel {
    /// Inode numbers of the sockets of a worker that connections have moved to; empty for any other.
    ///
    /// A connection stays in the cgroup of the listener that completed it: of a worker that has gone, or of the
    /// daemon, whose waiting room that was. Only who holds it says whose it is now.
    pub(super) fn moved_to(&self, id: WorkerId) -> BTreeSet<u64> {
        let moved = |worker: &watch::Worker| {
            self.groups.values().any(|group| group.has_moved_to(&worker.seen))
        };
        if self.watch.worker(id).is_some_and(moved) {
            self.watch.sockets(id)
        } else {
            BTreeSet::new()
        }
    }

    /// As [`moved_to`](Self::moved_to). Of a worker that was there before this daemon it may not be known whether connections
    /// have moved to it: then that is asked of it, whatever it takes, so that none is overlooked.
    pub(super) fn may_have_moved_to(&self, id: WorkerId) -> BTreeSet<u64> {
        if self.watch.worker(id).is_some_and(|worker| worker.taken_over) {
            self.watch.sockets(id)
        } else {
            self.moved_to(id)
        }
    }

    /// What a worker has to do still, and the connections that are counted in it.
    pub(super) fn established(
        &self,
        worker: WorkerId,
    ) -> anyhow::Result<(Traffic, Vec<diag::Entry>)> {
        let known = self.watch.worker(worker);
        let known = known.with_context(|| format!("worker {worker} is not known"))?;
        let moved = self.may_have_moved_to(worker);
        let mut found = Vec::new();
        let traffic =
            diag::traffic_with(known.cgroup, &known.addresses, &moved, |entry| found.push(*entry))
                .context("list the connections of a worker")?;
        Ok((traffic, found))
    }

    /// Whether datagrams still come to a worker because their flows are kept on it. At the first look that is not known,
    /// so that it may be so.
    pub(super) fn has_flows(&mut self, id: WorkerId, now: Instant) -> bool {
        let came = self.sum_of(id, Group::keeps_flows, |counters| counters.selected);
        if came == 0 {
            return false;
        }
        let Some(worker) = self.watch.worker_mut(id) else { return false };
        match worker.datagrams {
            Some((before, since)) if before == came => now.duration_since(since) < QUIET,
            Some(_) | None => {
                worker.datagrams = Some((came, now));
                true
            }
        }
    }
}
