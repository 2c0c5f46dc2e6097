//! What the supervisor has in its hands: data path, cgroups, output, and the trees of its workers.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use cluster_common::slot::Slot;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{
    health::Health, hooks::Hooks, journal::TreeRecord, ledger::Ledger, manager::Manager,
    options::DaemonOptions, upkeep::Upkeep, verify::Verifying,
};
use crate::{
    api::{
        board::Board,
        message::{Line, Notice},
    },
    config::home::Home,
    datapath::{
        DataPath, Mode,
        kernel::{self, Kernel},
        plain::Plain,
        record::GroupRecord,
    },
    id::{AppId, GroupId, Instance, WorkerId},
    moment::Moment,
    process::{
        cgroup::Hierarchy,
        output::Output,
        tree::Tree,
        unix::Shared,
        usage::{self, Usage},
        watch::{ExitStatus, ExitWatcher},
    },
    state::event::CallId,
};

/// A rate over less than this is noise.
pub(super) const SHORTEST: Duration = Duration::from_millis(200);

/// Everything that effects act upon.
pub(super) struct Host {
    pub(super) home: Home,
    pub(super) datapath: Box<dyn DataPath>,
    /// Why the kernel mode is not to be had, and how to get it.
    pub(super) missing: Vec<Notice>,
    /// What a killed daemon of this home left, and what became of it.
    pub(super) found: Vec<Notice>,
    /// What of that no user has heard yet.
    pub(super) untold: Vec<Notice>,
    pub(super) hierarchy: Option<Hierarchy>,
    pub(super) output: Output,
    pub(super) health: Health,
    pub(super) hooks: Hooks,
    pub(super) upkeep: Upkeep,
    pub(super) verifying: Verifying,
    pub(super) workers: BTreeMap<WorkerId, Running>,
    /// What was counted for those that have gone.
    pub(super) ledger: Ledger,
    /// What workers wrote last before they ended.
    pub(super) last_words: BTreeMap<(AppId, Instance), Vec<String>>,
    /// The same of the workers that ended last, whichever seat they had.
    pub(super) words_of: BTreeMap<WorkerId, Vec<String>>,
    /// Sockets that all workers of an app share, by path.
    pub(super) shared: BTreeMap<(AppId, PathBuf), Shared>,
    /// What happened, for those who want to hear of it.
    pub(super) board: Board,
    /// Users who wait for an answer.
    pub(super) callers: BTreeMap<CallId, UnboundedSender<Line>>,
    /// Log files that are being emptied for the command in hand.
    pub(super) flushing: Vec<Flushing>,
    pub(super) news: UnboundedSender<News>,
    pub(super) started: Instant,
    pub(super) manager: Manager,
    /// Why the journal could not be written when that was last tried.
    pub(super) journal_fails: Option<String>,
}

/// A log file that is being emptied.
pub(super) type Flushing = Pin<Box<dyn Future<Output = io::Result<()>> + Send>>;

/// A worker's process tree.
pub(super) struct Running {
    pub(super) tree: Arc<Tree>,
    pub(super) app: AppId,
    pub(super) instance: Instance,
    /// CPU time at the last look, for a rate.
    pub(super) last: (Instant, Usage),
    /// CPU in per cent at the last look.
    pub(super) cpu_percent: f64,
    /// The most CPU time that was seen: without a cgroup it shrinks when a process ends.
    pub(super) cpu: Duration,
    /// Connections that come to it.
    pub(super) rate: Rate,
    /// The most accepted connections that were told of.
    pub(super) accepted: u64,
    /// The most dropped ones.
    pub(super) dropped: Option<u64>,
}

/// How often something is counted.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rate {
    last: Option<(Instant, u64)>,
    /// Since the look before the last one; absent until there were two.
    pub(super) per_second: Option<f64>,
}

