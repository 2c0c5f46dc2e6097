//! The load of a worker's socket: what policies and the guard go by, counted in the kernel.
//!
//! Every socket that is put into a slot has a *seat*, an entry of a map that all groups share. Its connections carry the
//! seat's number (see [`meter`](crate::meter)), so that what they do is counted there, whatever group they came through.

/// Entries of the map of loads. The first is for whoever has no seat of its own. A power of two, for masking.
pub const SEATS: u32 = 2048;

/// Connections that have moved and are not closed yet, of which it is remembered where they are.
pub const MOVES: u32 = 1 << 15;

/// Index of a socket's load.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(transparent)]
pub struct Seat(u16);

const _: () = assert!(SEATS.is_power_of_two() && SEATS <= 1 << 16);

impl Seat {
    /// The seat of those for whom there was none: nothing is counted for them, and they look idle.
    pub const NONE: Self = Self(0);

    /// The seat with this number, or `None` if it is not below [`SEATS`].
    pub const fn new(number: u16) -> Option<Self> {
        if (number as u32) < SEATS { Some(Self(number)) } else { None }
    }

    /// The seat named by a number from shared memory, cut to the valid range.
    #[inline(always)]
    pub const fn masked(number: u16) -> Self {
        Self(number & (SEATS as u16 - 1))
    }

    /// The number as route entries have it.
    #[inline(always)]
    pub const fn get(self) -> u16 {
        self.0
    }

    /// The number as map keys have it.
    #[inline(always)]
    pub const fn index(self) -> u32 {
        self.0 as u32
    }

    /// Whether anything is counted here.
    #[inline(always)]
    pub const fn counts(self) -> bool {
        self.0 != 0
    }
}

/// Binary logarithm of the nanoseconds of a tick: about a millisecond, made by shifting.
pub const TICK_SHIFT: u32 = 20;

/// The tick of a moment, given in nanoseconds since boot. Wraps after seven weeks.
#[inline(always)]
pub const fn tick(nanoseconds: u64) -> u32 {
    (nanoseconds >> TICK_SHIFT) as u32
}

/// The tick of a jiffy of so many nanoseconds: of another beginning than those of [`tick`], but as long.
///
/// Jiffies are what `bpf_ktime_get_coarse_ns` goes by as well. To read them is an instruction, not a call.
#[inline(always)]
pub const fn tick_of_jiffy(jiffy: u64, nanoseconds: u32) -> u32 {
    tick(jiffy.wrapping_mul(nanoseconds as u64))
}

/// The load of one socket as it lies in the map: a cache line, most of which each connection writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
pub struct Load {
    /// Connections that the app has not closed, in the accept queue and in service.
    pub live: u64,
    /// Connections that have ever come into the accept queue.
    pub established: u64,
    /// SYNs whose connection is not established yet, as a [`Pending`].
    pub pending: u64,
    /// What the guard saw last, as a [`Mark`].
    pub mark: u64,
    /// The kernel's address of the socket; 0 until it was selected for the first time.
    pub listener: u64,
    /// Moving average of how long connections last, in microseconds; 0 until one has closed.
    pub average: u32,
    /// What one connection counts: [`UNIT`] for the heaviest workers of a group, up to [`HEAVIEST`] for others. Never 0, also
    /// where nobody sits: there it would be the lightest of all.
    pub share: u32,
    /// Number of the seat's present use: connections of an earlier one count no more.
    pub generation: u32,
    /// Tick at which its worker became ready.
    pub since: u32,
    /// The most connections that were seen in its accept queue.
    pub peak: u32,
    /// 1 when its socket could not be selected. Programs write it.
    pub gone: u16,
    /// 1 while its worker is silent that has said before that it lives. The supervisor writes it, while programs write
    /// everything around it: two fields with a writer each, so that none takes back what the other has said.
    pub distrusted: u16,
}

const _: () = assert!(size_of::<Load>() == 64);
// Programs read both in one word.
const _: () = assert!(core::mem::offset_of!(Load, gone) == 60);

