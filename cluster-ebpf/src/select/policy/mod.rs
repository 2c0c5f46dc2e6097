//! The policies: one file each, each answering whose turn it is.
//!
//! Around all of them is the same: what kind of packet it is, steering, drawing again after a miss, the guard, refusing
//! what is too much, and counting ([`cluster_common::choose`]).

pub(crate) mod class;
pub(crate) mod cpu_local;
pub(crate) mod custom;
pub(crate) mod hash;
pub(crate) mod least_conn;
pub(crate) mod p2c;
pub(crate) mod queue;
pub(crate) mod random;
pub(crate) mod round_robin;
pub(crate) mod sticky;

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::{
    abi::Config,
    route::{Lane, Turn},
};

use crate::table;

/// A rule that picks a worker.
pub(crate) trait Policy {
    /// Whether it goes by loads: then SYNs are counted as connections that are to come.
    const WEIGHS: bool = false;
    /// Whether it reads accept queues: then it has to know where the kernel keeps the sockets.
    const LEARNS: bool = false;
    /// Whether datagrams of one flow stay together.
    const PINS: bool = false;

    /// Whether it draws turns, of which a heavy worker has many in a row.
    const TAKES_TURNS: bool = false;

    /// What a packet is known by, asked once for each: by default its own `hash`.
    #[inline(always)]
    fn key(_ctx: *mut sk_reuseport_md, _config: &Config, hash: u32) -> u32 {
        hash
    }

    /// Whose turn it is. `key` is the packet's, `attempt` counts from 0: who would come to the same worker again draws
    /// another one from the second attempt on.
    fn draw(ctx: *mut sk_reuseport_md, lane: Lane, key: u32, attempt: u32) -> Turn;

    /// Who gets a packet that begins nothing; it takes nobody's turn.
    #[inline(always)]
    fn peek(_key: u32, hash: u32) -> Turn {
        table::turn(table::current(), hash.into())
    }
}
