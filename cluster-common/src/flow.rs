//! What a SYN was told is remembered until its ACK, so that under SYN cookies both go to the same worker.
//!
//! The kernel gives the program the same hash of addresses and ports for both packets. One word per bucket holds the hash,
//! the version of the route and the slot. A newer SYN simply overwrites an older one: then the older connection's ACK is
//! not recognised and draws a turn of its own.

use crate::slot::Slot;

/// Remembered SYNs of a group. A power of two, for masking: 128 KiB.
pub const FLOWS: u32 = 16384;

/// A remembered SYN, in the word as it lies in the map. An empty word remembers nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Flow(u64);

impl Flow {
    /// The memory that the SYN with this hash was sent to `slot` of the route with this version.
    #[inline(always)]
    pub const fn new(hash: u32, version: u8, slot: Slot) -> Self {
        Self((hash as u64) << 32 | (version as u64) << 16 | slot.get() as u64)
    }

    /// The memory in a word of the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to store in the map.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// The slot, if this is the memory of the SYN with this hash and the route is still of this version.
    ///
    /// An older route's slot is not given out: its worker may be draining.
    #[inline(always)]
    pub const fn slot(self, hash: u32, version: u8) -> Option<Slot> {
        let slot = Slot::masked(self.0 as u16);
        // The waiting room is never remembered, so slot 0 means that the bucket is empty.
        if slot.is_worker() && self.0 == Self::new(hash, version, slot).0 {
            Some(slot)
        } else {
            None
        }
    }
}

/// The bucket of a hash.
#[inline(always)]
pub const fn bucket(hash: u32) -> u32 {
    hash & (FLOWS - 1)
}

const _: () = assert!(FLOWS.is_power_of_two() && size_of::<Flow>() == 8);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_hash_and_version_find_the_slot() {
        let flow = Flow::new(0xdead_beef, 7, Slot::masked(4095));

        assert_eq!(flow.slot(0xdead_beef, 7), Some(Slot::masked(4095)));
        assert_eq!(flow.slot(0xdead_beef, 8), None);
        assert_eq!(flow.slot(0xdead_beee, 7), None);
    }

    #[test]
    fn an_empty_bucket_remembers_nothing() {
        assert_eq!(Flow::from_word(0).slot(0, 0), None);
    }

    #[test]
    fn a_damaged_word_remembers_nothing() {
        let word = Flow::new(1, 2, Slot::masked(3)).word();

        assert_eq!(Flow::from_word(word | 1 << 30).slot(1, 2), None);
        assert_eq!(Flow::from_word(word | 1 << 15).slot(1, 2), None);
    }
}
