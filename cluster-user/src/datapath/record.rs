//! What a supervisor must know of a group to take it over from one that died.

use cluster_common::slot::Slot;
use serde::{Deserialize, Serialize};

use super::{OnMiss, SlotCounters};
use crate::id::WorkerId;

/// A group as the journal keeps it. The kernel has the rest: sockets, route, counters.
///
/// One that is older than the group does no harm: what it does not tell is taken from the kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GroupRecord {
    /// The kernel's number of the group's program; 0 in plain mode, which has none.
    pub program: u32,
    /// When that program was loaded, in nanoseconds since boot: numbers are used again.
    pub loaded: u64,
    /// What became of connections that found no worker.
    pub on_miss: OnMiss,
    /// The route, as numbers of slots.
    pub route: Vec<u16>,
    /// The slots that were filled.
    pub slots: Vec<SlotRecord>,
}

/// A filled slot, as the journal keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotRecord {
    /// Its number.
    pub slot: u16,
    /// `SO_COOKIE` of the socket in it.
    pub cookie: u64,
    /// Where its load is kept; 0 where nothing is.
    #[serde(default)]
    pub seat: u16,
    /// Number of its worker in its app, if that is known.
    #[serde(default)]
    pub number: Option<u32>,
    /// The kernel's counters when it was filled; they are never reset.
    pub before: SlotCounters,
    /// What was counted for it by programs before this one.
    pub carried: SlotCounters,
}

/// A socket found in a slot of an adopted group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seated {
    /// Where it is.
    pub slot: Slot,
    /// `SO_COOKIE` of the socket.
    pub cookie: u64,
    /// Whose it is, if that worker has been admitted.
    pub worker: Option<WorkerId>,
}
