//! Round robin over the route: the next turn is the next entry. Weights, canary shares and drains are route contents.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::route::{Lane, Turn};

use super::Policy;
use crate::table;

pub(crate) struct RoundRobin;

impl Policy for RoundRobin {
    const TAKES_TURNS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, _attempt: u32) -> Turn {
        let Some(cursor) = table::advance(lane) else { return Turn::Nobody };
        table::turn(cursor, cursor.position())
    }
}

/// As [`RoundRobin`], for the program that logs as well, of which the verifier could not walk more: a worker that the guard
/// refuses has its other turns refused, too.
pub(crate) struct Traced;

impl Policy for Traced {
    #[inline(always)]
    fn draw(ctx: *mut sk_reuseport_md, lane: Lane, key: u32, attempt: u32) -> Turn {
        RoundRobin::draw(ctx, lane, key, attempt)
    }
}
