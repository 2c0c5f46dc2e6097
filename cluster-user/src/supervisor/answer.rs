//! What users are told, in the words of the API.

use std::net::SocketAddr;

use tokio::sync::mpsc::UnboundedSender;

use super::run::Supervisor;
use crate::{
    api::message::{Detail, Done, Failure, Line, Notice, Progress, Reason, Rolling, Step},
    config::{
        instances::MAX_INSTANCES,
        name::Name,
        pace::Canary,
        scheduling::{Policy, known::POLICIES},
        spec::Readiness,
    },
    datapath::{Mode, Protocol, holder, socket},
    id::{AppId, Instance, WorkerId},
    moment::Moment,
    state::{
        effect::{Aside, Doing, Refusal, Tale},
        event::{CallId, Exit},
        why::Why,
    },
};

/// What is known of a worker that failed.
struct Failed<'a> {
    app: AppId,
    name: &'a str,
    instance: Instance,
    worker: Option<WorkerId>,
    why: Option<&'a Why>,
    binding: Option<(Protocol, SocketAddr)>,
}

impl Supervisor {
    /// Tells a user; whoever does not wait any more is forgotten.
    pub(super) fn tell(&mut self, call: CallId, tale: Tale) {
        let Some(reply) = self.host.callers.get(&call).cloned() else { return };
        let line = match tale {
            Tale::Progress { app, instance, reached, wanted } => {
                // Whoever asked may have gone; what was asked for goes on.
                if let Some(line) = self.progress(app, instance, reached, wanted) {
                    drop(reply.send(Line::Progress(line)));
                }
                return;
            }
            Tale::Done { apps, deleted } => {
                let apps = self.views(&apps, Detail::Usual);
                Line::Done(Done { apps, deleted, sent: 0 })
            }
            Tale::Refused(refusal) => Line::Failed(refused(&refusal)),
            Tale::Rolling { app, instance, generation, doing } => {
                let app = self.state.spec_of_app(app).map(|spec| spec.name.to_string());
                let (step, detail) = step(&doing);
                let app = app.unwrap_or_default();
                drop(reply.send(Line::Rolling(Rolling {
                    app,
                    instance,
                    generation,
                    step,
                    detail,
                })));
                return;
            }
            Tale::Back { app, why } => {
                let name = self.state.spec_of_app(app).map(|spec| spec.name.to_string());
                let why = why.map(|(instance, why)| format!(": worker {instance} {why}"));
                let (name, why) = (name.unwrap_or_default(), why.unwrap_or_default());
                let message = format!("rolling app `{name}` back{why}");
                drop(reply.send(Line::Notice(Notice { message, hint: None })));
                return;
            }
            Tale::Aside(aside) => {
                if let Some(notice) = notice(&aside, self.host.datapath.mode()) {
                    drop(reply.send(Line::Notice(notice)));
                }
                return;
            }
            Tale::Failed { app, name, instance, worker, why, binding, rolled_back } => {
                let failed =
                    Failed { app, name: &name, instance, worker, why: why.as_ref(), binding };
                let failure = self.failed(&failed);
                Line::Failed(if rolled_back { failure.rolled_back(&name) } else { failure })
            }
        };
        self.host.callers.remove(&call);
        self.send(reply, line);
    }

    /// Sends the last line, when the log files are as empty as it says.
    fn send(&mut self, reply: UnboundedSender<Line>, mut line: Line) {
        let flushing = std::mem::take(&mut self.host.flushing);
        if flushing.is_empty() {
            drop(reply.send(line));
            return;
        }
        tokio::spawn(async move {
            for flushed in flushing {
                if let Err(error) = flushed.await {
                    let message = format!("failed to empty a log file: {error}");
                    line = Line::Failed(Failure::new(Reason::Failed, message));
                }
            }
            drop(reply.send(line));
        });
    }

