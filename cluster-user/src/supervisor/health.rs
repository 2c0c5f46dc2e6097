//! Asking workers whether they are well, and hearing what they say of themselves.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
    path::{Component, Path},
};

use anyhow::Context as _;
use tokio::{sync::mpsc, task::AbortHandle};

use super::{
    environment,
    host::{Host, Running},
    run::Supervisor,
};
use crate::{
    config::{
        readiness,
        script::Lookup,
        spec::{AppSpec, Probe, Readiness},
    },
    datapath::Mode,
    health::{
        News,
        channel::{self, Channel},
        notify::{Listener, Sender},
        question::Question,
        word::Word,
    },
    id::WorkerId,
    process::{
        cgroup::WorkerCgroup,
        errand::{Errand, Errands},
        spawn::Bounds,
        tree::{Marker, Tree},
    },
    state::event::{Event, Word as Said},
};

/// News that wait while the loop is busy; whoever brings more waits, and who speaks too much is not heard.
const NEWS: usize = 64;

/// What is needed to hear workers and to ask them.
pub(super) struct Health {
    /// Value of `NOTIFY_SOCKET`, or why there is none.
    notify: Result<String, String>,
    channels: BTreeMap<WorkerId, Channel>,
    asked: BTreeMap<WorkerId, Asked>,
    last_question: u64,
    /// Commands of probes that are under way.
    pub(super) errands: Errands,
    sender: mpsc::Sender<News>,
    pub(super) news: mpsc::Receiver<News>,
}

/// A question under way.
struct Asked {
    question: u64,
    /// Address of the group and source of the question, when it is steered.
    steered: Option<(SocketAddr, SocketAddr)>,
    task: AbortHandle,
}

/// What a worker gets beside its program.
pub(super) struct Equipment {
    /// Variables.
    pub(super) env: Vec<(String, String)>,
    channel: Option<(Channel, OwnedFd)>,
}

impl Equipment {
    /// Descriptors, and their numbers in the worker.
    pub(super) fn inherited(&self) -> Vec<(BorrowedFd<'_>, RawFd)> {
        let ends = self.channel.iter();
        ends.flat_map(|(ours, theirs)| {
            [(theirs.as_fd(), channel::THEIRS), (ours.end(), channel::KEPT)]
        })
        .collect()
    }
}

impl Health {
    /// Opens the notification socket of the daemon with this home. To be called inside a tokio runtime.
    pub(super) fn new(home_id: &str) -> Self {
        let (sender, news) = mpsc::channel(NEWS);
        let notify = match Listener::new(home_id, Marker::NAME) {
            Ok(listener) => {
                let address = listener.address();
                let sender = sender.clone();
                tokio::spawn(async move {
                    if let Err(error) = listener.listen(sender).await {
                        log::error!("failed to read the notification socket: {error}");
                    }
                });
                Ok(address)
            }
            Err(error) => {
                log::error!("failed to open the notification socket: {error}");
                Err(error.to_string())
            }
        };
        Self {
            notify,
            channels: BTreeMap::new(),
            asked: BTreeMap::new(),
            last_question: 0,
            errands: Errands::default(),
            sender,
            news,
        }
    }

    /// What a worker of this app is to be given.
    ///
    /// # Errors
    /// When it cannot be had.
    pub(super) fn equip(&self, spec: &AppSpec) -> anyhow::Result<Equipment> {
        let mut env = Vec::new();
        let mut set = |name: &str, value: &str| env.push((name.to_owned(), value.to_owned()));
        if spec.readiness == Readiness::Notified || spec.watchdog.is_some() {
            let address = self.notify.as_ref().map_err(|error| {
                anyhow::anyhow!("there is no notification socket for it: {error}")
            })?;
            set("NOTIFY_SOCKET", address);
        }
        if let Some(watchdog) = spec.watchdog {
            // Without WATCHDOG_PID, which would mean the first process only, and that may be a shell
            // (sd_watchdog_enabled(3)).
            set("WATCHDOG_USEC", &watchdog.as_micros().to_string());
        }
        let mut ends = None;
        if wants_channel(spec) {
            ends = Some(Channel::new().context("failed to make the worker's channel")?);
            for (name, value) in channel::VARIABLES {
                set(name, value);
            }
        }
        Ok(Equipment { env, channel: ends })
    }

