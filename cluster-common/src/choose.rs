//! The decision itself: which slot gets this packet. Pure, bounded, and without a way to fail.
//!
//! The program in the kernel is this function with the maps as its [`Group`]; the tests are this function with a fake one.

use crate::{
    flow::Flow,
    packet::Kind,
    route::{Cursor, Entry, Lane, Pick, Turn},
    slot::Slot,
};

/// Turns a decision may draw. A closed socket leaves its slot empty until the supervisor publishes without it, a
/// fraction of a millisecond later; more than this many in a row means that nobody is there.
pub const MAX_DRAWS: u32 = 32;

/// Draws of which the guard may refuse what came of them. When so many workers in a row are in trouble, the next one takes
/// the connection all the same: the guard prefers, it does not turn away.
pub const GUARDED_DRAWS: u32 = 8;

/// Turns that a decision draws although the guard refused who had one: those whom it does not refuse keep their turns among
/// each other then. After so many, which may have been a heavy worker's turns in a row, it asks everybody once instead.
pub const GUARDED_TURNS: u32 = 4;

/// As [`GUARDED_TURNS`], of those who have enough.
pub const FULL_TURNS: u32 = 16;

/// How many are asked then.
pub const ASIDES: u32 = 16;

const _: () = assert!(GUARDED_TURNS <= GUARDED_DRAWS && GUARDED_DRAWS < ASIDES);

/// What happens to a connection that no worker can take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum OnMiss {
    /// The waiting room holds it; if there is none, it is refused.
    Wait = 0,
    /// It is refused at once: TCP answers RST, UDP port unreachable.
    Refuse = 1,
    /// The kernel hashes over every socket of the group, draining ones and the waiting room included.
    Hash = 2,
}

impl OnMiss {
    /// The choice in a word of the map. A number without a meaning refuses, because that one does no damage.
    #[inline(always)]
    pub const fn from_word(word: u32) -> Self {
        match word {
            0 => Self::Wait,
            2 => Self::Hash,
            _ => Self::Refuse,
        }
    }
}

/// What to tell the kernel. There is no variant for "nothing was selected", on purpose: see [`Verdict::Hashed`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Verdict {
    /// The socket in this slot has been selected.
    Selected(Slot),
    /// The waiting room has been selected.
    Waiting,
    /// Refuse the packet.
    Refused,
    /// Let the kernel's hash decide. Only because the group asks for it ([`OnMiss::Hash`]).
    Hashed,
}

/// A verdict, and the turn it used, for whoever wants to follow decisions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub struct Decision {
    /// What to tell the kernel.
    pub verdict: Verdict,
    /// The cursor whose turn led to it, or [`Cursor::ZERO`]. Not an `Option`: the compiler would compute with the value that
    /// is not there, and the verifier refuses that.
    pub cursor: Cursor,
}

/// What is counted, and for whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tally {
    /// A turn of the SYN lane went to this slot: a new connection or a datagram.
    Selected(Slot),
    /// A connection moved to this slot.
    MigratedIn(Slot),
    /// A turn of the cookie lane went to this slot.
    Cookie(Slot),
    /// A slot of the route could not be selected.
    Miss,
    /// A connection went to the waiting room.
    Waited,
    /// A connection was refused.
    Refused,
    /// A connection was left to the kernel's hash.
    Hashed,
    /// A packet that starts no connection.
    Other,
    /// A turn was lost because two publications overtook the decision.
    Overtaken,
    /// The guard kept a connection away from this slot.
    Guarded(Slot),
    /// A connection was refused because every worker had enough.
    Shed,
    /// A packet of a steered connection, selected or refused.
    Steered,
}

/// What a decision needs to know of its group, and can do to it.
pub trait Group {
    /// Whether the policy draws turns, of which a heavy worker has many in a row.
    const TAKES_TURNS: bool;

