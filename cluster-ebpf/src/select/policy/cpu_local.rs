//! CPU-local: the worker that is pinned to the CPU which received the packet, or to one of the same node; where none is,
//! the next one. One that has clearly more to do than another passes connections on.

use aya_ebpf::{
    bindings::sk_reuseport_md,
    helpers::generated::{bpf_get_prandom_u32, bpf_get_smp_processor_id},
};
use cluster_common::{
    cpu,
    pick::two,
    route::{Entry, Lane, Table as _, Turn},
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
        table::pick_in_turn(lane, attempt, |table, len, position| {
            // SAFETY: has no arguments and no conditions.
            let place = cpu::place(unsafe { bpf_get_smp_processor_id() }, position);
            // SAFETY: an aligned word of the map, which the supervisor may be changing.
            let local = CPUS.get_ptr(place).map_or(0, |place| unsafe { place.read_volatile() });
            let local = Entry::from_word(local);
            // A stale entry does no harm: its socket cannot be selected, and the route decides.
            if local.slot() == Slot::WAITING_ROOM {
                return table.entry(table::place(position, len));
            }
            let tick = now();
            // SAFETY: has no arguments and no conditions.
            let (other, _) = two(unsafe { bpf_get_prandom_u32() }, len);
            let other = table.entry(other);
            if cpu::spills(burden(local, tick, u64::MAX), burden(other, tick, u64::MAX)) {
                other
            } else {
                local
            }
        })
    }
}