    fn progress(
        &self,
        app: AppId,
        instance: Instance,
        reached: u32,
        wanted: u32,
    ) -> Option<Progress> {
        let status = super::view::status(self.state.status_at(app, instance)?);
        let app = self.state.spec_of_app(app)?.name.to_string();
        Some(Progress { app, instance, status, reached, wanted })
    }

    fn failed(&self, failed: &Failed<'_>) -> Failure {
        let &Failed { app, name, instance, worker, why, binding } = failed;
        let words = match worker {
            Some(worker) => self.host.words_of.get(&worker),
            None => self.host.last_words.get(&(app, instance)),
        };
        let output = words.cloned().unwrap_or_default();
        let holder = binding.and_then(|(protocol, address)| self.holder(protocol, address));
        let mut message = format!("worker {instance} of app `{name}`");
        if let Some(why) = why {
            message = format!("{message}: {why}");
        }
        let mut hint =
            format!("cluster logs {name} shows more; cluster restart {name} tries again");
        match why {
            Some(Why::NotListening { .. }) => {
                hint = format!("if it serves no port, start it with --no-port; {hint}");
            }
            Some(Why::Exited { exit: Exit::Code(0), .. }) if self.must_listen(app) => {
                hint = format!(
                    "a worker must keep running; one that serves no port needs --no-port, and one that \
                     does its work and ends --no-autorestart too; {hint}"
                );
            }
            Some(Why::Elsewhere { .. }) => {
                "to serve another port, name it: cluster start with --port, under another name"
                    .clone_into(&mut hint);
            }
            Some(
                Why::NotSpawned(_)
                | Why::NotReady { .. }
                | Why::ProbeFailed { .. }
                | Why::CannotServe { .. }
                | Why::Unusable(_)
                | Why::Unhealthy { .. }
                | Why::Silent { .. }
                | Why::Exited { .. }
                | Why::Congested { .. },
            )
            | None => {}
        }
        if let Some(Held { address, by, app }) = holder {
            message = format!("{message}: {address} is held by {by}");
            hint = match app.filter(|app| app.as_str() != name) {
                Some(other) => {
                    format!("cluster stop {other} ends it, or choose another port for {name}")
                }
                None => "end that process, or choose another port".to_owned(),
            };
        }
        Failure { output, ..Failure::new(Reason::Failed, message).hint(hint) }
    }

    /// Whether the workers of an app are expected to listen.
    fn must_listen(&self, app: AppId) -> bool {
        self.state.spec_of_app(app).is_some_and(|spec| spec.readiness != Readiness::Running)
    }

    /// Who holds an address that a worker could not bind.
    pub(super) fn holder(&self, protocol: Protocol, address: SocketAddr) -> Option<Held> {
        let daemon = std::process::id();
        // Its waiting rooms hold an address for the workers they belong to.
        let own = socket::sockets_of(daemon).unwrap_or_default();
        let own = own.into_iter().map(|socket| socket.inode).collect();
        let holder = holder::stranger(daemon, protocol, address, &own)?;
        let ours = holder.process.as_ref().and_then(|(pid, _)| {
            let running =
                self.host.workers.values().find(|worker| worker.tree.pids().contains(pid))?;
            let app = self.state.spec_of_app(running.app)?.name.clone();
            Some((format!("worker {} of app `{app}`", running.instance), app))
        });
        Some(match ours {
            Some((by, app)) => Held { address, by, app: Some(app) },
            None => Held { address, by: holder.to_string(), app: None },
        })
    }
}

/// Who holds an address.
pub(super) struct Held {
    pub(super) address: SocketAddr,
    /// In words.
    pub(super) by: String,
    /// The app whose worker it is, if it is one of ours.
    pub(super) app: Option<Name>,
}

impl Failure {
    /// The same, with the word that nothing has changed.
    fn rolled_back(mut self, name: &str) -> Self {
        self.message = format!("{}; rolled back, the old version serves", self.message);
        self.hint(format!(
            "mend it and reload again; cluster logs {name} shows more, cluster history {name} what was deployed"
        ))
    }
}

