//! Of which class a client is: the first one that fits by where it comes from, how its packet is marked, or what it sends.

use aya_ebpf::{
    bindings::{bpf_hdr_start_off::BPF_HDR_START_NET, bpf_sock, sk_reuseport_md},
    cty::c_void,
    helpers::generated::{bpf_skb_load_bytes, bpf_skb_load_bytes_relative},
    maps::lpm_trie::Key,
    programs::SkReuseportContext,
};
use cluster_common::{
    class::{BYTES, EVERYBODY, NUMBERS, Sign},
    packet::TCP,
    steer::is_mapped,
};
use cluster_ebpf::read;

use crate::{
    maps::{RULES, SIGNS},
    steering::{IPV4, source},
};

/// `AF_INET` of `linux/socket.h`.
const AF_INET: u32 = 2;
/// Bytes of a UDP header.
const UDP_HEADER: u32 = 8;
/// Place of the last byte that is looked at.
#[expect(clippy::cast_possible_truncation, reason = "sixteen")]
const LAST: u32 = BYTES as u32 - 1;
/// Offset of the length of a TCP header, in its upper four bits: words of four bytes (RFC 9293, section 3.1).
const TCP_LENGTH_OFFSET: usize = 12;

/// The number of the class of whoever sent this packet, or whose connection moves.
#[inline(always)]
pub(crate) fn class_of(ctx: *mut sk_reuseport_md) -> u32 {
    let connection = read!(ctx.__bindgen_anon_4.migrating_sk);
    if !connection.is_null() {
        // It has no packet any more, and stays where its address belongs.
        return look_up(&remote(connection));
    }
    let Some(source) = source(ctx) else { return EVERYBODY };
    let source = Sign::source(source.address, is_mapped(&source.address), 128);
    let mut class = look_up(&source);
    let signs = SIGNS.load();
    if signs & Sign::MARKS != 0 {
        class = class.min(by_mark(ctx));
    }
    if signs & Sign::PAYLOADS != 0 {
        class = class.min(by_payload(ctx));
    }
    class
}

/// The first class that a sign fits.
#[inline(always)]
fn look_up(sign: &Sign) -> u32 {
    let key: *const Key<[u32; 5]> = (&raw const *sign).cast();
    // SAFETY: both are a number of bits and five words; the one wants less of its alignment than the other has.
    let number = RULES.get(unsafe { &*key });
    number.map_or(EVERYBODY, |number| number & (NUMBERS - 1))
}

/// Where a connection comes from.
#[inline(always)]
fn remote(connection: *mut bpf_sock) -> Sign {
    if read!(connection.family) == AF_INET {
        return Sign::v4(read!(connection.dst_ip4).to_ne_bytes(), 32);
    }
    let [a, b, c, d] = [0, 1, 2, 3].map(|word| address_word(connection, word));
    // SAFETY: four words are sixteen bytes, and every byte pattern is valid.
    let address: [u8; BYTES] = unsafe { core::mem::transmute([a, b, c, d]) };
    Sign::source(address, is_mapped(&address), 128)
}

/// A word of the IPv6 address. One by one, which is how a program may read them.
#[inline(always)]
fn address_word(connection: *mut bpf_sock, word: usize) -> u32 {
    // SAFETY: a socket of the context.
    let words = unsafe { &raw const (*connection).dst_ip6 }.cast::<u32>();
    // SAFETY: one of the four words.
    let place = unsafe { words.add(word) };
    // SAFETY: as above.
    unsafe { place.read_volatile() }
}

#[inline(always)]
fn by_mark(ctx: *mut sk_reuseport_md) -> u32 {
    let mut header = [0; 2];
    let to: *mut c_void = header.as_mut_ptr().cast();
    // SAFETY: a context of this run, and as much memory as is said.
    let result = unsafe { bpf_skb_load_bytes_relative(ctx.cast(), 0, to, 2, BPF_HDR_START_NET) };
    if result != 0 {
        return EVERYBODY;
    }
    look_up(&Sign::mark_in(header, read!(ctx.eth_protocol) == IPV4))
}

/// By what a datagram carries, or a SYN of TCP Fast Open.
#[inline(always)]
fn by_payload(ctx: *mut sk_reuseport_md) -> u32 {
    let header = if read!(ctx.ip_protocol) == TCP { tcp_header(ctx) } else { UDP_HEADER };
    let length = read!(ctx.len);
    if length <= header {
        return EVERYBODY;
    }
    // In this form the verifier sees that it is at least one.
    let beyond_first = length - header - 1;
    let payload = if beyond_first < LAST { beyond_first } else { LAST } + 1;
    let mut sign = Sign::payload([0; BYTES], payload);
    let to: *mut c_void = sign.bytes.as_mut_ptr().cast();
    // Not read where it lies: only the beginning of a packet need be there in one piece.
    // SAFETY: a context of this run, and no more bytes than there is room for.
    if unsafe { bpf_skb_load_bytes(ctx.cast(), header, to, payload) } != 0 {
        return EVERYBODY;
    }
    look_up(&sign)
}

/// Bytes of the TCP header.
#[inline(always)]
fn tcp_header(ctx: *mut sk_reuseport_md) -> u32 {
    let context = SkReuseportContext::new(ctx);
    let at = context.data() + TCP_LENGTH_OFFSET;
    if at + 1 > context.data_end() {
        return u32::MAX;
    }
    // SAFETY: inside the packet, as the comparison before shows to the verifier as well.
    let byte = unsafe { *(at as *const u8) };
    u32::from(byte >> 4) * 4
}
