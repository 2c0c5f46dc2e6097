//! A reload that is under way: from which generation to which, how far, and why back.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Serialize};

use super::{deployment::Kind, effect::Doing, event::CallId, why::Why};
use crate::{
    config::pace::{Canary, Pace},
    datapath::{GroupKey, Protocol},
    id::{Generation, Instance, WorkerId},
    moment::Moment,
};

/// A reload that is under way.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rollout {
    /// What is rolled out.
    pub(super) target: Generation,
    /// What there was before, and is again if it fails.
    pub(super) origin: Generation,
    pub(super) kind: Kind,
    pub(super) pace: Pace,
    pub(super) who: String,
    /// Whether nobody asked for it: it gives way to one that somebody asks for.
    #[serde(default)]
    pub(super) yields: bool,
    pub(super) began: Moment,
    pub(super) stage: Stage,
    /// What was served when it began: a new worker has to serve it too.
    pub(super) serves: Vec<GroupKey>,
    /// Who is told how it goes. Nobody, when their daemon was killed meanwhile.
    #[serde(skip)]
    pub(super) calls: Vec<CallId>,
    /// Where each worker was when they were last told.
    #[serde(skip)]
    pub(super) told: BTreeMap<WorkerId, Doing>,
}

/// How far it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Stage {
    /// A few workers of the new generation are started beside the old ones, and get their share.
    Canary {
        /// Since when they have it.
        since: Option<Moment>,
        /// When it is next looked how they do.
        look: Moment,
        /// Looks in a row at which they did badly.
        bad: u32,
    },
    /// Worker by worker.
    Forward,
    /// Everything as it was.
    Back(Setback),
    /// All is done but for counting what moved.
    Counting(Option<Setback>),
}

/// Why a reload goes back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Setback {
    /// A new worker failed.
    Failed {
        worker: WorkerId,
        instance: Instance,
        why: Why,
        /// An address the worker tried to bind and never listened on.
        binding: Option<(Protocol, SocketAddr)>,
    },
    /// A user wants it.
    Asked { who: String },
}

impl Rollout {
    /// What all workers shall be.
    pub(super) fn goal(&self) -> Generation {
        match self.stage {
            Stage::Canary { .. } | Stage::Forward | Stage::Counting(None) => self.target,
            Stage::Back(_) | Stage::Counting(Some(_)) => self.origin,
        }
    }

    /// The canary that gets its connections now, if there is one.
    pub(super) fn canary(&self) -> Option<Canary> {
        match self.stage {
            Stage::Canary { since: Some(_), .. } => self.pace.canary,
            Stage::Canary { since: None, .. }
            | Stage::Forward
            | Stage::Back(_)
            | Stage::Counting(_) => None,
        }
    }

    /// Whether a failure of a new worker would turn it back.
    pub(super) fn advancing(&self) -> bool {
        match self.stage {
            Stage::Canary { .. } | Stage::Forward => true,
            Stage::Back(_) | Stage::Counting(_) => false,
        }
    }
}
