//! The maps of draining, with who writes and who reads each.

use core::cell::UnsafeCell;

use aya_ebpf::{
    Global,
    bindings::{
        __sk_buff, BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, bpf_map_def,
        bpf_map_type::BPF_MAP_TYPE_SK_STORAGE,
    },
    cty::c_void,
    helpers::generated::{bpf_sk_storage_get, bpf_tail_call},
    macros::map,
    maps::{Array, ProgramArray, SockHash},
};
use cluster_common::{
    exchange::{EXCHANGE_BYTES, Exchange, TcpSock},
    http::{self, Table},
    stats::DrainStats,
};

/// Cookie → socket. The supervisor puts connections in and takes them out; the kernel takes out what is closed, and runs
/// the program for what is in it.
#[map]
pub(crate) static CONNECTIONS: SockHash<u64> = SockHash::with_max_entries(1 << 16, 0);

/// What is remembered of each connection, kept with its socket and freed with it. The supervisor makes it; the programs
/// write.
#[map]
pub(crate) static EXCHANGES: Exchanges = Exchanges::new();

/// The one program that goes on after another, [`crate::cluster_read`]. The supervisor puts it in.
#[map]
pub(crate) static STEPS: Steps = Steps::new();

/// What became of connections. The program counts; the supervisor reads.
#[map]
pub(crate) static DRAIN_STATS: Array<DrainStats> = Array::with_max_entries(1, BPF_F_MMAPABLE);

/// Where this kernel has what the programs read of a socket.
#[unsafe(no_mangle)]
pub(crate) static TCP_SOCK: Global<TcpSock> =
    Global::new(TcpSock { rcv_nxt: 0, snd_nxt: 0, copied_seq: 0, write_seq: 0 });

/// How heads are read.
pub(crate) static TABLE: Table = http::TABLE;

/// Storage on sockets. The loader adds the type information that the kernel asks for.
#[repr(transparent)]
pub(crate) struct Exchanges(UnsafeCell<bpf_map_def>);

// SAFETY: the definition is never read at run time; the loader replaces its address by the map.
unsafe impl Sync for Exchanges {}

impl Exchanges {
    const fn new() -> Self {
        Self(UnsafeCell::new(bpf_map_def {
            type_: BPF_MAP_TYPE_SK_STORAGE,
            key_size: 4,
            value_size: EXCHANGE_BYTES,
            max_entries: 0,
            map_flags: BPF_F_NO_PREALLOC,
            id: 0,
            pinning: 0,
        }))
    }

    /// That of a socket, if it is watched.
    #[inline(always)]
    pub(crate) fn of(&self, socket: *mut c_void) -> Option<*mut Exchange> {
        // SAFETY: a storage map, and a socket of the context.
        let found =
            unsafe { bpf_sk_storage_get(self.0.get().cast(), socket, core::ptr::null_mut(), 0) };
        if found.is_null() { None } else { Some(found.cast()) }
    }
}

/// Programs to go on with.
#[repr(transparent)]
pub(crate) struct Steps(ProgramArray);

// SAFETY: as above.
unsafe impl Sync for Steps {}

impl Steps {
    const fn new() -> Self {
        Self(ProgramArray::with_max_entries(1, 0))
    }

    /// Goes on with the program in the map; returns only if there is none, or it has been gone on often enough.
    #[inline(always)]
    pub(crate) fn go_on(&self, skb: *mut __sk_buff) {
        let array: *mut c_void = (&raw const self.0).cast_mut().cast();
        // SAFETY: a context of this run and a map of programs.
        unsafe { bpf_tail_call(skb.cast(), array, 0) };
    }
}
