//! Picking: what policies other than round robin do with a route, as pure functions over whatever tells them of loads.

use crate::{
    load::LAST,
    route::{Entry, Table},
};

/// Workers that are compared one by one; among more, some are taken at random.
pub const COMPARED: u32 = 64;

/// The least burdened entry of the first [`COMPARED`] from `start` on, of a table with `len` entries, at least one. Burdens
/// are below 2^37. What `burden` says of one that has at least as much as its second argument need not be exact: it only must
/// not be less.
///
/// Among equals the first one after `start` wins, so that a `start` that moves lets ties rotate. Whoever's burden is not above
/// `idle` has nothing to do, and nobody behind is asked.
#[inline(always)]
pub fn least<T: Table>(
    table: T,
    len: u32,
    start: u32,
    limit: u32,
    idle: u64,
    mut burden: impl FnMut(Entry, u64) -> u64,
) -> Entry {
    // A burden and whose it is in one word: there is one thing to compare and to keep, for the verifier as well.
    let mut lowest = u64::MAX;
    let mut index = 0;
    while index < COMPARED {
        if index >= len || index >= limit {
            break;
        }
        let at = start + index;
        let entry = table.entry(if at >= len { at - len } else { at });
        let word = (burden(entry, lowest >> Entry::BITS) << Entry::BITS) + u64::from(entry.word());
        if word >> Entry::BITS < lowest >> Entry::BITS {
            lowest = word;
            if lowest >> Entry::BITS <= idle {
                break;
            }
        }
        index += 1;
    }
    Entry::from_word(lowest as u32 & ((1 << Entry::BITS) - 1))
}

/// The least burdened of the whole table, or, among very many entries, the less burdened of two at random. `start`, `len` and
/// `idle` as for [`least`].
#[inline(always)]
pub fn lightest<T: Table>(
    table: T,
    len: u32,
    start: u32,
    idle: u64,
    random: impl FnOnce() -> u32,
    mut burden: impl FnMut(Entry, u64) -> u64,
) -> Entry {
    if len <= COMPARED {
        return least(table, len, start, COMPARED, idle, burden);
    }
    let (one, other) = two(random(), len);
    let (one, other) = (table.entry(one), table.entry(other));
    if burden(one, u64::MAX) <= burden(other, u64::MAX) { one } else { other }
}

/// Two different places of a table with `len` entries, from one random number; the same place twice if there is only one.
#[inline(always)]
pub const fn two(random: u32, len: u32) -> (u32, u32) {
    if len < 2 {
        return (0, 0);
    }
    let (one, other) = (random & 0xffff, random >> 16);
    // Scaled rather than divided: with at most a few thousand entries the error is below a tenth.
    let one = (one * len) >> 16;
    let other = (other * (len - 1)) >> 16;
    (one, if other >= one { other + 1 } else { other })
}

/// The better of two entries: fewer connections times how long they take. Of whom nothing is known yet, only the
/// connections are compared; who is to be the [last](LAST) is the worse one in any case.
#[inline(always)]
pub const fn better(one: (u64, u32), other: (u64, u32)) -> bool {
    let ((burden, average), (others, theirs)) = (one, other);
    if average == 0 || theirs == 0 {
        return burden <= others;
    }
    product(burden, average) <= product(others, theirs)
}

/// Connections times how long they take.
#[inline(always)]
const fn product(burden: u64, average: u32) -> u64 {
    // A burden has at most 37 bits, an average 32: enough is shifted away for the product to fit. Whoever is to be the last
    // gets the highest bit, which no product has; by a condition the verifier would walk more than half as much again.
    (burden >> 10) * (average as u64) + ((burden & LAST) << (63 - LAST.trailing_zeros()))
}

/// Spreads bits: a change of any bit of the input changes about half of the output (the finalizer of `MurmurHash3`).
#[inline(always)]
pub const fn mix(mut bits: u64) -> u64 {
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xff51_afd7_ed55_8ccd);
    bits ^= bits >> 33;
    bits = bits.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    bits ^ bits >> 33
}

