//! Counting what becomes of a worker's connections.
//!
//! A connection is counted from the end of its handshake, when it comes into the accept queue, until the app closes it or
//! it is broken off: by the change of its state from an open one to one that waits for the client, or to closed.

use aya_ebpf::{
    EbpfContext as _,
    bindings::{BPF_SOCK_OPS_STATE_CB_FLAG, bpf_sock_ops},
    cty::c_void,
    helpers::generated::{bpf_get_socket_cookie, bpf_ktime_get_ns, bpf_sock_ops_cb_flags_set},
    programs::SockOpsContext,
};
use cluster_common::{
    load::{Load, Pending, average},
    meter::{CLOSED, COUNTED, Histogram, Meter, READ, Tag, bucket},
};

use cluster_ebpf::{count, peek, read, write};

use crate::maps::{LAYOUT, LOADS, METERS, MOVED, TAGS};

/// Of `net/tcp_states.h`: states into which a connection comes when the app has closed it or it is broken off.
const FIN_WAIT1: u32 = 4;
const CLOSE: u32 = 7;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;
/// As well: one that accepts connections.
const LISTEN: u32 = 10;

/// A socket begins to listen: from now on its changes of state are told, and those of its connections, to which the
/// kernel copies that.
#[inline(always)]
pub(crate) fn listens(ctx: &SockOpsContext) {
    // SAFETY: a context of this run.
    unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, BPF_SOCK_OPS_STATE_CB_FLAG.cast_signed()) };
}

/// A handshake has ended: the connection comes into the accept queue.
#[inline(always)]
pub(crate) fn established(ctx: &SockOpsContext) {
    let Some(tag) = TAGS.of(socket(ctx)) else { return };
    let Some(load) = LOADS.get_ptr_mut(read!(tag.seat)) else { return };
    if !is(load, read!(tag.generation)) {
        return;
    }
    // SAFETY: has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // The lock of the socket is held: nobody else writes here.
    write!(tag.established, now);
    write!(tag.flags, read!(tag.flags) | COUNTED);
    count!(load.live, 1);
    count!(load.established, 1);
    let pending = Pending::from_word(read!(load.pending));
    let fewer = pending.minus();
    if fewer != pending {
        write!(load.pending, fewer.word());
    }
    // One whose listener listened before anybody looked has not inherited it.
    listens(ctx);
}

/// The state of a connection or a listener changes.
#[inline(always)]
pub(crate) fn changed(ctx: &SockOpsContext) {
    let state = ctx.arg(1);
    if state != FIN_WAIT1 && state != CLOSE && state != LAST_ACK && state != CLOSING {
        return;
    }
    let Some(tag) = TAGS.of(socket(ctx)) else { return };
    let flags = read!(tag.flags);
    if flags & (COUNTED | CLOSED) == 0 {
        if ctx.arg(0) == LISTEN {
            closes(ctx, tag);
        }
        return;
    }
    // SAFETY: a context of this run.
    settle(tag, unsafe { bpf_get_socket_cookie(ctx.as_ptr()) });
    let Some((load, meter)) = account(tag) else { return };
    // Once only: others of these states follow.
    if flags & COUNTED != 0 {
        write!(tag.flags, flags & !COUNTED | CLOSED);
        // SAFETY: has no arguments and no conditions.
        let lasted = unsafe { bpf_ktime_get_ns() }.wrapping_sub(read!(tag.established)) / 1000;
        count!(load.live, u64::MAX);
        // Two that close at once may lose one of them, which does not matter to an average.
        write!(load.average, average(read!(load.average), lasted));
        note(ctx, meter, lasted);
    }
    let ops = ctx.ops;
    let (received, acked) = (read!(ops.bytes_received), read!(ops.bytes_acked));
    count!(meter.bytes_in, received.wrapping_sub(read!(tag.bytes_in)));
    count!(meter.bytes_out, acked.wrapping_sub(read!(tag.bytes_out)));
    write!(tag.bytes_in, received);
    write!(tag.bytes_out, acked);
}

