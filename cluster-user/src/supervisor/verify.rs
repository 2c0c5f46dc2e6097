//! Programs of users are looked at by the kernel on threads of their own: it may take seconds, and everybody else would wait.
//!
//! Before an app is started, reloaded or switched, the request waits for the verdict. It keeps its number meanwhile, so that
//! the core refuses it when something that was asked for later has been done. A group waits for its program: what it shall
//! have after that waits behind it. So what was asked for last is what there is.

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
        message::{Failure, Line, PolicyRequest, Reason, ReloadRequest, Request},
        server::Call,
    },
    config::{
        name::Name,
        scheduling::{Policy, Scheduling},
    },
    datapath::{Slow, kernel::custom::Loaded},
    id::{GroupId, Ticket},
    state::event::{CallId, Event},
};

/// What the kernel said of programs of users.
pub(super) type Verdicts = BTreeMap<PathBuf, anyhow::Result<()>>;

/// What is verified at a time: it is work of a CPU each.
const THREADS: usize = 2;

/// What is being verified.
pub(super) struct Verifying {
    sender: UnboundedSender<Verified>,
    pub(super) done: UnboundedReceiver<Verified>,
    /// Requests that wait for a verdict.
    asked: BTreeMap<CallId, Call>,
    /// Groups that wait for a program, and what they shall have one after the other.
    groups: BTreeMap<GroupId, VecDeque<Wish>>,
    /// Threads at work.
    busy: usize,
    /// What waits for a thread, and for which group it is.
    queue: VecDeque<(Option<GroupId>, Slow<Verified>)>,
}

/// What was verified.
pub(super) enum Verified {
    /// What a request asks for.
    Asked(CallId, Verdicts),
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
        let (asked, groups, queue) = (BTreeMap::new(), BTreeMap::new(), VecDeque::new());
        Self { sender, done, asked, groups, busy: 0, queue }
    }

    /// Forgets what a group waits for, which is closed: what is loaded for it is let go again when it comes.
    pub(super) fn cancel(&mut self, group: GroupId) {
        self.groups.remove(&group);
        self.queue.retain(|(of, _)| *of != Some(group));
    }

    /// Tells everybody who waits for a verdict that there will be none: the daemon ends.
    pub(super) fn end(&mut self) {
        self.queue.clear();
        for call in std::mem::take(&mut self.asked).into_values() {
            let message =
                "the daemon ended before the kernel had looked at the policy; nothing was changed";
            let failure = Failure::new(Reason::Unavailable, message).hint("ask again");
            // Whoever asked may have gone.
            drop(call.reply.send(Line::Failed(failure)));
        }
    }

    fn begin(&mut self, of: Option<GroupId>, work: Slow<Verified>) {
        self.queue.push_back((of, work));
        self.go_on();
    }

    /// A thread has done its work.
    fn freed(&mut self) {
        self.busy -= 1;
        self.go_on();
    }

    fn go_on(&mut self) {
        while self.busy < THREADS
            && let Some((_, work)) = self.queue.pop_front()
        {
            self.busy += 1;
            let sender = self.sender.clone();
            // The thread that has it may not begin.
            let (hand_over, handed) = std::sync::mpsc::sync_channel::<Slow<Verified>>(1);
            let begun = thread::Builder::new().name("verify".to_owned()).spawn(move || {
                let Ok(work) = handed.recv() else { return };
                // The loop has ended when nobody hears it.
                drop(sender.send(work()));
            });
            match begun {
                // It takes it: it has not gone before.
                Ok(_) => drop(hand_over.send(work)),
                // Then everybody waits.
                Err(_) => drop(self.sender.send(work())),
            }
        }
    }
}

impl Supervisor {
    /// Has the kernel look at what a request asks for, which is heard of again then; `None` when that has begun.
    pub(super) fn verify(&mut self, id: CallId, call: Call) -> Option<Call> {
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
        let verify = move || {
            let verdicts = asked.into_iter().map(|(path, verify)| {
                let verdict = guarded(&path.display().to_string(), verify).unwrap_or_else(Err);
                (path, verdict)
            });
            Verified::Asked(id, verdicts.collect())
        };
        self.host.verifying.asked.insert(id, call);
        self.host.verifying.begin(None, Box::new(verify));
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
        self.host.verifying.freed();
        match verified {
            Verified::Asked(id, verdicts) => {
                let Some(call) = self.host.verifying.asked.remove(&id) else { return };
                if let Some(event) = self.decide(id, call, verdicts) {
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
    fn load(&mut self, group: GroupId, scheduling: &Scheduling) -> bool {
        let Some(load) = self.datapath.loading(group, scheduling) else { return false };
        let policy = scheduling.policy.to_string();
        let load =
            move || Verified::Loaded(group, guarded(&policy, load).unwrap_or_else(Loaded::failed));
        self.verifying.begin(Some(group), Box::new(load));
        true
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
