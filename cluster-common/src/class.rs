//! Classes: how clients of a kind are told, and which part of a table is theirs.
//!
//! Every class has a number. What a program has been loaded with says the number of a client and never changes; what lies
//! behind the route of a table ([`RouteTable`](crate::route::RouteTable)) says where in the table the workers of a number
//! are, and changes with every publication. A program for other rules uses the numbers of the other [set](SETS), so that
//! one table can serve both while one takes the place of the other.
//!
//! # What is guaranteed
//!
//! 1. A client is of the first class, in the order of the rules, that fits by any of its [signs](Sign).
//! 2. It reaches workers of its class only, as long as one of them can take it; if none is there, any worker.
//! 3. Both is so in each decision: rules and places are never those of different publications.

use crate::{
    pick::lightest,
    route::{Entry, TABLE_ENTRIES, Table},
};

/// Numbers of classes.
pub const NUMBERS: u32 = 64;

/// Sets of numbers: the one in use, and the one for the rules that come next.
pub const SETS: u32 = 2;

/// Classes that there can be: the last number of a set stays free.
pub const MOST: usize = (NUMBERS / SETS) as usize - 1;

/// The number of those whom no class fits. Nothing is ever kept for it, so that they reach every worker.
pub const EVERYBODY: u32 = NUMBERS - 1;

/// Signs that there can be in all.
pub const SIGNS: u32 = 1024;

/// Attempts after which somebody else's workers are tried, if those of the class are gone. Before that the guard has given
/// up: it chooses among the workers of a class, and does not send anybody elsewhere.
pub const FAITHFUL: u32 = 16;

const _: () =
    assert!(FAITHFUL > crate::choose::GUARDED_DRAWS && FAITHFUL < crate::choose::MAX_DRAWS);

/// The number of the class at this place among the rules.
pub const fn number(set: u32, nth: u32) -> u32 {
    (set & (SETS - 1)) * (NUMBERS / SETS) + nth
}

/// The set that a number belongs to.
pub const fn set_of(number: u32) -> u32 {
    (number / (NUMBERS / SETS)) & (SETS - 1)
}

/// Bytes of a sign, beside its kind.
pub const BYTES: usize = 16;

/// Something by which clients are told, as the key of a map of prefixes has it: its kind first, then what is compared from
/// the first bit on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(C)]
pub struct Sign {
    /// How many bits count, those of `kind` included. With 0 it is the sign that everybody has.
    pub bits: u32,
    /// What the bytes are.
    pub kind: u32,
    /// An address, one of IPv4 in its mapped form; a mark; or what is sent first.
    pub bytes: [u8; BYTES],
}

const _: () = assert!(size_of::<Sign>() == 24);

/// [`Sign::kind`] of an IPv4 address. A kind of its own: the mapped addresses are a part of the IPv6 ones, and `::/0` is not
/// meant to fit them.
const IPV4: u32 = 1;
/// [`Sign::kind`] of an IPv6 address.
const IPV6: u32 = 2;
/// [`Sign::kind`] of a differentiated services code point.
const MARK: u32 = 3;
/// [`Sign::kind`] of what is sent first.
const PAYLOAD: u32 = 4;
/// Bits of a kind.
const KIND: u32 = 32;
/// Bits that all mapped addresses have in common.
const MAPPED: u32 = 96;

impl Sign {
    /// The sign that everybody has.
    pub const ANY: Self = Self { bits: 0, kind: 0, bytes: [0; BYTES] };

    /// The address of a client, or the first `prefix` bits of it, counted in the mapped address for IPv4.
    #[inline(always)]
    pub const fn source(address: [u8; BYTES], is_v4: bool, prefix: u32) -> Self {
        Self { bits: KIND + prefix, kind: if is_v4 { IPV4 } else { IPV6 }, bytes: address }
    }

