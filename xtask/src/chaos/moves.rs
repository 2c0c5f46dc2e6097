//! Moves: how each is made, and what has to come of it.

use std::{
    collections::BTreeSet,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

use super::{
    app::App,
    manager::{Listed, Manager, eventually},
    schedule::{Fault, Move, Planned},
    timeline::{Entry, Timeline},
    victim::{self, Victim},
};

/// Longest time until a daemon that was killed is there again; it should take a fifth of a second.
const ADOPTION: Duration = Duration::from_secs(10);

/// Who makes the moves.
pub(super) struct Mover<'a> {
    pub(super) manager: Manager<'a>,
    pub(super) apps: &'a [App],
    pub(super) timeline: &'a Timeline,
    /// One for each app: held while its file is broken, and while one of its workers is killed. What takes
    /// that one's place would be the broken one.
    pub(super) files: Vec<Mutex<()>>,
    pub(super) victims: Mutex<Vec<Victim>>,
    /// Told of each move that was made.
    pub(super) tell: &'a (dyn Fn(&Entry) + Sync),
}

impl Mover<'_> {
    /// Makes these moves, each when it is due and those before it have been made, for that long.
    pub(super) fn make_all(&self, planned: &[Planned], time: Duration) {
        for Planned { due, step } in planned {
            thread::sleep((self.timeline.began + *due).saturating_duration_since(Instant::now()));
            if self.timeline.began.elapsed() >= time {
                break;
            }
            let app = step.app().map(|app| self.apps[app].name);
            let number = self.timeline.begin(step, app);
            let outcome = self.make(step).map_err(|error| format!("{error:#}"));
            (self.tell)(&self.timeline.end(number, outcome));
        }
    }

    fn make(&self, step: &Move) -> anyhow::Result<String> {
        match step {
            Move::Reload { app, options } => self.reload(&self.apps[*app], options),
            Move::Canary { app, share, wait, promotes } => {
                self.canary(&self.apps[*app], share, *wait, *promotes)
            }
            Move::Deploy { app, fault } => {
                let _held = lock(&self.files[*app]);
                self.deploy(&self.apps[*app], *fault)
            }
            Move::Scale { app, to } => self.scale(&self.apps[*app], *to),
            Move::Restart { app } => self.replace(&self.apps[*app], &["restart"]),
            Move::Upgrade => self.upgrade(),
            Move::Kill { app, worker } => {
                let _held = lock(&self.files[*app]);
                self.kill(&self.apps[*app], *worker)
            }
            Move::Freeze { app, worker, time } => self.freeze(&self.apps[*app], *worker, *time),
            Move::Daemon { pause } => self.daemon(*pause),
        }
    }

    fn reload(&self, app: &App, options: &[&str]) -> anyhow::Result<String> {
        self.replace(app, &[&["reload"], options].concat())
    }

    /// A command after which all workers are others.
    fn replace(&self, app: &App, command: &[&str]) -> anyhow::Result<String> {
        let (began, before) = (Instant::now(), self.manager.settle(app.name)?.pids());
        let called = self.manager.call(&[&command[..1], &[app.name], &command[1..]].concat())?;
        let after = self.manager.settle(app.name)?;
        if self.was_disturbed(began, app) {
            return called.disturbed();
        }
        let took = called.ok()?.took;
        let left: Vec<_> = before.intersection(&after.pids()).copied().collect();
        anyhow::ensure!(left.is_empty(), "{left:?} are still there");
        Ok(format!("{} workers replaced in {} ms", after.online, took.as_millis()))
    }

    fn canary(
        &self,
        app: &App,
        share: &str,
        wait: Duration,
        promotes: bool,
    ) -> anyhow::Result<String> {
        let (began, before) = (Instant::now(), self.manager.settle(app.name)?.pids());
        let first = self.manager.call(&["reload", app.name, "--canary", share])?;
        thread::sleep(wait);
        let verb = if promotes { "promote" } else { "rollback" };
        let second = self.manager.call(&[verb, app.name])?;
        if self.was_disturbed(began, app) {
            if second.code != Some(0) {
                // A canary that is still there would be in the way of what comes next; mostly there is none.
                self.manager.call(&["rollback", app.name])?;
            }
            self.manager.settle(app.name)?;
            return Ok(format!("{}, {}", first.disturbed()?, second.disturbed()?));
        }
        first.ok()?;
        second.ok()?;
        let after = self.manager.settle(app.name)?.pids();
        let left = before.intersection(&after).count();
        let expected = if promotes { 0 } else { before.len() };
        anyhow::ensure!(left == expected, "{left} old workers are there instead of {expected}");
        Ok(format!("{left} of {} old workers are there", before.len()))
    }

    fn deploy(&self, app: &App, fault: Fault) -> anyhow::Result<String> {
        let (began, before) = (Instant::now(), self.manager.settle(app.name)?);
        app.break_like(fault)?;
        let mut command = vec!["reload", app.name];
        if fault == Fault::Leaves {
            command.extend(["--soak", "500ms"]);
        }
        let called = self.manager.call(&command);
        // A reload that the command saw no end of goes on without it.
        let settled = self.manager.settle(app.name);
        app.mend()?;
        let (called, after) = (called?, settled?);
        if self.was_disturbed(began, app) {
            return called.disturbed();
        }
        anyhow::ensure!(called.code == Some(1), "{} instead of with 1", called.told());
        let (before, after) = (before.pids(), after.pids());
        let stayed = before.intersection(&after).count();
        Ok(format!(
            "rolled back in {} ms, {stayed} of {} old workers stayed",
            called.took.as_millis(),
            before.len()
        ))
    }

    fn scale(&self, app: &App, to: u32) -> anyhow::Result<String> {
        let began = Instant::now();
        let called = self.manager.call(&["scale", app.name, &to.to_string()])?;
        let settled = self.manager.settle(app.name)?;
        if self.was_disturbed(began, app) {
            return Ok(format!("{}, {} online", called.disturbed()?, settled.online));
        }
        let took = called.ok()?.took;
        anyhow::ensure!(settled.online == to, "{} online", settled.online);
        Ok(format!("done in {} ms", took.as_millis()))
    }

    fn upgrade(&self) -> anyhow::Result<String> {
        let (began, workers) = (Instant::now(), self.pids()?);
        let called = self.manager.call(&["upgrade"])?;
        let now = self.pids()?;
        if self.timeline.met(began, |entry| is_fate(&entry.step)) {
            return called.disturbed();
        }
        let took = called.ok()?.took;
        let daemon = self.manager.ping()?;
        let is_new = u128::from(daemon.uptime_ms) <= began.elapsed().as_millis();
        anyhow::ensure!(is_new, "process {} is the daemon as before", daemon.pid);
        let lost: Vec<_> = workers.difference(&now).copied().collect();
        anyhow::ensure!(lost.is_empty(), "workers {lost:?} are not there any more");
        Ok(format!("handed over to process {} in {} ms", daemon.pid, took.as_millis()))
    }

    fn kill(&self, app: &App, worker: usize) -> anyhow::Result<String> {
        let Some(pid) = self.pick(app, worker)? else {
            return Ok("there is none".to_owned());
        };
        match Victim::kill(app.name, app.port, pid)? {
            Some(victim) => {
                let told = format!("{pid}, which had {} connections", victim.ports.len());
                lock(&self.victims).push(victim);
                Ok(told)
            }
            None => Ok(format!("{pid} had ended by itself")),
        }
    }

    fn freeze(&self, app: &App, worker: usize, time: Duration) -> anyhow::Result<String> {
        let Some(pid) = self.pick(app, worker)? else {
            return Ok("there is none".to_owned());
        };
        let frozen = victim::freeze(pid);
        thread::sleep(time);
        victim::thaw(pid)?;
        Ok(if frozen? { pid.to_string() } else { format!("{pid} had ended by itself") })
    }

    fn daemon(&self, pause: Duration) -> anyhow::Result<String> {
        let (began, before) = (Instant::now(), self.pids()?);
        let daemon = eventually(ADOPTION, || self.manager.ping())?.pid;
        kill(Pid::from_raw(daemon.cast_signed()), Signal::SIGKILL)?;
        thread::sleep(pause);
        let asked = Instant::now();
        // What an operator replaces at the same time is not there afterwards.
        let is_disturbed = || self.timeline.met(began, |entry| !is_fate(&entry.step));
        eventually(ADOPTION, || {
            let apps = self.manager.list()?;
            let now: BTreeSet<u32> = apps.iter().flat_map(Listed::pids).collect();
            let lost: Vec<_> = before.difference(&now).copied().collect();
            let is_adopted = lost.is_empty() || (apps.len() == self.apps.len() && is_disturbed());
            anyhow::ensure!(is_adopted, "workers {lost:?} were not adopted");
            Ok(())
        })?;
        let (took, pause, count) = (asked.elapsed().as_millis(), pause.as_millis(), before.len());
        let note = if is_disturbed() { " (disturbed)" } else { "" };
        Ok(format!("{daemon}, after {pause} ms {count} workers adopted in {took} ms{note}"))
    }

    /// Workers of all apps, as soon as there is a daemon to ask.
    fn pids(&self) -> anyhow::Result<BTreeSet<u32>> {
        let apps = eventually(ADOPTION, || self.manager.list())?;
        Ok(apps.iter().flat_map(Listed::pids).collect())
    }

    /// The worker of an app on which the number falls.
    fn pick(&self, app: &App, number: usize) -> anyhow::Result<Option<u32>> {
        let listed = eventually(ADOPTION, || self.manager.app(app.name))?;
        let pids: Vec<u32> = listed.pids().into_iter().collect();
        Ok(pids.get(number % pids.len().max(1)).copied())
    }

    /// Whether fate had a hand in what became of an app since then.
    fn was_disturbed(&self, since: Instant, app: &App) -> bool {
        self.timeline.met(since, |entry| {
            is_fate(&entry.step) && entry.app.is_none_or(|name| name == app.name)
        })
    }
}

fn is_fate(step: &Move) -> bool {
    match step {
        Move::Kill { .. } | Move::Freeze { .. } | Move::Daemon { .. } => true,
        Move::Reload { .. }
        | Move::Canary { .. }
        | Move::Deploy { .. }
        | Move::Scale { .. }
        | Move::Restart { .. }
        | Move::Upgrade => false,
    }
}

/// A mover that panicked has left nothing half done that others see.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
