//! Who else is on a port that a worker is about to take.
//!
//! Every socket of ours shares its port, so that the kernel would let the workers of two apps, or a worker and a
//! stranger who shares too, onto the same one, and divide the connections between them. Had the worker not been made to
//! share, its bind would have failed: so that is what it gets.

use std::collections::BTreeSet;

use super::{Plain, Port};
use crate::{
    datapath::{GroupKey, diag},
    id::AppId,
};

impl Plain {
    /// Whether a socket of another app, or of a stranger, is in the way of a group of `app` on this key.
    ///
    /// What cannot be found out is no reason to refuse: `open` looks for strangers once more.
    pub(super) fn has_rival(&mut self, app: AppId, key: &GroupKey) -> bool {
        if self.netns != Some(key.netns) {
            // The tables are those of the supervisor's own network.
            return false;
        }
        let Ok(there) = diag::listeners(key.protocol, key.address.port()) else { return false };
        self.forget_closed(key, &there);
        there.iter().any(|other| {
            let owner = self.listeners.get(&other.inode.into());
            // A socket without an inode number has no process any more.
            other.inode != 0
                && owner.is_none_or(|owner| owner.app != app)
                && key.overlaps(&other.key(key.protocol, key.netns))
        })
    }

    /// Forgets the sockets on the port of `key` that are there no more.
    fn forget_closed(&mut self, key: &GroupKey, there: &[diag::Entry]) {
        let there: BTreeSet<u64> = there.iter().map(|entry| entry.inode.into()).collect();
        self.listeners
            .retain(|inode, listener| listener.at != Some(Port::of(key)) || there.contains(inode));
    }
}
