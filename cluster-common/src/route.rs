//! The route: a table of slots, and a cursor that walks it, so that every connection has exactly one turn.
//!
//! A group has two tables (one in use, one to write into) and one cursor for each [`Lane`]. A cursor is one word that
//! holds the version of the table and a position in it: one fetching add hands out both, as of the same instant. That is
//! why a publication, which swaps the word, can neither skip a turn nor give one out twice.
//!
//! # What is guaranteed
//!
//! Let every table hold a slot at most once and keep slots in one common order (ascending, for example). Take any stretch
//! of time and two workers that are in every table used in that stretch. Then the turns handed out in one lane alternate
//! strictly between the two: **their numbers of turns differ by at most one**, whatever the number and the moments of
//! publications, and whoever else comes and goes. It follows from two facts: a table is walked in a circle, so within one
//! table any two slots alternate; and [`resume`] goes on at the next slot that both tables have, so that the survivors
//! keep their circular order across a publication. A worker that joins is counted from its first table on.
//!
//! A turn is a connection unless its socket could not be selected (the worker has just died: the decision draws again and
//! the turn is lost to nobody else) or two whole publications overtook the decision between its draw and its look at the
//! table (it draws again, and that one turn is lost). For tables with weights the same walk holds within a table;
//! across publications the next entry is kept, but no such bound is promised, because the weights themselves changed.

use crate::{
    load::{SEATS, Seat},
    slot::Slot,
};

/// Entries of a route: the sum of all weights can be this large.
pub const ROUTE_ENTRIES: usize = 4096;

/// Workers that a decision can turn to besides whose turn it is. A power of two, for masking.
pub const OTHERS: usize = 128;

/// Entries of a table: a route, and what a policy keeps behind it. A power of two, for masking.
pub const TABLE_ENTRIES: usize = 16384;

/// Tables of a group: the one in use, and the one the next publication writes.
pub const BUFFERS: u32 = 2;

/// Cursors of a group, one for each [`Lane`].
pub const LANES: u32 = 2;

/// Which of a group's cursors a decision draws from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Lane {
    /// New connections, migrated connections and datagrams.
    Syn = 0,
    /// The last packet of a SYN-cookie handshake whose SYN is not remembered. Anybody can send such packets, so they
    /// must not be able to move the cursor of real connections.
    Cookie = 1,
}

impl Lane {
    /// Every lane, in the order of their numbers.
    pub const ALL: [Self; LANES as usize] = [Self::Syn, Self::Cookie];

    /// The key of this lane's entry in the cursor map.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        match self {
            Self::Syn => 0,
            Self::Cookie => 1,
        }
    }
}

/// One of a group's two tables, as it lies in the map.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct RouteTable {
    /// Number of the publication that wrote this table. A publication sets it before it touches the rest, so a reader who
    /// finds the number it drew still in place after reading knows that what it read is of that publication.
    pub version: u32,
    /// Entries of the route.
    pub len: u32,
    /// The route: [`Entry`]s as words, the first `len`. What is behind them is the policy's (see [`class`](crate::class)),
    /// and is published with the route.
    pub entries: [u32; TABLE_ENTRIES],
    /// How many of `others` there are.
    pub others_len: u32,
    /// Fills the word.
    pub reserved: u32,
    /// Everybody in the route once, as [`Entry`]s, as far as there is room: whom a decision asks when it may not take who
    /// has the turn. With weights the next turns may all be of the same worker.
    pub others: [u32; OTHERS],
}

const _: () = assert!(
    size_of::<RouteTable>() == 16 + 4 * OTHERS + 4 * TABLE_ENTRIES
        && TABLE_ENTRIES.is_power_of_two()
);
const _: () = assert!(ROUTE_ENTRIES < TABLE_ENTRIES && OTHERS.is_power_of_two());

/// One lane's cursor as it lies in the map: a cache line of its own, since every connection writes it.
#[derive(Clone, Copy, Debug)]
#[repr(C, align(64))]
pub struct CursorLine {
    /// A [`Cursor`] as a word.
    pub word: u64,
    /// Jiffy of the last packet that may have ended a handshake with SYN cookies; 0 if there was none. Of the first lane
    /// only, where every SYN passes by.
    pub cookie_seen: u64,
    /// Fills the cache line.
    pub reserved: [u64; 6],
}

const _: () = assert!(size_of::<CursorLine>() == 64);

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for RouteTable {}
#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for CursorLine {}

const POSITION_BITS: u32 = 56;
const POSITION: u64 = (1 << POSITION_BITS) - 1;

/// A table's version (the low 8 bits of it) and the position of the next turn, in one word.
///
/// Adding one to the word is taking a turn. The position has 56 bits: at a hundred million turns a second it would reach
/// the version after twenty years in which nobody published.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Cursor(u64);

impl Cursor {
    /// The beginning of the empty route that a new group has.
    pub const ZERO: Self = Self(0);

    /// The cursor that stands at `position` of the table published as `version`.
    pub const fn new(version: u32, position: u64) -> Self {
        Self(((version & 0xff) as u64) << POSITION_BITS | position & POSITION)
    }

    /// The cursor in a word of the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to store in the map.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The low 8 bits of the table's version.
    #[inline(always)]
    pub const fn version(self) -> u8 {
        (self.0 >> POSITION_BITS) as u8
    }

    /// The position of the next turn, not yet reduced to the table's length.
    #[inline(always)]
    pub const fn position(self) -> u64 {
        self.0 & POSITION
    }

    /// Which of the two tables this cursor walks.
    #[inline(always)]
    pub const fn buffer(self) -> u32 {
        (self.0 >> POSITION_BITS) as u32 & (BUFFERS - 1)
    }
}

