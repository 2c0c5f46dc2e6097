//! One worker: a process tree and its life, every phase against everything that can happen to it.

mod life;
mod step;

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{effect::Effect, event::Exit, health::Health, why::Why};
use crate::{
    config::spec::{AppSpec, Readiness},
    datapath::{Protocol, Traffic},
    id::{AppId, Generation, Instance, WorkerId},
    moment::Moment,
};

/// A process tree.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) app: AppId,
    pub(super) instance: Instance,
    pub(super) generation: Generation,
    /// Kept once for each generation of an app in the journal, not here.
    #[serde(skip, default = "unread")]
    pub(super) spec: Arc<AppSpec>,
    pub(super) pid: Option<u32>,
    pub(super) phase: Phase,
    pub(super) spawned: Moment,
    /// Whether it waits to be promoted when it is ready, because another one has its seat.
    pub(super) standby: bool,
    /// Whether it was ever online.
    pub(super) served: bool,
    /// Why it ends, from the moment that is decided; the first reason stays.
    pub(super) ending: Option<Ending>,
    /// Where it last tried to bind without having listened since.
    pub(super) binding: Option<(Protocol, SocketAddr)>,
    /// What it should serve and does not: an address, and where it listens instead.
    pub(super) lacking: Option<(SocketAddr, Vec<SocketAddr>)>,
    pub(super) health: Health,
    /// Whether its app has served a port before it, so that it is not ready without.
    #[serde(default)]
    pub(super) must_listen: bool,
    /// When it was last found to be worn.
    #[serde(default)]
    pub(super) renewed: Option<Moment>,
    /// What it had to do when it was last measured.
    #[serde(skip)]
    pub(super) traffic: Option<Traffic>,
}

/// Where a worker is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Phase {
    /// `Effect::Spawn` is not answered yet.
    Spawning,
    /// Runs and has given no sign that it is ready.
    Starting { deadline: Moment },
    /// Has given a sign, and is asked whether that is true. `next`: when it is asked again; absent while it is asked.
    Probing { deadline: Moment, next: Option<Moment>, passed: u32, last: String },
    /// Ready, and not in the route until it is promoted.
    Ready { since: Moment },
    /// Ready, in the route.
    Online { since: Moment },
    /// Out of the route, finishing what it has.
    Draining { until: Moment, look: Moment, pause: Duration, leave: Leave },
    /// Its hook before the stop is being run.
    Hooking { until: Moment },
    /// Told to end.
    Stopping { kill_at: Moment },
    /// Sent SIGKILL.
    Killing { again: Moment },
    /// Its main process has ended; what that left is being ended.
    Sweeping,
}

/// What a draining worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Leave {
    /// No request under way: the app is being stopped, and an idle connection would never end.
    WhenIdle,
    /// The same, and not for long: new connections wait for whoever comes after it.
    Soon,
    /// No connection left, and no flow of datagrams: others go on serving, and its clients shall notice nothing.
    WhenClosed,
    /// Its time is over, and silent connections are being closed.
    Parting,
}

/// Why a worker ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Ending {
    /// Somebody wanted it.
    Asked,
    /// It ended by itself and is not to be replaced.
    Finished { why: Why, ok: bool },
    /// It failed. `fatal`: trying again is in vain.
    Failed { why: Why, fatal: bool },
}

/// What can happen to a worker.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Spawned(u32),
    NotSpawned(String),
    /// It gave the sign that it is ready.
    Sign,
    Probed(Result<(), String>),
    /// It gets its seat.
    Promote,
    Retire(Leave),
    /// It gets its seat back.
    Resume,
    Fail {
        why: Why,
        fatal: bool,
    },
    /// It said `WATCHDOG=1`.
    Beat,
    /// It said `STOPPING=1`.
    Leaving,
    /// It said `EXTEND_TIMEOUT_USEC=…`.
    Extend(Duration),
    /// Its hook before the stop has ended.
    Hooked,
    Measured(Option<Traffic>),
    Exited(Exit),
    Swept,
    Deadline,
}

/// What follows.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) effects: Vec<Effect>,
    /// Nothing is left of the worker.
    pub(super) gone: bool,
}

