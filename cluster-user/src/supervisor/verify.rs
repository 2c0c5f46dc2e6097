//! Programs of users are looked at by the kernel on threads of their own: it may take seconds, and everybody else would wait.
//!
//! Before an app is started, reloaded or switched, the request waits for the verdict. A group waits for its program: what it
//! shall have after that waits behind it, so that what was asked for last is what it has.

use std::{
    collections::{BTreeMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    path::PathBuf,
    thread,
};

use anyhow::anyhow;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use super::{host::Host, run::Supervisor};
use crate::{
    api::{
        message::{PolicyRequest, ReloadRequest, Request},
        server::Call,
    },
    config::{
        name::Name,
        scheduling::{Policy, Scheduling},
    },
    datapath::{Slow, kernel::custom::Loaded},
    id::{GroupId, Ticket},
    state::event::Event,
};

/// What the kernel said of programs of users.
pub(super) type Verdicts = BTreeMap<PathBuf, anyhow::Result<()>>;

/// What is being verified.
pub(super) struct Verifying {
    sender: UnboundedSender<Verified>,
    pub(super) done: UnboundedReceiver<Verified>,
    /// Groups that wait for a program, and what they shall have one after the other.
    groups: BTreeMap<GroupId, VecDeque<Wish>>,
}

/// What was verified.
pub(super) enum Verified {
    /// What a request asks for.
    Asked(Box<Call>, Verdicts),
    /// The program of the first wish of a group.
    Loaded(GroupId, Loaded),
}

/// What a group shall have.
pub(super) struct Wish {
    pub(super) scheduling: Scheduling,
    /// Who founded it, when it is being opened.
    pub(super) founder: Option<Ticket>,
}

impl Verifying {
    pub(super) fn new() -> Self {
        let (sender, done) = mpsc::unbounded_channel();
        Self { sender, done, groups: BTreeMap::new() }
    }

    /// Forgets what a group waits for, which is closed: what is loaded for it is let go again when it comes.
    pub(super) fn cancel(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }
}

impl Supervisor {
    /// Has the kernel look at what a request asks for, which is heard of again then; `None` when that has begun.
    pub(super) fn verify(&self, call: Call) -> Option<Call> {
        let mut asked: BTreeMap<PathBuf, Slow<anyhow::Result<()>>> = BTreeMap::new();
        for (app, scheduling) in self.wishes(&call.request) {
            if let Policy::Custom(path) = &scheduling.policy
                && !asked.contains_key(path)
                && let Some(verify) = self.host.datapath.verification(app.as_str(), &scheduling)
            {
                asked.insert(path.clone(), verify);
            }
        }
        if asked.is_empty() {
            return Some(call);
        }
        let sender = self.host.verifying.sender.clone();
        // The thread that has it may not begin.
        let (hand_over, handed) = std::sync::mpsc::sync_channel(1);
        let verify = move || {
            let Ok(call) = handed.recv() else { return };
            let verdicts = asked.into_iter().map(|(path, verify)| {
                let verdict = guarded(&path.display().to_string(), verify).unwrap_or_else(Err);
                (path, verdict)
            });
            // The loop has ended when nobody hears it.
            drop(sender.send(Verified::Asked(call, verdicts.collect())));
        };
        match thread::Builder::new().name("verify".to_owned()).spawn(verify) {
            // It takes it: it has not gone before.
            Ok(_) => drop(hand_over.send(Box::new(call))),
            // Groups find out by themselves.
            Err(_) => return Some(call),
        }
        None
    }

    /// What apps would be scheduled by, if a request were carried out.
    fn wishes(&self, request: &Request) -> Vec<(Name, Scheduling)> {
        let of = |targets: &[String]| {
            let targets = super::source::some(targets).unwrap_or_default();
            if targets.is_empty() { Vec::new() } else { self.state.apps(&targets) }
        };
        match request {
            Request::Start(start) => vec![(start.spec.name.clone(), start.spec.scheduling.clone())],
            Request::Reload(reload) => {
                let ReloadRequest { targets, change, .. } = &**reload;
                if change.spec.is_none() {
                    return Vec::new();
                }
                let changed = of(targets).into_iter().map(|app| change.apply(app.spec));
                changed.map(|spec| (spec.name, spec.scheduling)).collect()
            }
            Request::Policy(asked) => {
                let PolicyRequest { targets, switch, .. } = &**asked;
                let switched = |spec: &crate::config::spec::AppSpec| {
                    let scheduling = switch.apply(&spec.scheduling);
                    // What contradicts itself is refused for that.
                    scheduling.check(spec.instances).ok().map(|()| (spec.name.clone(), scheduling))
                };
                of(targets).into_iter().filter_map(|app| switched(app.spec)).collect()
            }
            Request::Stop(_)
            | Request::Restart(_)
            | Request::Promote(_)
            | Request::Rollback(_)
            | Request::Delete(_)
            | Request::Scale(_)
            | Request::Flush(_)
            | Request::Reopen
            | Request::Signal(_)
            | Request::Reset(_)
            | Request::Upgrade(_)
            | Request::HandOver(_)
            | Request::Kill(_)
            | Request::Apps(_)
            | Request::Send(_)
            | Request::Events(_)
            | Request::Telemetry(_)
            | Request::Readiness
            | Request::Exporter
            | Request::Export(_)
            | Request::Ping => Vec::new(),
        }
    }

    /// Goes on with what has been verified.
    pub(super) fn verified(&mut self, verified: Verified) {
        match verified {
            Verified::Asked(call, verdicts) => {
                if let Some(event) = self.decide(*call, verdicts) {
                    self.handle(event);
                }
            }
            Verified::Loaded(group, loaded) => {
                for event in self.host.loaded(group, loaded) {
                    if matches!(event, Event::Opened { .. }) {
                        self.learn_groups();
                    }
                    self.handle(event);
                }
            }
        }
    }
}

impl Host {
    /// Has a group scheduled; `None` when the answer follows.
    pub(super) fn schedule(&mut self, group: GroupId, wish: Wish) -> Option<Event> {
        if let Some(waiting) = self.verifying.groups.get_mut(&group) {
            waiting.push_back(wish);
            return None;
        }
        if self.load(group, &wish.scheduling) {
            self.verifying.groups.insert(group, VecDeque::from([wish]));
            return None;
        }
        Some(self.fulfil(group, &wish, None))
    }

    /// What a group waited for is there: it gets that, and what it waits for since.
    fn loaded(&mut self, group: GroupId, loaded: Loaded) -> Vec<Event> {
        let mut waiting = self.verifying.groups.remove(&group).unwrap_or_default();
        let mut loaded = Some(loaded);
        let mut events = Vec::new();
        while let Some(wish) = waiting.pop_front() {
            if loaded.is_none() && self.load(group, &wish.scheduling) {
                waiting.push_front(wish);
                self.verifying.groups.insert(group, waiting);
                break;
            }
            events.push(self.fulfil(group, &wish, loaded.take()));
        }
        events
    }

    /// Begins to load what a group needs; whether there is anything to wait for.
    fn load(&self, group: GroupId, scheduling: &Scheduling) -> bool {
        let Some(load) = self.datapath.loading(group, scheduling) else { return false };
        let policy = scheduling.policy.to_string();
        let sender = self.verifying.sender.clone();
        let load = move || {
            let loaded = guarded(&policy, load).unwrap_or_else(Loaded::failed);
            drop(sender.send(Verified::Loaded(group, loaded)));
        };
        // Without a thread it is loaded when it is wanted: now.
        thread::Builder::new().name("load".to_owned()).spawn(load).is_ok()
    }

    fn fulfil(&mut self, group: GroupId, wish: &Wish, loaded: Option<Loaded>) -> Event {
        let scheduled = self.datapath.schedule_loaded(group, &wish.scheduling, loaded);
        if let Some(founder) = wish.founder {
            return self.opened(group, founder, &wish.scheduling, scheduled);
        }
        let result = scheduled.map_err(|error| format!("{error:#}"));
        Event::Scheduled { group, result }
    }

    /// A group has been founded, and has its rule or not; nothing is left of it when it cannot have that.
    fn opened(
        &mut self,
        group: GroupId,
        ticket: Ticket,
        scheduling: &Scheduling,
        scheduled: anyhow::Result<()>,
    ) -> Event {
        match scheduled {
            Ok(()) => Event::Opened { group, ticket, unscheduled: None },
            // It was good when it was asked for. An app that has been started must not stand still for what became of it.
            Err(error) if matches!(scheduling.policy, Policy::Custom(_)) => {
                let turns = Scheduling { policy: Policy::RoundRobin, ..scheduling.clone() };
                let rest = self.datapath.schedule(group, &turns).err();
                let rest = rest.map(|error| format!(" (without guard and shed: {error:#})"));
                let why =
                    format!("{error:#}; workers take turns instead{}", rest.unwrap_or_default());
                Event::Opened { group, ticket, unscheduled: Some(why) }
            }
            Err(error) => {
                self.datapath.refuse(ticket);
                self.datapath.close(group);
                // It would be no other the next time.
                Event::OpenFailed { group, reason: format!("{error:#}"), fatal: true }
            }
        }
    }
}

/// Does what may stumble over a program, and says so then: whoever waits for it must not wait for ever.
fn guarded<T>(policy: &str, slow: Slow<T>) -> anyhow::Result<T> {
    catch_unwind(AssertUnwindSafe(slow))
        .map_err(|_panic| anyhow!("policy {policy} cannot be used: it is damaged"))
}