impl Rate {
    /// Takes in what a counter shows now.
    pub(super) fn look(&mut self, now: Instant, count: u64) {
        let Some((before, last)) = self.last else {
            self.last = Some((now, count));
            return;
        };
        let passed = now.saturating_duration_since(before);
        // A rate over less than this is noise: the one before it is shown again.
        if passed >= SHORTEST {
            let more = u32::try_from(count.saturating_sub(last)).unwrap_or(u32::MAX);
            self.per_second = Some(f64::from(more) / passed.as_secs_f64());
            self.last = Some((now, count));
        }
    }
}

/// What tasks tell the loop.
pub(super) enum News {
    /// A worker's main process has ended.
    Exited(WorkerId, ExitStatus),
    /// No process of a worker is left; what it wrote last.
    Swept(WorkerId, Vec<String>),
    /// A socket has gone. The loop takes news before reports, so nothing can have joined in its slot meanwhile.
    Lost(GroupId, Slot),
}

/// Depth of a worker's cgroup as programs in the kernel count.
fn level(hierarchy: &Hierarchy) -> u32 {
    let beyond = kernel::depth::depth(hierarchy.top()).unwrap_or_else(|error| {
        log::warn!("failed to tell how deep in a container this is: {error}");
        0
    });
    hierarchy.level() + beyond
}

impl Host {
    /// Takes possession of what the host offers. What a daemon before this one left is taken over by [`Host::adopt`].
    pub(super) fn new(
        home: Home,
        options: &DaemonOptions,
    ) -> anyhow::Result<(Self, UnboundedReceiver<News>)> {
        let output = Output::start(&home.logs())
            .with_context(|| format!("failed to capture output into {}", home.logs().display()))?;
        let (hierarchy, mut missing) = match Hierarchy::open(&home.id()) {
            Ok(hierarchy) => (Some(hierarchy), Vec::new()),
            Err(error) => (
                None,
                vec![notice(&error.to_string(), "run the daemon as root on a host with cgroup v2")],
            ),
        };
        let kernel = match (&hierarchy, options.mode) {
            (_, Some(Mode::Plain)) => {
                missing = vec![notice(
                    "plain mode was asked for",
                    "unset CLUSTER_MODE and start the daemon anew",
                )];
                None
            }
            (None, _) => None,
            (Some(hierarchy), _) => {
                match Kernel::new(hierarchy.path(), level(hierarchy), &home.logs()) {
                    Ok(kernel) => Some(kernel),
                    Err(error) => {
                        missing = error
                            .features
                            .iter()
                            .map(|feature| {
                                let detail = feature.detail.as_deref().unwrap_or("missing");
                                let message = format!("{}: {detail}", feature.name);
                                Notice { message, hint: feature.hint.clone() }
                            })
                            .collect();
                        if missing.is_empty() {
                            missing.push(notice(
                                &error.to_string(),
                                "cluster doctor shows what this host can do",
                            ));
                        }
                        None
                    }
                }
            }
        };
        if options.mode == Some(Mode::Kernel) && kernel.is_none() {
            let (reasons, _hint) = lacking(&missing);
            anyhow::bail!("kernel mode was asked for and is not to be had: {reasons}");
        }
        let datapath: Box<dyn DataPath> = if let Some(kernel) = kernel {
            Box::new(kernel)
        } else {
            if let Some(hierarchy) = &hierarchy
                && let Err(error) = Kernel::detach(hierarchy.path())
            {
                // Without privileges one may not even ask; then nothing was attached either.
                log::debug!("failed to look for programs of a daemon before: {error:#}");
            }
            Box::new(Plain::new().context("failed to prepare plain mode")?)
        };
        let (news, receiver) = mpsc::unbounded_channel();
        let host = Self {
            health: Health::new(&home.id()),
            hooks: Hooks::new(),
            upkeep: Upkeep::new(vec![home.path().to_owned(), home.logs()]),
            verifying: Verifying::new(),
            home,
            datapath,
            missing,
            found: Vec::new(),
            untold: Vec::new(),
            hierarchy,
            output,
            workers: BTreeMap::new(),
            ledger: Ledger::default(),
            last_words: BTreeMap::new(),
            words_of: BTreeMap::new(),
            shared: BTreeMap::new(),
            board: Board::default(),
            callers: BTreeMap::new(),
            flushing: Vec::new(),
            news,
            started: Instant::now(),
            manager: Manager::new(),
            journal_fails: None,
        };
        Ok((host, receiver))
    }

