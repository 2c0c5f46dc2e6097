//! Loads in the map that all groups share, and what the kernel itself knows of a socket.

use aya_ebpf::{
    bindings::sk_reuseport_md,
    helpers::generated::{bpf_get_prandom_u32, bpf_jiffies64, bpf_ktime_get_coarse_ns},
};
use cluster_common::{
    abi::{Config, Layout},
    load::{self, LAST, Load, Mark, Pending, tick, tick_of_jiffy, warmth},
    route::Entry,
};

use cluster_ebpf::{peek, read, write};

use crate::maps::{JIFFY, LAYOUT, LOADS};

/// The present jiffy.
#[inline(always)]
pub(crate) fn jiffy() -> u64 {
    // SAFETY: has no arguments and no conditions.
    unsafe { bpf_jiffies64() }
}

/// The present tick, since any time: to be compared with other times that this gave.
#[inline(always)]
pub(crate) fn now() -> u32 {
    tick_of_jiffy(jiffy(), JIFFY.load())
}

#[inline(always)]
fn of(entry: Entry) -> Option<*mut Load> {
    LOADS.get_ptr_mut(entry.seat().index())
}

/// What one more connection would be to a worker. Of one that has `enough` nothing more is asked.
#[inline(always)]
pub(crate) fn burden(entry: Entry, tick: u32, enough: u64) -> u64 {
    let Some(load) = of(entry) else { return 0 };
    let (live, share) = (live(load), read!(load.share));
    let least = load::burden(live, share);
    if least >= enough {
        return least;
    }
    let burden = load::burden(live + Pending::from_word(read!(load.pending)).count(tick), share);
    if unfit(load) || spared(load, tick) { burden | LAST } else { burden }
}

/// Whether its socket could not be taken the last time, or its worker has fallen silent.
#[inline(always)]
fn unfit(load: *mut Load) -> bool {
    // In one word: of two the verifier would follow every pair.
    // SAFETY: a field of an entry of the map.
    let both: *const u32 = unsafe { &raw const (*load).gone }.cast();
    // SAFETY: as above, with the one behind it; where they begin is a multiple of four.
    unsafe { both.read_volatile() != 0 }
}

/// Whether the guard has found it stalled, not so long ago that it should be tried again.
#[inline(always)]
fn spared(load: *mut Load, tick: u32) -> bool {
    let mark = Mark::from_word(read!(load.mark));
    mark.is_stalled() && !mark.is_due(tick, RETRY)
}

/// Ticks after which a policy tries a stalled worker again.
const RETRY: u32 = 4;

/// Connections that are there. One too many may have been taken off, which makes none of them negative.
#[inline(always)]
fn live(load: *mut Load) -> u64 {
    let live = read!(load.live);
    if live >> 63 == 0 { live } else { 0 }
}

/// Microseconds that its connections last.
#[inline(always)]
pub(crate) fn average(entry: Entry) -> u32 {
    let Some(load) = of(entry) else { return 0 };
    read!(load.average)
}

/// Whether it has as many connections as are enough.
#[inline(always)]
pub(crate) fn is_full(entry: Entry, enough: u32) -> bool {
    let Some(load) = of(entry) else { return false };
    // Handshakes count, but never so much that those that nobody ends have everybody else refused.
    let enough = u64::from(enough);
    let pending = Pending::from_word(read!(load.pending)).count(now());
    let half = enough / 2;
    live(load) + if pending < half { pending } else { half } >= enough
}

/// Takes note of a connection that is to come.
#[inline(always)]
pub(crate) fn expect(entry: Entry) {
    let Some(load) = of(entry) else { return };
    write!(load.pending, Pending::from_word(read!(load.pending)).plus(now()).word());
}

/// Takes note that its socket is gone.
#[inline(always)]
pub(crate) fn missed(entry: Entry) {
    let Some(load) = of(entry) else { return };
    write!(load.gone, 1);
}

/// Whether its socket was found to be gone.
#[inline(always)]
pub(crate) fn is_gone(entry: Entry) -> bool {
    let Some(load) = of(entry) else { return false };
    read!(load.gone) != 0
}

/// Length of its accept queue; 0 until its socket was selected once.
#[inline(always)]
pub(crate) fn queue(entry: Entry) -> u64 {
    let Some(load) = of(entry) else { return 0 };
    let listener = read!(load.listener);
    if unfit(load) {
        return LAST;
    }
    if listener == 0 { 0 } else { u64::from(backlog(listener, LAYOUT.load())) }
}

/// Remembers where the kernel has the socket that was just selected.
#[inline(always)]
pub(crate) fn learn(ctx: *mut sk_reuseport_md, entry: Entry) {
    let Some(load) = of(entry) else { return };
    if read!(load.listener) == 0 {
        write!(load.listener, selected(ctx, LAYOUT.load()));
    }
}

/// Whether the worker whose socket was just selected accepts connections, has not fallen silent, and is not too new for
/// one more.
#[inline(always)]
pub(crate) fn trusts(ctx: *mut sk_reuseport_md, entry: Entry, config: *const Config) -> bool {
    let (patience, queue) = (read!(config.patience), read!(config.queue));
    let (slow_start, heartbeat) = (read!(config.slow_start), read!(config.heartbeat));
    if patience | queue | slow_start | heartbeat == 0 || !entry.seat().counts() {
        return true;
    }
    let Some(load) = of(entry) else { return true };
    if slow_start > 0 {
        // By the supervisor's clock, which has told since when.
        // SAFETY: has no arguments and no conditions.
        let tick = tick(unsafe { bpf_ktime_get_coarse_ns() });
        let warmth = warmth(tick.wrapping_sub(read!(load.since)), slow_start);
        // SAFETY: has no arguments and no conditions.
        if unsafe { bpf_get_prandom_u32() } & 0xffff >= warmth {
            return false;
        }
    }
    let layout = LAYOUT.load();
    // What cannot be looked at is trusted.
    if layout.selected == 0 {
        return true;
    }
    if queue > 0 && backlog(selected(ctx, layout), layout) > queue {
        return false;
    }
    // Here and in one condition, because of the verifier: further up, or in two, it would walk up to a million instructions
    // of some policies and give up.
    if heartbeat & u32::from(read!(load.distrusted)) != 0 {
        return false;
    }
    if patience == 0 {
        return true;
    }
    let tick = now();
    let mark = Mark::from_word(read!(load.mark));
    if !mark.is_due(tick, patience) {
        return !mark.is_stalled();
    }
    let queued = backlog(selected(ctx, layout), layout);
    #[expect(clippy::cast_possible_truncation, reason = "compared with itself only")]
    let accepted = (read!(load.established) as u32).wrapping_sub(queued);
    if queued > read!(load.peak) {
        write!(load.peak, queued);
    }
    let mark = mark.look(tick, accepted, queued);
    write!(load.mark, mark.word());
    !mark.is_stalled()
}

/// The kernel's address of the socket that was selected.
#[inline(always)]
fn selected(ctx: *mut sk_reuseport_md, layout: Layout) -> u64 {
    // The kernel's own context is a `struct sk_reuseport_kern`.
    peek(ctx as u64 + u64::from(layout.selected))
}

/// Length of the accept queue of the socket at this address. Of one that is gone it is anything.
#[inline(always)]
fn backlog(socket: u64, layout: Layout) -> u32 {
    peek(socket + u64::from(layout.backlog))
}
