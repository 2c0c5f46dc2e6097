//! One worker: a process tree and its life, every phase against everything that can happen to it.

use std::{
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{effect::Effect, event::Exit};
use crate::{
    config::spec::{AppSpec, Readiness},
    datapath::{Protocol, Traffic},
    id::{AppId, Instance, WorkerId},
};

/// First and longest pause between two looks at a draining worker.
const LOOK: (Duration, Duration) = (Duration::from_millis(5), Duration::from_millis(250));
/// A process that SIGKILL did not end is killed again after this long.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// A process tree.
#[derive(Clone, Debug)]
pub(super) struct Worker {
    pub(super) id: WorkerId,
    pub(super) app: AppId,
    pub(super) instance: Instance,
    pub(super) spec: Arc<AppSpec>,
    pub(super) pid: Option<u32>,
    pub(super) phase: Phase,
    pub(super) spawned: Instant,
    /// Whether it was ever online.
    pub(super) served: bool,
    /// Why it ends, from the moment that is decided; the first reason stays.
    pub(super) ending: Option<Ending>,
    /// Where it last tried to bind without having listened since.
    pub(super) binding: Option<(Protocol, SocketAddr)>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// `Effect::Spawn` is not answered yet.
    Spawning,
    /// Runs and is not ready.
    Starting { deadline: Instant },
    /// Ready, in the route.
    Online { since: Instant },
    /// Out of the route, finishing what it has.
    Draining { until: Instant, look: Instant, pause: Duration, leave: Leave },
    /// Told to end.
    Stopping { kill_at: Instant },
    /// Sent SIGKILL.
    Killing { again: Instant },
    /// Its main process has ended; what that left is being ended.
    Sweeping,
}

/// What a draining worker waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Leave {
    /// No request under way: the app is being stopped, and an idle connection would never end.
    WhenIdle,
    /// No connection left: others go on serving, and its clients shall notice nothing.
    WhenClosed,
}

/// Why a worker ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// Somebody wanted it.
    Asked,
    /// It ended by itself and is not to be replaced.
    Finished { reason: String, ok: bool },
    /// It failed. `fatal`: trying again is in vain.
    Failed { reason: String, fatal: bool },
}

/// What can happen to a worker.
#[derive(Clone, Debug)]
pub(super) enum Input {
    Spawned(u32),
    SpawnFailed(String),
    Ready,
    Retire(Leave),
    Fail { reason: String, fatal: bool },
    Measured(Option<Traffic>),
    Exited(Exit),
    Swept,
    Deadline,
}

/// What follows.
#[must_use]
#[derive(Debug, Default)]
pub(super) struct Step {
    pub(super) effect: Option<Effect>,
    /// Nothing is left of the worker.
    pub(super) gone: bool,
}

impl Worker {
    pub(super) fn new(
        id: WorkerId,
        app: AppId,
        instance: Instance,
        spec: Arc<AppSpec>,
        now: Instant,
    ) -> Self {
        let phase = Phase::Spawning;
        Self {
            id,
            app,
            instance,
            spec,
            pid: None,
            phase,
            spawned: now,
            served: false,
            ending: None,
            binding: None,
        }
    }

    /// Whether connections may be sent to it.
    pub(super) fn online(&self) -> bool {
        matches!(self.phase, Phase::Online { .. })
    }

