//! An app and its seats: what is wanted of each worker, kept apart from what is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use serde::{Deserialize, Serialize};

use super::{deployment::Deployment, event::CallId, renewal::Renewal, rollout::Rollout, why::Why};
use crate::{
    config::spec::AppSpec,
    datapath::Protocol,
    id::{AppId, Generation, Instance, WorkerId},
    moment::Moment,
};

/// What the user started.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct App {
    pub(super) id: AppId,
    /// What it is; a reload that succeeds changes it.
    pub(super) generation: Generation,
    /// What it was before the last reload that succeeded.
    pub(super) previous: Option<Generation>,
    /// What the generations are that something refers to.
    pub(super) definitions: BTreeMap<Generation, Arc<AppSpec>>,
    pub(super) next_generation: u32,
    pub(super) created: Moment,
    /// One per instance number in use.
    pub(super) seats: BTreeMap<Instance, Seat>,
    /// Seats whose workers are to be restarted when those before them are online again.
    #[serde(default)]
    pub(super) restarting: BTreeSet<Instance>,
    /// Workers that are to be replaced because they are worn, one at a time.
    #[serde(default)]
    pub(super) renewals: BTreeMap<Instance, Renewal>,
    /// The reload that is under way.
    pub(super) rollout: Option<Rollout>,
    /// What was deployed, the latest last.
    pub(super) history: Vec<Deployment>,
    /// To be forgotten when no seat is left.
    pub(super) deleting: bool,
    /// The last command that said what it is or how it is scheduled. Whoever asked before the supervisor that died is gone.
    #[serde(skip)]
    pub(super) said_by: CallId,
}

/// A place for one worker, with the memory that outlives it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Seat {
    /// Whether a worker shall sit here.
    pub(super) wanted: bool,
    /// Whether the seat goes when its workers have gone.
    pub(super) retiring: bool,
    /// What whoever sits here next is one of.
    pub(super) generation: Generation,
    pub(super) state: SeatState,
    /// Who is to sit here when it is ready.
    pub(super) successor: Option<WorkerId>,
    /// Who sat here and finishes what it has.
    pub(super) leaving: BTreeSet<WorkerId>,
    /// Workers after the first.
    pub(super) restarts: u32,
    /// Unstable runs in a row.
    pub(super) unstable: u32,
    /// Whether a worker got ready here since it was last asked for.
    pub(super) proven: bool,
    /// Successors that failed while going back, and when the next is tried.
    pub(super) attempts: (u32, Option<Moment>),
    /// Workers in a row that were renewed for their memory soon after one another, and when the last one was.
    #[serde(default)]
    pub(super) grown: (u32, Option<Moment>),
    /// Why it is as it is, when that is no matter of course.
    pub(super) reason: Option<Why>,
    /// Where its last worker tried to bind in vain.
    pub(super) binding: Option<(Protocol, SocketAddr)>,
}

/// Who sits there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum SeatState {
    /// Nobody. `failed`: the last one ended by itself and not well.
    Empty { failed: bool },
    /// A worker, until nothing is left of it.
    Taken(WorkerId),
    /// Nobody until then.
    Backoff { until: Moment },
    /// Nobody any more, until somebody asks for it.
    Errored,
}

impl App {
    pub(super) fn new(id: AppId, spec: Arc<AppSpec>, now: Moment) -> Self {
        let generation = Generation(1);
        Self {
            id,
            generation,
            previous: None,
            definitions: BTreeMap::from([(generation, spec)]),
            next_generation: 2,
            created: now,
            seats: BTreeMap::new(),
            restarting: BTreeSet::new(),
            renewals: BTreeMap::new(),
            rollout: None,
            history: Vec::new(),
            deleting: false,
            said_by: CallId::default(),
        }
    }

    /// What it is.
    pub(super) fn spec(&self) -> &Arc<AppSpec> {
        self.definition(self.generation)
    }

    /// What a generation of it is.
    pub(super) fn definition(&self, generation: Generation) -> &Arc<AppSpec> {
        let known = self.definitions.get(&generation).or_else(|| self.definitions.values().next());
        known.expect("an app has a definition from its start to its end")
    }

    /// Takes in a definition as a new generation.
    pub(super) fn define(&mut self, spec: Arc<AppSpec>) -> Generation {
        let generation = Generation(self.next_generation);
        self.next_generation += 1;
        self.definitions.insert(generation, spec);
        generation
    }

    /// Forgets the definitions that nothing refers to any more.
    pub(super) fn forget_definitions(&mut self, workers: impl Fn(Generation) -> bool) {
        let (generation, previous) = (self.generation, self.previous);
        let rolling = self.rollout.as_ref().map(|rollout| (rollout.target, rollout.origin));
        let seats: BTreeSet<_> = self.seats.values().map(|seat| seat.generation).collect();
        self.definitions.retain(|known, _| {
            *known == generation
                || Some(*known) == previous
                || rolling.is_some_and(|(target, origin)| *known == target || *known == origin)
                || seats.contains(known)
                || workers(*known)
        });
    }

    /// Whether a worker will come without anybody asking for it.
    pub(super) fn hopeful(&self) -> bool {
        self.seats.values().any(|seat| {
            let coming = matches!(seat.state, SeatState::Taken(_) | SeatState::Backoff { .. });
            seat.wanted && (coming || seat.successor.is_some())
        })
    }

    /// Whether it is only remembered: nothing runs, and it failed or finished by itself.
    pub(super) fn dead(&self) -> bool {
        self.seats.values().all(|seat| match seat.state {
            SeatState::Errored | SeatState::Empty { failed: true } => seat.is_left(),
            SeatState::Empty { failed: false }
            | SeatState::Taken(_)
            | SeatState::Backoff { .. } => false,
        })
    }

    /// Whether it was stopped, and nothing of it is left.
    pub(super) fn stopped(&self) -> bool {
        let empty = |seat: &Seat| matches!(seat.state, SeatState::Empty { .. }) && seat.is_left();
        !self.deleting && self.seats.values().all(|seat| !seat.wanted && empty(seat))
    }

    /// Whether a worker runs, or shall.
    pub(super) fn running(&self) -> bool {
        self.seats.values().any(|seat| seat.wanted && !seat.retiring)
    }
}

impl Seat {
    pub(super) fn new(generation: Generation) -> Self {
        Self {
            wanted: true,
            retiring: false,
            generation,
            state: SeatState::Empty { failed: false },
            successor: None,
            leaving: BTreeSet::new(),
            restarts: 0,
            unstable: 0,
            proven: false,
            attempts: (0, None),
            reason: None,
            grown: (0, None),
            binding: None,
        }
    }

    /// Who sits there.
    pub(super) fn worker(&self) -> Option<WorkerId> {
        match self.state {
            SeatState::Taken(worker) => Some(worker),
            SeatState::Empty { .. } | SeatState::Backoff { .. } | SeatState::Errored => None,
        }
    }

    /// Everybody who has to do with it.
    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.worker().into_iter().chain(self.successor).chain(self.leaving.iter().copied())
    }

    /// Whether nobody is there besides whoever sits there.
    pub(super) fn is_left(&self) -> bool {
        self.successor.is_none() && self.leaving.is_empty()
    }
}
