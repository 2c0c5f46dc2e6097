//! Pins: datagrams of one flow stay with the worker that had the first of them, for as long as its socket is there.
//!
//! A flow is known by the client's address and port. Where datagrams are of QUIC, it is known by its connection id as well
//! (RFC 9000, section 5.1), which it keeps when a translator gives the client another port: the id that the server chose
//! stands in every packet with a short header (RFC 8999, section 5.2), as many bytes as the server makes them.

use aya_ebpf::{bindings::sk_reuseport_md, programs::SkReuseportContext};
use cluster_common::{slot::Slot, steer::Source};

use crate::{
    maps::{CONFIG, PINS},
    steering::source,
};

/// Bytes of a UDP header, and of it with the first byte of QUIC and the longest id that is looked at.
const UDP_HEADER: usize = 8;
const ID: usize = 16;

/// The slot that a datagram's flow is pinned to, or that of the waiting room.
#[inline(always)]
pub(crate) fn look_up(ctx: *mut sk_reuseport_md) -> Slot {
    let Some(source) = source(ctx) else { return Slot::WAITING_ROOM };
    // SAFETY: the value is copied at once.
    if let Some(&slot) = unsafe { PINS.get(source) } {
        let slot = Slot::masked((slot & 0xffff) as u16);
        if let Some(id) = connection(ctx) {
            // Whatever is known of the id is of the same flow.
            insert(&id, slot);
        }
        return slot;
    }
    let Some(id) = connection(ctx) else { return Slot::WAITING_ROOM };
    // SAFETY: as above.
    let slot = unsafe { PINS.get(id) }.map_or(0, |slot| *slot);
    Slot::masked((slot & 0xffff) as u16)
}

/// Pins the flow of a datagram.
#[inline(always)]
pub(crate) fn pin(ctx: *mut sk_reuseport_md, slot: Slot) {
    if let Some(source) = source(ctx) {
        insert(&source, slot);
    }
}

#[inline(always)]
fn insert(flow: &Source, slot: Slot) {
    // Without room it is placed anew the next time, which is what happens without a pin.
    PINS.insert(flow, slot.index(), 0).unwrap_or(());
}

/// The connection id of a QUIC packet with a short header, as a source that is no address: no port is above 65535.
#[inline(always)]
fn connection(ctx: *mut sk_reuseport_md) -> Option<Source> {
    // SAFETY: a valid entry of the map.
    let config = unsafe { &*CONFIG.get_ptr(0)? };
    let length = config.connection_id as usize;
    if length == 0 {
        return None;
    }
    let context = SkReuseportContext::new(ctx);
    let at = context.data() + UDP_HEADER;
    // The packet is longer than any id in it (RFC 9001, section 5.4.2: room for a sample).
    if at + 1 + ID > context.data_end() {
        return None;
    }
    // SAFETY: inside the packet, as the comparison before shows to the verifier as well.
    if unsafe { *(at as *const u8) } & 0x80 != 0 {
        return None;
    }
    // SAFETY: as above.
    let [low, high] = unsafe { ((at + 1) as *const [u64; 2]).read_unaligned() };
    // In two steps and not byte by byte, each of which would be another way through the rest for the verifier.
    let (low, high) = if length < 8 {
        (low & first(length), 0)
    } else if length < ID {
        (low, high & first(length - 8))
    } else {
        (low, high)
    };
    // SAFETY: two words are sixteen bytes, and every byte pattern is valid.
    let address: [u8; ID] = unsafe { core::mem::transmute([low, high]) };
    #[expect(clippy::cast_possible_truncation, reason = "at most 20")]
    Some(Source { address, port: 0x1_0000 | length as u32 })
}

/// The first bytes of a word that was loaded from memory, less than eight.
#[inline(always)]
fn first(bytes: usize) -> u64 {
    u64::from_le((1 << ((bytes & 7) * 8)) - 1)
}