    /// When it must be looked at again, at the latest.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Spawning | Phase::Online { .. } | Phase::Sweeping => None,
            Phase::Starting { deadline } => Some(deadline),
            Phase::Draining { until, look, .. } => Some(until.min(look)),
            Phase::Stopping { kill_at } => Some(kill_at),
            Phase::Killing { again } => Some(again),
        }
    }

    /// One step of its life.
    pub(super) fn step(&mut self, now: Instant, input: Input) -> Step {
        match self.phase {
            Phase::Spawning => match input {
                Input::Spawned(pid) => {
                    self.pid = Some(pid);
                    match self.ending {
                        None => {
                            let wait = match self.spec.readiness {
                                Readiness::Running => self.spec.restart.min_uptime,
                                Readiness::Listening | Readiness::Notified | Readiness::Message => {
                                    self.spec.listen_timeout
                                }
                            };
                            self.phase = Phase::Starting { deadline: now + wait };
                            Step::default()
                        }
                        Some(Ending::Asked | Ending::Finished { .. }) => self.ask_to_end(now),
                        Some(Ending::Failed { .. }) => self.kill(now),
                    }
                }
                Input::SpawnFailed(reason) => {
                    self.end(Ending::Failed { reason, fatal: false });
                    Step { effect: None, gone: true }
                }
                Input::Retire(_) => {
                    self.end(Ending::Asked);
                    Step::default()
                }
                Input::Fail { reason, fatal } => {
                    self.end(Ending::Failed { reason, fatal });
                    Step::default()
                }
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Ready | Input::Measured(_) | Input::Swept | Input::Deadline => {
                    Step::default()
                }
            },
            Phase::Starting { deadline } => match input {
                Input::Ready => self.ready(now),
                Input::Retire(_) => {
                    self.end(Ending::Asked);
                    self.ask_to_end(now)
                }
                Input::Fail { reason, fatal } => self.fail(now, reason, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline if now < deadline => Step::default(),
                Input::Deadline => match self.spec.readiness {
                    Readiness::Running => self.ready(now),
                    Readiness::Listening | Readiness::Notified | Readiness::Message => {
                        let timeout = seconds(self.spec.listen_timeout);
                        self.fail(now, format!("did not listen within {timeout}"), true)
                    }
                },
                Input::Spawned(_) | Input::SpawnFailed(_) | Input::Measured(_) | Input::Swept => {
                    Step::default()
                }
            },
            Phase::Online { .. } => match input {
                Input::Retire(leave) => {
                    self.end(Ending::Asked);
                    let (pause, until) = (LOOK.0, now + self.spec.stop.drain_timeout);
                    self.phase = Phase::Draining { until, look: now + pause, pause, leave };
                    Step::of(Effect::Measure { worker: self.id })
                }
                Input::Fail { reason, fatal } => self.fail(now, reason, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Spawned(_)
                | Input::SpawnFailed(_)
                | Input::Ready
                | Input::Measured(_)
                | Input::Swept
                | Input::Deadline => Step::default(),
            },
            Phase::Draining { until, look, pause, leave } => match input {
                Input::Measured(Some(traffic)) if leave.content(traffic) => self.ask_to_end(now),
                Input::Deadline if now >= until => self.ask_to_end(now),
                Input::Deadline if now >= look => {
                    let pause = (pause * 2).min(LOOK.1);
                    self.phase = Phase::Draining { until, look: now + pause, pause, leave };
                    Step::of(Effect::Measure { worker: self.id })
                }
                Input::Fail { reason, fatal } => self.fail(now, reason, fatal),
                Input::Retire(Leave::WhenIdle) => {
                    self.phase = Phase::Draining { until, look, pause, leave: Leave::WhenIdle };
                    Step::default()
                }
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Measured(_)
                | Input::Deadline
                | Input::Retire(Leave::WhenClosed)
                | Input::Spawned(_)
                | Input::SpawnFailed(_)
                | Input::Ready
                | Input::Swept => Step::default(),
            },
            Phase::Stopping { kill_at } => match input {
                Input::Deadline if now >= kill_at => self.kill(now),
                Input::Fail { reason, fatal } => self.fail(now, reason, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline
                | Input::Retire(_)
                | Input::Spawned(_)
                | Input::SpawnFailed(_)
                | Input::Ready
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Killing { again } => match input {
                Input::Deadline if now >= again => self.kill(now),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Deadline
                | Input::Fail { .. }
                | Input::Retire(_)
                | Input::Spawned(_)
                | Input::SpawnFailed(_)
                | Input::Ready
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Sweeping => match input {
                Input::Swept => Step { effect: None, gone: true },
                Input::Deadline
                | Input::Exited(_)
                | Input::Fail { .. }
                | Input::Retire(_)
                | Input::Spawned(_)
                | Input::SpawnFailed(_)
                | Input::Ready
                | Input::Measured(_) => Step::default(),
            },
        }
    }

    /// The reason why it ends, if none was given before.
    fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    fn fail(&mut self, now: Instant, reason: String, fatal: bool) -> Step {
        self.end(Ending::Failed { reason, fatal });
        self.kill(now)
    }

    fn ready(&mut self, now: Instant) -> Step {
        self.served = true;
        self.phase = Phase::Online { since: now };
        Step::default()
    }

    fn ask_to_end(&mut self, now: Instant) -> Step {
        self.phase = Phase::Stopping { kill_at: now + self.spec.stop.kill_timeout };
        Step::of(Effect::Signal { worker: self.id, signal: self.spec.stop.signal })
    }

    fn kill(&mut self, now: Instant) -> Step {
        self.phase = Phase::Killing { again: now + KILL_AGAIN };
        Step::of(Effect::Kill { worker: self.id })
    }

    fn sweep(&mut self, now: Instant, exit: Exit) -> Step {
        let policy = &self.spec.restart;
        let after = seconds(now.saturating_duration_since(self.spawned));
        let (reason, ok, listed) = match exit {
            Exit::Code(code) => {
                let listed = policy.stop_exit_codes.contains(&code);
                (format!("exited with code {code} after {after}"), code == 0 || listed, listed)
            }
            Exit::Signal(signal) => {
                (format!("killed by {} after {after}", signal_name(signal)), false, false)
            }
        };
        self.end(if !policy.autorestart || listed {
            Ending::Finished { reason, ok }
        } else {
            Ending::Failed { reason, fatal: false }
        });
        self.phase = Phase::Sweeping;
        Step::of(Effect::Sweep { worker: self.id })
    }
}

impl Leave {
    fn content(self, traffic: Traffic) -> bool {
        let none_coming = traffic.queued == 0 && traffic.handshakes == 0;
        none_coming
            && match self {
                Self::WhenIdle => traffic.busy == 0,
                Self::WhenClosed => traffic.established == 0,
            }
    }
}

impl Step {
    fn of(effect: Effect) -> Self {
        Self { effect: Some(effect), gone: false }
    }
}

fn seconds(duration: Duration) -> String {
    match duration.as_millis() {
        millis @ 0..1000 => format!("{millis} ms"),
        _ => format!("{:.1} s", duration.as_secs_f64()),
    }
}

fn signal_name(number: i32) -> String {
    nix::sys::signal::Signal::try_from(number)
        .map_or_else(|_| format!("signal {number}"), |signal| signal.as_str().to_owned())
}