/// Set in the [burden](burden()) of whom a policy takes only when there is nobody else: more than any number of connections
/// weighs.
pub const LAST: u64 = 1 << 36;

/// The least [`Load::share`], of whoever has the most turns.
pub const UNIT: u32 = 1 << 12;

/// The largest [`Load::share`].
pub const HEAVIEST: u32 = UNIT << 4;

/// The [burden](burden()) of an idle worker with the least share: nobody can have less.
pub const IDLE: u64 = UNIT as u64;

/// What `connections` are to a worker with this share, for comparing: one more weighs as much as those that are there.
#[inline(always)]
pub const fn burden(connections: u64, share: u32) -> u64 {
    // Bounded, so that every product is below [`LAST`].
    let connections = connections & 0x7_ffff;
    (connections + 1) * share as u64
}

/// The moving average after one more connection, both in microseconds: an eighth of it is the new one.
#[inline(always)]
pub const fn average(before: u32, sample: u64) -> u32 {
    let sample = if sample > u32::MAX as u64 { u32::MAX as u64 } else { sample };
    let sample = if sample == 0 { 1 } else { sample };
    if before == 0 { sample as u32 } else { ((before as u64 * 7 + sample) / 8) as u32 }
}

/// SYNs that have been sent to a socket and are not established yet.
///
/// Only an estimate: a SYN that never comes to anything is forgotten about a second later, and two CPUs that count at the
/// same time may lose one. Without it, a burst of SYNs from afar would all go to the worker that had the least before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Pending(u64);

/// Binary logarithm of the ticks after which what is pending is forgotten.
const EPOCH_SHIFT: u32 = 10;

impl Pending {
    /// As it lies in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to store.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// How many there are at `tick`.
    #[inline(always)]
    pub const fn count(self, tick: u32) -> u64 {
        if (self.0 >> 32) as u32 == tick >> EPOCH_SHIFT { self.0 & 0xffff_ffff } else { 0 }
    }

    /// With one more.
    #[inline(always)]
    #[must_use]
    pub const fn plus(self, tick: u32) -> Self {
        let count = (self.count(tick) + 1) & 0xffff_ffff;
        Self(((tick >> EPOCH_SHIFT) as u64) << 32 | count)
    }

    /// With one less, if there is one, at whatever tick: those who add and those who take away have clocks of which one is
    /// behind, and what was added just now must not stay for being of an earlier time already. What is forgotten stays so.
    #[inline(always)]
    #[must_use]
    pub const fn minus(self) -> Self {
        if self.0 & 0xffff_ffff > 0 { Self(self.0 - 1) } else { self }
    }
}

/// What the guard saw when it last looked at a socket.
///
/// A worker is *stalled* when connections waited at two looks and it accepted none in between. It is not when it was found
/// waiting once: the connection may have come in this moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(transparent)]
pub struct Mark(u64);

const WAITING: u64 = 1 << 31;
const STALLED: u64 = 1 << 30;
const AT: u64 = STALLED - 1;

impl Mark {
    /// As it lies in the map.
    #[inline(always)]
    pub const fn from_word(word: u64) -> Self {
        Self(word)
    }

    /// The word to store.
    #[inline(always)]
    pub const fn word(self) -> u64 {
        self.0
    }

    /// Whether it was stalled.
    #[inline(always)]
    pub const fn is_stalled(self) -> bool {
        self.0 & STALLED != 0
    }

    /// Whether it is time to look again: `patience` ticks after the last look, at least one.
    #[inline(always)]
    pub const fn is_due(self, tick: u32, patience: u32) -> bool {
        let passed = (tick as u64).wrapping_sub(self.0 & AT) & AT;
        passed >= patience as u64
    }

    /// What is seen now: `accepted` connections so far, and `queued` in the accept queue.
    #[inline(always)]
    #[must_use]
    pub const fn look(self, tick: u32, accepted: u32, queued: u32) -> Self {
        let seen = (accepted as u64) << 32 | tick as u64 & AT;
        if queued == 0 {
            return Self(seen);
        }
        let same = self.0 & WAITING != 0 && (self.0 >> 32) as u32 == accepted;
        Self(if same { seen | WAITING | STALLED } else { seen | WAITING })
    }
}