    /// The first `prefix` bits of an IPv4 address.
    pub const fn v4([a, b, c, d]: [u8; 4], prefix: u32) -> Self {
        let mapped = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, a, b, c, d];
        Self::source(mapped, true, MAPPED + prefix)
    }

    /// The first `prefix` bits of an IPv6 address.
    pub const fn v6(address: [u8; BYTES], prefix: u32) -> Self {
        Self::source(address, false, prefix)
    }

    /// The mark of a packet, from the first two bytes of its IP header.
    #[inline(always)]
    pub const fn mark_in(header: [u8; 2], is_v4: bool) -> Self {
        // RFC 791, section 3.1, and RFC 8200, section 3; the upper six bits of either are the mark (RFC 2474, section 3).
        let field = if is_v4 { header[1] } else { header[0] << 4 | header[1] >> 4 };
        Self::mark(field >> 2)
    }

    /// A mark, 0 to 63.
    #[inline(always)]
    pub const fn mark(mark: u8) -> Self {
        Self {
            bits: KIND + 8,
            kind: MARK,
            bytes: [mark, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        }
    }

    /// The first `length` bytes that a client sends, at most [`BYTES`]; the others are zero.
    #[inline(always)]
    pub const fn payload(bytes: [u8; BYTES], length: u32) -> Self {
        Self { bits: KIND + 8 * length, kind: PAYLOAD, bytes }
    }

    /// Set in a word about the signs of all rules if there is one by marks.
    pub const MARKS: u32 = 1 << MARK;
    /// Set there if there is one by what is sent first.
    pub const PAYLOADS: u32 = 1 << PAYLOAD;

    /// Its part in that word: what no rule goes by need not be looked up. Addresses always are, with whatever everybody has.
    #[must_use]
    pub const fn is_looked_for(&self) -> u32 {
        (1 << self.kind) & (Self::MARKS | Self::PAYLOADS)
    }

    /// What is compared, from the first bit on.
    pub fn compared(&self) -> [u8; BYTES + 4] {
        let mut compared = [0; BYTES + 4];
        let (kind, bytes) = compared.split_at_mut(4);
        kind.copy_from_slice(&self.kind.to_ne_bytes());
        bytes.copy_from_slice(&self.bytes);
        compared
    }

    /// Whether everybody who has `other` has this one, too.
    pub fn covers(&self, other: &Self) -> bool {
        if self.bits == 0 {
            return true;
        }
        let bits = self.bits - KIND;
        let first = |bytes| (u128::from_be_bytes(bytes)).checked_shr(128 - bits).unwrap_or(0);
        self.kind == other.kind
            && self.bits <= other.bits
            && first(self.bytes) == first(other.bytes)
    }
}

/// How workers of a class are picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Inner {
    /// One after the other.
    RoundRobin = 0,
    /// The one with the fewest connections.
    LeastConn = 1,
    /// Any.
    Random = 2,
    /// By the hash of both addresses and ports.
    Hash = 3,
}

impl Inner {
    /// The rule in a word of a table.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        match word {
            1 => Self::LeastConn,
            2 => Self::Random,
            3 => Self::Hash,
            _ => Self::RoundRobin,
        }
    }
}

/// Where in a table the workers of a class are, in a word: one of [`NUMBERS`] behind the route. A word of 0 is no class's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Section(u32);

const SPAN_BITS: u32 = 14;
const SPAN: u32 = (1 << SPAN_BITS) - 1;
/// Tells a class without workers from no class.
const PRESENT: u32 = 1 << 31;

const _: () = assert!(TABLE_ENTRIES <= 1 << SPAN_BITS);

impl Section {
    /// A class's that has `len` entries from `first` on, less than a table has.
    pub const fn new(first: u32, len: u32, inner: Inner) -> Self {
        Self(PRESENT | (inner as u32) << (2 * SPAN_BITS) | (len & SPAN) << SPAN_BITS | first & SPAN)
    }

    /// The section in a word of a table.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        Self(word)
    }

    /// The word to store in a table.
    pub const fn word(self) -> u32 {
        self.0
    }

    /// Whether it is some class's.
    pub const fn is_present(self) -> bool {
        self.0 & PRESENT != 0
    }

    /// Place of its first entry.
    #[inline(always)]
    pub const fn first(self) -> u32 {
        self.0 & SPAN
    }

    /// How many entries it has.
    #[inline(always)]
    pub const fn length(self) -> u32 {
        self.0 >> SPAN_BITS & SPAN
    }

    /// How one of them is picked.
    #[inline(always)]
    pub const fn inner(self) -> Inner {
        Inner::from_word(self.0 >> (2 * SPAN_BITS) & 3)
    }
}

