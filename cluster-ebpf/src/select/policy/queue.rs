//! Queue: the worker whose accept queue is shortest, as the kernel itself has it. Ties rotate.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::{
    pick::least,
    route::{Lane, Turn},
};

use super::Policy;
use crate::{
    load::queue,
    table::{self, place},
};

/// Queues that are looked at: each takes a read of the kernel's memory, some ten nanoseconds. Among more workers it is the
/// shortest of this many in a row, another row for each connection.
const LOOKED_AT: u32 = 16;

pub(crate) struct Queue;

impl Policy for Queue {
    const LEARNS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        table::pick_in_turn(lane, attempt, |table, len, position| {
            least(table, len, place(position, len), LOOKED_AT, 0, |entry, _| queue(entry))
        })
    }
}
