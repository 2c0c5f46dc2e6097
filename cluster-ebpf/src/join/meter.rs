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
    load::{Load, Pending, average, tick},
    meter::{COUNTED, Histogram, Meter, READ, Tag, bucket},
};

use cluster_ebpf::{count, read, write};

use crate::maps::{LOADS, METERS, MOVED, TAGS};

/// Of `net/tcp_states.h`: states into which a connection comes when the app has closed it or it is broken off.
const FIN_WAIT1: u32 = 4;
const CLOSE: u32 = 7;
const LAST_ACK: u32 = 9;
const CLOSING: u32 = 11;

/// A handshake has ended: the connection comes into the accept queue.
#[inline(always)]
pub(crate) fn established(ctx: &SockOpsContext) {
    let Some((tag, load)) = counted_in(ctx) else { return };
    // SAFETY: has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    // The lock of the socket is held: nobody else writes here.
    write!(tag.established, now);
    write!(tag.flags, read!(tag.flags) | COUNTED);
    count!(load.live, 1);
    count!(load.established, 1);
    let pending = Pending::from_word(read!(load.pending));
    if pending.count(tick(now)) > 0 {
        write!(load.pending, pending.minus(tick(now)).word());
    }
    // From now on its changes of state are told.
    // SAFETY: a context of this run.
    unsafe { bpf_sock_ops_cb_flags_set(ctx.ops, BPF_SOCK_OPS_STATE_CB_FLAG.cast_signed()) };
}

/// The state of a connection changes.
#[inline(always)]
pub(crate) fn changed(ctx: &SockOpsContext) {
    let state = ctx.arg(1);
    if state != FIN_WAIT1 && state != CLOSE && state != LAST_ACK && state != CLOSING {
        return;
    }
    let Some(tag) = TAGS.of(socket(ctx)) else { return };
    // SAFETY: the storage of this socket, whose lock is held.
    let Tag { seat, generation, established, flags, .. } = unsafe { *tag };
    if flags & COUNTED == 0 {
        return;
    }
    // Once only: others of these states follow.
    write!(tag.flags, flags & !COUNTED);
    // SAFETY: a context of this run.
    let cookie = unsafe { bpf_get_socket_cookie(ctx.as_ptr()) };
    // SAFETY: has no arguments and no conditions.
    let lasted = unsafe { bpf_ktime_get_ns() }.wrapping_sub(established) / 1000;
    // SAFETY: the value is copied at once.
    let moved = unsafe { MOVED.get(cookie) }.copied();
    if let Some(load) = LOADS.get_ptr_mut(seat)
        && is(load, generation)
    {
        close(load, if moved.is_some() { None } else { Some(lasted) });
    }
    let seat = match moved {
        Some(moved) => {
            MOVED.remove(cookie).unwrap_or(());
            if let Some(load) = LOADS.get_ptr_mut(moved) {
                close(load, Some(lasted));
            }
            moved
        }
        None => seat,
    };
    // Not there: nobody is interested any more.
    if let Some(meter) = METERS.get_ptr_mut(seat) {
        note(ctx, meter, lasted);
    }
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
    // SAFETY: has no arguments and no conditions.
    let now = unsafe { bpf_ktime_get_ns() };
    let Some(meter) = METERS.get_ptr_mut(read!(tag.seat)) else { return };
    // SAFETY: a valid entry of the map.
    sort(unsafe { &raw mut (*meter).wait }, now.wrapping_sub(read!(tag.established)) / 1000);
}

/// The tag of the connection in hand and its load, if it is counted.
#[inline(always)]
fn counted_in(ctx: &SockOpsContext) -> Option<(*mut Tag, *mut Load)> {
    let tag = TAGS.of(socket(ctx))?;
    let load = LOADS.get_ptr_mut(read!(tag.seat))?;
    is(load, read!(tag.generation)).then_some((tag, load))
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

/// One connection less.
#[inline(always)]
fn close(load: *mut Load, lasted: Option<u64>) {
    count!(load.live, u64::MAX);
    if let Some(lasted) = lasted {
        // Two that close at once may lose one of them, which does not matter to an average.
        write!(load.average, average(read!(load.average), lasted));
    }
}

/// Notes what a connection was.
#[inline(always)]
fn note(ctx: &SockOpsContext, meter: *mut Meter, lasted: u64) {
    let ops = ctx.ops;
    count!(meter.closed, 1);
    count!(meter.bytes_in, read!(ops.bytes_received));
    count!(meter.bytes_out, read!(ops.bytes_acked));
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
