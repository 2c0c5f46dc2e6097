//! What a worker sends.

use core::mem::offset_of;

use aya_ebpf::{
    bindings::sk_action::{SK_DROP, SK_PASS},
    helpers::generated::{bpf_msg_pull_data, bpf_msg_push_data},
    programs::SkMsgContext,
};
use cluster_common::{
    exchange::{Exchange, Moment, NOTICE, NOTICE_BYTES, Verdict},
    http::{Reading, WINDOW},
    stats::DrainStats,
};

use crate::{
    maps::{DRAIN_STATS, EXCHANGES, TABLE, TCP_SOCK},
    tcp::Tcp,
};

/// Tells the connection to close, if this is the head of the right response. Returns the program's answer.
#[inline(always)]
pub(crate) fn tell(ctx: &SkMsgContext) -> u32 {
    // SAFETY: the context is valid for the whole run, here and below.
    let socket = unsafe { &(*ctx.msg).__bindgen_anon_3 };
    // SAFETY: it is nothing else.
    let socket = unsafe { socket.sk };
    if socket.is_null() {
        return SK_PASS;
    }
    let Some(exchange) = EXCHANGES.of(socket.cast()) else { return SK_PASS };
    let Some(tcp) = Tcp::of(socket.cast()) else { return SK_PASS };
    let offsets = TCP_SOCK.load();
    let moment = Moment {
        written: tcp.number(offsets.write_seq),
        arrived: tcp.number(offsets.rcv_nxt),
        read: tcp.number(offsets.copied_seq),
    };
    // SAFETY: an entry of the map, which is there for the whole run.
    if !unsafe { (*exchange).may_answer(&moment) } {
        return SK_PASS;
    }
    let size = ctx.size();
    // The whole of it in one piece, as far as there is memory: an insertion into the first of several pieces went wrong
    // before Linux 6.1.120 and 6.12.2.
    // SAFETY: a context of this run.
    if unsafe { bpf_msg_pull_data(ctx.msg, 0, size, 0) } != 0 {
        count(offset_of!(DrainStats, failed));
        return SK_PASS;
    }
    let head = read(ctx);
    // SAFETY: as above.
    match unsafe { (*exchange).depart(&moment, &head, size) } {
        Verdict::Leave => SK_PASS,
        Verdict::Insert(at) => insert(ctx, exchange, at),
    }
}

/// Reads what may be a head.
#[inline(always)]
fn read(ctx: &SkMsgContext) -> Reading {
    let (data, end) = (ctx.data(), ctx.data_end());
    let mut reading = Reading::RESPONSE;
    let mut place = 0;
    while place < WINDOW as usize {
        if data + place + 1 > end {
            break;
        }
        // SAFETY: inside the message, as the comparison before shows to the verifier as well.
        let byte = unsafe { ((data + place) as *const u8).read_volatile() };
        reading.step(&TABLE, byte);
        place += 1;
    }
    reading
}

/// Inserts the notice.
#[inline(always)]
fn insert(ctx: &SkMsgContext, exchange: *mut Exchange, at: u32) -> u32 {
    const LENGTH: usize = NOTICE.len();
    // SAFETY: a context of this run.
    if unsafe { bpf_msg_push_data(ctx.msg, at, NOTICE_BYTES, 0) } != 0 {
        // Nothing has changed; the next response may have more luck.
        count(offset_of!(DrainStats, failed));
        return SK_PASS;
    }
    // What was inserted is a piece of its own, so nothing is copied here and there is nothing that could fail.
    // SAFETY: as above.
    unsafe { bpf_msg_pull_data(ctx.msg, at, at + NOTICE_BYTES, 0) };
    let (data, end) = (ctx.data(), ctx.data_end());
    if data + LENGTH > end {
        // It never comes to this, as said. If it did: better no response than one with whatever is in that memory.
        return SK_DROP;
    }
    let mut place = 0;
    while place < LENGTH {
        // SAFETY: inside the message, as the comparison before shows to the verifier as well.
        unsafe { ((data + place) as *mut u8).write_volatile(NOTICE[place]) };
        place += 1;
    }
    // SAFETY: an entry of the map, which is there for the whole run.
    unsafe { (*exchange).told() };
    count(offset_of!(DrainStats, told));
    SK_PASS
}

/// Counts in the counter at `offset`.
#[inline(always)]
fn count(offset: usize) {
    if let Some(stats) = DRAIN_STATS.get_ptr_mut(0) {
        // SAFETY: an offset inside the entry.
        let counter = unsafe { stats.byte_add(offset) }.cast();
        // SAFETY: an aligned counter inside an entry of a map.
        unsafe { cluster_ebpf::add(counter, 1) };
    }
}
