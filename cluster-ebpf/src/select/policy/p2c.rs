//! Power of two choices: of two random workers the one with fewer connections times how long they take (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001; the product is Finagle's peak EWMA,
//! without the peak).

use aya_ebpf::{bindings::sk_reuseport_md, helpers::generated::bpf_get_prandom_u32};
use cluster_common::{
    pick::{better, two},
    route::{Lane, Table as _, Turn},
};

use super::Policy;
use crate::{
    load::{average, burden, now},
    table,
};

pub(crate) struct P2c;

impl Policy for P2c {
    const WEIGHS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, _lane: Lane, _hash: u32, _attempt: u32) -> Turn {
        table::pick(table::current(), |table, len| {
            let tick = now();
            // SAFETY: has no arguments and no conditions.
            let (one, other) = two(unsafe { bpf_get_prandom_u32() }, len);
            let (one, other) = (table.entry(one), table.entry(other));
            let first = better(
                (burden(one, tick, u64::MAX), average(one)),
                (burden(other, tick, u64::MAX), average(other)),
            );
            if first { one } else { other }
        })
    }
}