/// How much of its full share a worker gets that became ready `age` ticks ago, out of 2^16, while it is new for `slow`
/// ticks: from a sixteenth to everything.
#[inline(always)]
pub const fn warmth(age: u32, slow: u32) -> u32 {
    if age >= slow {
        return 1 << 16;
    }
    let warm = ((age as u64) << 16) / slow as u64;
    if warm < 1 << 12 { 1 << 12 } else { warm as u32 }
}

#[cfg(feature = "user")]
// SAFETY: plain integers without padding, as the assertion above proves.
unsafe impl aya::Pod for Load {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_accepts_nothing_between_two_looks_is_stalled() {
        let first = Mark::from_word(0).look(100, 7, 1);
        assert!(!first.is_stalled(), "the connection may have come in this moment");
        assert!(!first.is_due(104, 5) && first.is_due(105, 5));

        let second = first.look(105, 7, 2);
        assert!(second.is_stalled());
        assert!(second.look(110, 7, 2).is_stalled(), "still");
        assert!(!second.look(110, 8, 1).is_stalled(), "it went on");
        assert!(!second.look(110, 9, 0).is_stalled(), "it has caught up");
    }

    #[test]
    fn an_empty_queue_starts_the_looking_anew() {
        let empty = Mark::from_word(0).look(1, 3, 0);
        assert!(!empty.look(9, 3, 1).is_stalled(), "nothing waited at the look before");
    }

    #[test]
    fn a_mark_bears_that_its_clock_wraps() {
        let before = Mark::from_word(0).look(u32::MAX, 0, 1);
        assert!(!before.is_due(u32::MAX.wrapping_add(2), 5));
        assert!(before.is_due(u32::MAX.wrapping_add(5), 5));
    }

    #[test]
    fn what_is_pending_is_forgotten_in_the_next_epoch() {
        let tick = 5 << EPOCH_SHIFT;
        let two = Pending::from_word(0).plus(tick).plus(tick + 1);
        assert_eq!(two.count(tick + 2), 2);
        assert_eq!(two.minus().minus().minus().count(tick), 0);
        assert_eq!(two.count(tick + (1 << EPOCH_SHIFT)), 0);
        assert_eq!(two.plus(tick + (1 << EPOCH_SHIFT)).count(tick + (1 << EPOCH_SHIFT)), 1);
    }

    #[test]
    fn what_came_to_something_is_not_pending_for_a_clock_that_is_behind() {
        let tick = (5 << EPOCH_SHIFT) - 1;
        // Its handshake ended in the next epoch, and whoever asks has not come to that yet.
        let established = Pending::from_word(0).plus(tick).minus();
        assert_eq!(established.count(tick), 0);
        // Of an epoch that is over nothing comes back.
        let forgotten = Pending::from_word(0).plus(tick).plus(tick).minus();
        assert_eq!(forgotten.count(tick + 1), 0);
    }

    #[test]
    fn a_heavier_worker_bears_more() {
        assert!(burden(5, UNIT / 3) < burden(2, UNIT), "six thirds are less than three");
        assert_eq!(burden(0, UNIT), IDLE);
        assert!(
            burden(1, UNIT) > IDLE && burden(0, UNIT + 1) > IDLE,
            "nobody else is at the bottom"
        );
        assert!(burden(u64::MAX, HEAVIEST) <= LAST);
    }

    #[test]
    fn an_average_follows_slowly() {
        assert_eq!(average(0, 800), 800);
        assert_eq!(average(800, 1600), 900);
        assert_eq!(average(0, 0), 1, "nothing is known only before the first");
        assert_eq!(average(u32::MAX, u64::MAX), u32::MAX);
    }

    #[test]
    fn a_new_worker_warms_up() {
        assert_eq!(warmth(0, 1000), 1 << 12);
        assert_eq!(warmth(500, 1000), 1 << 15);
        assert_eq!(warmth(1000, 1000), 1 << 16);
        assert_eq!(warmth(0, 0), 1 << 16);
    }
}
