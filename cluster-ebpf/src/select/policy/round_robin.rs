//! Round robin over the route: the next turn is the next entry. Weights, canary shares and drains are route contents.

use cluster_common::{
    route::{Cursor, Lane, ROUTE_ENTRIES, RouteTable, Table, Turn, look_up},
    slot::Slot,
};

use crate::maps::{CURSORS, ROUTES};

/// Takes the next turn in `lane`.
#[inline(always)]
pub(crate) fn draw(lane: Lane) -> Turn {
    let Some(word) = cursor(lane) else { return Turn::Nobody };
    // SAFETY: an aligned word of the map. One addition gives version and position of the same instant.
    let cursor = Cursor::from_word(unsafe { cluster_ebpf::fetch_add(word, 1) });
    turn(cursor, cursor.position())
}

/// The entry for `hash` in the current route. Moves nothing.
#[inline(always)]
pub(crate) fn peek(hash: u32) -> Turn {
    turn(current(), u64::from(hash))
}

/// The version of the current route.
#[inline(always)]
pub(crate) fn version() -> u8 {
    current().version()
}

#[inline(always)]
fn current() -> Cursor {
    // SAFETY: an aligned word of the map.
    Cursor::from_word(cursor(Lane::Syn).map_or(0, |word| unsafe { word.read_volatile() }))
}

#[inline(always)]
fn cursor(lane: Lane) -> Option<*mut u64> {
    CURSORS.get_ptr_mut(lane.index()).map(<*mut _>::cast)
}

#[inline(always)]
fn turn(cursor: Cursor, at: u64) -> Turn {
    match ROUTES.get_ptr(cursor.buffer()) {
        Some(table) => look_up(Shared(table), cursor, at),
        None => Turn::Nobody,
    }
}

/// A table in the map. The supervisor may be writing to it, so every read is a real one, in this order.
#[derive(Clone, Copy)]
struct Shared(*const RouteTable);

impl Table for Shared {
    #[inline(always)]
    fn version(self) -> u32 {
        // SAFETY: a valid entry of the map.
        let field = unsafe { &raw const (*self.0).version };
        // SAFETY: as above.
        unsafe { field.read_volatile() }
    }

    #[inline(always)]
    fn length(self) -> u32 {
        // SAFETY: a valid entry of the map.
        let field = unsafe { &raw const (*self.0).len };
        // SAFETY: as above.
        unsafe { field.read_volatile() }
    }

    #[inline(always)]
    fn entry(self, index: u32) -> Slot {
        // SAFETY: a valid entry of the map.
        let entries = unsafe { &raw const (*self.0).entries }.cast::<u16>();
        // SAFETY: the mask keeps the place inside the table, and shows it to the verifier.
        let place = unsafe { entries.add(index as usize & (ROUTE_ENTRIES - 1)) };
        // SAFETY: as above.
        Slot::masked(unsafe { place.read_volatile() })
    }
}
