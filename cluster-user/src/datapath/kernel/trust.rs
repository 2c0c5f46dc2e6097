//! Whom connections are kept away from because he has fallen silent: a mark in the seats of all his sockets.

use anyhow::Context as _;

use super::{Kernel, group::Group};
use crate::id::WorkerId;

impl Kernel {
    /// See [`DataPath::distrust`](crate::datapath::DataPath::distrust).
    pub(super) fn mark(&mut self, id: WorkerId, distrusted: bool) -> anyhow::Result<()> {
        let known = self.watch.worker_mut(id);
        known.with_context(|| format!("worker {id} is not known"))?.distrusted = distrusted;
        // Whatever is known of it: a supervisor that died may have left a mark.
        self.write_marks(id, distrusted);
        Ok(())
    }

    /// Marks a socket that has just joined, if its worker is silent. No route names it yet.
    pub(super) fn mark_if_distrusted(&self, id: WorkerId) {
        if self.watch.worker(id).is_some_and(|worker| worker.distrusted) {
            self.write_marks(id, true);
        }
    }

    fn write_marks(&self, id: WorkerId, distrusted: bool) {
        let Some(worker) = self.watch.worker(id) else { return };
        let sockets = self.groups.values().flat_map(Group::sockets);
        for socket in sockets.filter(|socket| worker.seen.contains(&socket.cookie)) {
            self.meter.set_distrusted(socket.seat, distrusted);
        }
    }
}
