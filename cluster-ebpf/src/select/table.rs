//! The route in the maps, and the cursors that walk it.

use cluster_common::{
    pick::mix,
    route::{
        self, Cursor, Entry, Lane, OTHERS, Pick, RouteTable, TABLE_ENTRIES, Table, Turn,
        look_aside, look_up,
    },
};

use crate::maps::{CURSORS, ROUTES};

/// Takes the next turn of a lane: version and position of the same instant, by one addition.
#[inline(always)]
pub(crate) fn advance(lane: Lane) -> Option<Cursor> {
    let word = cursor(lane)?;
    // SAFETY: an aligned word of the map.
    Some(Cursor::from_word(unsafe { cluster_ebpf::fetch_add(word, 1) }))
}

/// The cursor of new connections, as it is.
#[inline(always)]
pub(crate) fn current() -> Cursor {
    // SAFETY: an aligned word of the map.
    Cursor::from_word(cursor(Lane::Syn).map_or(0, |word| unsafe { word.read_volatile() }))
}

/// The entry at a position of the table that a cursor walks.
#[inline(always)]
pub(crate) fn turn(cursor: Cursor, at: u64) -> Turn {
    match table(cursor) {
        Some(table) => look_up(table, cursor, at),
        None => Turn::Nobody,
    }
}

/// Somebody who is asked instead of whose turn it was.
#[inline(always)]
pub(crate) fn aside(attempt: u32) -> Turn {
    let cursor = current();
    match table(cursor) {
        // Spread, so that who is next in the list does not get all of it.
        Some(table) => {
            look_aside(table, cursor, (mix(cursor.position()) >> 1) + u64::from(attempt))
        }
        None => Turn::Nobody,
    }
}

/// Takes the next turn of a lane. The first attempt is whatever `pick` finds in the table, told its length, at least one, and
/// the position of the turn. Attempts after that go round: who was picked could not be taken, and would be picked again.
#[inline(always)]
pub(crate) fn pick_in_turn(
    lane: Lane,
    attempt: u32,
    pick: impl FnOnce(Shared, u32, u64) -> Entry,
) -> Turn {
    let Some(cursor) = advance(lane) else { return Turn::Nobody };
    if attempt > 0 {
        return turn(cursor, cursor.position());
    }
    self::pick(cursor, |table, len| pick(table, len, cursor.position()))
}

/// Whatever `pick` finds in the table that a cursor walks, told its length, at least one.
#[inline(always)]
pub(crate) fn pick(cursor: Cursor, pick: impl FnOnce(Shared, u32) -> Entry) -> Turn {
    let Some(table) = table(cursor) else { return Turn::Nobody };
    let len = table.length();
    if len == 0 {
        return turn(cursor, 0);
    }
    let entry = pick(table, len);
    if route::current(table, cursor) { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken }
}

/// The place among so many, at least one, that a position comes to.
#[expect(clippy::cast_possible_truncation, reason = "less than the length")]
#[inline(always)]
pub(crate) fn place(position: u64, len: u32) -> u32 {
    (position % u64::from(len)) as u32
}

/// The table that a cursor walks.
#[inline(always)]
pub(crate) fn table(cursor: Cursor) -> Option<Shared> {
    ROUTES.get_ptr(cursor.buffer()).map(Shared)
}

#[inline(always)]
fn cursor(lane: Lane) -> Option<*mut u64> {
    CURSORS.get_ptr_mut(lane.index()).map(<*mut _>::cast)
}

/// A table in the map. The supervisor may be writing to it, so every read is a real one, in this order.
#[derive(Clone, Copy)]
pub(crate) struct Shared(*const RouteTable);

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
    fn entry(self, index: u32) -> Entry {
        // SAFETY: a valid entry of the map.
        let entries = unsafe { &raw const (*self.0).entries }.cast::<u32>();
        // SAFETY: the mask keeps the place inside the table, and shows it to the verifier.
        let place = unsafe { entries.add(index as usize & (TABLE_ENTRIES - 1)) };
        // SAFETY: as above.
        Entry::from_word(unsafe { place.read_volatile() })
    }

    #[inline(always)]
    fn others(self) -> u32 {
        // SAFETY: a valid entry of the map.
        let field = unsafe { &raw const (*self.0).others_len };
        // SAFETY: as above.
        unsafe { field.read_volatile() }
    }

    #[inline(always)]
    fn other(self, index: u32) -> Entry {
        // SAFETY: a valid entry of the map.
        let others = unsafe { &raw const (*self.0).others }.cast::<u32>();
        // SAFETY: the mask keeps the place inside, and shows it to the verifier.
        let place = unsafe { others.add(index as usize & (OTHERS - 1)) };
        // SAFETY: as above.
        Entry::from_word(unsafe { place.read_volatile() })
    }
}
