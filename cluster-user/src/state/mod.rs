//! All that is known and decided: events in, effects out, and no I/O, clock, task or lock.
//!
//! Invariants, each with a test in `tests` or in the simulation:
//! 1. A slot that a published route names belongs to a joined socket of a worker that is online.
//! 2. No worker is signalled or killed by us while a published route names one of its slots: the route
//!    is published first, within the same answer.
//! 3. A seat has at most one worker and one successor, and a slot at most one socket, until nothing is left of it.
//! 4. Every ticket is answered once: `Open` then `Join`, `Join` alone, or `Refuse`.
//! 5. A deadline that was handled has moved into the future or disappeared.
//! 6. Every waiting command is answered once.
//! 7. While an app is reloaded, every address it served has a worker in its route that is ready, if it had one before and
//!    that did not fail by itself (with `--overlap off`: the waiting room).
//! 8. Every open group has the rule of its app's definition, or is told so; a switch that one refuses is made nowhere.
//! 9. The data path knows of every worker that serves whether it has fallen silent.
//! 10. What the journal keeps of the core, with what is found of its workers and groups, is enough to go on from.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

pub mod event;
pub mod effect;
mod app;
pub mod announcement;
mod worker;
mod health;
mod heartbeat;
mod backoff;
pub mod why;
mod group;
mod route;
mod command;
mod call;
mod joining;
mod scheduling;
mod seating;
mod rollout;
mod restart;
mod reload;
mod renewal;
mod rolling;
mod canary;
mod progress;
pub mod deployment;
pub mod adopt;
pub mod view;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod tests_reload;
#[cfg(test)]
mod tests_words;
#[cfg(test)]
mod tests_renewal;
#[cfg(test)]
mod tests_settled;
#[cfg(test)]
mod tests_adopt;
#[cfg(test)]
mod tests_scheduling;
#[cfg(test)]
mod tests_overtaken;
#[cfg(test)]
mod tests_canary;
#[cfg(test)]
mod tests_heartbeat;
#[cfg(test)]
mod invariants;
#[cfg(test)]
mod world;

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use self::{
    announcement::What,
    app::{App, SeatState},
    call::Call,
    effect::{Effect, Refusal, Tale},
    event::{CallId, Event, Word},
    group::{Group, Vacancy},
    scheduling::Switching,
    why::Why,
    worker::{Input, Worker},
};
use crate::{
    config::spec::Readiness,
    datapath::OnMiss,
    id::{AppId, GroupId, WorkerId},
    moment::Moment,
};

/// A tick that is so late was kept by a supervisor that stood still; a busy one is not.
const STALL: Duration = Duration::from_millis(500);

/// The core of the supervisor.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct State {
    apps: BTreeMap<AppId, App>,
    workers: BTreeMap<WorkerId, Worker>,
    groups: BTreeMap<GroupId, Group>,
    /// Whoever waits is gone with the supervisor that died.
    #[serde(skip)]
    calls: BTreeMap<CallId, Call>,
    next_app: u32,
    next_worker: u64,
    next_group: u32,
    /// Switches to another rule that are under way. Whoever wants them is gone with the supervisor that died.
    #[serde(skip)]
    switches: Vec<Switching>,
    /// The daemon is ending.
    ending: bool,
    /// When the next tick is due, as is known after each event.
    #[serde(skip)]
    due: Option<Moment>,
    /// What the event in hand asks for, in order.
    #[serde(skip)]
    effects: Vec<Effect>,
}

