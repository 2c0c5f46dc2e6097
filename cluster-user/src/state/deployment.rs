//! What was deployed: a line of an app's history for each start, reload and rollback.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::why::Why;
use crate::{
    config::spec::millis,
    id::{Generation, Instance},
    moment::Moment,
};

/// Deployments that are remembered of an app.
pub(super) const REMEMBERED: usize = 100;

/// One deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Deployment {
    /// What was to be deployed.
    pub generation: Generation,
    /// What was there before.
    pub from: Option<Generation>,
    /// By which command.
    pub kind: Kind,
    /// What came of it.
    pub outcome: Outcome,
    /// Who wanted it.
    pub who: String,
    /// When it began.
    pub began: Moment,
    /// How long it took.
    #[serde(with = "millis")]
    pub took: Duration,
    /// Connections that moved from the queue of a worker that left to one that stayed.
    pub moved: u64,
}

/// By which command something is deployed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// `reload`.
    Reload,
    /// `rollback` without a reload under way: back to what was deployed before.
    Rollback,
}

/// What came of a deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Every worker is of the new generation.
    Done,
    /// A new worker failed; every worker is of the old generation.
    Failed {
        /// Which.
        instance: Instance,
        /// Why.
        why: Why,
    },
    /// A user wanted to go back before it was done.
    RolledBack {
        /// Who.
        who: String,
    },
    /// Another command took its place: `reload --force`, `stop`, `delete`.
    Superseded,
}
