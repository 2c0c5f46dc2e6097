//! What is worth telling of whoever follows the events: it is told once, when it happens.

use std::time::Duration;

use super::{
    State,
    deployment::{Kind, Outcome},
    effect::Effect,
    view::Status,
    why::Why,
    worker::{Ending, Worker},
};
use crate::{
    config::{scheduling::Scheduling, spec::recycle::Worn},
    id::{AppId, Generation, Instance, WorkerId},
};

/// Something happened to an app or one of its workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Which app.
    pub app: AppId,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Which worker; `None` when it is about the app.
    pub about: Option<About>,
    /// What.
    pub what: What,
}

/// Which worker of an app it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct About {
    /// Its seat.
    pub instance: Instance,
    /// What it is one of.
    pub generation: Generation,
    /// The worker.
    pub worker: WorkerId,
    /// Its process id, if it has or had one.
    pub pid: Option<u32>,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The app is known now.
    Started,
    /// The app is forgotten.
    Deleted,
    /// Another number of workers is wanted.
    Scaled {
        /// How many.
        to: u32,
    },
    /// Workers are picked by another rule.
    Scheduled {
        /// Which.
        scheduling: Scheduling,
    },
    /// A rule that is the app's is not that of one of its groups.
    NotScheduled {
        /// Why.
        why: String,
    },
    /// A reload or rollback began.
    Deploying {
        /// Of which generation.
        generation: Generation,
        /// Which of them.
        kind: Kind,
        /// Who wants it.
        who: String,
    },
    /// It ended.
    Deployed {
        /// Of which generation.
        generation: Generation,
        /// Which of them.
        kind: Kind,
        /// What came of it.
        outcome: Outcome,
        /// How long it took.
        took: Duration,
    },
    /// The worker is in another phase.
    Phase(Status),
    /// The worker was silent for so long: connections are kept away from it.
    Silent {
        /// How long.
        silence: Duration,
    },
    /// It has spoken again.
    Heard,
    /// The worker is worn, and is being replaced.
    Worn(Worn),
    /// So are those before it in its seat, each soon after its start; from here on there is a pause between them.
    Outgrown {
        /// How long.
        pause: Duration,
    },
    /// Nothing is left of the worker.
    Gone {
        /// Why, when nobody asked for it.
        why: Option<Why>,
        /// Whether that is a failure.
        failed: bool,
    },
    /// The seat stays empty for so long.
    Backoff {
        /// How long.
        wait: Duration,
    },
    /// The seat stays empty until somebody asks for it.
    GivenUp,
}

impl State {
    /// Tells of an app.
    pub(super) fn announce(&mut self, app: AppId, what: What) {
        self.announce_about(app, None, what);
    }

    /// Tells of a worker that is there.
    pub(super) fn announce_worker(&mut self, worker: WorkerId, what: What) {
        if let Some(worker) = self.workers.get(&worker) {
            let (app, about) = (worker.app, worker.about());
            self.announce_about(app, Some(about), what);
        }
    }

    /// Tells of a worker that is being forgotten.
    pub(super) fn announce_gone(&mut self, worker: &Worker) {
        let (why, failed) = match &worker.ending {
            Some(Ending::Failed { why, .. }) => (Some(why.clone()), true),
            Some(Ending::Finished { why, ok }) => (Some(why.clone()), !ok),
            Some(Ending::Asked) | None => (None, false),
        };
        self.announce_about(worker.app, Some(worker.about()), What::Gone { why, failed });
    }

    /// Tells of whatever of an app that is known still.
    pub(super) fn announce_about(&mut self, app: AppId, about: Option<About>, what: What) {
        let Some(spec) = self.apps.get(&app).map(super::app::App::spec) else { return };
        let (name, namespace) = (spec.name.to_string(), spec.namespace.to_string());
        let announcement = Announcement { app, name, namespace, about, what };
        self.effects.push(Effect::Announce(Box::new(announcement)));
    }
}

impl Worker {
    /// Which worker it is.
    pub(super) fn about(&self) -> About {
        let Self { instance, generation, id, pid, .. } = *self;
        About { instance, generation, worker: id, pid }
    }
}
