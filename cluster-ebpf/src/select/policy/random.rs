//! Random: any worker, each as likely as its share of the route. A baseline to compare with.

use aya_ebpf::{bindings::sk_reuseport_md, helpers::generated::bpf_get_prandom_u32};
use cluster_common::route::{Lane, Turn};

use super::Policy;
use crate::table;

pub(crate) struct Random;

impl Policy for Random {
    const TAKES_TURNS: bool = true;

    #[inline(always)]
    fn draw(_ctx: *mut sk_reuseport_md, _lane: Lane, _hash: u32, _attempt: u32) -> Turn {
        // SAFETY: has no arguments and no conditions.
        let random = unsafe { bpf_get_prandom_u32() };
        table::turn(table::current(), u64::from(random))
    }
}
