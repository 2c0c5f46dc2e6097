//! Whose connection a packet begins, for those that are meant for one worker.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{bpf_hdr_start_off::BPF_HDR_START_NET, sk_reuseport_md},
    cty::c_void,
    helpers::generated::bpf_skb_load_bytes_relative,
    programs::SkReuseportContext,
};
use cluster_common::{slot::Slot, steer::Source};

use crate::maps::STEERING;

/// `ETH_P_IP` and `ETH_P_IPV6` of `linux/if_ether.h`, as the context has them: in network order.
pub(crate) const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;

/// Offset of the source address in the header of either version.
const SOURCE_IN_IPV4: u32 = 12;
const SOURCE_IN_IPV6: u32 = 8;

/// The slot that the packet's source is steered to, or that of the waiting room.
#[inline(always)]
pub(crate) fn look_up(ctx: *mut sk_reuseport_md) -> Slot {
    let Some(source) = source(ctx) else { return Slot::WAITING_ROOM };
    // SAFETY: the value is copied at once; the supervisor replaces it as a whole.
    let slot = unsafe { STEERING.get(source) }.map_or(0, |slot| *slot);
    Slot::masked((slot & 0xffff) as u16)
}

/// Where a packet comes from; `None` if it has no addresses, as one of a connection that moves.
#[inline(always)]
pub(crate) fn source(ctx: *mut sk_reuseport_md) -> Option<Source> {
    // SAFETY: the context is valid for the whole run.
    let protocol = unsafe { (*ctx).eth_protocol };
    // The packet's data begins at the TCP header, and that with the source port.
    let port = port(ctx)?;
    if protocol == IPV4 {
        Some(Source::v4(load(ctx, SOURCE_IN_IPV4)?, port))
    } else if protocol == IPV6 {
        Some(Source::v6(load(ctx, SOURCE_IN_IPV6)?, port))
    } else {
        None
    }
}

#[inline(always)]
fn port(ctx: *mut sk_reuseport_md) -> Option<u16> {
    let context = SkReuseportContext::new(ctx);
    let at = context.data();
    if at + 2 > context.data_end() {
        return None;
    }
    // SAFETY: inside the packet, as the comparison before shows to the verifier as well.
    Some(u16::from_be(unsafe { (at as *const u16).read_unaligned() }))
}

/// Bytes of the IP header.
#[expect(clippy::cast_possible_truncation, reason = "an address has 4 bytes or 16")]
#[inline(always)]
fn load<const LENGTH: usize>(ctx: *mut sk_reuseport_md, offset: u32) -> Option<[u8; LENGTH]> {
    // Nothing is written here first: that would be a loop over bytes, which the verifier walks for every way to get here.
    let mut bytes = MaybeUninit::<[u8; LENGTH]>::uninit();
    let to: *mut c_void = bytes.as_mut_ptr().cast();
    // SAFETY: a context of this run, and as much memory as is said.
    let result = unsafe {
        bpf_skb_load_bytes_relative(ctx.cast(), offset, to, LENGTH as u32, BPF_HDR_START_NET)
    };
    // SAFETY: it has written all of them when it succeeds.
    (result == 0).then(|| unsafe { bytes.assume_init() })
}
