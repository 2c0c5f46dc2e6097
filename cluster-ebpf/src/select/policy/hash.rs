//! Hash: by both addresses and ports, as plain `SO_REUSEPORT` does, but over those only who are to get connections.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::route::{Lane, Turn};

use super::Policy;
use crate::table;

pub(crate) struct Hash;

impl Policy for Hash {
    const TAKES_TURNS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, _lane: Lane, hash: u32, attempt: u32) -> Turn {
        // The kernel's hash of a connection is spread already; who is next after a miss is as good as any.
        table::turn(table::current(), u64::from(hash) + u64::from(attempt))
    }
}
