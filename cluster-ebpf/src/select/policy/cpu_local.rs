//! CPU-local: the worker that is pinned to the CPU which received the packet, or to one of the same node; where none is,
//! the next one. One that has clearly more to do than another passes connections on.

use aya_ebpf::{
    bindings::sk_reuseport_md,
    helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
};
use cluster_common::{
    cpu,
    pick::two,
    route::{Entry, Lane, Pick, Table as _, Turn, current},
    slot::Slot,
};

use super::Policy;
use crate::{
    load::{burden, now},
    maps::CPUS,
    table,
};

pub(crate) struct CpuLocal;

impl Policy for CpuLocal {
    const WEIGHS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        let Some(cursor) = table::advance(lane) else { return Turn::Nobody };
        // SAFETY: has no arguments and no conditions.
        let place = cpu::place(unsafe { bpf_get_smp_processor_id() }, cursor.position());
        // SAFETY: an aligned word of the map, which the supervisor may be changing.
        let local = CPUS.get_ptr(place).map_or(0, |place| unsafe { place.read_volatile() });
        let local = Entry::from_word(local);
        // A stale entry does no harm: its socket cannot be selected, and the route decides.
        if attempt > 0 || local.slot() == Slot::WAITING_ROOM {
            return table::turn(cursor, cursor.position());
        }
        let Some(table) = table::table(cursor) else { return Turn::Nobody };
        let len = table.length();
        if len == 0 {
            return table::turn(cursor, 0);
        }
        let tick = now();
        // SAFETY: has no arguments and no conditions.
        let (other, _) = two(unsafe { bpf_get_prandom_u32() }, len);
        let other = table.entry(other);
        let spills = cpu::spills(burden(local, tick), burden(other, tick));
        let entry = if spills { other } else { local };
        if current(table, cursor) { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken }
    }
}