/// Hash of the first `bits` bits of an address in network order, 1 to 128.
#[inline(always)]
pub const fn of_prefix(address: [u8; 16], bits: u32) -> u64 {
    // SAFETY: sixteen bytes are two words, and every byte pattern is valid.
    let [high, low]: [u64; 2] = unsafe { core::mem::transmute(address) };
    let (high, low) = (u64::from_be(high), u64::from_be(low));
    let (high, low) = if bits >= 128 {
        (high, low)
    } else if bits > 64 {
        (high, low & !(u64::MAX >> (bits - 64)))
    } else if bits == 64 {
        (high, 0)
    } else {
        (high & !(u64::MAX >> (bits & 63)), 0)
    };
    mix(high ^ mix(low))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{load::Seat, slot::Slot};

    #[derive(Clone, Copy)]
    struct Row<'a>(&'a [u16]);

    impl Table for Row<'_> {
        fn version(self) -> u32 {
            0
        }

        fn length(self) -> u32 {
            u32::try_from(self.0.len()).unwrap()
        }

        fn entry(self, index: u32) -> Entry {
            Entry::new(Slot::masked(self.0[index as usize]), Seat::masked(self.0[index as usize]))
        }
    }

    fn least_of(loads: &[u64], start: u32) -> u16 {
        let slots: Vec<u16> = (1..).take(loads.len()).collect();
        let len = u32::try_from(loads.len()).unwrap();
        // No more exact than it must be.
        let burden = |entry: Entry, enough| loads[usize::from(entry.seat().get()) - 1].min(enough);
        least(Row(&slots), len, start, COMPARED, 0, burden).slot().get()
    }

    #[test]
    fn whoever_is_to_be_the_last_is_never_the_better_one() {
        // Many connections that last long, times that, are more than such a burden times next to nothing.
        for average in [0, 1, 4095, 4096, 1 << 20, u32::MAX] {
            assert!(!better((LAST | 1, average), (LAST - 1, u32::MAX)), "{average}");
            assert!(better((LAST - 1, u32::MAX), (LAST | 1, average)), "{average}");
            assert!(better((LAST | 1, average), (LAST | 2, average)));
        }
    }

    #[test]
    fn the_least_burdened_wins_wherever_the_look_begins() {
        for start in 0..4 {
            assert_eq!(least_of(&[3, 1, 2, 5], start), 2);
        }
    }

    #[test]
    fn ties_rotate() {
        assert_eq!([0, 1, 2, 3].map(|start| least_of(&[1; 4], start)), [1, 2, 3, 4]);
    }

    #[test]
    fn nobody_is_asked_behind_one_who_is_idle() {
        let mut asked = 0;
        let burden = |_, _| {
            asked += 1;
            5 - asked
        };
        let found = least(Row(&[1, 2, 3, 4, 5, 6]), 6, 2, COMPARED, 3, burden);
        assert_eq!((found.slot().get(), asked), (4, 2));
    }

    #[test]
    fn of_many_only_some_are_compared() {
        let mut loads = vec![1; 200];
        loads[150] = 0;
        assert_eq!(least_of(&loads, 0), 1, "the 151st is out of sight");
        assert_eq!(least_of(&loads, 100), 151);
    }

    #[test]
    fn two_places_differ_and_are_inside() {
        for len in [2, 3, 64, 4096] {
            for random in [0, 1, 0xffff, 0xffff_0000, u32::MAX, 0x8000_7fff] {
                let (one, other) = two(random, len);
                assert!(one != other && one < len && other < len, "{random:#x} of {len}");
            }
        }
        assert_eq!(two(u32::MAX, 1), (0, 0));
    }

    #[test]
    fn what_takes_long_counts_for_more() {
        let (few_slow, many_fast) = ((2 << 12, 9_000), (4 << 12, 1_000));
        assert!(better(many_fast, few_slow) && !better(few_slow, many_fast));
        assert!(better((2 << 12, 0), many_fast), "nothing is known of the one");
    }

    #[test]
    fn a_prefix_hides_what_is_behind_it() {
        let one = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 10, 1, 2, 3];
        let mut other = one;
        other[15] = 77;
        assert_ne!(of_prefix(one, 128), of_prefix(other, 128));
        assert_eq!(of_prefix(one, 120), of_prefix(other, 120));
        other[12] = 11;
        assert_ne!(of_prefix(one, 120), of_prefix(other, 120));
        let (six, seven) = ([0x20; 16], {
            let mut a = [0x20; 16];
            a[9] = 1;
            a
        });
        assert_eq!(of_prefix(six, 64), of_prefix(seven, 64));
        assert_ne!(of_prefix(six, 80), of_prefix(seven, 80));
        for bits in 1..=128 {
            assert_eq!(of_prefix(six, bits), of_prefix(six, bits));
        }
    }
}
