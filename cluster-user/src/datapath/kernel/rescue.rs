//! What waits for a worker that hangs, given to others.

use std::collections::BTreeSet;

use anyhow::Context as _;

use super::Kernel;
use crate::{
    datapath::{Protocol, diag, rescue::stop_listening},
    id::WorkerId,
};

impl Kernel {
    /// [`DataPath::rescue`](crate::datapath::DataPath::rescue).
    pub(super) fn rescue_queues(&mut self, worker: WorkerId) -> anyhow::Result<()> {
        let known = self.watch.worker(worker);
        let seen = &known.with_context(|| format!("worker {worker} is not known"))?.seen;
        // Listeners outside groups have nobody who could take over.
        let joined = |entry: &diag::Entry| {
            seen.contains(&entry.cookie)
                && self.groups.values().any(|group| group.knows(entry.cookie))
        };
        let listeners: BTreeSet<u64> = diag::listeners(Protocol::Tcp, 0)
            .context("ask for a worker's listeners")?
            .into_iter()
            .filter(joined)
            .map(|entry| entry.inode.into())
            .collect();
        let stopped = stop_listening(&self.watch.processes(worker), listeners);
        // Its slots have emptied themselves: they are to be looked for though nothing missed them.
        for group in self.groups.values_mut() {
            group.look_again();
        }
        stopped
    }
}
