//! Sticky: by the client's address, or the network it is in. The route is a consistent one, so that a worker that comes or
//! goes moves its own share of clients and no others. Datagrams of one flow stay with the worker that had the first.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::{
    abi::Config,
    pick::{mix, of_prefix},
    route::{Lane, Turn},
    steer::is_mapped,
};

use super::Policy;
use crate::{steering::source, table};

pub(crate) struct Sticky;

impl Policy for Sticky {
    const PINS: bool = true;

    #[expect(clippy::cast_possible_truncation, reason = "a table has fewer places than that")]
    #[inline(always)]
    fn key(ctx: *mut sk_reuseport_md, config: &Config, hash: u32) -> u32 {
        // A connection that moves has no packet any more.
        let Some(source) = source(ctx) else { return hash };
        let is_v4 = is_mapped(&source.address);
        of_prefix(source.address, if is_v4 { config.prefix_v4 } else { config.prefix_v6 }) as u32
    }

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, _lane: Lane, key: u32, attempt: u32) -> Turn {
        let place = u64::from(key);
        // Always the same second choice, too.
        let place = if attempt == 0 { place } else { mix(place + u64::from(attempt)) };
        table::turn(table::current(), place)
    }
}
