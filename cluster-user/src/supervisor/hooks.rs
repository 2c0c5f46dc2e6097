//! Hooks: commands that are run at turns of a worker's life, each in a task and a cgroup of its own.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, task::AbortHandle, time::timeout};

use super::{environment, host::Host, run::Supervisor, worker_log::Log};
use crate::{
    config::{
        readiness,
        script::Lookup,
        spec::{AppSpec, hooks::Hook},
    },
    id::{AppId, Generation, Instance, WorkerId},
    process::{cgroup::WorkerCgroup, errand::Errand, spawn::Bounds, tree::Marker},
    state::event::Event,
};

/// How long the processes of a hook that was killed may take to be gone.
const PARTING: Duration = Duration::from_secs(5);

/// So many of a kind are run for one seat at a time. Nobody waits for these, and an app that fails again and again would
/// have more and more of them.
const AT_ONCE: usize = 4;

/// What is run, and for whom.
#[derive(Clone, Debug)]
pub(super) struct Turn {
    pub(super) hook: Hook,
    pub(super) app: AppId,
    pub(super) spec: Arc<AppSpec>,
    pub(super) worker: WorkerId,
    pub(super) instance: Instance,
    pub(super) generation: Option<Generation>,
    /// Of the worker's main process, if it has or had one.
    pub(super) pid: Option<u32>,
    /// Why the worker failed.
    pub(super) reason: Option<String>,
}

/// The hooks that are under way.
pub(super) struct Hooks {
    under_way: BTreeMap<u64, UnderWay>,
    last: u64,
    sender: mpsc::UnboundedSender<Done>,
    pub(super) done: mpsc::UnboundedReceiver<Done>,
}

struct UnderWay {
    turn: Turn,
    cgroup: Option<Arc<WorkerCgroup>>,
    task: AbortHandle,
}

/// A hook has ended, and nothing is left of it.
pub(super) struct Done {
    number: u64,
    result: Result<(), String>,
}

impl Hooks {
    pub(super) fn new() -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        Self { under_way: BTreeMap::new(), last: 0, sender, done }
    }

    /// Whether none is under way.
    pub(super) fn are_idle(&self) -> bool {
        self.under_way.is_empty()
    }

    /// Whether one of an app is under way.
    pub(super) fn has_of(&self, app: AppId) -> bool {
        self.under_way.values().any(|one| one.turn.app == app)
    }

    /// How many of that kind are under way for the same seat.
    fn beside(&self, turn: &Turn) -> usize {
        let same =
            |of: &Turn| (of.hook, of.app, of.instance) == (turn.hook, turn.app, turn.instance);
        self.under_way.values().filter(|one| same(&one.turn)).count()
    }
}

impl Host {
    /// Starts a hook; [`Done`] follows.
    ///
    /// # Errors
    /// When it cannot be started; a lowercase fragment.
    pub(super) fn begin_hook(&mut self, turn: Turn) -> Result<(), String> {
        let Some(line) = turn.spec.hooks.line(turn.hook).map(str::to_owned) else {
            return Err("there is none".to_owned());
        };
        self.hooks.last += 1;
        let number = self.hooks.last;
        let cgroup =
            self.hierarchy.as_ref().map(|hierarchy| hierarchy.create_hook(turn.app, number));
        let cgroup =
            cgroup.transpose().map_err(|error| format!("failed to make its cgroup: {error}"))?;
        let cgroup = cgroup.map(Arc::new);
        let started = self.start(&turn, number, &line, cgroup.as_deref());
        let (running, mut log) = match started {
            Ok(started) => started,
            Err(error) => {
                self.output.detach(writer(number));
                if let Some(Err(error)) = cgroup.map(|cgroup| cgroup.remove()) {
                    log::error!("failed to remove the cgroup of a hook: {error}");
                }
                return Err(error);
            }
        };
        let patience = turn.spec.hooks.timeout;
        let (inside, sender) = (cgroup.clone(), self.hooks.sender.clone());
        let task = tokio::spawn(async move {
            let result = running.finish_telling(patience, |line| log.say(line)).await;
            log.end();
            if let Some(cgroup) = inside {
                clear(&cgroup).await;
            }
            // The loop has ended when nobody hears it.
            drop(sender.send(Done { number, result }));
        });
        let task = task.abort_handle();
        self.hooks.under_way.insert(number, UnderWay { turn, cgroup, task });
        Ok(())
    }

    fn start(
        &mut self,
        turn: &Turn,
        number: u64,
        line: &str,
        cgroup: Option<&WorkerCgroup>,
    ) -> Result<(crate::process::errand::Running, Log), String> {
        let Turn { hook, spec, instance, .. } = turn;
        let path = spec.variable("PATH").map(Into::into);
        let lookup = Lookup { folders: vec![spec.cwd.clone()], path };
        let run = readiness::command(line, &lookup).map_err(|refusal| refusal.message)?;
        let mut args = vec![run.program.display().to_string()];
        args.extend(run.args);
        let mut env = environment::whole(spec, turn.app, *instance);
        env.extend(variables(turn));
        // Without a cgroup it is what says whose it is, should this daemon be killed.
        env.push(Marker::new(&self.home.id(), turn.worker).variable());
        let ends = self
            .output
            .attach(writer(number), &super::perform::origin(spec, *instance))
            .map_err(|error| format!("failed to capture its output: {error}"))?;
        let log = Log::new(hook.to_string(), ends.stdout);
        let errand = Errand {
            program: &run.program,
            args: &args,
            env: &env,
            cwd: &spec.cwd,
            user: spec.user.as_ref(),
            cgroup: cgroup.map(WorkerCgroup::folder),
            bounds: &Bounds::of(&spec.resources, *instance),
        };
        Ok((self.health.errands.start(&errand)?, log))
    }

