//! Keeping apps up over time: what follows when a time has come, files have changed, or a worker is worn.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    host::{Host, notice},
    perform,
    run::Supervisor,
};
use crate::{
    api::message::{Failure, Notice, Reason},
    config::{
        change::Change,
        cron::Cron,
        pace::Pace,
        spec::{AppSpec, recycle::Worn, watch::Watch},
        target::Target,
    },
    id::{AppId, Instance, WorkerId},
    moment::Moment,
    process::{cgroup::Lacking, memory},
    state::event::{Command, Event, Reload},
    upkeep::{
        Files, News, clock,
        watch::{Ours, View, Watcher},
    },
};

/// News that wait while the loop is busy; whoever brings more waits.
const NEWS: usize = 64;
/// How often it is looked at what workers use.
const LOOK: Duration = Duration::from_secs(3);
/// The same files that change so soon after a reload for them may have been changed by it.
const ECHO: Duration = Duration::from_secs(2);
/// After this many reloads each of which seems to have brought the next one, the next one waits.
const ECHOES: u32 = 3;
/// The longest such wait.
const LONGEST: Duration = Duration::from_mins(1);

/// The sources, and what is known of them.
pub(super) struct Upkeep {
    sender: mpsc::Sender<News>,
    pub(super) news: mpsc::Receiver<News>,
    apps: BTreeMap<AppId, Kept>,
    /// What nobody's watch counts.
    pub(super) ours: Ours,
    /// Looks at workers, while any app wants that.
    ticker: Option<AbortHandle>,
    /// Workers that are being looked at closely.
    weighed: BTreeSet<WorkerId>,
    /// What no user has heard yet.
    pub(super) untold: Vec<Notice>,
}

/// What keeps one app up.
#[derive(Default)]
struct Kept {
    cron: Option<(Cron, AbortHandle)>,
    watch: Option<(Watch, Option<Watcher>)>,
    /// Files that have changed, for a reload that cannot begin yet.
    changed: Files,
    echo: Echo,
}

/// Reloads that seem to bring the next one, because the app writes what it watches.
#[derive(Default)]
struct Echo {
    /// How many there were in a row.
    streak: u32,
    /// Whether the reload under way is for files that changed.
    reloading: bool,
    /// When that was over.
    ended: Option<Instant>,
    /// The files that it was for.
    files: Files,
    /// The next one does not begin before.
    until: Option<Instant>,
}

