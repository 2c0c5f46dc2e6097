//! Queue: the worker whose accept queue is shortest, as the kernel itself has it. Ties rotate.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::{
    pick::least,
    route::{Lane, Pick, Table as _, Turn, current},
};

use super::Policy;
use crate::{load::queue, table};

/// Queues that are looked at: each takes a read of the kernel's memory, some ten nanoseconds. Among more workers it is the
/// shortest of this many in a row, another row for each connection.
const LOOKED_AT: u32 = 16;

pub(crate) struct Queue;

impl Policy for Queue {
    const LEARNS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        let Some(cursor) = table::advance(lane) else { return Turn::Nobody };
        if attempt > 0 {
            return table::turn(cursor, cursor.position());
        }
        let Some(table) = table::table(cursor) else { return Turn::Nobody };
        let len = table.length();
        if len == 0 {
            return table::turn(cursor, 0);
        }
        #[expect(clippy::cast_possible_truncation, reason = "less than the length")]
        let start = (cursor.position() % u64::from(len)) as u32;
        let entry = least(table, len, start, LOOKED_AT, queue);
        if current(table, cursor) { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken }
    }
}
