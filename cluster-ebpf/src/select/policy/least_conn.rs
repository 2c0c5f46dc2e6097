//! Least connections: the worker with the fewest, queued and in service, in proportion to its weight. Ties rotate. Among
//! very many workers it is the less burdened of two.

use aya_ebpf::{bindings::sk_reuseport_md, helpers::generated::bpf_get_prandom_u32};
use cluster_common::{
    load::IDLE,
    pick::lightest,
    route::{Lane, Turn},
};

use super::Policy;
use crate::{
    load::{burden, now},
    table::{self, place},
};

pub(crate) struct LeastConn;

impl Policy for LeastConn {
    const WEIGHS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        table::pick_in_turn(lane, attempt, |table, len, position| {
            let tick = now();
            // SAFETY: has no arguments and no conditions.
            let random = || unsafe { bpf_get_prandom_u32() };
            lightest(table, len, place(position, len), IDLE, random, |entry, enough| {
                burden(entry, tick, enough)
            })
        })
    }
}