/// Some entries of a table, as a table.
#[derive(Clone, Copy, Debug)]
pub struct Part<T> {
    table: T,
    first: u32,
    length: u32,
    /// How one of them is picked.
    pub inner: Inner,
}

impl<T: Table> Part<T> {
    /// The part of the class with this number, in a table with a route of `len` entries, at least one; all of the route if
    /// that class has nobody. It always has an entry.
    #[inline(always)]
    pub fn of(table: T, len: u32, number: u32) -> Self {
        let section = Section::from_word(table.entry(len + number).word());
        let (first, length) = (section.first(), section.length());
        if length == 0 {
            return Self::of_all(table, len);
        }
        Self { table, first, length, inner: section.inner() }
    }

    /// All of the route.
    #[inline(always)]
    pub const fn of_all(table: T, len: u32) -> Self {
        Self { table, first: 0, length: len, inner: Inner::RoundRobin }
    }

    /// Who is picked the first time. `turn` is a number that grows by one with each pick.
    #[inline(always)]
    pub fn pick(
        self,
        turn: u64,
        hash: u32,
        random: impl Fn() -> u32,
        burden: impl FnMut(Entry, u64) -> u64,
    ) -> Entry {
        let at = match self.inner {
            Inner::RoundRobin => turn,
            Inner::LeastConn => {
                // Everybody is asked, also behind one who is idle: the verifier would walk half as much again.
                return lightest(self, self.length, self.place(turn), 0, random, burden);
            }
            Inner::Random => random().into(),
            Inner::Hash => hash.into(),
        };
        self.at(at)
    }

    /// The entry that a number, reduced to their number, comes to.
    #[inline(always)]
    pub fn at(self, number: u64) -> Entry {
        self.entry(self.place(number))
    }

    #[inline(always)]
    fn place(self, number: u64) -> u32 {
        number.checked_rem(self.length.into()).unwrap_or(0) as u32
    }
}

impl<T: Table> Table for Part<T> {
    #[inline(always)]
    fn version(self) -> u32 {
        self.table.version()
    }

    #[inline(always)]
    fn length(self) -> u32 {
        self.length
    }

    #[inline(always)]
    fn entry(self, index: u32) -> Entry {
        self.table.entry(self.first + index)
    }
}

#[cfg(test)]
mod tests {
    use core::net::Ipv6Addr;

    use super::*;
    use crate::{load::Seat, slot::Slot};

    /// A route of slots 1 to 3, and behind it the sections of classes with slots 1 and 2, with 70 slots, and with none.
    #[derive(Clone, Copy)]
    struct Fake;

    const LEN: u32 = 3;
    const FEW: u32 = 0;
    const MANY: u32 = 1;
    const EMPTY: u32 = 40;
    const OF_FEW: u32 = LEN + NUMBERS;
    const OF_MANY: u32 = OF_FEW + 2;

    impl Table for Fake {
        fn version(self) -> u32 {
            0
        }

        fn length(self) -> u32 {
            LEN
        }

        fn entry(self, index: u32) -> Entry {
            let slot =
                |slot: u32| Entry::new(Slot::masked(u16::try_from(slot).unwrap()), Seat::NONE);
            let section = |section: Section| Entry::from_word(section.word());
            match index {
                0..LEN => slot(1 + index),
                OF_FEW.. => {
                    slot(if index < OF_MANY { 1 + index - OF_FEW } else { 100 + index - OF_MANY })
                }
                _ => match index - LEN {
                    FEW => section(Section::new(OF_FEW, 2, Inner::LeastConn)),
                    MANY => section(Section::new(OF_MANY, 70, Inner::Hash)),
                    EMPTY => section(Section::new(OF_FEW, 0, Inner::Hash)),
                    _ => Entry::NOBODY,
                },
            }
        }
    }

