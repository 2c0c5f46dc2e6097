//! An app and its seats: what is wanted of each worker, kept apart from what is.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Instant};

use crate::{
    config::spec::AppSpec,
    datapath::Protocol,
    id::{AppId, Instance, WorkerId},
};

/// What the user started.
#[derive(Clone, Debug)]
pub(super) struct App {
    pub(super) id: AppId,
    pub(super) spec: Arc<AppSpec>,
    pub(super) created: Instant,
    /// One per instance number in use.
    pub(super) seats: BTreeMap<Instance, Seat>,
    /// To be forgotten when no seat is left.
    pub(super) deleting: bool,
}

/// A place for one worker, with the memory that outlives it.
#[derive(Clone, Debug)]
pub(super) struct Seat {
    /// Whether a worker shall sit here.
    pub(super) wanted: bool,
    /// Whether the seat goes when its worker has gone.
    pub(super) retiring: bool,
    pub(super) state: SeatState,
    /// Workers after the first.
    pub(super) restarts: u32,
    /// Unstable runs in a row.
    pub(super) unstable: u32,
    /// Whether a worker got ready here since it was last asked for.
    pub(super) proven: bool,
    /// Why it is as it is, when that is no matter of course.
    pub(super) reason: Option<String>,
    /// Where its last worker tried to bind in vain.
    pub(super) binding: Option<(Protocol, SocketAddr)>,
}

/// Who sits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SeatState {
    /// Nobody. `failed`: the last one ended by itself and not well.
    Empty { failed: bool },
    /// A worker, until nothing is left of it.
    Taken(WorkerId),
    /// Nobody until then.
    Backoff { until: Instant },
    /// Nobody any more, until somebody asks for it.
    Errored,
}

impl App {
    pub(super) fn new(id: AppId, spec: Arc<AppSpec>, now: Instant) -> Self {
        Self { id, spec, created: now, seats: BTreeMap::new(), deleting: false }
    }

    /// Whether a worker will come without anybody asking for it.
    pub(super) fn hopeful(&self) -> bool {
        self.seats.values().any(|seat| {
            seat.wanted && matches!(seat.state, SeatState::Taken(_) | SeatState::Backoff { .. })
        })
    }

    /// Whether it is only remembered: nothing runs, and it failed or finished by itself.
    pub(super) fn dead(&self) -> bool {
        self.seats.values().all(|seat| match seat.state {
            SeatState::Errored | SeatState::Empty { failed: true } => true,
            SeatState::Empty { failed: false }
            | SeatState::Taken(_)
            | SeatState::Backoff { .. } => false,
        })
    }
}

impl Seat {
    pub(super) fn new() -> Self {
        let state = SeatState::Empty { failed: false };
        let (restarts, unstable, proven, reason, binding) = (0, 0, false, None, None);
        Self { wanted: true, retiring: false, state, restarts, unstable, proven, reason, binding }
    }

    pub(super) fn worker(&self) -> Option<WorkerId> {
        match self.state {
            SeatState::Taken(worker) => Some(worker),
            SeatState::Empty { .. } | SeatState::Backoff { .. } | SeatState::Errored => None,
        }
    }
}