impl Worker {
    pub(super) fn new(
        id: WorkerId,
        (app, instance): (AppId, Instance),
        (generation, spec): (Generation, Arc<AppSpec>),
        now: Moment,
        standby: bool,
    ) -> Self {
        Self {
            id,
            app,
            instance,
            generation,
            spec,
            pid: None,
            phase: Phase::Spawning,
            spawned: now,
            standby,
            served: false,
            ending: None,
            binding: None,
            lacking: None,
            health: Health::unheard(),
            must_listen: false,
            renewed: None,
            traffic: None,
        }
    }

    /// Whether connections may be sent to it.
    pub(super) fn online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// Whether its health is looked at: it is ready, and nobody told it to end.
    pub(super) fn is_looked_after(&self) -> bool {
        matches!(self.phase, Phase::Ready { .. } | Phase::Online { .. })
    }

    /// How long it was silent at least, when connections are kept away from it for that.
    pub(super) fn silent_for(&self) -> Option<Duration> {
        self.health.silent_for().filter(|_| self.is_looked_after())
    }

    /// Since when it is ready and has no seat yet.
    pub(super) fn ready_since(&self) -> Option<Moment> {
        match self.phase {
            Phase::Ready { since } => Some(since),
            Phase::Spawning
            | Phase::Starting { .. }
            | Phase::Probing { .. }
            | Phase::Online { .. }
            | Phase::Draining { .. }
            | Phase::Hooking { .. }
            | Phase::Stopping { .. }
            | Phase::Killing { .. }
            | Phase::Sweeping => None,
        }
    }

    /// Whether it could go on serving: nobody told it to end, and it did not fail.
    pub(super) fn resumable(&self) -> bool {
        let draining = matches!(self.phase, Phase::Draining { .. });
        draining && self.ending == Some(Ending::Asked)
    }

    /// Whether it fails or has failed, or finished by itself.
    pub(super) fn failure(&self) -> Option<&Why> {
        match &self.ending {
            Some(Ending::Failed { why, .. } | Ending::Finished { why, .. }) => Some(why),
            Some(Ending::Asked) | None => None,
        }
    }

    /// The sign that it is ready, or can be asked whether it is.
    pub(super) fn sign(&self) -> Readiness {
        let asks_port = self.spec.probe.as_ref().is_some_and(|probe| probe.what.asks_port());
        match self.spec.readiness {
            Readiness::Notified | Readiness::Message if asks_port => Readiness::Listening,
            Readiness::Settled if asks_port || self.must_listen => Readiness::Listening,
            Readiness::Listening
            | Readiness::Running
            | Readiness::Settled
            | Readiness::Notified
            | Readiness::Message => self.spec.readiness,
        }
    }

    /// When it must be looked at again, at the latest.
    pub(super) fn deadline(&self) -> Option<Moment> {
        match &self.phase {
            Phase::Spawning | Phase::Sweeping => None,
            Phase::Ready { .. } | Phase::Online { .. } => self.health.deadline(&self.spec),
            Phase::Starting { deadline } => Some(*deadline),
            Phase::Probing { deadline, next, .. } => {
                Some(next.map_or(*deadline, |next| next.min(*deadline)))
            }
            Phase::Draining { until, look, .. } => Some(*until.min(look)),
            Phase::Hooking { until } => Some(*until),
            Phase::Stopping { kill_at } => Some(*kill_at),
            Phase::Killing { again } => Some(*again),
        }
    }
}

/// A specification that is replaced as soon as the journal is read.
fn unread() -> Arc<AppSpec> {
    static UNREAD: LazyLock<Arc<AppSpec>> = LazyLock::new(|| Arc::new(AppSpec::unread()));
    Arc::clone(&UNREAD)
}

impl Leave {
    fn content(self, traffic: Traffic) -> bool {
        let none_coming = traffic.queued == 0 && traffic.handshakes == 0;
        none_coming
            && match self {
                Self::WhenIdle | Self::Soon => traffic.busy == 0,
                Self::WhenClosed => traffic.established == 0 && !traffic.flows,
                // Nothing tells a client that sends datagrams to go elsewhere.
                Self::Parting => traffic.established == 0,
            }
    }
}

impl Step {
    pub(super) fn of(effect: Effect) -> Self {
        Self { effects: vec![effect], gone: false }
    }
}