impl Upkeep {
    pub(super) fn new(folders: Vec<PathBuf>) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        let (apps, weighed) = (BTreeMap::new(), BTreeSet::new());
        let ours = Ours::new(folders);
        Self { sender, news, apps, ours, ticker: None, weighed, untold: Vec::new() }
    }

    /// Has it looked again later.
    fn look_in(&self, time: Duration) {
        let sender = self.sender.clone();
        tokio::spawn(async move {
            sleep(time).await;
            // The loop has ended when nobody hears it.
            drop(sender.send(News::Look).await);
        });
    }

    fn tick(&mut self, wanted: bool) {
        match (&self.ticker, wanted) {
            (None, true) => {
                let sender = self.sender.clone();
                let ticking = async move {
                    let mut ticks = interval(LOOK);
                    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                    loop {
                        ticks.tick().await;
                        if sender.send(News::Look).await.is_err() {
                            return;
                        }
                    }
                };
                self.ticker = Some(tokio::spawn(ticking).abort_handle());
            }
            (Some(ticker), false) => {
                ticker.abort();
                self.ticker = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }
}

impl Kept {
    fn follow(&mut self, app: AppId, cron: Option<&Cron>, sender: &mpsc::Sender<News>) {
        if self.cron.as_ref().map(|(known, _)| known) == cron {
            return;
        }
        if let Some((_, task)) = self.cron.take() {
            task.abort();
        }
        let Some(cron) = cron else { return };
        match cron.schedule() {
            Ok(schedule) => {
                let task = clock::follow(app, schedule, sender.clone());
                self.cron = Some((cron.clone(), task));
            }
            // It was tried when it was written; the host is another since.
            Err(error) => log::error!("app {app} is not reloaded by cron: {error}"),
        }
    }

    fn watch(
        &mut self,
        app: AppId,
        wanted: Option<&Watch>,
        view: impl FnOnce(Watch) -> View,
        sender: &mpsc::Sender<News>,
    ) {
        if self.watch.as_ref().map(|(known, _)| known) == wanted {
            return;
        }
        self.watch = None;
        let Some(watch) = wanted.cloned() else {
            self.changed = Files::default();
            return;
        };
        let watcher = Watcher::start(app, view(watch.clone()), sender.clone());
        let watcher = watcher
            .map_err(|error| log::error!("files of app {app} are not watched: {error}"))
            .ok();
        self.watch = Some((watch, watcher));
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some((_, task)) = self.cron.take() {
            task.abort();
        }
    }
}

impl Host {
    /// What is written while a worker runs is no change for who watches, from before it is written.
    pub(super) fn disregard(&self, app: AppId, instance: Instance, spec: &AppSpec) {
        let logs = self.output.files(&perform::origin(spec, instance)).all();
        self.upkeep.ours.add(app, logs.into_iter().chain(spec.identity.pid_file_of(instance.0)));
    }
}

impl Supervisor {
    /// Brings the sources in line with the apps there are, and begins what had to wait.
    pub(super) fn tend(&mut self) {
        self.tend_hooks();
        let mut looks = false;
        let (mut known, mut there) = (BTreeSet::new(), BTreeSet::new());
        for (app, spec, runs) in self.state.kept() {
            known.insert(app);
            let quiet = spec.watch.is_none() && spec.recycle.cron.is_none();
            looks |= runs && spec.recycle.of_workers();
            if !runs || (quiet && !self.host.upkeep.apps.contains_key(&app)) {
                continue;
            }
            there.insert(app);
            let upkeep = &mut self.host.upkeep;
            let kept = upkeep.apps.entry(app).or_default();
            kept.follow(app, spec.recycle.cron.as_ref(), &upkeep.sender);
            let ours = &upkeep.ours;
            let view = |watch| View { watch, cwd: spec.cwd.clone(), ours: ours.clone() };
            kept.watch(app, spec.watch.as_ref(), view, &upkeep.sender);
        }
        self.host.upkeep.apps.retain(|app, _| there.contains(app));
        self.host.upkeep.ours.retain(&known);
        self.host.upkeep.tick(looks);
        self.begin_waiting();
    }

    /// News of a source.
    pub(super) fn kept_up(&mut self, news: News) {
        match news {
            News::Due { app } => self.due(app),
            News::Changed { app, files } => self.changed(app, files),
            News::Blind { app, why } => {
                let Some(spec) = self.state.spec_of_app(app) else { return };
                let message = format!("app {}: {why}", spec.name);
                log::warn!("{message}");
                if let Some(hint) = why.hint() {
                    self.host.upkeep.untold.push(notice(&message, hint));
                }
            }
            News::Look => self.look_at_workers(),
            News::Weighed { worker, used } => {
                self.host.upkeep.weighed.remove(&worker);
                let limit = self
                    .state
                    .seat_of(worker)
                    .and_then(|(app, _)| self.state.spec_of_app(app)?.recycle.max_memory);
                if let Some(max) = limit.filter(|max| used > *max) {
                    self.wear(worker, Worn::Memory { used, max });
                }
            }
        }
    }

    /// A time of its cron line has come for an app.
    fn due(&mut self, app: AppId) {
        let Some(spec) = self.state.spec_of_app(app) else { return };
        let name = spec.name.clone();
        let Some(cron) = spec.recycle.cron.as_ref().map(ToString::to_string) else { return };
        if self.state.is_busy(app) {
            log::warn!("app {name}: the reload of cron ({cron}) is skipped, another is under way");
            return;
        }
        log::info!("app {name}: reload by cron ({cron})");
        self.reload_for(app, "cron".to_owned());
    }

    /// Files of an app have changed.
    fn changed(&mut self, app: AppId, files: Files) {
        let busy = self.state.is_busy(app);
        let Some(kept) = self.host.upkeep.apps.get_mut(&app) else { return };
        let echo = &mut kept.echo;
        let after = echo.ended.is_some_and(|ended| ended.elapsed() < ECHO);
        if kept.changed.is_empty() {
            let soon = (echo.reloading && busy) || after;
            let same = files.named.iter().any(|file| echo.files.named.contains(file));
            echo.streak = if soon && same { echo.streak + 1 } else { 0 };
        }
        kept.changed.extend(files);
        if echo.streak >= ECHOES && echo.until.is_none() {
            let wait = Duration::from_secs(1 << (echo.streak - ECHOES).min(10)).min(LONGEST);
            echo.until = Some(Instant::now() + wait);
            self.host.upkeep.look_in(wait);
            self.tell_of_echo(app, wait);
        }
        self.begin_waiting();
    }

    fn tell_of_echo(&mut self, app: AppId, wait: Duration) {
        let Some(spec) = self.state.spec_of_app(app) else { return };
        let Some(kept) = self.host.upkeep.apps.get(&app) else { return };
        let files = kept.changed.show(&spec.cwd);
        let message = format!(
            "app {}: each reload seems to change {files}, which is watched; the next one waits {} s",
            spec.name,
            wait.as_secs()
        );
        log::warn!("{message}");
        if kept.echo.streak == ECHOES {
            let hint = "name what the app writes itself in ignore_watch";
            self.host.upkeep.untold.push(notice(&message, hint));
        }
    }

    /// Begins the reloads for changed files that can begin now.
    fn begin_waiting(&mut self) {
        let now = Instant::now();
        let mut begins = Vec::new();
        for (app, kept) in &mut self.host.upkeep.apps {
            let busy = self.state.is_busy(*app);
            if kept.echo.reloading && !busy {
                kept.echo.reloading = false;
                kept.echo.ended = Some(now);
            }
            if kept.changed.is_empty() || busy || kept.echo.until.is_some_and(|until| until > now) {
                continue;
            }
            kept.echo.until = None;
            kept.echo.reloading = true;
            kept.echo.files = std::mem::take(&mut kept.changed);
            begins.push((*app, kept.echo.files.clone()));
        }
        for (app, files) in begins {
            let Some(spec) = self.state.spec_of_app(app) else { continue };
            let files = files.show(&spec.cwd);
            log::info!("app {}: reload, for {files} changed", spec.name);
            self.reload_for(app, format!("watch: {files}"));
        }
    }

    fn reload_for(&mut self, app: AppId, who: String) {
        let Ok(target) = Target::parse(&app.to_string()) else { return };
        let reload = Reload {
            targets: vec![target],
            change: Change::default(),
            pace: Pace::default(),
            force: false,
            who,
            yields: true,
            wait: false,
        };
        let call = self.next_call();
        self.handle(Event::Command { call, command: Command::Reload(Box::new(reload)) });
    }

    /// Looks whose lifetime is over, and who uses more memory than it may.
    fn look_at_workers(&mut self) {
        let now = Moment::now();
        let mut worn = Vec::new();
        let mut heavy = Vec::new();
        let apps: Vec<_> = self
            .state
            .kept()
            .filter(|(_, spec, runs)| *runs && spec.recycle.of_workers())
            .map(|(app, ..)| app)
            .collect();
        for app in apps {
            let Some(view) = self.state.app_of(app) else { continue };
            let recycle = &view.spec.recycle;
            for seat in &view.seats {
                let (Some(worker), Some(since)) = (seat.worker, seat.online_since) else {
                    continue;
                };
                let lived = now.since(since);
                if recycle.lifetime_of(worker).is_some_and(|life| lived >= life) {
                    worn.push((worker, Worn::Lifetime { lived }));
                } else if let Some(max) = recycle.max_memory {
                    heavy.push((worker, max));
                }
            }
        }
        for (worker, why) in worn {
            self.wear(worker, why);
        }
        self.weigh(&heavy);
    }

    /// Has those looked at closely that may use more memory than they may.
    fn weigh(&mut self, heavy: &[(WorkerId, u64)]) {
        let host = &mut self.host;
        let running: Vec<_> = heavy
            .iter()
            .filter(|(worker, _)| !host.upkeep.weighed.contains(worker))
            .filter_map(|(worker, max)| Some((*worker, &host.workers.get(worker)?.tree, *max)))
            .collect();
        if running.is_empty() {
            return;
        }
        let suspects = memory::suspects(running.iter().map(|(_, tree, max)| (&***tree, *max)));
        let suspects: Vec<_> = running
            .into_iter()
            .zip(suspects)
            .filter(|(_, suspected)| *suspected)
            .map(|((worker, tree, _), _)| (worker, std::sync::Arc::clone(tree)))
            .collect();
        if suspects.is_empty() {
            return;
        }
        host.upkeep.weighed.extend(suspects.iter().map(|(worker, _)| *worker));
        let sender = host.upkeep.sender.clone();
        let weigh = move || {
            for (worker, tree) in suspects {
                let used = memory::of(&tree);
                // The loop has ended when nobody hears it.
                drop(sender.blocking_send(News::Weighed { worker, used }));
            }
        };
        if let Err(error) = thread::Builder::new().name("weigh".to_owned()).spawn(weigh) {
            log::error!("failed to start a thread: {error}");
            host.upkeep.weighed.clear();
        }
    }

    fn wear(&mut self, worker: WorkerId, worn: Worn) {
        self.handle(Event::Worn { worker, worn });
    }

    /// Whether the limits that an app asks for can be kept here.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(super) fn can_limit(&self, spec: &AppSpec) -> Result<(), Failure> {
        let Some((_, file, _)) = spec.resources.files().into_iter().next() else { return Ok(()) };
        let possible = match &self.host.hierarchy {
            Some(hierarchy) => hierarchy.can(&spec.resources),
            None => Err(Lacking::Cgroups),
        };
        possible.map_err(|lacking| {
            let limit =
                lacking.controller().and_then(|controller| spec.resources.limit_by(controller));
            let limit = limit.unwrap_or_else(|| file.replace('.', "_"));
            Failure::new(Reason::Unsupported, format!("{limit} is not to be had: {lacking}"))
                .hint(lacking.hint())
        })
    }
}