/// A listener is closed, and what is in its accept queue is about to leave it.
#[inline(always)]
fn closes(ctx: &SockOpsContext, tag: *mut Tag) {
    let layout = LAYOUT.load();
    if layout.backlog == 0 {
        return;
    }
    let Some((_, meter)) = account(tag) else { return };
    let socket = socket(ctx);
    // The verifier lets nobody compute with a socket's address. Read like other memory, it is a number.
    let address: u64 = peek(&raw const socket as u64);
    let queued: u32 = peek(address + u64::from(layout.backlog));
    count!(meter.left, u64::from(queued));
}

/// Somebody has read from a socket. If it is a connection of ours and this is the first time, the app has taken it up.
///
/// Nothing that a program may watch without a trampoline tells of `accept`; a server reads next.
#[inline(always)]
pub(crate) fn read_from(socket: *mut c_void) {
    let Some(tag) = TAGS.of(socket) else { return };
    let flags = read!(tag.flags);
    if flags & (COUNTED | READ) != COUNTED {
        return;
    }
    write!(tag.flags, flags | READ);
    // SAFETY: the socket that the tracepoint is about.
    settle(tag, unsafe { bpf_get_socket_cookie(socket) });
    let Some((_, meter)) = account(tag) else { return };
    // SAFETY: has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // SAFETY: a valid entry of the map.
    sort(unsafe { &raw mut (*meter).wait }, now.wrapping_sub(read!(tag.established)) / 1000);
}

/// If the connection with this cookie has moved, its tag says so from now on, and the seat that it left counts it no more.
#[inline(always)]
fn settle(tag: *mut Tag, cookie: u64) {
    // SAFETY: the value is copied at once.
    let Some(&moved) = (unsafe { MOVED.get(cookie) }) else { return };
    MOVED.remove(cookie).unwrap_or(());
    if let Some(load) = LOADS.get_ptr_mut(read!(tag.seat))
        && is(load, read!(tag.generation))
    {
        count!(load.live, u64::MAX);
    }
    write!(tag.seat, moved);
    if let Some(load) = LOADS.get_ptr_mut(moved) {
        write!(tag.generation, read!(load.generation));
    }
}

/// Where the socket with this tag is counted; nowhere when its seat has been given to another one since.
#[inline(always)]
fn account(tag: *mut Tag) -> Option<(*mut Load, *mut Meter)> {
    let load = LOADS.get_ptr_mut(read!(tag.seat))?;
    let meter = METERS.get_ptr_mut(read!(tag.seat))?;
    is(load, read!(tag.generation)).then_some((load, meter))
}

/// Whether a seat still is what it was when a tag was given out.
#[inline(always)]
fn is(load: *mut Load, generation: u32) -> bool {
    read!(load.generation) == generation
}

/// The socket that the context is about, or null.
#[inline(always)]
fn socket(ctx: &SockOpsContext) -> *mut c_void {
    let ops: *mut bpf_sock_ops = ctx.ops;
    read!(ops.__bindgen_anon_2.sk).cast()
}

/// Notes what a connection was.
#[inline(always)]
fn note(ctx: &SockOpsContext, meter: *mut Meter, lasted: u64) {
    let ops = ctx.ops;
    count!(meter.closed, 1);
    // SAFETY: a valid entry of the map.
    sort(unsafe { &raw mut (*meter).lifetime }, lasted);
    // Kept in eighths (`tcp_sock.srtt_us`).
    let round_trip = read!(ops.srtt_us) >> 3;
    // SAFETY: as above.
    sort(unsafe { &raw mut (*meter).round_trip }, u64::from(round_trip));
}

/// Counts a value in a histogram of a map.
#[inline(always)]
fn sort(histogram: *mut Histogram, value: u64) {
    // SAFETY: a part of an entry of the map.
    let buckets = unsafe { &raw mut (*histogram).buckets }.cast::<u64>();
    // SAFETY: a bucket is inside.
    let place = unsafe { buckets.add(bucket(value)) };
    // SAFETY: as above.
    unsafe { cluster_ebpf::add(place, 1) };
    count!(histogram.sum, value);
}
