//! Round robin over the route: the next turn is the next entry. Weights, canary shares and drains are route contents.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::route::{Lane, Turn};

use super::Policy;
use crate::table;

pub(crate) struct RoundRobin;

impl Policy for RoundRobin {
    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, _attempt: u32) -> Turn {
        let Some(cursor) = table::advance(lane) else { return Turn::Nobody };
        table::turn(cursor, cursor.position())
    }
}
