//! The maps of one group, with who writes and who reads each.
//!
//! Arrays are mappable: the supervisor reads and writes them as memory, without a system call. The definitions are of
//! the old kind without type information, so that the object needs no BTF.

use core::cell::UnsafeCell;

use aya_ebpf::{
    Global,
    bindings::{
        BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_def,
        bpf_map_type::BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, sk_reuseport_md,
    },
    cty::c_void,
    helpers::generated::bpf_sk_select_reuseport,
    macros::map,
    maps::{Array, HashMap, LpmTrie, LruHashMap},
};
use cluster_common::{
    abi::{Config, Layout},
    class::{self, NUMBERS, Sign},
    cpu, flow,
    load::{Load, MOVES, SEATS},
    route::{BUFFERS, CursorLine, LANES, RouteTable},
    slot::{SLOTS, Slot},
    stats::{GroupStats, SlotStats},
    steer::{STEERED, Source},
};

/// Slot → socket. The supervisor puts sockets in; the kernel takes them out when they are closed; the program selects.
#[map]
pub(crate) static SOCKETS: SocketArray = SocketArray::with_max_entries(SLOTS);

/// The two route tables. The supervisor writes the one not in use; the program reads.
#[map]
pub(crate) static ROUTES: Array<RouteTable> = Array::with_max_entries(BUFFERS, BPF_F_MMAPABLE);

/// One cursor per lane. The program takes turns; the supervisor swaps the words when it publishes.
#[map]
pub(crate) static CURSORS: Array<CursorLine> = Array::with_max_entries(LANES, BPF_F_MMAPABLE);

/// Remembered SYNs. The program's own.
#[map]
pub(crate) static FLOWS: Array<u64> = Array::with_max_entries(flow::FLOWS, 0);

/// The group's settings. The supervisor writes; the program reads.
#[map]
pub(crate) static CONFIG: Array<Config> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Source → slot, of connections that are meant for one worker. The supervisor writes; the program reads.
#[map]
pub(crate) static STEERING: HashMap<Source, u32> =
    HashMap::with_max_entries(STEERED, BPF_F_NO_PREALLOC);

/// What each slot was given. The program counts; the supervisor reads.
#[map]
pub(crate) static SLOT_STATS: Array<SlotStats> = Array::with_max_entries(SLOTS, BPF_F_MMAPABLE);

/// What else happened. The program counts; the supervisor reads.
#[map]
pub(crate) static GROUP_STATS: Array<GroupStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Seat → load, of all groups. The joining programs and this one write; the supervisor reads, and sets seats up.
#[map]
pub(crate) static LOADS: Array<Load> = Array::with_max_entries(SEATS, BPF_F_MMAPABLE);

/// Cookie of a connection that moved → its seat now. The program writes; the joining programs read when it is closed.
#[map]
pub(crate) static MOVED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MOVES, 0);

/// CPU → workers near it, as route entries. The supervisor writes; the program reads.
#[map]
pub(crate) static CPUS: Array<u32> = Array::with_max_entries(cpu::PLACES, BPF_F_MMAPABLE);

/// Sign of clients → number of their class. The supervisor writes before the program is attached; the program reads.
#[map]
pub(crate) static RULES: LpmTrie<[u32; 5], u32> =
    LpmTrie::with_max_entries(class::SIGNS, BPF_F_NO_PREALLOC);

/// One turn per lane and class. The program's own.
#[map]
pub(crate) static CLASS_TURNS: Array<CursorLine> =
    Array::with_max_entries(LANES * NUMBERS, BPF_F_MMAPABLE);

/// Flow of datagrams → slot. The program's own; the supervisor gives it its size where there are datagrams.
#[map]
pub(crate) static PINS: LruHashMap<Source, u32> = LruHashMap::with_max_entries(1, 0);

/// Where this kernel has what is read of its own structures.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Global<Layout> = Global::new(Layout { selected: 0, backlog: 0 });

/// By what clients are told beside their address ([`Sign::is_looked_for`]). In a map of its own, because programs of a group
/// share the other constants.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.signs")]
pub(crate) static SIGNS: Global<u32> = Global::new(Sign::MARKS | Sign::PAYLOADS);

/// Nanoseconds of a jiffy of this kernel.
#[unsafe(no_mangle)]
pub(crate) static JIFFY: Global<u32> = Global::new(4_000_000);

/// A socket array whose values have 8 bytes.
///
/// User space may then look a slot up and gets the cookie of its socket, by which a new supervisor recognises what an
/// earlier one put there. With the 4-byte values of aya's type the kernel refuses to answer (`reuseport_array_lookup_elem`).
#[repr(transparent)]
pub(crate) struct SocketArray(UnsafeCell<bpf_map_def>);

// SAFETY: the definition is never read at run time; the loader replaces its address by the map.
unsafe impl Sync for SocketArray {}

impl SocketArray {
    const fn with_max_entries(max_entries: u32) -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_REUSEPORT_SOCKARRAY,
            key_size: 4,
            value_size: 8,
            max_entries,
            map_flags: 0,
            id: 0,
            pinning: 0,
        }))
    }

    /// Selects the socket in `slot` for the packet of this run; `false` if the slot is empty or its socket unfit.
    #[inline(always)]
    pub(crate) fn select(&self, ctx: *mut sk_reuseport_md, slot: Slot) -> bool {
        let mut key = slot.index();
        let key: *mut c_void = (&raw mut key).cast();
        // SAFETY: a context of this run, a socket array, and a key of its size.
        unsafe { bpf_sk_select_reuseport(ctx, self.0.get().cast(), key, 0) == 0 }
    }
}
