//! Publishing a route: the supervisor's half of the agreement, the other half being [`route::look_up`].
//!
//! There is one publisher at a time. It writes the table that no cursor points to and then swaps each cursor's word, so a
//! decision sees the old route or the new one and never a mixture. It may die at any point: what it leaves is a route
//! that works, and the next publication first finishes what was begun.
//!
//! [`route::look_up`]: crate::route::look_up

use core::sync::atomic::{AtomicU64, Ordering, fence};

use crate::route::{
    BUFFERS, Cursor, CursorLine, Lane, OTHERS, ROUTE_ENTRIES, RouteTable, TABLE_ENTRIES, resume,
};

/// The memory that a group shares with the kernel, as its publisher sees it.
pub trait Board {
    /// The full version of the table in `buffer`.
    fn version(&self, buffer: u32) -> u32;
    /// The route of the table in `buffer`.
    fn entries(&self, buffer: u32) -> &[u32];
    /// Makes `buffer` the table of `version`: the version first, then the rest.
    fn write(&mut self, buffer: u32, version: u32, entries: &[u32], behind: &[u32]);
    /// The cursor of `lane` at this moment.
    fn cursor(&self, lane: Lane) -> Cursor;
    /// Replaces the cursor of `lane` if it still is `expected`; the error is what it is instead.
    fn exchange(&mut self, lane: Lane, expected: Cursor, new: Cursor) -> Result<(), Cursor>;
}

/// A list that no table can hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RouteTooLong {
    /// How many entries it has; [`ROUTE_ENTRIES`] are possible.
    pub entries: usize,
    /// How many words would come behind it; with them it is [`TABLE_ENTRIES`].
    pub behind: usize,
}

impl core::fmt::Display for RouteTooLong {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let Self { entries, behind } = self;
        if *entries > ROUTE_ENTRIES {
            return write!(
                f,
                "a route of {entries} entries does not fit: {ROUTE_ENTRIES} are possible"
            );
        }
        write!(
            f,
            "a route of {entries} entries with {behind} behind it does not fit: {TABLE_ENTRIES} are possible"
        )
    }
}

impl core::error::Error for RouteTooLong {}

/// Makes `entries` the group's route, with the policy's words `behind` it, and returns its version.
///
/// When this returns, every decision that draws from now on draws from `entries`. A decision that drew before may still
/// select a slot of the route before this one.
pub fn publish<B: Board>(
    board: &mut B,
    entries: &[u32],
    behind: &[u32],
) -> Result<u32, RouteTooLong> {
    if entries.len() > ROUTE_ENTRIES || entries.len() + behind.len() > TABLE_ENTRIES {
        return Err(RouteTooLong { entries: entries.len(), behind: behind.len() });
    }
    let active = board.cursor(Lane::Syn).buffer();
    // A publisher died between the lanes: one of them still walks the table that is about to be overwritten.
    flip(board, Lane::Cookie, active);

    let version = board.version(active).wrapping_add(1);
    let next = version & (BUFFERS - 1);
    board.write(next, version, entries, behind);
    for lane in Lane::ALL {
        flip(board, lane, next);
    }
    Ok(version)
}

/// Moves the cursor of `lane` to the table in `buffer`, unless it is there.
fn flip<B: Board>(board: &mut B, lane: Lane, buffer: u32) {
    let version = board.version(buffer);
    let mut cursor = board.cursor(lane);
    while cursor.buffer() != buffer {
        let start =
            resume(board.entries(cursor.buffer()), cursor.position(), board.entries(buffer));
        match board.exchange(lane, cursor, Cursor::new(version, start)) {
            Ok(()) => return,
            // Connections took turns meanwhile: the place to go on has moved.
            Err(now) => cursor = now,
        }
    }
}

/// A [`Board`] over the mapped memory of a group's route and cursor maps.
#[derive(Debug)]
pub struct Mapped {
    tables: *mut RouteTable,
    cursors: *mut CursorLine,
}