    /// Whether the policy leaves everything to the kernel's hash.
    fn abstains(&mut self) -> bool;
    /// Takes the policy's next turn in this lane, for a packet with this hash. `attempt` counts from 0: a policy that would
    /// come to the same worker again draws another one from the second attempt on.
    fn draw(&mut self, lane: Lane, hash: u32, attempt: u32) -> Turn;
    /// Somebody else, whoever has the next turns; `attempt` counts from 0 and tells them apart.
    fn aside(&mut self, attempt: u32) -> Turn;
    /// Whether connections are refused when every worker has enough.
    fn sheds(&mut self) -> bool;
    /// Whether a worker has enough.
    fn is_full(&mut self, entry: Entry) -> bool;
    /// Whether the guard lets a connection go to the worker whose socket was selected last.
    fn trusts(&mut self, entry: Entry) -> bool;
    /// Takes note that a worker's socket could not be selected.
    fn missed(&mut self, entry: Entry);
    /// Takes note that a SYN was sent to a worker.
    fn expect(&mut self, entry: Entry);
    /// Takes note that the connection in hand moves to a worker.
    fn moved(&mut self, entry: Entry);
    /// The slot that the flow of the datagram in hand is pinned to; [`Slot::WAITING_ROOM`], where nothing ever is, if it
    /// is not.
    fn pinned(&mut self) -> Slot;
    /// Pins the flow of the datagram in hand.
    fn pin(&mut self, slot: Slot);
    /// Looks up an entry of the current route by hash, moving nothing.
    fn peek(&mut self, hash: u32) -> Turn;
    /// The version of the current route.
    fn version(&mut self) -> u8;
    /// Whether any source is steered.
    fn steers(&mut self) -> bool;
    /// Where the source of this packet is steered; [`Slot::WAITING_ROOM`], where nothing ever is, if it is not.
    fn steered(&mut self) -> Slot;
    /// Tries to select the socket in this slot; `false` if there is none that could be.
    fn select(&mut self, slot: Slot) -> bool;
    /// Takes note that a packet came which may end a handshake with SYN cookies.
    fn see_cookie(&mut self);
    /// Remembers a SYN.
    fn remember(&mut self, hash: u32, flow: Flow);
    /// What is remembered in the bucket of this hash.
    fn recall(&mut self, hash: u32) -> Flow;
    /// What happens to a connection that no worker can take.
    fn on_miss(&mut self) -> OnMiss;
    /// Counts.
    fn count(&mut self, what: Tally);
}

/// Decides about one packet.
#[inline(always)]
pub fn choose<G: Group>(group: &mut G, kind: Kind, hash: u32) -> Decision {
    if matches!(kind, Kind::Syn | Kind::CookieAck) && group.steers() {
        let slot = group.steered();
        if slot.is_worker() {
            return steer(group, slot);
        }
    }
    if group.abstains() {
        group.count(Tally::Hashed);
        return Decision { verdict: Verdict::Hashed, cursor: Cursor::ZERO };
    }
    let lane = match kind {
        Kind::Other => return stray(group, hash),
        Kind::CookieAck => {
            group.see_cookie();
            let version = group.version();
            if let Some(slot) = group.recall(hash).slot(hash, version)
                && group.select(slot)
            {
                // Its SYN was counted.
                return Decision { verdict: Verdict::Selected(slot), cursor: Cursor::ZERO };
            }
            Lane::Cookie
        }
        Kind::Datagram => {
            let slot = group.pinned();
            // Also to one that no route names any more: it is draining, and this flow is what it waits for.
            if slot.is_worker() && group.select(slot) {
                group.count(Tally::Selected(slot));
                return Decision { verdict: Verdict::Selected(slot), cursor: Cursor::ZERO };
            }
            Lane::Syn
        }
        Kind::Syn | Kind::Migration => Lane::Syn,
    };
    let Pick { entry, cursor } = match take_turn(group, kind, lane, hash) {
        Taken::Of(pick) => pick,
        Taken::Nobody => return nobody(group),
        Taken::Full => {
            group.count(Tally::Shed);
            return Decision { verdict: Verdict::Refused, cursor: Cursor::ZERO };
        }
    };
    let slot = entry.slot();
    match kind {
        Kind::Syn => {
            group.count(Tally::Selected(slot));
            group.expect(entry);
            // Last, because this store may miss the cache: an atomic addition after it would wait for it (120 ns, measured),
            // the rest of the kernel does not.
            group.remember(hash, Flow::new(hash, cursor.version(), slot));
        }
        Kind::Migration => {
            group.count(Tally::MigratedIn(slot));
            group.moved(entry);
        }
        Kind::CookieAck => group.count(Tally::Cookie(slot)),
        Kind::Datagram => {
            group.count(Tally::Selected(slot));
            group.pin(slot);
        }
        Kind::Other => group.count(Tally::Selected(slot)),
    }
    Decision { verdict: Verdict::Selected(slot), cursor }
}

/// What came of all draws of a decision.
enum Taken {
    /// The socket of this turn has been selected.
    Of(Pick),
    /// There is no worker.
    Nobody,
    /// Every worker that was drawn has enough.
    Full,
}

