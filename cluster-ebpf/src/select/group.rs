//! The group that a decision is about, as the maps hold it.

use core::mem::offset_of;

use aya_ebpf::{bindings::sk_reuseport_md, programs::SkReuseportContext};
use cluster_common::{
    choose::{Group, OnMiss, Tally},
    flow::{Flow, bucket},
    route::{Lane, Turn},
    slot::Slot,
    stats::{GroupStats, SlotStats},
};

use crate::{
    maps::{CONFIG, FLOWS, GROUP_STATS, SLOT_STATS, SOCKETS},
    policy::round_robin,
    steering,
};

/// The maps, for the packet of this run.
pub(crate) struct Kernel {
    ctx: *mut sk_reuseport_md,
}

impl Kernel {
    #[inline(always)]
    pub(crate) fn new(ctx: &SkReuseportContext) -> Self {
        Self { ctx: ctx.md }
    }
}

impl Group for Kernel {
    #[inline(always)]
    fn draw(&mut self, lane: Lane) -> Turn {
        round_robin::draw(lane)
    }

    #[inline(always)]
    fn peek(&mut self, hash: u32) -> Turn {
        round_robin::peek(hash)
    }

    #[inline(always)]
    fn version(&mut self) -> u8 {
        round_robin::version()
    }

    #[inline(always)]
    fn steers(&mut self) -> bool {
        let Some(config) = CONFIG.get_ptr(0) else { return false };
        // SAFETY: a valid entry of the map.
        let word = unsafe { &raw const (*config).steered };
        // SAFETY: as above; the supervisor may be changing it.
        unsafe { word.read_volatile() != 0 }
    }

    #[inline(always)]
    fn steered(&mut self) -> Slot {
        steering::look_up(self.ctx)
    }

    #[inline(always)]
    fn select(&mut self, slot: Slot) -> bool {
        SOCKETS.select(self.ctx, slot)
    }

    #[inline(always)]
    fn remember(&mut self, hash: u32, flow: Flow) {
        if let Some(place) = FLOWS.get_ptr_mut(bucket(hash)) {
            // SAFETY: an aligned word of the map. Whole words only, so that nobody reads half of two memories.
            unsafe { place.write_volatile(flow.word()) };
        }
    }

    #[inline(always)]
    fn recall(&mut self, hash: u32) -> Flow {
        // SAFETY: an aligned word of the map.
        let word = FLOWS.get_ptr(bucket(hash)).map_or(0, |place| unsafe { place.read_volatile() });
        Flow::from_word(word)
    }

    #[inline(always)]
    fn on_miss(&mut self) -> OnMiss {
        let Some(config) = CONFIG.get_ptr(0) else { return OnMiss::Refuse };
        // SAFETY: a valid entry of the map.
        let word = unsafe { &raw const (*config).on_miss };
        // SAFETY: as above; the supervisor may be changing it.
        OnMiss::from_word(unsafe { word.read_volatile() })
    }

    #[inline(always)]
    fn count(&mut self, what: Tally) {
        let counter = match what {
            Tally::Selected(slot) => of_slot(slot, offset_of!(SlotStats, selected)),
            Tally::MigratedIn(slot) => of_slot(slot, offset_of!(SlotStats, migrated_in)),
            Tally::Cookie(slot) => of_slot(slot, offset_of!(SlotStats, cookie)),
            Tally::Miss => of_group(offset_of!(GroupStats, misses)),
            Tally::Waited => of_group(offset_of!(GroupStats, waited)),
            Tally::Refused => of_group(offset_of!(GroupStats, refused)),
            Tally::Other => of_group(offset_of!(GroupStats, other)),
            Tally::Hashed => of_group(offset_of!(GroupStats, hashed)),
            Tally::Steered => of_group(offset_of!(GroupStats, steered)),
            Tally::Overtaken => of_group(offset_of!(GroupStats, overtaken)),
        };
        if let Some(counter) = counter {
            // SAFETY: an aligned counter inside an entry of a map.
            unsafe { cluster_ebpf::add(counter, 1) };
        }
    }
}

/// The counter at `offset` in the slot's entry.
#[inline(always)]
fn of_slot(slot: Slot, offset: usize) -> Option<*mut u64> {
    // SAFETY: an offset inside the entry.
    SLOT_STATS.get_ptr_mut(slot.index()).map(|stats| unsafe { stats.byte_add(offset).cast() })
}

/// The counter at `offset` in the group's entry.
#[inline(always)]
fn of_group(offset: usize) -> Option<*mut u64> {
    // SAFETY: an offset inside the entry.
    GROUP_STATS.get_ptr_mut(0).map(|stats| unsafe { stats.byte_add(offset).cast() })
}
