//! Least connections: the worker with the fewest, queued and in service, in proportion to its weight. Ties rotate. Among
//! very many workers it is the less burdened of two.

use aya_ebpf::{bindings::sk_reuseport_md, helpers::generated::bpf_get_prandom_u32};
use cluster_common::{
    pick::{COMPARED, least, two},
    route::{Cursor, Entry, Lane, Pick, Table as _, Turn, current},
};

use super::Policy;
use crate::{
    load::{burden, now},
    table::{self, Shared},
};

pub(crate) struct LeastConn;

impl Policy for LeastConn {
    const WEIGHS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        let Some(cursor) = table::advance(lane) else { return Turn::Nobody };
        // The least burdened one was tried and could not be taken: it still is the least burdened.
        if attempt > 0 {
            return table::turn(cursor, cursor.position());
        }
        let Some(table) = table::table(cursor) else { return Turn::Nobody };
        let len = table.length();
        if len == 0 {
            return table::turn(cursor, 0);
        }
        let entry = if len > COMPARED { of_two(table, len) } else { of_all(table, len, cursor) };
        if current(table, cursor) { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken }
    }
}

#[inline(always)]
fn of_all(table: Shared, len: u32, cursor: Cursor) -> Entry {
    let tick = now();
    #[expect(clippy::cast_possible_truncation, reason = "less than the length")]
    let start = (cursor.position() % u64::from(len)) as u32;
    least(table, len, start, COMPARED, |entry| burden(entry, tick))
}

#[inline(always)]
fn of_two(table: Shared, len: u32) -> Entry {
    let tick = now();
    // SAFETY: has no arguments and no conditions.
    let (one, other) = two(unsafe { bpf_get_prandom_u32() }, len);
    let (one, other) = (table.entry(one), table.entry(other));
    if burden(one, tick) <= burden(other, tick) { one } else { other }
}