    /// Listens to a worker that runs with its equipment.
    pub(super) fn started(&mut self, worker: WorkerId, equipment: Equipment) {
        if let Some((channel, _theirs)) = equipment.channel {
            self.keep(worker, channel);
        }
    }

    /// Takes over the channel of a worker of an earlier daemon.
    pub(super) fn adopt(&mut self, worker: WorkerId, tree: &Tree, id: Option<u64>) {
        match Channel::reopen(tree.process(), id) {
            Ok(channel) => self.keep(worker, channel),
            Err(error) => log::warn!("failed to take over the channel of worker {worker}: {error}"),
        }
    }

    /// Names a worker's channel, for the journal.
    pub(super) fn channel_id(&self, worker: WorkerId) -> Option<u64> {
        self.channels.get(&worker)?.id().ok()
    }

    fn keep(&mut self, worker: WorkerId, mut channel: Channel) {
        channel.listen(worker, self.sender.clone());
        self.channels.insert(worker, channel);
    }

    fn next_question(&mut self) -> u64 {
        self.last_question += 1;
        self.last_question
    }
}

/// Whether a worker of this app speaks Node's protocol with the daemon.
pub(super) fn wants_channel(spec: &AppSpec) -> bool {
    spec.readiness == Readiness::Message || spec.stop.with_message
}

impl Host {
    /// Asks a worker, in a task of its own; [`News::Answered`] follows.
    ///
    /// # Errors
    /// When it cannot even be asked; a lowercase fragment.
    pub(super) fn ask(
        &mut self,
        worker: WorkerId,
        probe: &Probe,
        spec: &AppSpec,
        listening: &[SocketAddr],
    ) -> Result<(), String> {
        self.give_up_asking(worker);
        let question = self.health.next_question();
        let sender = self.health.sender.clone();
        let tell = move |result| async move {
            // The loop has ended when nobody hears it.
            drop(sender.send(News::Answered { worker, question, result }).await);
        };
        let patience = probe.timeout;
        let (steered, task) = if let Some(group) = readiness::address(&probe.what, listening)? {
            let asking = Question::new(group)
                .map_err(|error| format!("failed to prepare a connection to {group}: {error}"))?;
            let source = asking.from();
            let steered = match self.datapath.mode() {
                Mode::Kernel => {
                    let steered = self.datapath.steer(worker, group, source);
                    steered.map_err(|error| format!("{error:#}"))?;
                    Some((group, source))
                }
                // The start of an app with more than one worker was refused.
                Mode::Plain => None,
            };
            let what = probe.what.clone();
            let task = tokio::spawn(async move { tell(asking.ask(&what, patience).await).await });
            (steered, task)
        } else {
            let running = self.workers.get(&worker).ok_or("it does not run")?;
            let marker = Marker::new(&self.home.id(), worker);
            let line = probe.what.to_string();
            let errand = run(&self.health.errands, &line, running, &marker, spec)?;
            (None, tokio::spawn(async move { tell(errand.finish(patience).await).await }))
        };
        self.health.asked.insert(worker, Asked { question, steered, task: task.abort_handle() });
        Ok(())
    }

    /// Sends a worker a message over its channel.
    ///
    /// # Errors
    /// When it has none, or does not read it.
    pub(super) fn message(&self, worker: WorkerId, text: &str) -> anyhow::Result<()> {
        let channel = self.health.channels.get(&worker).context("it has no channel")?;
        Ok(channel.send(text)?)
    }

    /// Lets go of what a worker had.
    pub(super) fn forget_health(&mut self, worker: WorkerId) {
        self.give_up_asking(worker);
        self.health.channels.remove(&worker);
    }

    fn give_up_asking(&mut self, worker: WorkerId) {
        if let Some(asked) = self.health.asked.remove(&worker) {
            asked.task.abort();
            self.unsteer(worker, &asked);
        }
    }

    fn unsteer(&mut self, worker: WorkerId, asked: &Asked) {
        if let Some((to, from)) = asked.steered {
            self.datapath.unsteer(worker, to, from);
        }
    }

