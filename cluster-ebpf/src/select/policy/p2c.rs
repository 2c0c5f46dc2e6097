//! Power of two choices: of two random workers the one with fewer connections times how long they take (Mitzenmacher,
//! "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 12(10), 2001; the product is Finagle's peak EWMA,
//! without the peak). Now and then only the connections count, so that who was slow once gets to show that it no longer is.

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

/// Whether it is not asked how long connections take: once in sixteen times. Among idle workers the slowest would get none
/// otherwise, and its average would stay what it is.
#[inline(always)]
const fn tries(random: u32) -> bool {
    // The lowest bits, which have the least to say in which two are compared.
    random.is_multiple_of(16)
}

pub(crate) struct P2c;

impl Policy for P2c {
    const WEIGHS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, _lane: Lane, _hash: u32, _attempt: u32) -> Turn {
        table::pick(table::current(), |table, len| {
            let tick = now();
            // SAFETY: has no arguments and no conditions.
            let random = unsafe { bpf_get_prandom_u32() };
            let (one, other) = two(random, len);
            let (one, other) = (table.entry(one), table.entry(other));
            let first = better(
                (burden(one, tick, u64::MAX), if tries(random) { 0 } else { average(one) }),
                (burden(other, tick, u64::MAX), average(other)),
            );
            if first { one } else { other }
        })
    }
}
