//! The loop: wait for what happens next, decide, carry out.

use std::{
    future::{pending, poll_fn, ready},
    iter::{from_fn, once},
    path::PathBuf,
    pin::Pin,
};

use anyhow::Context as _;
use nix::sys::signal::SigSet;
use tokio::{
    runtime::Builder,
    select,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::{Duration, Interval, MissedTickBehavior, interval, sleep_until},
};

use super::{
    host::{Host, News},
    journal::{self, Entry, Journal},
    manager::{self, Manager},
    memory,
    options::DaemonOptions,
    source,
    succession::Inheritance,
};
use crate::{
    api::{
        board::Note,
        exporter::Exporter,
        message::{Failure, Line, Reason, What},
        server::{self, Call},
        socket::{self, Lock},
    },
    config::{home::Home, metrics},
    moment::Moment,
    process::{limits, watch},
    state::{
        State,
        effect::Effect,
        event::{CallId, Command, Event, Word},
    },
};

/// Requests that wait while the loop is busy.
const CALLS: usize = 64;
/// News that are heard at once: others have their turn after so many.
const NEWS: usize = 64;
/// How often it is looked for sockets that live workers have closed.
const LOOK: Duration = Duration::from_secs(1);

/// Runs the daemon until it is told to end.
///
/// # Errors
/// [`LockError::Held`](socket::LockError) when another daemon has this home, and whatever keeps it from
/// beginning.
pub fn run(options: DaemonOptions) -> anyhow::Result<()> {
    memory::give_back_large_blocks();
    // Whoever starts it may have blocked what it is to hear: the end of orphans, and that it shall end itself.
    SigSet::empty().thread_set_mask().context("failed to hear signals")?;
    let runtime =
        Builder::new_current_thread().enable_all().build().context("failed to start a runtime")?;
    runtime.block_on(supervise(options))
}

async fn supervise(mut options: DaemonOptions) -> anyhow::Result<()> {
    let home = Home::at(&options.home)?;
    let Inheritance { lock, rooms } = std::mem::take(&mut options.inheritance);
    let lock = lock.map_or_else(|| Lock::acquire(&home), Lock::inherit)?;
    // Each worker costs a handful of descriptors here.
    limits::raise_descriptors().context("failed to raise the limit of open descriptors")?;
    watch::become_subreaper().context("failed to become a subreaper")?;
    let (mut host, news) = Host::new(home.clone(), &options)?;
    // Where there is one to go on from, it knows better than what was saved before.
    let resurrects = options.resurrect && !journal::is_left(&home);
    let journal = Journal::at(home.journal());
    let (state, effects, found) = host.adopt(&journal)?;
    host.untold.clone_from(&found);
    host.found = found;
    // There are others in their place by now, to which what waits in them moves.
    drop(rooms);
    let listener = socket::bind(&home, &lock).context("failed to listen on the daemon's socket")?;
    let (calls, requests) = mpsc::channel(CALLS);
    let (stop, stopped) = oneshot::channel::<()>();
    let board = host.board.clone();
    board.post(
        Note::new(What::DaemonStarted).detail(concat!("release ", env!("CARGO_PKG_VERSION"))),
    );
    let exporter = Exporter::new(home.metrics(), calls.clone());
    let variable = std::env::var(metrics::VARIABLE).ok();
    exporter.resume(variable.as_deref());
    let server =
        tokio::spawn(server::serve(listener, calls, board.clone(), exporter.clone(), async {
            // A sender that is dropped says the same.
            drop(stopped.await);
        }));
    let signals = Signals::new().context("failed to wait for signals")?;
    // Whoever started it may have gone.
    drop(options.announce());
    let mut supervisor = Supervisor {
        state,
        host,
        journal,
        next_call: 0,
        mode_told: false,
        begun: false,
        end: None,
    };
    supervisor.learn_groups();
    supervisor.carry_out(effects);
    let begun: Pin<Box<dyn Future<Output = ()>>> = if resurrects {
        Box::pin(manager::resurrect_saved(home.clone()))
    } else {
        Box::pin(ready(()))
    };
    supervisor.work(news, requests, signals, begun).await;
    // The server waits for their answers below.
    supervisor.host.verifying.end();
    if !matches!(supervisor.end, Some(End::Orderly) | None) {
        supervisor.leave_callers();
    }
    let how = match &supervisor.end {
        Some(End::Upgrade(program)) => format!("{} takes its place", program.display()),
        Some(End::HandOver) => "another takes its place".to_owned(),
        Some(End::Orderly) | None => "every app is stopped".to_owned(),
    };
    board.post(Note::new(What::DaemonEnding).detail(how));
    board.close();
    exporter.close();
    match supervisor.end.take() {
        Some(End::Upgrade(program)) => {
            drop(stop);
            drop(server.await);
            return Err(supervisor.become_program(&program, options.mode, &lock));
        }
        Some(End::HandOver) => {
            socket::unbind(&home, &lock);
            drop(stop);
            drop(server.await);
            return Ok(());
        }
        Some(End::Orderly) | None => {}
    }
    socket::unbind(&home, &lock);
    // Nothing is left that could be taken over.
    if let Err(error) = supervisor.journal.remove() {
        log::error!("failed to remove the journal: {error}");
    }
    drop(stop);
    drop(server.await);
    let Host { datapath, hierarchy, .. } = supervisor.host;
    drop(datapath);
    if let Some(hierarchy) = hierarchy
        && let Err(error) = hierarchy.remove()
    {
        // All the same it has ended as it was told to, and must not be started again.
        log::error!("failed to remove the daemon's cgroup: {error}");
    }
    Ok(())
}

