//! Slot: an index of a group's socket map.

/// An index of a group's socket map; a worker's socket sits in one slot per group.
#[repr(transparent)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Slot(pub u16);

/// Number of slots of a group, the waiting room's included.
pub const SLOTS: u16 = 4096;

impl Slot {
    /// The waiting room's slot, in no route.
    pub const WAITING_ROOM: Self = Self(0);
}
