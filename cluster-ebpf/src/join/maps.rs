//! The maps of the joining programs, with who writes and who reads each.

use core::cell::UnsafeCell;

use aya_ebpf::{
    Global,
    bindings::{
        BPF_F_CLONE, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_def,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    cty::c_void,
    helpers::generated::bpf_sk_storage_get,
    macros::map,
    maps::{Array, HashMap, LruHashMap, RingBuf},
};
use cluster_common::{
    abi::Layout,
    event::PortFilter,
    load::{Load, MOVES, SEATS},
    meter::{Meter, TAG_BYTES, Tag},
    owner::PortOwners,
};

/// Reports. The programs write; the supervisor reads.
#[map]
pub(crate) static EVENTS: RingBuf = RingBuf::with_byte_size(64 * 1024, 0);

/// How many reports found the buffer full. The programs count; a supervisor that sees it grow looks at every worker.
#[map]
pub(crate) static LOST_EVENTS: Array<u64> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Socket cookie → worker's cgroup id, of sockets made to share their port. The programs' own: bind writes, the others
/// read, because `sock_ops` has no way to ask for the cgroup before Linux 6.2 or so, and because it tells these sockets
/// from those to be left alone.
///
/// Least recently used ones go first, so closed sockets need no cleaning up. Storage on the socket itself would be
/// tidier, but needs type information in the object, and with it a loader that handles BTF.
#[map]
pub(crate) static JOINING: LruHashMap<u64, u64> = LruHashMap::with_max_entries(4096, 0);

/// Worker's cgroup id → the ports to balance. The supervisor writes; bind reads. No entry: all ports.
#[map]
pub(crate) static PORT_FILTER: HashMap<u64, PortFilter> = HashMap::with_max_entries(4096, 0);

/// Port and protocol → the groups there. The supervisor writes; bind reads. No entry: no group is there.
///
/// Memory is taken as it is needed: few ports are in use, and an entry is replaced as a whole.
#[map]
pub(crate) static PORT_OWNER: HashMap<u32, PortOwners> =
    HashMap::with_max_entries(4096, BPF_F_NO_PREALLOC);

/// Seat → load. This program and those of groups write; the supervisor reads, and sets seats up.
#[map]
pub(crate) static LOADS: Array<Load> = Array::with_max_entries(SEATS, BPF_F_MMAPABLE);

/// Seat → what has become of its connections. The program counts; the supervisor makes entries, reads and removes them.
#[map]
pub(crate) static METERS: HashMap<u32, Meter> = HashMap::with_max_entries(SEATS, BPF_F_NO_PREALLOC);

/// Cookie of a connection that moved → its seat now. Programs of groups write; this one reads and removes.
#[map]
pub(crate) static MOVED: LruHashMap<u64, u32> = LruHashMap::with_max_entries(MOVES, 0);

/// What listeners pass on to their connections. The supervisor writes those of listeners; the program the others.
#[map]
pub(crate) static TAGS: Tags = Tags::new();

/// How deep below the root of the cgroup hierarchy the workers' cgroups are.
#[unsafe(no_mangle)]
pub(crate) static WORKER_LEVEL: Global<i32> = Global::new(0);

/// Where this kernel has what is read of its own structures.
#[unsafe(no_mangle)]
pub(crate) static LAYOUT: Global<Layout> = Global::new(Layout { selected: 0, backlog: 0 });

/// Storage on sockets that connections inherit from their listener. The loader adds the type information that the kernel
/// asks for.
#[repr(transparent)]
pub(crate) struct Tags(UnsafeCell<bpf_map_def>);

// SAFETY: the definition is never read at run time; the loader replaces its address by the map.
unsafe impl Sync for Tags {}

impl Tags {
    const fn new() -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_SK_STORAGE,
            key_size: 4,
            value_size: TAG_BYTES,
            max_entries: 0,
            map_flags: BPF_F_NO_PREALLOC | BPF_F_CLONE,
            id: 0,
            pinning: 0,
        }))
    }

    /// That of a socket, if it has one.
    #[inline(always)]
    pub(crate) fn of(&self, socket: *mut c_void) -> Option<*mut Tag> {
        if socket.is_null() {
            return None;
        }
        // SAFETY: a storage map, and a socket of the context.
        let found =
            unsafe { bpf_sk_storage_get(self.0.get().cast(), socket, core::ptr::null_mut(), 0) };
        if found.is_null() { None } else { Some(found.cast()) }
    }
}