/// State and hands.
pub(super) struct Supervisor {
    pub(super) state: State,
    pub(super) host: Host,
    pub(super) journal: Journal,
    pub(super) next_call: u64,
    /// Whether a user has heard how connections are carried.
    pub(super) mode_told: bool,
    /// Whether the apps that were saved are started.
    pub(super) begun: bool,
    /// Why the loop is left.
    pub(super) end: Option<End>,
}

/// Why a supervisor ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// Nothing is left to be done.
    Orderly,
    /// It becomes another program, which goes on with everything.
    Upgrade(PathBuf),
    /// It leaves everything to whoever comes next.
    HandOver,
}

struct Signals {
    /// Ends the daemon, as PM2's does.
    end: [Signal; 3],
    /// Opens log files anew.
    reopen: Signal,
    child: Signal,
    /// Ignored: a terminal that closes is no reason to end.
    hangup: Signal,
}

impl Supervisor {
    async fn work(
        &mut self,
        mut news: mpsc::UnboundedReceiver<News>,
        mut requests: mpsc::Receiver<Call>,
        mut signals: Signals,
        mut begun: Pin<Box<dyn Future<Output = ()>>>,
    ) {
        let mut has_begun = false;
        let managed = self.host.manager.is_there();
        let mut pulse = self.host.manager.pulse();
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // When it will have been quiet long enough, once after each disturbance.
        let mut quiet = Some(Moment::now() + memory::QUIET);
        while !self.is_over() {
            self.tend();
            // 1. Wait. Workers come before users: what an answer shows is then as new as it can be.
            let deadline = self.state.deadline();
            let has_groups = self.state.open_groups().next().is_some();
            let [terminate, interrupt, quit] = &mut signals.end;
            let events: Vec<Event> = select! {
                biased;
                Some(first) = news.recv() => {
                    // Hundreds of workers end together, and are written down together.
                    let more = from_fn(|| news.try_recv().ok()).take(NEWS - 1);
                    once(first).chain(more).map(|news| self.news(news)).collect()
                }
                Some(news) = self.host.health.news.recv() => {
                    // A sign of life is no disturbance: the loop stays quiet.
                    let events = self.heard(news);
                    self.handle_all(events);
                    Vec::new()
                }
                Some(done) = self.host.hooks.done.recv() => Vec::from_iter(self.hooked(done)),
                Some(news) = self.host.upkeep.news.recv() => { self.kept_up(news); Vec::new() }
                Some(verified) = self.host.verifying.done.recv() => { self.verified(verified); Vec::new() }
                reports = poll_fn(|context| source::poll_reports(&mut *self.host.datapath, context)) => reports,
                () = sleep_until(deadline.unwrap_or_else(Moment::now).instant().into()), if deadline.is_some() => vec![Event::Tick],
                Some(call) = requests.recv() => Vec::from_iter(self.call(call)),
                _ = terminate.recv() => vec![self.ask_to_end()],
                _ = interrupt.recv() => vec![self.ask_to_end()],
                _ = quit.recv() => vec![self.ask_to_end()],
                _ = signals.reopen.recv() => { self.host.output.reopen(); Vec::new() }
                _ = signals.hangup.recv() => Vec::new(),
                _ = signals.child.recv() => { self.reap_strays(); Vec::new() }
                _ = look.tick(), if has_groups || managed => {
                    self.look_for_lost();
                    self.announce_status();
                    Vec::new()
                }
                () = &mut begun, if !has_begun => {
                    has_begun = true;
                    self.begun = true;
                    self.announce_begin();
                    Vec::new()
                }
                () = next(&mut pulse) => { Manager::beat(); Vec::new() }
                () = sleep_until(quiet.unwrap_or_else(Moment::now).instant().into()), if quiet.is_some() => {
                    quiet = None;
                    memory::give_back_what_is_free();
                    Vec::new()
                }
            };
            // 2. Decide. 3. Carry out.
            if !events.is_empty() {
                quiet = Some(Moment::now() + memory::QUIET);
                self.handle_all(events);
            }
        }
    }