/// Where a worker is while its app is reloaded, in the words of the API.
fn step(doing: &Doing) -> (Step, Option<String>) {
    match doing {
        Doing::Starting => (Step::Starting, None),
        Doing::Probing(last) if last.is_empty() => (Step::Probing, None),
        Doing::Probing(last) => (Step::Probing, Some(last.clone())),
        Doing::Soaking(until) => {
            let left = until.since(Moment::now()).as_secs_f64();
            (Step::Soaking, Some(format!("{left:.0} s to go")))
        }
        Doing::Ready => (Step::Ready, None),
        Doing::Canary(Canary::Workers(_)) => {
            (Step::Canary, Some("gets as many connections as any other worker".to_owned()))
        }
        Doing::Canary(canary @ Canary::Share { .. }) => {
            (Step::Canary, Some(format!("the new workers get {canary} of the connections")))
        }
        Doing::Serving => (Step::Serving, None),
        Doing::Draining(None) => (Step::Draining, None),
        Doing::Draining(Some(1)) => (Step::Draining, Some("1 connection".to_owned())),
        Doing::Draining(Some(left)) => (Step::Draining, Some(format!("{left} connections"))),
        Doing::Stopping => (Step::Stopping, None),
        Doing::Gone => (Step::Gone, None),
    }
}

/// Something to know besides; in plain mode the kernel's hash keeps datagrams of a client together, and knows no shares.
fn notice(aside: &Aside, mode: Mode) -> Option<Notice> {
    let (message, hint) = match aside {
        Aside::Datagrams { .. } | Aside::Unguarded { .. } | Aside::Turns { .. }
            if mode == Mode::Plain =>
        {
            return None;
        }
        Aside::Datagrams { address, policy: Policy::Hash | Policy::None } => (
            format!("udp {address}: flows move to other workers when workers come or go"),
            Some("--policy sticky keeps flows together".to_owned()),
        ),
        Aside::Datagrams { address, policy: _ } => (
            format!("udp {address} is balanced per datagram; --policy sticky keeps flows together"),
            None,
        ),
        Aside::Unguarded { name, guard, shed } => {
            let guard = guard.map(|guard| ("guard", guard.to_string()));
            let shed = shed.map(|shed| ("shed", shed.to_string()));
            let all: Vec<_> = guard.into_iter().chain(shed).collect();
            let all = |between: &str, of: fn(&(&str, String)) -> String| {
                all.iter().map(of).collect::<Vec<_>>().join(between)
            };
            let (said, off) = (
                all(" and ", |(name, value)| format!("{name} {value}")),
                all(" ", |(name, _)| format!("{name}=off")),
            );
            (
                format!(
                    "app `{name}` serves datagrams, which are neither guarded nor refused: {said} is for TCP"
                ),
                Some(format!("cluster policy {name} {off} ends that")),
            )
        }
        Aside::Weights { name, weights } => {
            let weights: Vec<_> = weights.iter().map(u32::to_string).collect();
            let message = format!("app `{name}` has weights {} now", weights.join(","));
            (message, Some(format!("cluster policy {name} weights=N,… sets others")))
        }
        Aside::WeightsEnded { name } => (
            format!("the weights of app `{name}` have ended: they go with policy round-robin"),
            None,
        ),
        Aside::Untried { name } => (
            format!("no connection came to the new workers of app `{name}` during the soak"),
            Some("a longer --soak, or a larger --canary, proves more".to_owned()),
        ),
        Aside::Turns { name, policy } => (
            format!(
                "the workers of app `{name}` take turns as long as the canary has its share: policy {} would give it another one",
                policy.name()
            ),
            None,
        ),
        Aside::NotScheduled { name, why } => (
            format!("the policy of app `{name}` is not to be had: {why}"),
            Some(format!("cluster policy {name} asks for it again when it is named")),
        ),
    };
    Some(Notice { message, hint })
}

