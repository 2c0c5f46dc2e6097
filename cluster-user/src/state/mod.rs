//! All that is known and decided: events in, effects out, and no I/O, clock, task or lock.
//!
//! Invariants, each with a test in `tests` or in the simulation:
//! 1. A slot that a published route names belongs to a joined socket of a worker that is online.
//! 2. No worker is signalled or killed by us while a published route names one of its slots: the route
//!    is published first, within the same answer.
//! 3. A seat has at most one worker, and a slot at most one socket, until nothing is left of it.
//! 4. Every ticket is answered once: `Open` then `Join`, `Join` alone, or `Refuse`.
//! 5. A deadline that was handled has moved into the future or disappeared.
//! 6. Every waiting command is answered once.
#![forbid(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::disallowed_methods, clippy::disallowed_types))]

mod app;
mod backoff;
mod call;
mod command;
pub mod effect;
pub mod event;
mod group;
mod joining;
mod seating;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
pub mod view;
mod worker;
#[cfg(test)]
mod world;

use std::{collections::BTreeMap, time::Instant};

use self::{
    app::{App, SeatState},
    call::Call,
    effect::{Effect, Refusal, Tale},
    event::{CallId, Event},
    group::{Group, Vacancy},
    worker::{Input, Worker},
};
use crate::{
    datapath::OnMiss,
    id::{AppId, GroupId, WorkerId},
};

/// The core of the supervisor.
#[derive(Debug, Default)]
pub struct State {
    apps: BTreeMap<AppId, App>,
    workers: BTreeMap<WorkerId, Worker>,
    groups: BTreeMap<GroupId, Group>,
    calls: BTreeMap<CallId, Call>,
    next_app: u32,
    next_worker: u64,
    next_group: u32,
    /// The daemon is ending.
    ending: bool,
    /// What the event in hand asks for, in order.
    effects: Vec<Effect>,
}

impl State {
    /// Takes one event and says what to do about it.
    pub fn handle(&mut self, now: Instant, event: Event) -> Vec<Effect> {
        match event {
            Event::Command { call, command } => self.command(now, call, command),
            Event::Spawned { worker, pid } => self.step(now, worker, Input::Spawned(pid)),
            Event::SpawnFailed { worker, reason } => {
                self.step(now, worker, Input::SpawnFailed(reason));
            }
            Event::Binding { worker, protocol, address } => {
                if let Some(worker) = self.workers.get_mut(&worker) {
                    worker.binding = Some((protocol, address));
                }
            }
            Event::Listening { worker, ticket, key } => self.listening(now, worker, ticket, key),
            Event::Unusable { worker, reason } => {
                self.step(now, worker, Input::Fail { reason, fatal: true });
            }
            Event::Opened { group, ticket } => self.opened(now, group, ticket),
            Event::OpenFailed { group, reason, fatal } => {
                self.open_failed(now, group, &reason, fatal);
            }
            Event::Joined { group, slot } => self.joined(now, group, slot),
            Event::JoinFailed { group, slot, reason } => self.join_failed(now, group, slot, reason),
            Event::Lost { group, slot } => self.lost(group, slot),
            Event::Measured { worker, traffic } => self.step(now, worker, Input::Measured(traffic)),
            Event::Exited { worker, exit } => self.step(now, worker, Input::Exited(exit)),
            Event::Swept { worker } => self.step(now, worker, Input::Swept),
            Event::Tick => self.tick(now),
        }
        self.settle(now);
        std::mem::take(&mut self.effects)
    }

    /// When `Event::Tick` is due.
    pub fn deadline(&self) -> Option<Instant> {
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
        workers.chain(seats).chain(groups).min()
    }

    fn tick(&mut self, now: Instant) {
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

    fn step(&mut self, now: Instant, id: WorkerId, input: Input) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let step = worker.step(now, input);
        self.effects.extend(step.effect);
        if step.gone {
            self.gone(now, id);
        }
    }

    /// Brings what follows from the workers' phases in line: routes first, then whoever waits for them.
    fn settle(&mut self, now: Instant) {
        let publications = self.settle_groups(now);
        // A route never names a worker that is being told to end: publications come before signals.
        self.effects.splice(0..0, publications);
        self.settle_calls();
    }

    fn refuse(&mut self, call: CallId, refusal: Refusal) {
        self.tell(call, Tale::Refused(refusal));
    }
}