    /// Has a worker's tree watched from now on.
    ///
    /// # Errors
    /// When descriptors run out; it is not watched then.
    pub(super) fn keep(
        &mut self,
        worker: WorkerId,
        app: AppId,
        instance: Instance,
        tree: Arc<Tree>,
    ) -> io::Result<()> {
        let watcher = ExitWatcher::new(tree.process())?;
        let ending = Arc::clone(&tree);
        let last = (Instant::now(), Usage::default());
        let (cpu_percent, cpu, rate) = (0.0, Duration::ZERO, Rate::default());
        self.workers.insert(
            worker,
            Running {
                tree,
                app,
                instance,
                last,
                cpu_percent,
                cpu,
                rate,
                accepted: 0,
                dropped: None,
            },
        );
        let news = self.news.clone();
        tokio::spawn(async move {
            // Who cannot be waited for is not looked at; why is said below.
            if watcher.end().await.is_ok() {
                ending.look_back();
            }
            drop(ending);
            match watcher.exit().await {
                // The loop has ended when nobody hears it.
                Ok(status) => drop(news.send(News::Exited(worker, status))),
                Err(error) => log::error!("failed to wait for worker {worker}: {error}"),
            }
        });
        Ok(())
    }

    /// Has rates of workers that were there before begin now: what they have used by then is not of this daemon's time.
    pub(super) fn begin_rates(&mut self) {
        let trees: Vec<_> =
            self.workers.values().map(|running| Arc::clone(&running.tree)).collect();
        let usages = usage::measure(trees.iter().map(AsRef::as_ref));
        let now = Instant::now();
        for (running, usage) in self.workers.values_mut().zip(usages) {
            running.last = (now, usage);
            running.cpu = running.cpu.max(usage.cpu);
        }
    }

    /// What the journal keeps of the groups and trees there are.
    pub(super) fn records(
        &self,
        groups: impl Iterator<Item = GroupId>,
    ) -> (BTreeMap<GroupId, GroupRecord>, BTreeMap<WorkerId, TreeRecord>) {
        let groups = groups.filter_map(|group| Some((group, self.datapath.record(group)?)));
        let trees = self.workers.iter().map(|(worker, running)| {
            let (pid, started) = (running.tree.pid(), running.tree.started());
            let pipes = self.output.pipes(*worker).unwrap_or_default();
            let channel = self.health.channel_id(*worker);
            (*worker, TreeRecord { pid, started, pipes, channel })
        });
        (groups.collect(), trees.collect())
    }

    /// Why kernel mode is not to be had, and what to do about it.
    pub(super) fn lacking(&self) -> (String, String) {
        lacking(&self.missing)
    }
}

/// The wall clock's time of a moment, in milliseconds since the epoch.
pub(super) fn wall(at: Moment) -> u64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    millis(now.saturating_sub(Moment::now().since(at)))
}

/// Whole milliseconds.
pub(super) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn lacking(missing: &[Notice]) -> (String, String) {
    let reasons: Vec<_> = missing.iter().map(|notice| notice.message.as_str()).collect();
    // One step often helps against several reasons.
    let hints: BTreeSet<_> = missing.iter().filter_map(|notice| notice.hint.as_deref()).collect();
    (reasons.join("; "), hints.into_iter().collect::<Vec<_>>().join("; "))
}

pub(super) fn notice(message: &str, hint: &str) -> Notice {
    Notice { message: message.to_owned(), hint: Some(hint.to_owned()) }
}
