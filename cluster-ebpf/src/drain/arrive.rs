//! What arrives at a worker.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::__sk_buff, cty::c_void, helpers::generated::bpf_skb_load_bytes,
    programs::SkBuffContext,
};
use cluster_common::exchange::{CHUNK, CHUNK_BYTES, Exchange, Segment};

use crate::{
    maps::{EXCHANGES, STEPS, TABLE, TCP_SOCK},
    tcp::Tcp,
};

/// `ETH_P_IP` and `ETH_P_IPV6`, as the kernel keeps them: in network order.
const IPV4: u32 = 0x0800_u16.to_be() as u32;
const IPV6: u32 = 0x86dd_u16.to_be() as u32;
const TCP: u8 = 6;
/// Bytes of an IPv6 header, and of a TCP header without options.
const IPV6_HEADER: u32 = 40;
const TCP_HEADER: usize = 20;

/// Takes note of a packet for a connection that is watched. If it is to be read, [`read`] goes on.
#[inline(always)]
pub(crate) fn watch(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((socket, exchange)) = watched(skb) else { return };
    let Some(tcp) = Tcp::of(socket) else { return };
    let Some(transport) = transport(skb) else { return };
    let mut header = [0; TCP_HEADER];
    if !load(skb, transport, &mut header, 20) {
        return;
    }
    let data = transport + u32::from(header[12] >> 4) * 4;
    // SAFETY: a context of this run.
    let length = unsafe { (*skb).len };
    if data >= length {
        return;
    }
    let offsets = TCP_SOCK.load();
    let segment = Segment {
        sequence: word(&header, 4),
        acknowledged: word(&header, 8),
        length: length - data,
        expected: tcp.number(offsets.rcv_nxt),
        sent: tcp.number(offsets.snd_nxt),
    };
    if exchange.arrive(&segment) {
        exchange.place = data;
        STEPS.go_on(skb);
    }
}

/// Reads some of a packet's data, and begins anew for the next: a loop would be verified byte by byte.
#[inline(always)]
pub(crate) fn read(ctx: &SkBuffContext) {
    let skb = ctx.skb.skb;
    let Some((_, exchange)) = watched(skb) else { return };
    // SAFETY: a context of this run.
    let rest = unsafe { (*skb).len }.wrapping_sub(exchange.place);
    let count = if rest < CHUNK_BYTES { rest } else { CHUNK_BYTES };
    // In a form that the verifier understands: at least one and at most all.
    let count = (count.wrapping_sub(1) & (CHUNK_BYTES - 1)) + 1;
    let mut chunk = MaybeUninit::<[u64; CHUNK / 8]>::uninit();
    let bytes = clear(&mut chunk);
    // SAFETY: a context of this run, and no more bytes than there is room for.
    if unsafe { bpf_skb_load_bytes(skb.cast(), exchange.place, bytes.cast(), count) } != 0 {
        return;
    }
    // SAFETY: as many bytes, each of which has been written.
    if exchange.read(&TABLE, unsafe { &*bytes.cast() }) {
        exchange.place += CHUNK_BYTES;
        STEPS.go_on(skb);
    }
}

/// The socket of a packet and what is remembered of it, if it is watched.
#[inline(always)]
fn watched<'a>(skb: *mut __sk_buff) -> Option<(*mut c_void, &'a mut Exchange)> {
    // SAFETY: a context of this run.
    let socket = unsafe { &(*skb).__bindgen_anon_2 };
    // SAFETY: it is nothing else.
    let socket = unsafe { socket.sk };
    if socket.is_null() {
        return None;
    }
    // SAFETY: an entry of the map, which is there for the whole run.
    Some((socket.cast(), unsafe { &mut *EXCHANGES.of(socket.cast())? }))
}

/// Where the TCP header begins; `None` if this is no TCP, or behind extension headers.
#[inline(always)]
fn transport(skb: *mut __sk_buff) -> Option<u32> {
    // SAFETY: a context of this run.
    let protocol = unsafe { (*skb).protocol };
    let mut header = [0; 10];
    if !load(skb, 0, &mut header, 10) {
        return None;
    }
    if protocol == IPV4 {
        (header[9] == TCP).then_some(u32::from(header[0] & 0xf) * 4)
    } else if protocol == IPV6 {
        (header[6] == TCP).then_some(IPV6_HEADER)
    } else {
        None
    }
}

/// Copies from a packet, as many bytes as there is room for: `count`.
#[inline(always)]
fn load<const BYTES: usize>(
    skb: *mut __sk_buff,
    offset: u32,
    to: &mut [u8; BYTES],
    count: u32,
) -> bool {
    // SAFETY: a context of this run, and as many bytes as there is room for.
    unsafe { bpf_skb_load_bytes(skb.cast(), offset, to.as_mut_ptr().cast(), count) == 0 }
}

/// The number at `place` of a header, in network order.
#[inline(always)]
fn word(header: &[u8; TCP_HEADER], place: usize) -> u32 {
    u32::from_be_bytes([header[place], header[place + 1], header[place + 2], header[place + 3]])
}

/// Writes every byte, for the verifier wants that of all that may be read. Not in a way that becomes a call of a function:
/// older kernels allow either calls or beginning anew.
#[inline(always)]
fn clear(chunk: &mut MaybeUninit<[u64; CHUNK / 8]>) -> *mut u64 {
    let words: *mut u64 = chunk.as_mut_ptr().cast();
    let mut place = 0;
    while place < CHUNK / 8 {
        // SAFETY: inside the array.
        let word = unsafe { words.add(place) };
        // SAFETY: as above.
        unsafe { word.write_volatile(0) };
        place += 1;
    }
    words
}