    /// Whether the loop is left: at an orderly end only when the last hook has ended.
    fn is_over(&self) -> bool {
        match self.end {
            None => false,
            Some(End::Orderly) => self.host.hooks.are_idle(),
            Some(End::Upgrade(_) | End::HandOver) => true,
        }
    }

    /// Lets the core decide and carries out what it asks for, and what follows from that.
    pub(super) fn handle(&mut self, event: Event) {
        self.handle_all(vec![event]);
    }

    /// The same with events that came together, in their order.
    fn handle_all(&mut self, events: Vec<Event>) {
        let mut all = Vec::new();
        let mut is_to_be_written = false;
        for event in events {
            if matches!(event, Event::Command { command: Command::Kill, .. }) {
                self.announce_end();
            }
            let is_beat = matches!(event, Event::Said { word: Word::Watchdog, .. });
            let effects = self.state.handle(Moment::now(), event);
            // Many workers say very often that they live, and a supervisor that takes over begins to wait for it anew.
            is_to_be_written |= !is_beat || !effects.is_empty();
            all.extend(effects);
        }
        if is_to_be_written {
            self.carry_out(all);
        }
    }

    /// Carries out what the core asks for, and what follows from that.
    ///
    /// The core decides upon everything that came of the effects before the effects of that are carried out. It decides as
    /// it would one by one, since it hears and asks for the same in the same order; but it is written down once.
    fn carry_out(&mut self, mut effects: Vec<Effect>) {
        loop {
            self.write_down();
            let mut events = Vec::new();
            for effect in effects {
                events.extend(self.perform(effect));
            }
            if events.is_empty() {
                break;
            }
            effects = Vec::new();
            for event in events {
                effects.extend(self.state.handle(Moment::now(), event));
            }
        }
        self.close_unused();
    }

    /// Writes down what was decided before it is done: should this process be killed in the middle of it, the next one
    /// finds out how far it was.
    pub(super) fn write_down(&mut self) {
        let (groups, trees) = self.host.records(self.state.open_groups());
        let ledger = self.host.ledger.clone();
        let entry = Entry::new(self.host.datapath.mode(), &self.state, groups, trees, ledger);
        match self.journal.write(&entry) {
            Ok(()) => self.host.journal_fails = None,
            Err(error) => {
                let error = error.to_string();
                if self.host.journal_fails.is_none() {
                    let path = self.journal.path().display();
                    log::error!("failed to write {path}: {error}");
                    // Those whose wishes are carried out now.
                    for reply in self.host.callers.values() {
                        drop(reply.send(Line::Notice(self.unwritten(&error))));
                    }
                }
                // Whoever wants something is told, until it works again.
                self.host.journal_fails = Some(error);
            }
        }
    }

    /// Tells everybody who waits for an answer that they need not: whoever comes next has no way to them.
    fn leave_callers(&mut self) {
        for reply in std::mem::take(&mut self.host.callers).into_values() {
            let message =
                "the daemon became another one meanwhile, which goes on with what was asked for";
            let failure = Failure::new(Reason::Unavailable, message).hint(
                "cluster list shows how far it is, cluster history NAME what came of a reload",
            );
            // They may have gone.
            drop(reply.send(Line::Failed(failure)));
        }
    }

    fn ask_to_end(&mut self) -> Event {
        Event::Command { call: self.next_call(), command: Command::Kill }
    }

    pub(super) fn next_call(&mut self) -> CallId {
        self.next_call += 1;
        CallId(self.next_call)
    }

    fn look_for_lost(&mut self) {
        let groups: Vec<_> = self.state.open_groups().collect();
        for group in groups {
            let lost = self.host.datapath.lost(group);
            self.handle_all(lost.into_iter().map(|slot| Event::Lost { group, slot }).collect());
        }
    }

    fn reap_strays(&self) {
        let host = &self.host;
        watch::reap_strays(|pid| {
            host.workers.values().any(|worker| worker.tree.pid() == pid)
                || host.health.errands.have(pid)
        });
    }
}

/// The next tick; none without a clock.
async fn next(clock: &mut Option<Interval>) {
    match clock {
        Some(clock) => drop(clock.tick().await),
        None => pending().await,
    }
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            end: [
                signal(SignalKind::terminate())?,
                signal(SignalKind::interrupt())?,
                signal(SignalKind::quit())?,
            ],
            reopen: signal(SignalKind::user_defined2())?,
            child: signal(SignalKind::child())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }
}
