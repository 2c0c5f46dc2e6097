//! Sticky: by the client's address, or the network it is in. The route is a consistent one, so that a worker that comes or
//! goes moves its own share of clients and no others. Datagrams of one flow stay with the worker that had the first.

use aya_ebpf::bindings::sk_reuseport_md;
use cluster_common::{
    pick::{mix, of_prefix},
    route::{Lane, Turn},
    steer::is_mapped,
};
use cluster_ebpf::read;

use super::Policy;
use crate::{maps::CONFIG, steering::source, table};

pub(crate) struct Sticky;

impl Policy for Sticky {
    const PINS: bool = true;

    #[inline(always)]
    fn draw(ctx: *mut sk_reuseport_md, _lane: Lane, hash: u32, attempt: u32) -> Turn {
        let place = match (source(ctx), CONFIG.get_ptr(0)) {
            (Some(source), Some(config)) => {
                let bits = if is_mapped(&source.address) {
                    read!(config.prefix_v4)
                } else {
                    read!(config.prefix_v6)
                };
                of_prefix(source.address, bits)
            }
            // A connection that moves has no packet any more.
            _ => u64::from(hash),
        };
        // Always the same second choice, too.
        let place = if attempt == 0 { place } else { mix(place.wrapping_add(u64::from(attempt))) };
        table::turn(table::current(), place)
    }
}