/// One place in a route: a worker's slot, and where its load is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Entry(u32);

impl Entry {
    /// The waiting room, which no route has.
    pub const NOBODY: Self = Self(0);

    /// Bits of the word that mean something.
    pub const BITS: u32 = 16 + SEATS.trailing_zeros();

    /// A worker in `slot` whose load is kept in `seat`.
    pub const fn new(slot: Slot, seat: Seat) -> Self {
        Self(slot.index() | (seat.get() as u32) << 16)
    }

    /// The entry in a word of a table.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The word to store in a table.
    #[inline(always)]
    pub const fn word(self) -> u32 {
        self.0
    }

    /// The worker's slot.
    #[inline(always)]
    pub const fn slot(self) -> Slot {
        Slot::masked(self.0 as u16)
    }

    /// Where its load is kept.
    #[inline(always)]
    pub const fn seat(self) -> Seat {
        Seat::masked((self.0 >> 16) as u16)
    }
}

/// One turn: the slot whose it is, and where it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Whose turn it is.
    pub entry: Entry,
    /// The cursor as it was when the turn was taken.
    pub cursor: Cursor,
}

/// What came of drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// A turn.
    Of(Pick),
    /// The table was overwritten while it was read: draw again.
    Overtaken,
    /// The route is empty.
    Nobody,
}

/// Read access to a table that somebody else may be writing.
pub trait Table: Copy {
    /// [`RouteTable::version`].
    fn version(self) -> u32;
    /// [`RouteTable::len`], how many entries the route has.
    fn length(self) -> u32;
    /// The entry at `index & (TABLE_ENTRIES - 1)`, of the route or behind it.
    fn entry(self, index: u32) -> Entry;
    /// [`RouteTable::others_len`].
    fn others(self) -> u32 {
        0
    }
    /// The one of [`RouteTable::others`] at `index & (OTHERS - 1)`.
    fn other(self, _index: u32) -> Entry {
        Entry::NOBODY
    }
}

/// Looks up the turn that `cursor` gives in `table`, which must be the table of `cursor.buffer()`.
///
/// `at` is the cursor's position for a turn that was drawn, and a hash for a packet that has none.
#[inline(always)]
pub fn look_up<T: Table>(table: T, cursor: Cursor, at: u64) -> Turn {
    let len = u64::from(table.length());
    if len == 0 {
        // An empty table that was overwritten is as good as any other reason to look again.
        return if current(table, cursor) { Turn::Nobody } else { Turn::Overtaken };
    }
    let entry = table.entry((at % len) as u32);
    if current(table, cursor) { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken }
}

/// Looks up somebody in `table`, everybody being as far from the next as from any other, whatever their weights: for a
/// decision that may not take who has the turn. `at` as for [`look_up`].
#[inline(always)]
pub fn look_aside<T: Table>(table: T, cursor: Cursor, at: u64) -> Turn {
    let count = u64::from(table.others());
    if count == 0 {
        return look_up(table, cursor, at);
    }
    let entry = table.other((at % count) as u32);
    if current(table, cursor) { Turn::Of(Pick { entry, cursor }) } else { Turn::Overtaken }
}

/// Whether `table` still is the one that `cursor` was drawn for.
#[inline(always)]
pub fn current<T: Table>(table: T, cursor: Cursor) -> bool {
    table.version() as u8 == cursor.version()
}

/// Where a cursor that stands at `position` of `old` has to go on in `new`.
///
/// That is the next entry of `old`, from `position` on, whose slot is also in `new`. If the slot has several entries, the
/// occurrence is kept as well, so that publishing the same table again changes nothing. If no slot survives, it is the
/// beginning.
pub fn resume(old: &[u32], position: u64, new: &[u32]) -> u64 {
    if old.is_empty() {
        return 0;
    }
    let at = (position % old.len() as u64) as usize;
    let order = (at..old.len()).chain(0..at);
    for index in order {
        // Its seat may have changed, which makes it no other worker.
        let slot = Entry(old[index]).slot();
        let is_it = |other: &&u32| Entry(**other).slot() == slot;
        let occurrences = new.iter().filter(is_it).count();
        if occurrences > 0 {
            let before = old[..index].iter().filter(is_it).count();
            let mut places = new.iter().enumerate().filter(|(_, other)| is_it(other));
            return places.nth(before % occurrences).map_or(0, |(place, _)| place as u64);
        }
    }
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adding_one_to_the_word_moves_the_position_only() {
        let cursor = Cursor::new(0x1ff, 41);
        let next = Cursor::from_word(cursor.word() + 1);

        assert_eq!((next.version(), next.buffer(), next.position()), (0xff, 1, 42));
    }

    #[test]
    fn the_next_survivor_is_the_next_turn() {
        let old = [1, 2, 3, 4];

        assert_eq!(resume(&old, 6, &[1, 3, 4]), 1, "it was 3's turn");
        assert_eq!(resume(&old, 5, &[1, 3, 4]), 1, "it was 2's turn, who left: 3 is next");
        assert_eq!(resume(&old, 3, &[1, 2, 3]), 0, "it was 4's turn, who left: 1 is next");
        assert_eq!(resume(&old, 2, &[7, 8]), 0, "nobody stays");
        assert_eq!(resume(&[], 9, &[1]), 0, "nobody was there");
        assert_eq!(resume(&old, 9, &[]), 0, "nobody is left");
    }

    #[test]
    fn publishing_the_same_weighted_table_changes_nothing() {
        let table = [1, 1, 2, 1, 3];

        for position in 0..5 {
            assert_eq!(resume(&table, position, &table), position);
        }
    }
}
