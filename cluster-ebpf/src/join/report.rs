//! Sending a report.

use cluster_common::event::Event;

use crate::maps::{EVENTS, LOST_EVENTS};

/// Sends a report to the supervisor, or counts that there was no room for it.
#[inline(always)]
pub(crate) fn report(event: Event) {
    if let Some(mut entry) = EVENTS.reserve::<Event>(0) {
        entry.write(event);
        entry.submit(0);
    } else {
        lost();
    }
}

/// Counts something that the supervisor was not told.
#[inline(always)]
pub(crate) fn lost() {
    if let Some(lost) = LOST_EVENTS.get_ptr_mut(0) {
        // SAFETY: an aligned word of the map.
        unsafe { cluster_ebpf::add(lost, 1) };
    }
}

/// The bytes of an address that a context gives as words in network order.
#[inline(always)]
pub(crate) fn octets(words: [u32; 4]) -> [u8; 16] {
    // SAFETY: four words are sixteen bytes, and every byte pattern is valid.
    unsafe { core::mem::transmute(words) }
}
