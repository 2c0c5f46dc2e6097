//! One worker: a process tree and its life, every phase against everything that can happen to it.

use std::{
    net::SocketAddr,
    sync::{Arc, LazyLock},
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{
    effect::Effect,
    event::Exit,
    health::{Health, Verdict},
    why::Why,
};
use crate::{
    config::spec::{AppSpec, Readiness},
    datapath::{Protocol, Traffic},
    id::{AppId, Generation, Instance, WorkerId},
    moment::Moment,
};

/// First and longest pause between two looks at a draining worker.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// A process that SIGKILL did not end is killed again after this long.
const KILL_AGAIN: Duration = Duration::from_secs(1);
/// A connection that has been silent for this long when the drain time is over is closed. It is what Node does with every
/// connection (`server.keepAliveTimeout`), so clients that keep connections are used to it.
const SILENT: Duration = Duration::from_secs(5);
/// How long those that are closed in this way may take to be gone.
const PARTING: Duration = Duration::from_secs(1);
/// A worker that fails its liveness probe may finish for so long what it has.
const FAILING: Duration = Duration::from_secs(5);

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
    /// No connection left: others go on serving, and its clients shall notice nothing.
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
            health: Health::default(),
            traffic: None,
        }
    }

    /// Whether connections may be sent to it.
    pub(super) fn online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
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
            Readiness::Listening
            | Readiness::Running
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
            Phase::Stopping { kill_at } => Some(*kill_at),
            Phase::Killing { again } => Some(*again),
        }
    }

    /// One step of its life.
    pub(super) fn step(&mut self, now: Moment, input: Input) -> Step {
        match self.phase.clone() {
            Phase::Spawning => match input {
                Input::Spawned(pid) => self.spawned(now, pid),
                Input::NotSpawned(reason) => {
                    self.end(Ending::Failed { why: Why::NotSpawned(reason), fatal: false });
                    Step { effects: Vec::new(), gone: true }
                }
                Input::Retire(_) => {
                    self.end(Ending::Asked);
                    Step::default()
                }
                Input::Fail { why, fatal } => {
                    self.end(Ending::Failed { why, fatal });
                    Step::default()
                }
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Sign
                | Input::Probed(_)
                | Input::Promote
                | Input::Resume
                | Input::Beat
                | Input::Measured(_)
                | Input::Swept
                | Input::Deadline => Step::default(),
            },
            Phase::Starting { deadline } => match input {
                Input::Sign => self.signed(now, deadline),
                Input::Deadline if now < deadline => Step::default(),
                Input::Deadline => match self.sign() {
                    Readiness::Running => self.signed(now, deadline),
                    Readiness::Listening | Readiness::Notified | Readiness::Message => {
                        let why = self.not_ready();
                        self.fail(now, why, true)
                    }
                },
                Input::Retire(_) => self.retire_unready(now),
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Probed(_)
                | Input::Promote
                | Input::Resume
                | Input::Beat
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Probing { deadline, next, passed, last } => match input {
                Input::Probed(result) => self.probed(now, deadline, passed, result),
                Input::Deadline if now >= deadline => {
                    let within = self.spec.listen_timeout;
                    self.fail(now, Why::ProbeFailed { last, within }, true)
                }
                Input::Deadline if next.is_some_and(|next| next <= now) => {
                    self.ask(deadline, passed, last)
                }
                Input::Retire(_) => self.retire_unready(now),
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline
                | Input::Sign
                | Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Promote
                | Input::Resume
                | Input::Beat
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Ready { .. } => match input {
                Input::Promote => {
                    self.go_online(now);
                    Step::default()
                }
                // Nothing was ever sent to it.
                Input::Retire(_) => self.retire_unready(now),
                Input::Probed(result) => {
                    let verdict = self.health.probed(now, &self.spec, result);
                    self.judged(now, verdict)
                }
                Input::Deadline => {
                    let verdict = self.health.check(now, &self.spec);
                    self.judged(now, verdict)
                }
                Input::Beat => self.health.beat(now),
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Resume
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Online { .. } => match input {
                Input::Retire(leave) => {
                    self.end(Ending::Asked);
                    let time = self.spec.stop.drain_timeout;
                    let time = match leave {
                        Leave::WhenIdle | Leave::WhenClosed | Leave::Parting => time,
                        Leave::Soon => time.min(self.spec.wait_timeout / 3),
                    };
                    self.drain(now, now + time, leave)
                }
                Input::Probed(result) => {
                    let verdict = self.health.probed(now, &self.spec, result);
                    self.judged(now, verdict)
                }
                Input::Deadline => {
                    let verdict = self.health.check(now, &self.spec);
                    self.judged(now, verdict)
                }
                Input::Beat => self.health.beat(now),
                Input::Measured(traffic) => {
                    self.traffic = traffic;
                    Step::default()
                }
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Promote
                | Input::Resume
                | Input::Swept => Step::default(),
            },
            Phase::Draining { until, look, pause, leave } => match input {
                Input::Measured(traffic) => {
                    self.traffic = traffic;
                    match traffic {
                        Some(traffic) if leave.content(traffic) => self.ask_to_end(now),
                        Some(_) | None => Step::default(),
                    }
                }
                Input::Deadline if now >= until && leave == Leave::WhenClosed => {
                    self.drain(now, now + PARTING, Leave::Parting)
                }
                Input::Deadline if now >= until => self.ask_to_end(now),
                Input::Deadline if now >= look => {
                    let pause = (pause * 2).min(LOOK.1);
                    self.phase = Phase::Draining { until, look: now + pause, pause, leave };
                    Step::of(self.look(leave))
                }
                Input::Resume if self.resumable() => {
                    self.ending = None;
                    self.go_online(now);
                    Step::of(Effect::Resume { worker: self.id })
                }
                Input::Retire(leave @ (Leave::WhenIdle | Leave::Soon)) => {
                    self.phase = Phase::Draining { until, look, pause, leave };
                    Step::default()
                }
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline
                | Input::Retire(Leave::WhenClosed | Leave::Parting)
                | Input::Resume
                | Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Probed(_)
                | Input::Promote
                | Input::Beat
                | Input::Swept => Step::default(),
            },
            Phase::Stopping { kill_at } => match input {
                Input::Deadline if now >= kill_at => self.kill(now),
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline
                | Input::Retire(_)
                | Input::Resume
                | Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Probed(_)
                | Input::Promote
                | Input::Beat
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Killing { again } => match input {
                Input::Deadline if now >= again => self.kill(now),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline
                | Input::Fail { .. }
                | Input::Retire(_)
                | Input::Resume
                | Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Probed(_)
                | Input::Promote
                | Input::Beat
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Sweeping => match input {
                Input::Swept => Step { effects: Vec::new(), gone: true },
                Input::Deadline
                | Input::Exited(_)
                | Input::Fail { .. }
                | Input::Retire(_)
                | Input::Resume
                | Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Probed(_)
                | Input::Promote
                | Input::Beat
                | Input::Measured(_) => Step::default(),
            },
        }
    }

    /// The reason why it ends, if none was given before.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    fn spawned(&mut self, now: Moment, pid: u32) -> Step {
        self.pid = Some(pid);
        match self.ending {
            Some(Ending::Asked | Ending::Finished { .. }) => return self.ask_to_end(now),
            Some(Ending::Failed { .. }) => return self.kill(now),
            None => {}
        }
        if self.spec.probe.as_ref().is_some_and(|probe| !probe.what.asks_port()) {
            // It needs no port to be asked at, and goes before every other sign.
            return self.ask(now + self.spec.listen_timeout, 0, String::new());
        }
        let wait = self.patience();
        self.phase = Phase::Starting { deadline: now + wait };
        Step::default()
    }

    /// It gave its sign; a probe may know better.
    fn signed(&mut self, now: Moment, deadline: Moment) -> Step {
        if self.spec.probe.is_some() {
            // From here on it is the probe's word that counts.
            let deadline = deadline.max(now + self.spec.restart.min_uptime);
            return self.ask(deadline, 0, String::new());
        }
        self.ready(now)
    }

    fn ask(&mut self, deadline: Moment, passed: u32, last: String) -> Step {
        self.phase = Phase::Probing { deadline, next: None, passed, last };
        match &self.spec.probe {
            Some(probe) => {
                Step::of(Effect::Probe { worker: self.id, probe: Box::new(probe.clone()) })
            }
            None => Step::default(),
        }
    }

    fn probed(
        &mut self,
        now: Moment,
        deadline: Moment,
        passed: u32,
        result: Result<(), String>,
    ) -> Step {
        let (wanted, interval) =
            self.spec.probe.as_ref().map_or((1, Duration::ZERO), |p| (p.successes, p.interval));
        let (passed, last) = match result {
            Ok(()) if passed + 1 >= wanted => return self.ready(now),
            Ok(()) => (passed + 1, String::new()),
            Err(last) => (0, last),
        };
        self.phase = Phase::Probing { deadline, next: Some(now + interval), passed, last };
        Step::default()
    }

    fn ready(&mut self, now: Moment) -> Step {
        self.health = Health::begin(now, &self.spec);
        if self.standby {
            self.phase = Phase::Ready { since: now };
        } else {
            self.go_online(now);
        }
        Step::default()
    }

    fn go_online(&mut self, now: Moment) {
        (self.served, self.standby) = (true, false);
        self.phase = Phase::Online { since: now };
    }

    fn judged(&mut self, now: Moment, verdict: Verdict) -> Step {
        match verdict {
            Verdict::Fine => Step::default(),
            Verdict::Ask(probe) => Step::of(Effect::Probe { worker: self.id, probe }),
            Verdict::Unhealthy(why) if self.online() => {
                self.end(Ending::Failed { why, fatal: false });
                let until = now + self.spec.stop.drain_timeout.min(FAILING);
                let mut step = self.drain(now, until, Leave::WhenIdle);
                // It may not take what waits at it for a long time.
                step.effects.insert(0, Effect::Rescue { worker: self.id });
                step
            }
            // Whoever hangs finishes nothing: what waits at it moves when it is killed.
            Verdict::Unhealthy(why) | Verdict::Hung(why) => self.fail(now, why, false),
        }
    }

    /// How long it has to become ready.
    pub(super) fn patience(&self) -> Duration {
        match self.sign() {
            Readiness::Listening | Readiness::Notified | Readiness::Message => {
                self.spec.listen_timeout
            }
            Readiness::Running => self.spec.restart.min_uptime,
        }
    }

    fn not_ready(&self) -> Why {
        let within = self.spec.listen_timeout;
        if let Some((missing, instead)) = &self.lacking {
            return Why::Elsewhere { missing: *missing, instead: instead.clone() };
        }
        match self.sign() {
            Readiness::Listening | Readiness::Running => Why::NotListening { within },
            Readiness::Notified => Why::NotReady { sign: "say READY=1".to_owned(), within },
            Readiness::Message => {
                Why::NotReady { sign: "call process.send('ready')".to_owned(), within }
            }
        }
    }

    fn fail(&mut self, now: Moment, why: Why, fatal: bool) -> Step {
        self.end(Ending::Failed { why, fatal });
        self.kill(now)
    }

    fn retire_unready(&mut self, now: Moment) -> Step {
        self.end(Ending::Asked);
        self.ask_to_end(now)
    }

    fn drain(&mut self, now: Moment, until: Moment, leave: Leave) -> Step {
        let pause = LOOK.0;
        self.phase = Phase::Draining { until, look: now + pause, pause, leave };
        Step::of(self.look(leave))
    }

    /// A look at a draining worker.
    pub(super) fn look(&self, leave: Leave) -> Effect {
        let idle = match leave {
            // Its end will close them, or they have time.
            Leave::WhenIdle | Leave::Soon | Leave::WhenClosed => None,
            Leave::Parting => Some(SILENT.min(self.spec.stop.drain_timeout)),
        };
        Effect::Drain { worker: self.id, idle }
    }

    pub(super) fn ask_to_end(&mut self, now: Moment) -> Step {
        self.phase = Phase::Stopping { kill_at: now + self.spec.stop.kill_timeout };
        let (worker, signal) = (self.id, self.spec.stop.signal);
        Step::of(if self.spec.stop.with_message {
            Effect::Message { worker, text: "shutdown".to_owned() }
        } else {
            Effect::Signal { worker, signal }
        })
    }

    pub(super) fn kill(&mut self, now: Moment) -> Step {
        self.phase = Phase::Killing { again: now + KILL_AGAIN };
        Step::of(Effect::Kill { worker: self.id })
    }

    fn sweep(&mut self, now: Moment, exit: Exit) -> Step {
        let policy = &self.spec.restart;
        let why = Why::Exited { exit, after: now.since(self.spawned) };
        let (ok, listed) = match exit {
            Exit::Code(code) => {
                let listed = policy.stop_exit_codes.contains(&code);
                (code == 0 || listed, listed)
            }
            Exit::Signal(_) | Exit::Unknown => (false, false),
        };
        self.end(if !policy.autorestart || listed {
            Ending::Finished { why, ok }
        } else {
            Ending::Failed { why, fatal: false }
        });
        self.phase = Phase::Sweeping;
        Step::of(Effect::Sweep { worker: self.id })
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
                Self::WhenClosed | Self::Parting => traffic.established == 0,
            }
    }
}

impl Step {
    pub(super) fn of(effect: Effect) -> Self {
        Self { effects: vec![effect], gone: false }
    }
}