// SAFETY: it is the only publisher (see `new`), and shared memory does not belong to a thread.
unsafe impl Send for Mapped {}

impl Mapped {
    /// Takes over the publisher's side of the two maps.
    ///
    /// # Safety
    ///
    /// `tables` must point to [`BUFFERS`] tables and `cursors` to one line per [`Lane`], mapped readable and writable for
    /// as long as this value lives. Nothing else in user space may write to them meanwhile.
    pub const unsafe fn new(tables: *mut RouteTable, cursors: *mut CursorLine) -> Self {
        Self { tables, cursors }
    }

    /// What is behind the route of the table in `buffer`; whatever was there before, where nothing is.
    pub fn behind(&self, buffer: u32) -> &[u32] {
        let table = self.table(buffer);
        &table.entries[(table.len as usize).min(TABLE_ENTRIES)..]
    }

    fn table(&self, buffer: u32) -> &RouteTable {
        // SAFETY: `new` promises this many tables.
        let table = unsafe { self.tables.add((buffer & (BUFFERS - 1)) as usize) };
        // SAFETY: the kernel only reads it, and writing it needs `&mut self`.
        unsafe { &*table }
    }

    fn table_mut(&mut self, buffer: u32) -> &mut RouteTable {
        // SAFETY: `new` promises this many tables.
        let table = unsafe { self.tables.add((buffer & (BUFFERS - 1)) as usize) };
        // SAFETY: in user space only this value uses it, and it is borrowed mutably.
        unsafe { &mut *table }
    }

    fn word(&self, lane: Lane) -> &AtomicU64 {
        // SAFETY: `new` promises one line per lane.
        let line = unsafe { self.cursors.add(lane.index() as usize) };
        // SAFETY: `line` is valid for the life of `self`.
        let word = unsafe { &raw mut (*line).word };
        // SAFETY: aligned to its cache line, valid, and user space and kernel only use it atomically.
        unsafe { AtomicU64::from_ptr(word) }
    }
}

impl Board for Mapped {
    fn version(&self, buffer: u32) -> u32 {
        self.table(buffer).version
    }

    fn entries(&self, buffer: u32) -> &[u32] {
        let table = self.table(buffer);
        &table.entries[..(table.len as usize).min(ROUTE_ENTRIES)]
    }

    fn write(&mut self, buffer: u32, version: u32, entries: &[u32], behind: &[u32]) {
        let table = self.table_mut(buffer);
        store(&mut table.version, version);
        // A reader that sees one of the new entries must find the new version afterwards.
        fence(Ordering::SeqCst);
        let entries = &entries[..entries.len().min(ROUTE_ENTRIES)];
        for (place, &entry) in table.entries.iter_mut().zip(entries.iter().chain(behind)) {
            store(place, entry);
        }
        store(&mut table.len, entries.len() as u32);
        let mut count = 0;
        for entry in entries {
            if count < OTHERS && !table.others[..count].contains(entry) {
                store(&mut table.others[count], *entry);
                count += 1;
            }
        }
        store(&mut table.others_len, count as u32);
        // The table must be complete before a cursor points to it.
        fence(Ordering::SeqCst);
    }

    fn cursor(&self, lane: Lane) -> Cursor {
        Cursor::from_word(self.word(lane).load(Ordering::SeqCst))
    }

    fn exchange(&mut self, lane: Lane, expected: Cursor, new: Cursor) -> Result<(), Cursor> {
        self.word(lane)
            .compare_exchange(expected.word(), new.word(), Ordering::SeqCst, Ordering::SeqCst)
            .map(|_| ())
            .map_err(Cursor::from_word)
    }
}

/// Writes what the kernel reads at the same time: the compiler may not leave the write out or split it.
fn store<T>(place: &mut T, value: T) {
    // SAFETY: a reference is valid and aligned.
    unsafe { core::ptr::from_mut(place).write_volatile(value) };
}