    /// The worker that a process belongs to, by its cgroup, or where there is none by how it was started.
    fn worker_of(&self, sender: &Sender) -> Option<WorkerId> {
        if self.hierarchy.is_some() {
            let path = sender.cgroup.as_deref()?;
            let numbers = path.split('/').filter_map(|name| name.strip_prefix("worker-"));
            let mut claimed = numbers.filter_map(|number| number.parse().ok().map(WorkerId));
            return claimed.find(|worker| {
                let running = self.workers.get(worker);
                let cgroup = running.and_then(|running| running.tree.cgroup());
                cgroup.is_some_and(|cgroup| is_inside(path, cgroup.path()))
            });
        }
        let marker = sender.marker.as_ref()?;
        let worker = marker.rsplit_once(':').and_then(|(_, id)| id.parse().ok().map(WorkerId))?;
        let marks = Marker::new(&self.home.id(), worker).variable().1 == *marker;
        (marks && self.workers.contains_key(&worker)).then_some(worker)
    }
}

impl Supervisor {
    /// News of a worker's health, as events of the core.
    pub(super) fn heard(&mut self, news: News) -> Vec<Event> {
        match news {
            News::Message { worker } => vec![Event::Said { worker, word: Said::ReadyMessage }],
            News::Notified { sender, words } => {
                let Some(worker) = self.host.worker_of(&sender) else {
                    log::debug!("pid {}, which is of no worker, says {words:?}", sender.pid);
                    return Vec::new();
                };
                let said = |word| Some(Event::Said { worker, word });
                words
                    .into_iter()
                    .filter_map(|word| match word {
                        Word::Ready => said(Said::Ready),
                        Word::Alive => said(Said::Watchdog),
                        Word::Trigger => said(Said::Trigger),
                        Word::Reloading
                        | Word::Stopping
                        | Word::Status(_)
                        | Word::MainPid(_)
                        | Word::Errno(_) => {
                            log::debug!("worker {worker} says {word:?}");
                            None
                        }
                    })
                    .collect()
            }
            News::Answered { worker, question, result } => {
                let health = &mut self.host.health;
                if health.asked.get(&worker).is_none_or(|asked| asked.question != question) {
                    return Vec::new();
                }
                if let Some(asked) = health.asked.remove(&worker) {
                    self.host.unsteer(worker, &asked);
                }
                vec![Event::Probed { worker, result }]
            }
        }
    }
}

/// Starts the command of a probe as the worker's user, in its folder, cgroup and environment.
fn run(
    errands: &Errands,
    line: &str,
    running: &Running,
    marker: &Marker,
    spec: &AppSpec,
) -> Result<crate::process::errand::Running, String> {
    let path = spec.variable("PATH").map(Into::into);
    let lookup = Lookup { folders: vec![spec.cwd.clone()], path };
    let run = readiness::command(line, &lookup).map_err(|refusal| refusal.message)?;
    let mut args = vec![run.program.display().to_string()];
    args.extend(run.args);
    let mut env = environment::whole(spec, running.instance);
    env.push(("CLUSTER_PID".to_owned(), running.tree.pid().to_string()));
    env.push(marker.variable());
    errands.start(&Errand {
        program: &run.program,
        args: &args,
        env: &env,
        cwd: &spec.cwd,
        user: spec.user.as_ref(),
        cgroup: running.tree.cgroup().map(WorkerCgroup::folder),
        bounds: &Bounds::default(),
    })
}

/// Whether a path as `/proc/PID/cgroup` has it is that of a cgroup or below. It begins at the root of this process'
/// cgroup namespace, the cgroup's own path at a mount: the last three names are a daemon's, an app's, and a worker's.
fn is_inside(path: &str, cgroup: &Path) -> bool {
    let is_name = |component: &Component<'_>| matches!(component, Component::Normal(_));
    let names: Vec<_> = cgroup.components().filter(is_name).collect();
    let own = &names[names.len().saturating_sub(3)..];
    let path: Vec<_> = Path::new(path).components().filter(is_name).collect();
    path.windows(3).any(|window| window == own)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cgroup_is_recognised_by_its_last_names_wherever_the_hierarchy_begins() {
        let own = Path::new("/sys/fs/cgroup/system.slice/cluster-1a/app-0/worker-7");
        for (path, expected) in [
            ("/system.slice/cluster-1a/app-0/worker-7", true),
            ("/cluster-1a/app-0/worker-7", true),
            ("/cluster-1a/app-0/worker-7/inner/deeper", true),
            ("/../cluster-1a/app-0/worker-7", true),
            ("/cluster-1a/app-0/worker-70", false),
            ("/cluster-1b/app-0/worker-7", false),
            ("/app-0/worker-7", false),
            ("/", false),
            ("", false),
        ] {
            assert_eq!(is_inside(path, own), expected, "{path}");
        }
    }
}
