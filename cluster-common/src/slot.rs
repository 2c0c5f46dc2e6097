//! A slot is an index of a group's socket array: the number by which the kernel knows a worker's socket.

/// Entries of a group's socket array: one for the waiting room, the others for workers.
///
/// A power of two, so that masking an index bounds it for the verifier.
pub const SLOTS: u32 = 4096;

/// An index of a group's socket array, always below [`SLOTS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Slot(u16);

const _: () = assert!(size_of::<Slot>() == 2 && SLOTS.is_power_of_two() && SLOTS <= 1 << 16);

impl Slot {
    /// Where the supervisor's own listener sits, selected only when no worker can be.
    pub const WAITING_ROOM: Self = Self(0);

    /// The slot with this number, or `None` if it is not below [`SLOTS`].
    pub const fn new(number: u16) -> Option<Self> {
        if (number as u32) < SLOTS { Some(Self(number)) } else { None }
    }

    /// The slot named by a number from shared memory, cut to the valid range.
    ///
    /// The kernel program cannot refuse a bad entry, and the verifier wants to see the bound: a mask gives both.
    #[inline(always)]
    pub const fn masked(number: u16) -> Self {
        Self(number & (SLOTS as u16 - 1))
    }

    /// The number as route tables and flows store it.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as map keys have it.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Whether a worker can sit here, that is, whether this is not the waiting room.
    #[inline(always)]
    pub const fn is_worker(self) -> bool {
        self.0 != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_beyond_the_array_is_not_a_slot() {
        assert_eq!(Slot::new(4096), None);
        assert_eq!(Slot::new(4095).map(Slot::index), Some(4095));
        assert_eq!(Slot::masked(4097).get(), 1);
    }

    #[test]
    fn the_waiting_room_is_no_worker() {
        assert!(!Slot::WAITING_ROOM.is_worker());
        assert!(Slot::masked(1).is_worker());
    }
}
