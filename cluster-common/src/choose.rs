//! The decision itself: which slot gets this packet. Pure, bounded, and without a way to fail.
//!
//! The program in the kernel is this function with the maps as its [`Group`]; the tests are this function with a fake one.

use crate::{
    flow::Flow,
    packet::Kind,
    route::{Cursor, Lane, Pick, Turn},
    slot::Slot,
};

/// Turns a decision may draw. A closed socket leaves its slot empty until the supervisor publishes without it, a
/// fraction of a millisecond later; more than this many in a row means that nobody is there.
pub const MAX_DRAWS: u32 = 32;

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
    /// A packet of a steered connection, selected or refused.
    Steered,
}

/// What a decision needs to know of its group, and can do to it.
pub trait Group {
    /// Takes the policy's next turn in this lane.
    fn draw(&mut self, lane: Lane) -> Turn;
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
    let lane = match kind {
        Kind::Other => return stray(group, hash),
        Kind::CookieAck => {
            let version = group.version();
            if let Some(slot) = group.recall(hash).slot(hash, version)
                && group.select(slot)
            {
                // Its SYN was counted.
                return Decision { verdict: Verdict::Selected(slot), cursor: Cursor::ZERO };
            }
            Lane::Cookie
        }
        Kind::Syn | Kind::Migration | Kind::Datagram => Lane::Syn,
    };
    let Some(Pick { slot, cursor }) = take_turn(group, lane) else { return nobody(group) };
    match kind {
        Kind::Syn => {
            group.count(Tally::Selected(slot));
            // Last, because this store mostly misses the cache: an atomic addition after it would wait for it (120 ns,
            // measured), the rest of the kernel does not.
            group.remember(hash, Flow::new(hash, cursor.version(), slot));
        }
        Kind::Migration => group.count(Tally::MigratedIn(slot)),
        Kind::CookieAck => group.count(Tally::Cookie(slot)),
        Kind::Datagram | Kind::Other => group.count(Tally::Selected(slot)),
    }
    Decision { verdict: Verdict::Selected(slot), cursor }
}

/// Draws until a turn's socket is selected; `None` if the route is empty or [`MAX_DRAWS`] turns came to nothing.
///
/// What follows a selection happens once, so it is not in here. A count of misses after the loop would be fewer
/// instructions, but the verifier would tell every value of it apart and give up at a million of them.
#[inline(always)]
fn take_turn<G: Group>(group: &mut G, lane: Lane) -> Option<Pick> {
    let mut draws = 0;
    while draws < MAX_DRAWS {
        draws += 1;
        match group.draw(lane) {
            // A miss draws again instead of trying the next slot: taking a neighbour's turn would give the neighbour two
            // in a row for as long as the slot is empty.
            Turn::Of(pick) if group.select(pick.slot) => return Some(pick),
            Turn::Of(_) => group.count(Tally::Miss),
            Turn::Overtaken => group.count(Tally::Overtaken),
            Turn::Nobody => return None,
        }
    }
    None
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
        Turn::Of(pick) if group.select(pick.slot) => {
            Decision { verdict: Verdict::Selected(pick.slot), cursor: Cursor::ZERO }
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
