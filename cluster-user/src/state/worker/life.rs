//! Every phase of a worker's life against everything that can happen in it.

use super::{Ending, Input, Leave, Phase, Step, Worker};
use crate::{
    config::spec::Readiness,
    moment::Moment,
    state::{effect::Effect, why::Why},
};

impl Worker {
    /// One step of its life.
    pub(in crate::state) fn step(&mut self, now: Moment, input: Input) -> Step {
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
                | Input::Leaving
                | Input::Extend(_)
                | Input::Measured(_)
                | Input::Hooked
                | Input::Swept
                | Input::Deadline => Step::default(),
            },
            Phase::Starting { deadline } => match input {
                Input::Beat => self.health.beat(now),
                Input::Sign => self.signed(now, deadline),
                Input::Deadline if now < deadline => Step::default(),
                Input::Deadline => match self.sign() {
                    Readiness::Running | Readiness::Settled => self.signed(now, deadline),
                    Readiness::Listening | Readiness::Notified | Readiness::Message => {
                        let why = self.not_ready();
                        self.fail(now, why, true)
                    }
                },
                Input::Extend(time) => {
                    self.phase = Phase::Starting { deadline: deadline.max(now + time) };
                    Step::default()
                }
                Input::Retire(_) => self.retire_unready(now),
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Probed(_)
                | Input::Promote
                | Input::Resume
                | Input::Leaving
                | Input::Measured(_)
                | Input::Hooked
                | Input::Swept => Step::default(),
            },
            Phase::Probing { deadline, next, passed, last } => match input {
                Input::Beat => self.health.beat(now),
                Input::Probed(result) => self.probed(now, deadline, passed, result),
                Input::Deadline if now >= deadline => {
                    let within = self.spec.listen_timeout;
                    self.fail(now, Why::ProbeFailed { last, within }, true)
                }
                Input::Deadline if next.is_some_and(|next| next <= now) => {
                    self.ask(deadline, passed, last)
                }
                Input::Extend(time) => {
                    let deadline = deadline.max(now + time);
                    self.phase = Phase::Probing { deadline, next, passed, last };
                    Step::default()
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
                | Input::Leaving
                | Input::Measured(_)
                | Input::Hooked
                | Input::Swept => Step::default(),
            },
            Phase::Ready { .. } => match input {
                Input::Promote => self.go_online(now),
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
                Input::Leaving => self.leave(now),
                Input::Fail { why, fatal } => self.fail(now, why, fatal),
                Input::Exited(exit) => self.sweep(now, exit),
                Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Resume
                | Input::Extend(_)
                | Input::Measured(_)
                | Input::Hooked
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
                Input::Leaving => self.leave(now),
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
                | Input::Extend(_)
                | Input::Hooked
                | Input::Swept => Step::default(),
            },
            Phase::Draining { until, look, pause, leave } => match input {
                Input::Beat => self.health.beat(now),
                Input::Measured(traffic) => {
                    self.traffic = traffic;
                    match traffic {
                        Some(traffic) if leave.content(traffic) => self.ask_to_end(now),
                        Some(_) | None => Step::default(),
                    }
                }
                Input::Deadline if now >= until && leave == Leave::WhenClosed => self.part(now),
                Input::Deadline if now >= until => self.ask_to_end(now),
                Input::Deadline if now >= look => self.look_again(now, until, pause, leave),
                Input::Resume if self.resumable() => {
                    self.ending = None;
                    self.health.again(now, &self.spec);
                    let mut step = self.go_online(now);
                    step.effects.push(Effect::Resume { worker: self.id });
                    step
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
                | Input::Leaving
                | Input::Extend(_)
                | Input::Hooked
                | Input::Swept => Step::default(),
            },
            Phase::Hooking { until } => match input {
                Input::Hooked => self.signal(now),
                Input::Deadline if now >= until => self.signal(now),
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
                | Input::Leaving
                | Input::Extend(_)
                | Input::Measured(_)
                | Input::Swept => Step::default(),
            },
            Phase::Stopping { kill_at } => match input {
                Input::Deadline if now >= kill_at => self.kill(now),
                Input::Extend(time) => {
                    self.phase = Phase::Stopping { kill_at: kill_at.max(now + time) };
                    Step::default()
                }
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
                | Input::Leaving
                | Input::Measured(_)
                | Input::Hooked
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
                | Input::Leaving
                | Input::Extend(_)
                | Input::Measured(_)
                | Input::Hooked
                | Input::Swept => Step::default(),
            },
            Phase::Sweeping => match input {
                Input::Swept => Step { effects: Vec::new(), gone: true },
                Input::Deadline
                | Input::Exited(_)
                | Input::Hooked
                | Input::Fail { .. }
                | Input::Retire(_)
                | Input::Resume
                | Input::Spawned(_)
                | Input::NotSpawned(_)
                | Input::Sign
                | Input::Probed(_)
                | Input::Promote
                | Input::Beat
                | Input::Leaving
                | Input::Extend(_)
                | Input::Measured(_) => Step::default(),
            },
        }
    }
}