fn refused(refusal: &Refusal) -> Failure {
    match refusal {
        Refusal::Unknown { target, names } => unknown(target, names),
        Refusal::NameInUse { name, id } => {
            Failure::new(Reason::Conflict, format!("name `{name}` is in use by app {id}"))
                .hint(format!(
                    "cluster scale {name} N changes the number of workers, cluster restart {name} starts them \
                     anew; for other options or another environment: cluster delete {name}, then start; or \
                     give another --name"
                ))
        }
        Refusal::BadScale { from, to } => Failure::new(
            Reason::BadRequest,
            format!("{to} workers are asked for, {from} there are: the number must be 1 to {MAX_INSTANCES}"),
        )
        .hint("cluster stop ends all workers of an app"),
        Refusal::Ambiguous { names } => {
            Failure::new(Reason::BadRequest, format!("one app is expected, but the target means {}", names.join(", ")))
        }
        Refusal::Unschedulable { name, why } => {
            Failure::new(Reason::BadRequest, format!("app `{name}`: {why}"))
                .hint(format!("cluster policy {name} shows how it is scheduled, and what there is"))
        }
        Refusal::NotScheduled { name, why } => {
            Failure::new(Reason::Failed, format!("app `{name}`: {why}; its policy stays as it was"))
                .hint("cluster doctor shows what this kernel supports")
        }
        Refusal::NotRunning { name } => {
            Failure::new(Reason::Conflict, format!("app `{name}` is not running"))
                .hint(format!("cluster start {name} starts it"))
        }
        Refusal::Rolling { name, who, since, canary } => {
            let ago = Moment::now().since(*since).as_secs();
            let (what, first) = if *canary {
                ("has a canary", format!("cluster promote {name} rolls it out"))
            } else {
                ("is being reloaded", "wait for it".to_owned())
            };
            Failure::new(Reason::Conflict, format!("app `{name}` {what}, by {who}, for {ago} s"))
                .hint(format!(
                    "{first}, cluster rollback {name} turns it back, cluster reload {name} --force takes over"
                ))
        }
        Refusal::BigCanary { name, asked, instances } => {
            let workers = if *instances == 1 { "worker" } else { "workers" };
            Failure::new(
                Reason::BadRequest,
                format!("a canary of {asked} is asked for, and app `{name}` has {instances} {workers}"),
            )
            .hint(format!(
                "a canary is 1 to {instances} new workers, or a share: cluster reload {name} --canary 5%"
            ))
        }
        Refusal::TurnedBack { name, who } => Failure::new(
            Reason::Failed,
            format!("the reload of app `{name}` was turned back, by {who}"),
        )
        .hint(format!("cluster history {name} shows what was deployed")),
        Refusal::NothingToPromote { name } => {
            Failure::new(Reason::Conflict, format!("app `{name}` has no canary to promote"))
                .hint(format!("cluster reload {name} --canary 5% makes one"))
        }
        Refusal::NothingToRollBack { name } => {
            Failure::new(Reason::Conflict, format!("app `{name}` has nothing to go back to"))
                .hint(format!("cluster history {name} shows what was deployed"))
        }
        Refusal::Ending => Failure::new(Reason::Unavailable, "the daemon is ending"),
        Refusal::Superseded { name } => {
            Failure::new(Reason::Conflict, format!("another command changed app `{name}` in the meantime"))
                .hint("cluster list shows how it is now")
        }
    }
}

/// No app is meant by a target.
pub(super) fn unknown(target: &str, names: &[String]) -> Failure {
    let hint = if names.is_empty() {
        "no app has been started: cluster start <script>".to_owned()
    } else {
        let there = format!("there is {}", names.join(", "));
        // Whoever leaves the app out means what follows it.
        let what = if POLICIES.iter().any(|policy| policy.name == target) {
            Some("policies")
        } else {
            target.contains('=').then_some("settings")
        };
        match what {
            Some(what) => format!("{what} follow an app: cluster policy APP {target}; {there}"),
            None => there,
        }
    };
    Failure::new(Reason::NotFound, format!("no app, worker or namespace is meant by `{target}`"))
        .hint(hint)
}