    /// Ends the hooks before the start of workers that are not wanted any more.
    fn give_up_starts(&mut self, is_ending: impl Fn(WorkerId) -> bool) -> Vec<Turn> {
        let useless =
            |one: &UnderWay| one.turn.hook == Hook::PreStart && is_ending(one.turn.worker);
        let hooks = self.hooks.under_way.iter().filter(|(_, one)| useless(one));
        let numbers: Vec<_> = hooks.map(|(number, _)| *number).collect();
        numbers
            .into_iter()
            .filter_map(|number| {
                let one = self.hooks.under_way.get(&number)?;
                one.task.abort();
                if let Some(cgroup) = &one.cgroup {
                    drop(cgroup.kill());
                }
                let (turn, cgroup) = (one.turn.clone(), one.cgroup.clone());
                let sender = self.hooks.sender.clone();
                tokio::spawn(async move {
                    if let Some(cgroup) = cgroup {
                        clear(&cgroup).await;
                    }
                    let result = Err("it was given up".to_owned());
                    drop(sender.send(Done { number, result }));
                });
                Some(turn)
            })
            .collect()
    }
}

impl Supervisor {
    /// Runs what comes before a worker's start, if there is anything; the worker is spawned after it.
    pub(super) fn prepare(&mut self, turn: Turn) -> Option<Event> {
        let worker = turn.worker;
        self.host
            .begin_hook(turn)
            .err()
            .map(|why| Event::SpawnFailed { worker, reason: format!("{}: {why}", Hook::PreStart) })
    }

    /// Runs a hook that nothing but the stop waits for.
    pub(super) fn run_hook(&mut self, turn: Turn) -> Option<Event> {
        let (hook, worker) = (turn.hook, turn.worker);
        let name = turn.spec.name.clone();
        // A stop waits for its hook, so that one has to be run.
        if hook != Hook::PreStop && self.host.hooks.beside(&turn) >= AT_ONCE {
            log::warn!(
                "app {name}, worker {worker}: {hook} is not run, {AT_ONCE} of them are under way"
            );
            return None;
        }
        let error = self.host.begin_hook(turn).err()?;
        log::warn!("app {name}, worker {worker}: {hook} could not be run: {error}");
        (hook == Hook::PreStop).then_some(Event::Hooked { worker })
    }

    /// Gives up what is not wanted any more.
    pub(super) fn tend_hooks(&mut self) {
        if self.host.hooks.are_idle() {
            return;
        }
        let state = &self.state;
        let given_up = self.host.give_up_starts(|worker| state.is_ending(worker));
        for turn in given_up {
            log::debug!("worker {}: {} is given up", turn.worker, turn.hook);
        }
    }

    /// A hook has ended.
    pub(super) fn hooked(&mut self, done: Done) -> Option<Event> {
        let Done { number, result } = done;
        let UnderWay { turn, cgroup, .. } = self.host.hooks.under_way.remove(&number)?;
        self.host.output.detach(writer(number));
        if let Some(Err(error)) = cgroup.map(|cgroup| cgroup.remove()) {
            log::error!("failed to remove the cgroup of a hook: {error}");
        }
        let Turn { hook, app, spec, worker, instance, .. } = turn;
        if self.state.spec_of_app(app).is_none()
            && let Some(hierarchy) = &self.host.hierarchy
            && let Err(error) = hierarchy.remove_app(app)
            && !self.host.hooks.has_of(app)
        {
            log::error!("failed to remove the cgroup of app {app}: {error}");
        }
        let result = result.map_err(|why| format!("{hook}: {why}"));
        let ending = self.state.is_ending(worker);
        if let Err(why) = &result
            && !(hook == Hook::PreStart && ending)
        {
            log::warn!("app {}, worker {instance}: {why}", spec.name);
        }
        match hook {
            Hook::PreStart => Some(match result {
                Ok(()) if !ending => self.spawn_worker(worker, app, instance, &spec),
                Ok(()) => {
                    Event::SpawnFailed { worker, reason: "it is not wanted any more".to_owned() }
                }
                Err(reason) => Event::SpawnFailed { worker, reason },
            }),
            Hook::PreStop => Some(Event::Hooked { worker }),
            Hook::PostReady | Hook::PostStop | Hook::OnFailure => None,
        }
    }
}

/// What a hook finds in its environment beside what the worker does.
fn variables(turn: &Turn) -> Vec<(String, String)> {
    let mut variables = vec![("CLUSTER_HOOK", turn.hook.to_string())];
    variables.extend(turn.pid.map(|pid| ("CLUSTER_PID", pid.to_string())));
    variables
        .extend(turn.generation.map(|generation| ("CLUSTER_GENERATION", generation.to_string())));
    variables
        .extend(turn.reason.clone().map(|reason| ("CLUSTER_REASON", reason.replace('\0', " "))));
    variables.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

/// Whose output it is to the capture, which knows workers only: numbers that no worker gets.
fn writer(number: u64) -> WorkerId {
    WorkerId(u64::MAX - number)
}

/// Kills what a hook has left, also what has made itself independent, and waits for it to be gone.
async fn clear(cgroup: &WorkerCgroup) {
    drop(cgroup.kill());
    if timeout(PARTING, cgroup.empty()).await.is_err() {
        log::error!("processes in {} do not end", cgroup.path().display());
    }
}
