//! The group that a decision is about, as the maps hold it.

use core::{marker::PhantomData, mem::offset_of};

use aya_ebpf::{bindings::sk_reuseport_md, programs::SkReuseportContext};
use cluster_common::{
    abi::Config,
    choose::{Group, OnMiss, Tally},
    flow::{Flow, bucket, has_cookies, quiet_bucket},
    route::{Entry, Lane, Turn},
    slot::Slot,
    stats::{GroupStats, SlotStats},
};

use cluster_ebpf::{read, write};

use crate::{
    load,
    maps::{CURSORS, FLOWS, GROUP_STATS, SLOT_STATS, SOCKETS},
    migration, pins,
    policy::Policy,
    steering, table,
};

/// The maps, for the packet of this run, and the policy.
pub(crate) struct Kernel<P> {
    ctx: *mut sk_reuseport_md,
    /// Each setting is read when it is needed: of copies the verifier follows every value through all attempts.
    config: *const Config,
    /// What the packet is known by to the policy.
    key: u32,
    policy: PhantomData<P>,
}

impl<P: Policy> Kernel<P> {
    #[inline(always)]
    pub(crate) fn new(ctx: &SkReuseportContext, config: &Config) -> Self {
        // Here, and not with each attempt: the verifier would walk every way to find it for every attempt.
        let key = P::key(ctx.md, config, ctx.hash());
        Self { ctx: ctx.md, config, key, policy: PhantomData }
    }
}

impl<P: Policy> Group for Kernel<P> {
    const TAKES_TURNS: bool = P::TAKES_TURNS;

    #[inline(always)]
    fn abstains(&mut self) -> bool {
        let config = self.config;
        read!(config.abstains) != 0
    }

    #[inline(always)]
    fn draw(&mut self, lane: Lane, _hash: u32, attempt: u32) -> Turn {
        P::draw(self.ctx, lane, self.key, attempt)
    }

    #[inline(always)]
    fn aside(&mut self, attempt: u32) -> Turn {
        table::aside(attempt)
    }

    #[inline(always)]
    fn peek(&mut self, hash: u32) -> Turn {
        P::peek(self.key, hash)
    }

    #[inline(always)]
    fn version(&mut self) -> u8 {
        table::current().version()
    }

    #[inline(always)]
    fn sheds(&mut self) -> bool {
        let config = self.config;
        read!(config.shed) != 0
    }

    #[inline(always)]
    fn is_full(&mut self, entry: Entry) -> bool {
        let config = self.config;
        load::is_full(entry, read!(config.shed))
    }

    #[inline(always)]
    fn trusts(&mut self, entry: Entry) -> bool {
        load::trusts(self.ctx, entry, self.config)
    }

    #[inline(always)]
    fn missed(&mut self, entry: Entry) {
        if P::WEIGHS {
            load::missed(entry);
        }
    }

    #[inline(always)]
    fn expect(&mut self, entry: Entry) {
        if P::WEIGHS || self.sheds() {
            load::expect(entry);
        }
        if P::LEARNS {
            load::learn(self.ctx, entry);
        }
    }

    #[inline(always)]
    fn moved(&mut self, entry: Entry) {
        let config = self.config;
        migration::moved(self.ctx, entry, read!(config.room));
    }

    #[inline(always)]
    fn pinned(&mut self) -> Slot {
        if P::PINS { pins::look_up(self.ctx) } else { Slot::WAITING_ROOM }
    }

    #[inline(always)]
    fn pin(&mut self, slot: Slot) {
        if P::PINS {
            pins::pin(self.ctx, slot);
        }
    }

    #[inline(always)]
    fn steers(&mut self) -> bool {
        let config = self.config;
        read!(config.steered) != 0
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
    fn see_cookie(&mut self) {
        if let Some(line) = CURSORS.get_ptr_mut(Lane::Syn.index()) {
            write!(line.cookie_seen, load::jiffy());
        }
    }

    #[inline(always)]
    fn remember(&mut self, hash: u32, flow: Flow) {
        let seen = CURSORS.get_ptr(Lane::Syn.index()).map_or(0, |line| read!(line.cookie_seen));
        let cookies = has_cookies(load::jiffy(), seen);
        let bucket = if cookies { bucket(hash) } else { quiet_bucket(hash) };
        if let Some(place) = FLOWS.get_ptr_mut(bucket) {
            // SAFETY: an aligned word of the map. Whole words only, so that nobody reads half of two memories.
            unsafe { place.write_volatile(flow.word()) };
        }
    }

    #[inline(always)]
    fn recall(&mut self, hash: u32) -> Flow {
        let flow = flow_in(bucket(hash));
        if flow.is_of(hash) { flow } else { flow_in(quiet_bucket(hash)) }
    }

    #[inline(always)]
    fn on_miss(&mut self) -> OnMiss {
        let config = self.config;
        OnMiss::from_word(read!(config.on_miss))
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
            Tally::Guarded(slot) => of_slot(slot, offset_of!(SlotStats, guarded)),
            Tally::Shed => of_group(offset_of!(GroupStats, shed)),
        };
        if let Some(counter) = counter {
            // SAFETY: an aligned counter inside an entry of a map.
            unsafe { cluster_ebpf::add(counter, 1) };
        }
    }
}

/// What is remembered in a bucket.
#[inline(always)]
fn flow_in(bucket: u32) -> Flow {
    // SAFETY: an aligned word of the map.
    Flow::from_word(FLOWS.get_ptr(bucket).map_or(0, |place| unsafe { place.read_volatile() }))
}

/// The counter at `offset` in the slot's entry.
#[inline(always)]
fn of_slot(slot: Slot, offset: usize) -> Option<*mut u64> {
    // SAFETY: an offset inside the entry.
    SLOT_STATS.get_ptr_mut(slot.index()).map(|stats| unsafe { stats.byte_add(offset).cast() })
}

/// Counts an answer of the user's program that nobody can follow.
#[inline(always)]
pub(crate) fn count_unfollowed() {
    if let Some(counter) = of_group(offset_of!(GroupStats, unfollowed)) {
        // SAFETY: an aligned counter inside an entry of a map.
        unsafe { cluster_ebpf::add(counter, 1) };
    }
}

/// The counter at `offset` in the group's entry.
#[inline(always)]
fn of_group(offset: usize) -> Option<*mut u64> {
    // SAFETY: an offset inside the entry.
    GROUP_STATS.get_ptr_mut(0).map(|stats| unsafe { stats.byte_add(offset).cast() })
}