    fn picked(class: u32, turn: u64, hash: u32, burden: impl FnMut(Entry, u64) -> u64) -> u16 {
        Part::of(Fake, LEN, class).pick(turn, hash, || 7, burden).slot().get()
    }

    #[test]
    fn a_class_has_its_own_part_of_a_table_and_its_own_rule() {
        let second = |entry: Entry, _| u64::from(entry.slot().get() != 2);
        assert_eq!([0, 1, 2].map(|turn| picked(FEW, turn, 9, second)), [2; 3]);
        assert_eq!([0, 1, 2].map(|turn| picked(FEW, turn, 9, |_, _| 0)), [1, 2, 1], "ties rotate");
        assert_eq!([0, 1, 2].map(|turn| picked(MANY, turn, 71, |_, _| 0)), [101; 3]);
        assert_eq!(Part::of(Fake, LEN, MANY).at(70 + 69).slot().get(), 169);
    }

    #[test]
    fn who_has_no_class_or_one_without_workers_has_the_whole_route() {
        for class in [EVERYBODY, EMPTY, 7] {
            let turns = [0, 1, 2, 3].map(|turn| picked(class, turn, 9, |_, _| 0));
            assert_eq!(turns, [1, 2, 3, 1]);
        }
    }

    #[test]
    fn a_section_is_what_it_was_made_of() {
        for (first, length) in [(0, 0), (1, 16383), (16383, 1)] {
            for inner in [Inner::RoundRobin, Inner::LeastConn, Inner::Random, Inner::Hash] {
                let section = Section::from_word(Section::new(first, length, inner).word());
                assert_eq!(
                    (section.first(), section.length(), section.inner(), section.is_present()),
                    (first, length, inner, true)
                );
            }
        }
        assert!(!Section::from_word(0).is_present());
    }

    #[test]
    fn numbers_are_of_one_set_and_nobodys_is_of_no_class() {
        for set in 0..SETS {
            for nth in 0..u32::try_from(MOST).unwrap() {
                assert_eq!(set_of(number(set, nth)), set);
                assert!(number(set, nth) < EVERYBODY);
            }
        }
        assert_eq!(number(1, 0), u32::try_from(MOST).unwrap() + 1);
    }

    #[test]
    fn a_sign_covers_what_begins_with_it_and_is_of_its_kind() {
        let ten = Sign::v4([10, 0, 0, 0], 8);
        assert!(ten.covers(&Sign::v4([10, 1, 2, 3], 32)) && ten.covers(&ten));
        assert!(!ten.covers(&Sign::v4([11, 1, 2, 3], 32)) && !ten.covers(&Sign::v4([0; 4], 0)));
        let mapped = Ipv6Addr::from_bits(0xffff_0a01_0203).octets();
        assert!(ten.covers(&Sign::source(mapped, true, 128)), "as the kernel sees it");
        assert!(!Sign::v6([0; 16], 0).covers(&ten), "::/0 is every IPv6 address");
        assert!(Sign::ANY.covers(&ten) && !ten.covers(&Sign::ANY));
        let bytes = |bytes: &[u8]| {
            let mut padded = [0; BYTES];
            padded[..bytes.len()].copy_from_slice(bytes);
            Sign::payload(padded, u32::try_from(bytes.len()).unwrap())
        };
        assert!(bytes(b"GE").covers(&bytes(b"GET")) && !bytes(b"GET").covers(&bytes(b"GE\0")));
        assert!(!bytes(&[46]).covers(&Sign::mark(46)));
    }

    #[test]
    fn a_mark_is_read_from_either_header() {
        let ef = Sign::mark(46);
        assert_eq!(Sign::mark_in([0x45, 46 << 2], true), ef);
        assert_eq!(Sign::mark_in([0x45, 46 << 2 | 3], true), ef, "congestion is no mark");
        assert_eq!(Sign::mark_in([0x60 | 46 << 2 >> 4, (46 << 6) as u8 | 0x3f], false), ef);
    }
}