impl State {
    /// Takes one event and says what to do about it.
    pub fn handle(&mut self, now: Moment, event: Event) -> Vec<Effect> {
        if self.due.is_some_and(|due| now >= due + STALL) {
            self.excuse(now);
        }
        match event {
            Event::Command { call, command } => self.command(now, call, command),
            Event::Spawned { worker, pid } => self.step(now, worker, Input::Spawned(pid)),
            Event::SpawnFailed { worker, reason } => {
                self.step(now, worker, Input::NotSpawned(reason));
            }
            Event::Binding { worker, protocol, address } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.binding = Some((protocol, address));
                }
            }
            Event::Listening { worker, ticket, key } => self.listening(now, worker, ticket, key),
            Event::Unusable { worker, reason } => {
                let why = Why::Unusable(reason);
                self.step(now, worker, Input::Fail { why, fatal: true });
            }
            Event::Opened { group, ticket, unscheduled } => {
                self.opened(now, group, ticket);
                if let Some(why) = unscheduled {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.rule.not_opened_with();
                    }
                    self.unscheduled(group, why);
                }
            }
            Event::OpenFailed { group, reason, fatal } => {
                self.open_failed(now, group, &reason, fatal);
            }
            Event::Scheduled { group, result } => self.scheduled(group, result),
            Event::Joined { group, slot } => self.joined(now, group, slot),
            Event::JoinFailed { group, slot, reason } => self.join_failed(now, group, slot, reason),
            Event::Lost { group, slot } => self.lost(group, slot),
            Event::Said { worker, word } => self.said(now, worker, word),
            Event::Worn { worker, worn } => self.worn(now, worker, worn),
            Event::Hooked { worker } => self.step(now, worker, Input::Hooked),
            Event::Probed { worker, result } => self.step(now, worker, Input::Probed(result)),
            Event::Counted { app, moved } => self.counted(now, app, moved),
            Event::Measured { worker, traffic } => self.step(now, worker, Input::Measured(traffic)),
            Event::Exited { worker, exit } => self.step(now, worker, Input::Exited(exit)),
            Event::Swept { worker } => self.step(now, worker, Input::Swept),
            Event::Tick => self.tick(now),
        }
        self.settle(now);
        self.due = self.next();
        std::mem::take(&mut self.effects)
    }

    /// Nobody was looking, because this process or the whole host stood still: what workers have said meanwhile is not read
    /// yet, and none of them has been silent for that.
    fn excuse(&mut self, now: Moment) {
        for worker in self.workers.values_mut().filter(|worker| worker.is_looked_after()) {
            worker.health.again(now, &worker.spec);
        }
    }

    /// When `Event::Tick` is due.
    pub fn deadline(&self) -> Option<Moment> {
        self.due
    }

    /// What is waited for next, of all that is.
    fn next(&self) -> Option<Moment> {
        let workers = self.workers.values().filter_map(Worker::deadline);
        let seats = self.apps.values().flat_map(|app| app.seats.values()).filter_map(|seat| {
            match seat.state {
                SeatState::Backoff { until } => Some(until),
                SeatState::Empty { .. } | SeatState::Taken(_) | SeatState::Errored => None,
            }
        });
        let groups = self.groups.values().filter_map(|group| match group.vacancy {
            Vacancy::Waiting(until) => Some(until),
            Vacancy::None | Vacancy::Refused => None,
        });
        let rollouts = self.apps.values().filter_map(|app| self.rollout_deadline(app));
        workers.chain(seats).chain(groups).chain(rollouts).min()
    }

    fn tick(&mut self, now: Moment) {
        let due: Vec<_> =
            self.workers.values().filter(|w| w.deadline().is_some_and(|at| at <= now)).collect();
        let due: Vec<_> = due.into_iter().map(|worker| worker.id).collect();
        for worker in due {
            self.step(now, worker, Input::Deadline);
        }
        self.end_backoffs(now);
        for group in self.groups.values_mut() {
            if matches!(group.vacancy, Vacancy::Waiting(until) if until <= now) {
                group.vacancy = Vacancy::Refused;
                self.effects.push(Effect::OnMiss { group: group.id, on_miss: OnMiss::Refuse });
            }
        }
    }

    fn step(&mut self, now: Moment, id: WorkerId, input: Input) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let before = worker.status();
        let step = worker.step(now, input);
        let after = worker.status();
        self.effects.extend(step.effects);
        if before != after {
            self.announce_worker(id, What::Phase(after));
        }
        // Before it is gone, if it is: what comes into its seat depends on that.
        self.set_back(id);
        if step.gone {
            self.gone(now, id);
        }
    }

    /// A worker says something of itself.
    fn said(&mut self, now: Moment, id: WorkerId, word: Word) {
        let Some(worker) = self.workers.get(&id) else { return };
        let wanted = match worker.sign() {
            Readiness::Notified => Some(Word::Ready),
            Readiness::Message => Some(Word::ReadyMessage),
            Readiness::Listening | Readiness::Running | Readiness::Settled => None,
        };
        match word {
            Word::Ready | Word::ReadyMessage if wanted == Some(word) => match self.lacks(worker) {
                None => self.step(now, id, Input::Sign),
                Some((missing, instead)) => {
                    let why = Why::Elsewhere { missing, instead };
                    self.step(now, id, Input::Fail { why, fatal: true });
                }
            },
            Word::Ready | Word::ReadyMessage => {}
            Word::Watchdog => self.step(now, id, Input::Beat),
            Word::Stopping => self.step(now, id, Input::Leaving),
            Word::Extend(time) => self.step(now, id, Input::Extend(time)),
            Word::Trigger => {
                let watchdog = worker.spec.watchdog.unwrap_or_default();
                let why = Why::Silent { watchdog };
                self.step(now, id, Input::Fail { why, fatal: false });
            }
        }
    }

    /// Brings what follows from the workers' phases in line: reloads move on, routes are published, and whoever waits
    /// is told.
    fn settle(&mut self, now: Moment) {
        self.settle_restarts(now);
        self.settle_renewals(now);
        self.settle_rollouts(now);
        self.settle_schedulings();
        self.settle_heartbeats(now);
        let publications = self.settle_groups(now);
        // A route never names a worker that is being told to end: publications come before signals.
        self.effects.splice(0..0, publications);
        self.settle_calls();
    }

    fn refuse(&mut self, call: CallId, refusal: Refusal) {
        self.tell(call, Tale::Refused(refusal));
    }
}
