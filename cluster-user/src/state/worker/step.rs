//! The steps of a worker's life: what each does to its phase, and asks for.

use std::{sync::Arc, time::Duration};

use super::{Ending, Leave, Phase, Step, Worker};
use crate::{
    config::spec::{Readiness, SETTLED, hooks::Hook},
    moment::Moment,
    state::{effect::Effect, event::Exit, health::Verdict, why::Why},
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
/// How long after its time a hook is waited for.
const HOOK_SLACK: Duration = Duration::from_secs(1);
/// A worker that fails its liveness probe may finish for so long what it has.
const FAILING: Duration = Duration::from_secs(5);

impl Worker {
    /// The reason why it ends, if none was given before.
    pub(super) fn end(&mut self, ending: Ending) {
        self.ending.get_or_insert(ending);
    }

    pub(super) fn spawned(&mut self, now: Moment, pid: u32) -> Step {
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
    pub(super) fn signed(&mut self, now: Moment, deadline: Moment) -> Step {
        if self.spec.probe.is_some() {
            // From here on it is the probe's word that counts.
            let deadline = deadline.max(now + self.spec.restart.min_uptime);
            return self.ask(deadline, 0, String::new());
        }
        self.ready(now)
    }

    pub(super) fn ask(&mut self, deadline: Moment, passed: u32, last: String) -> Step {
        self.phase = Phase::Probing { deadline, next: None, passed, last };
        match &self.spec.probe {
            Some(probe) => {
                Step::of(Effect::Probe { worker: self.id, probe: Box::new(probe.clone()) })
            }
            None => Step::default(),
        }
    }

    pub(super) fn probed(
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

    pub(super) fn ready(&mut self, now: Moment) -> Step {
        self.health.begin(now, &self.spec);
        if self.standby {
            self.phase = Phase::Ready { since: now };
            Step::default()
        } else {
            self.go_online(now)
        }
    }

    pub(super) fn go_online(&mut self, now: Moment) -> Step {
        let first = !self.served;
        (self.served, self.standby) = (true, false);
        self.phase = Phase::Online { since: now };
        let hook = self.hook(Hook::PostReady, None).filter(|_| first);
        Step { effects: hook.into_iter().collect(), gone: false }
    }

    pub(super) fn judged(&mut self, now: Moment, verdict: Verdict) -> Step {
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
    pub(in crate::state) fn patience(&self) -> Duration {
        match self.sign() {
            Readiness::Listening | Readiness::Notified | Readiness::Message => {
                self.spec.listen_timeout
            }
            Readiness::Running => self.spec.restart.min_uptime,
            Readiness::Settled => SETTLED.max(self.spec.restart.min_uptime),
        }
    }

    pub(super) fn not_ready(&self) -> Why {
        let within = self.spec.listen_timeout;
        if let Some((missing, instead)) = &self.lacking {
            return Why::Elsewhere { missing: *missing, instead: instead.clone() };
        }
        match self.sign() {
            Readiness::Listening | Readiness::Running | Readiness::Settled => {
                Why::NotListening { within }
            }
            Readiness::Notified => Why::NotReady { sign: "say READY=1".to_owned(), within },
            Readiness::Message => {
                Why::NotReady { sign: "call process.send('ready')".to_owned(), within }
            }
        }
    }

    pub(super) fn fail(&mut self, now: Moment, why: Why, fatal: bool) -> Step {
        self.end(Ending::Failed { why, fatal });
        self.kill(now)
    }

    pub(super) fn retire_unready(&mut self, now: Moment) -> Step {
        self.end(Ending::Asked);
        self.ask_to_end(now)
    }

    pub(super) fn drain(&mut self, now: Moment, until: Moment, leave: Leave) -> Step {
        let pause = LOOK.0;
        self.phase = Phase::Draining { until, look: now + pause, pause, leave };
        Step::of(self.look(leave))
    }

    /// It says that it ends by itself: it gets nothing more, finishes what it has in its own way, and needs no signal.
    pub(super) fn leave(&mut self, now: Moment) -> Step {
        let time = self.spec.stop.drain_timeout + self.spec.stop.kill_timeout;
        self.phase = Phase::Stopping { kill_at: now + time };
        Step::default()
    }

    /// The drain time is over: what is silent is closed.
    pub(super) fn part(&mut self, now: Moment) -> Step {
        self.drain(now, now + PARTING, Leave::Parting)
    }

    /// Another look at a draining worker; the pauses between them grow.
    pub(super) fn look_again(
        &mut self,
        now: Moment,
        until: Moment,
        pause: Duration,
        leave: Leave,
    ) -> Step {
        let pause = (pause * 2).min(LOOK.1);
        self.phase = Phase::Draining { until, look: now + pause, pause, leave };
        Step::of(self.look(leave))
    }

    /// A look at a draining worker.
    pub(in crate::state) fn look(&self, leave: Leave) -> Effect {
        let idle = match leave {
            // Its end will close them, or they have time.
            Leave::WhenIdle | Leave::Soon | Leave::WhenClosed => None,
            Leave::Parting => Some(SILENT.min(self.spec.stop.drain_timeout)),
        };
        Effect::Drain { worker: self.id, idle }
    }

    /// Asks it to end, after its hook. One that never served has nothing to be prepared for.
    pub(in crate::state) fn ask_to_end(&mut self, now: Moment) -> Step {
        match self.hook(Hook::PreStop, None).filter(|_| self.served) {
            Some(hook) => {
                // Whoever runs it ends it in time; that is not relied upon.
                self.phase = Phase::Hooking { until: now + self.spec.hooks.timeout + HOOK_SLACK };
                Step::of(hook)
            }
            None => self.signal(now),
        }
    }

    /// A hook of its app, if there is one for that turn of its life.
    pub(in crate::state) fn hook(&self, hook: Hook, why: Option<Why>) -> Option<Effect> {
        self.spec.hooks.line(hook)?;
        let (about, app, spec) = (self.about(), self.app, Arc::clone(&self.spec));
        Some(Effect::Hook { about, app, spec, hook, why })
    }

    pub(in crate::state) fn signal(&mut self, now: Moment) -> Step {
        self.phase = Phase::Stopping { kill_at: now + self.spec.stop.kill_timeout };
        let (worker, signal) = (self.id, self.spec.stop.signal);
        Step::of(if self.spec.stop.with_message {
            Effect::Message { worker, text: "shutdown".to_owned() }
        } else {
            Effect::Signal { worker, signal }
        })
    }

    pub(in crate::state) fn kill(&mut self, now: Moment) -> Step {
        self.phase = Phase::Killing { again: now + KILL_AGAIN };
        Step::of(Effect::Kill { worker: self.id })
    }

    pub(super) fn sweep(&mut self, now: Moment, exit: Exit) -> Step {
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
