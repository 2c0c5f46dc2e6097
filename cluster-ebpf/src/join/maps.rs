//! The maps of the joining programs, with who writes and who reads each.

use aya_ebpf::{
    Global,
    bindings::{BPF_F_MMAPABLE, BPF_F_NO_PREALLOC},
    macros::map,
    maps::{Array, HashMap, LruHashMap, RingBuf},
};
use cluster_common::{event::PortFilter, owner::PortOwners};

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

/// How deep below the root of the cgroup hierarchy the workers' cgroups are.
#[unsafe(no_mangle)]
pub(crate) static WORKER_LEVEL: Global<i32> = Global::new(0);
