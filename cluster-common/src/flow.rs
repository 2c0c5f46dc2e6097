//! What a SYN was told is remembered until its ACK, so that under SYN cookies both go to the same worker.
//!
//! The kernel gives the program the same hash of addresses and ports for both packets. One word per bucket holds the hash,
//! the version of the route and the slot. A newer SYN simply overwrites an older one: then the older connection's ACK is
//! not recognised and draws a turn of its own.
//!
//! Mostly there are no cookies, and a store that misses the cache is a tenth of a decision. So all the table is used only for
//! as long as [ACKs that may be of cookies](crate::packet::Kind::CookieAck) come, and a few cache lines of it otherwise: for
//! the first ACKs, before anybody knows that there are cookies.

use crate::slot::Slot;

/// Remembered SYNs of a group. A power of two, for masking: 128 KiB.
pub const FLOWS: u32 = 16384;

/// Those of them that are used while there are no cookies: eight cache lines.
const QUIET_FLOWS: u32 = 64;

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

    /// Whether this is the memory of the SYN with this hash, of whatever route.
    #[inline(always)]
    pub const fn is_of(self, hash: u32) -> bool {
        (self.0 >> 32) as u32 == hash
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

/// Jiffies for which there may be more cookies after the last one: 16 seconds where a second has 1000, minutes at most.
const COOKIE_SEASON: u64 = 1 << 14;

/// Whether there are cookies, the last of which may have come at `last`. Both in jiffies, which begin far from 0; 0 for never.
#[inline(always)]
pub const fn has_cookies(now: u64, last: u64) -> bool {
    now.wrapping_sub(last) < COOKIE_SEASON
}

/// The bucket of a hash while there are cookies.
#[inline(always)]
pub const fn bucket(hash: u32) -> u32 {
    hash & (FLOWS - 1)
}

/// The bucket of a hash while there are none: one of the first.
#[inline(always)]
pub const fn quiet_bucket(hash: u32) -> u32 {
    hash & (QUIET_FLOWS - 1)
}

const _: () = assert!(FLOWS.is_power_of_two() && size_of::<Flow>() == 8);
const _: () = assert!(QUIET_FLOWS.is_power_of_two() && QUIET_FLOWS < FLOWS);

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
    fn there_are_cookies_for_a_while_after_one_was_seen() {
        let booted = 0xffff_b6e0;
        assert!(!has_cookies(booted, 0), "none was ever seen");
        assert!(has_cookies(booted + 5, booted + 5));
        assert!(has_cookies(booted + COOKIE_SEASON, booted + 1));
        assert!(!has_cookies(booted + COOKIE_SEASON, booted));
    }

    #[test]
    fn few_buckets_are_used_while_there_are_none() {
        for hash in [0, 1, 0xdead_beef, u32::MAX] {
            assert!(bucket(hash) < FLOWS && quiet_bucket(hash) < QUIET_FLOWS);
            assert!(Flow::new(hash, 1, Slot::masked(1)).is_of(hash));
            assert!(!Flow::new(hash, 1, Slot::masked(1)).is_of(!hash));
        }
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