/// Draws until a turn's socket is selected, and its worker is neither full nor in trouble.
///
/// What follows a selection happens once, so it is not in here. A count of misses after the loop would be fewer
/// instructions, but the verifier would tell every value of it apart and give up at a million of them.
#[inline(always)]
fn take_turn<G: Group>(group: &mut G, kind: Kind, lane: Lane, hash: u32) -> Taken {
    // A datagram begins nothing that could be refused, or would wait to be accepted.
    let sheds = matches!(kind, Kind::Syn) && group.sheds();
    let guarded = matches!(kind, Kind::Syn | Kind::Migration);
    let mut full = false;
    let mut draws = 0;
    while draws < MAX_DRAWS {
        let attempt = draws;
        draws += 1;
        match group.draw(lane, hash, attempt) {
            Turn::Of(pick) => {
                if sheds && group.is_full(pick.entry) {
                    full = true;
                    if G::TAKES_TURNS && attempt >= FULL_TURNS {
                        break;
                    }
                } else if !group.select(pick.entry.slot()) {
                    // A miss draws again instead of trying the next slot: taking a neighbour's turn would give the
                    // neighbour two in a row for as long as the slot is empty.
                    group.missed(pick.entry);
                    group.count(Tally::Miss);
                } else if guarded && attempt < GUARDED_DRAWS && !group.trusts(pick.entry) {
                    group.count(Tally::Guarded(pick.entry.slot()));
                    if G::TAKES_TURNS && attempt >= GUARDED_TURNS {
                        break;
                    }
                } else {
                    return Taken::Of(pick);
                }
            }
            Turn::Overtaken => group.count(Tally::Overtaken),
            Turn::Nobody => return Taken::Nobody,
        }
    }
    if G::TAKES_TURNS && draws < MAX_DRAWS {
        return take_aside(group, sheds, guarded);
    }
    if full { Taken::Full } else { Taken::Nobody }
}

/// Asks everybody once, or as many as there is time for, until one can take it.
#[inline(always)]
fn take_aside<G: Group>(group: &mut G, sheds: bool, guarded: bool) -> Taken {
    let mut full = false;
    let mut asked = 0;
    while asked < ASIDES {
        let attempt = asked;
        asked += 1;
        if let Turn::Of(pick) = group.aside(attempt) {
            if sheds && group.is_full(pick.entry) {
                full = true;
            } else if !group.select(pick.entry.slot()) {
                group.missed(pick.entry);
                group.count(Tally::Miss);
            } else if guarded && attempt < GUARDED_DRAWS && !group.trusts(pick.entry) {
                group.count(Tally::Guarded(pick.entry.slot()));
            } else {
                return Taken::Of(pick);
            }
        }
    }
    if full { Taken::Full } else { Taken::Nobody }
}

/// Decides about a connection that is meant for one worker.
///
/// Another worker's answer would be worse than none, so if this one cannot take it, it is refused.
#[inline(always)]
fn steer<G: Group>(group: &mut G, slot: Slot) -> Decision {
    group.count(Tally::Steered);
    let verdict = if group.select(slot) { Verdict::Selected(slot) } else { Verdict::Refused };
    Decision { verdict, cursor: Cursor::ZERO }
}

/// Decides about a packet that starts no connection.
///
/// Anybody can send these at any rate, so they must not move a cursor or be remembered. Which worker's listener answers
/// them with RST or silence makes no difference, and a refusal has the same answer.
/// (One of them may matter: with SYN cookies, when the last ACK was lost and the client's first segment has FIN. Any
/// listener of the group can complete it, which is why these are not simply refused.)
#[inline(always)]
fn stray<G: Group>(group: &mut G, hash: u32) -> Decision {
    group.count(Tally::Other);
    match group.peek(hash) {
        Turn::Of(pick) if group.select(pick.entry.slot()) => {
            Decision { verdict: Verdict::Selected(pick.entry.slot()), cursor: Cursor::ZERO }
        }
        Turn::Of(_) | Turn::Overtaken | Turn::Nobody => {
            Decision { verdict: Verdict::Refused, cursor: Cursor::ZERO }
        }
    }
}

/// Decides about a connection that no worker can take.
#[inline(always)]
fn nobody<G: Group>(group: &mut G) -> Decision {
    let (verdict, tally) = match group.on_miss() {
        OnMiss::Wait if group.select(Slot::WAITING_ROOM) => (Verdict::Waiting, Tally::Waited),
        OnMiss::Wait | OnMiss::Refuse => (Verdict::Refused, Tally::Refused),
        OnMiss::Hash => (Verdict::Hashed, Tally::Hashed),
    };
    group.count(tally);
    Decision { verdict, cursor: Cursor::ZERO }
}
