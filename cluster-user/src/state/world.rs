//! A world around the core for its tests: it carries effects out, slowly or not at all, and watches the invariants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    time::Duration,
};

use cluster_common::slot::Slot;

use super::{
    State,
    adopt::Found,
    announcement::Announcement,
    effect::{Effect, Tale},
    event::{CallId, Command, Event, Exit},
};
use crate::{
    config::{
        scheduling::{Policy, Scheduling},
        spec::{AppSpec, hooks::Hook},
        target::Target,
    },
    datapath::{GroupKey, OnMiss, Protocol, Traffic},
    id::{AppId, GroupId, Instance, Ticket, WorkerId},
    moment::Moment,
};

/// The core, and what would be true outside of it.
pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Moment,
    /// What happened outside, in no order that could be relied upon.
    pub(super) mail: Vec<Event>,
    /// Answers to effects that are carried out by a call: in order, and before any news.
    pub(super) answers: VecDeque<Event>,
    /// Process trees, with their seats.
    pub(super) alive: BTreeMap<WorkerId, (AppId, Instance)>,
    /// Trees whose main process has ended and that are not swept yet.
    pub(super) dying: BTreeSet<WorkerId>,
    pub(super) routes: BTreeMap<GroupId, Vec<Slot>>,
    pub(super) sockets: BTreeMap<(GroupId, Slot), WorkerId>,
    pub(super) on_miss: BTreeMap<GroupId, OnMiss>,
    /// Workers that connections are kept away from.
    pub(super) distrusted: BTreeSet<WorkerId>,
    /// By which rule the data path picks in each group.
    pub(super) rules: BTreeMap<GroupId, Scheduling>,
    /// Groups that were refused the rule of their app since they had it, and were not told again.
    pub(super) stale: BTreeSet<GroupId>,
    tickets: BTreeMap<Ticket, (WorkerId, u16)>,
    pub(super) told: BTreeMap<CallId, Vec<Tale>>,
    pub(super) signals: Vec<(WorkerId, i32)>,
    pub(super) kills: Vec<WorkerId>,
    pub(super) forgotten: Vec<AppId>,
    pub(super) ended: bool,
    next_ticket: u64,
    next_call: u64,
    /// What a worker that is measured has to do still.
    pub(super) traffic: Traffic,
    /// What cannot be carried out.
    pub(super) faults: Faults,
    /// What was written down before the effects in hand were carried out.
    pub(super) journal: State,
    /// Whether groups are long in opening, as those are that have a program of the user's.
    pub(super) opens_late: bool,
    /// Effects that are carried out yet before the supervisor is killed.
    pub(super) fuse: Option<u32>,
    pub(super) probes: Vec<WorkerId>,
    pub(super) resumed: Vec<WorkerId>,
    /// Workers whose silent connections were to be closed.
    pub(super) hung_up: Vec<WorkerId>,
    pub(super) hooks: Vec<(WorkerId, Hook)>,
    pub(super) news: Vec<Announcement>,
}

/// Effects that fail while they are set.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is one effect")]
pub(super) struct Faults {
    pub(super) spawn: bool,
    pub(super) open: bool,
    pub(super) join: bool,
    pub(super) schedule: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: State::default(),
            now: Moment::default() + Duration::from_secs(1000),
            mail: Vec::new(),
            answers: VecDeque::new(),
            alive: BTreeMap::new(),
            dying: BTreeSet::new(),
            routes: BTreeMap::new(),
            sockets: BTreeMap::new(),
            on_miss: BTreeMap::new(),
            distrusted: BTreeSet::new(),
            rules: BTreeMap::new(),
            stale: BTreeSet::new(),
            tickets: BTreeMap::new(),
            told: BTreeMap::new(),
            signals: Vec::new(),
            kills: Vec::new(),
            forgotten: Vec::new(),
            ended: false,
            next_ticket: 0,
            next_call: 0,
            traffic: Traffic::default(),
            faults: Faults::default(),
            opens_late: false,
            journal: State::default(),
            fuse: None,
            probes: Vec::new(),
            resumed: Vec::new(),
            hung_up: Vec::new(),
            hooks: Vec::new(),
            news: Vec::new(),
        }
    }

    pub(super) fn command(&mut self, command: Command) -> CallId {
        let call = self.reserve();
        self.command_as(call, command);
        call
    }

    /// The number of a command that comes later.
    pub(super) fn reserve(&mut self) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.told.insert(call, Vec::new());
        call
    }

    pub(super) fn command_as(&mut self, call: CallId, command: Command) {
        self.handle(Event::Command { call, command });
    }

    /// Lets a live worker listen on a port.
    pub(super) fn listen(&mut self, worker: WorkerId, port: u16) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, (worker, port));
        self.handle(Event::Listening { worker, ticket, key: key(port) });
    }

    /// A process ends by itself: the kernel closes its sockets and empties their slots.
    pub(super) fn exit(&mut self, worker: WorkerId, exit: Exit) {
        if self.dying.contains(&worker) || !self.alive.contains_key(&worker) {
            return;
        }
        self.dying.insert(worker);
        self.sockets.retain(|_, of| *of != worker);
        self.mail.push(Event::Exited { worker, exit });
    }

    pub(super) fn deliver(&mut self, nth: usize) {
        if let Some(answer) = self.answers.pop_front() {
            self.handle(answer);
        } else if !self.mail.is_empty() {
            let event = self.mail.remove(nth % self.mail.len());
            self.handle(event);
        }
    }

    pub(super) fn deliver_all(&mut self) {
        while !(self.mail.is_empty() && self.answers.is_empty()) {
            self.deliver(0);
        }
    }

    /// Time passes; the core is woken when it asked for it.
    pub(super) fn pass(&mut self, duration: Duration) {
        let until = self.now + duration;
        while let Some(at) = self.state.deadline().filter(|at| *at <= until) {
            self.now = at.max(self.now);
            let killed = self.fuse.is_some();
            self.handle(Event::Tick);
            // What was overdue when nobody was there is done at the next tick.
            assert!(
                killed || self.state.deadline().is_none_or(|next| next > self.now),
                "a passed deadline is left in place"
            );
        }
        self.now = until;
    }

    pub(super) fn handle(&mut self, event: Event) {
        let effects = self.state.handle(self.now, event);
        self.carry_out(effects);
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        self.journal = self.state.clone();
        for effect in effects {
            match &mut self.fuse {
                Some(0) => {
                    self.fuse = None;
                    return self.take_over();
                }
                Some(left) => *left -= 1,
                None => {}
            }
            self.perform(effect);
        }
        self.check();
    }

    /// The supervisor was killed before it could spawn a worker that it had written down.
    pub(super) fn never_spawned(&mut self, worker: WorkerId) {
        self.alive.remove(&worker);
    }

    /// The supervisor is killed, and the next one takes over with nothing but what was written down and what it finds.
    pub(super) fn take_over(&mut self) {
        let journal = serde_json::to_string(&self.journal).unwrap();
        let mut state: State = serde_json::from_str(&journal).unwrap();
        state.complete().unwrap();
        self.answers.clear();
        // What it was about to hear it does not hear; ends of processes are found out.
        self.mail.clear();
        let mut found = Found::default();
        for known in state.known_workers() {
            let lives =
                self.alive.contains_key(&known.worker) && !self.dying.contains(&known.worker);
            if lives {
                found.alive.insert(known.worker, pid(known.worker));
            }
        }
        let none: BTreeMap<Slot, WorkerId> = BTreeMap::new();
        for (group, _, _) in state.known_groups() {
            if self.routes.contains_key(&group) {
                let of_group = self.sockets.iter().filter(|((of, _), _)| *of == group);
                let slots = of_group.map(|((_, slot), worker)| (*slot, *worker));
                found.groups.insert(group, none.clone().into_iter().chain(slots).collect());
            }
        }
        // Groups that nobody will ask for are found to be orphans and ended; so are workers.
        let known: BTreeSet<_> = found.groups.keys().copied().collect();
        self.routes.retain(|group, _| known.contains(group));
        self.rules.retain(|group, _| known.contains(group));
        self.stale.clear();
        self.sockets.retain(|(group, _), _| known.contains(group));
        let workers: BTreeSet<_> = state.known_workers().iter().map(|known| known.worker).collect();
        self.alive.retain(|worker, _| workers.contains(worker));
        self.dying.retain(|worker| workers.contains(worker));
        // Whoever waited is told that the daemon is gone by the end of the connection.
        self.told.clear();
        let tickets = std::mem::take(&mut self.tickets);
        self.state = state;
        let effects = self.state.adopt(self.now, &found);
        self.carry_out(effects);
        // Sockets that listen and are in no slot are reported again.
        for (worker, port) in tickets.into_values() {
            if self.alive.contains_key(&worker) && !self.dying.contains(&worker) {
                self.listen(worker, port);
            }
        }
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { worker, app, instance, .. } => {
                self.assert_there_is_a_place(worker, app, instance);
                if self.faults.spawn {
                    let reason = "failed to execute".to_owned();
                    return self.answers.push_back(Event::SpawnFailed { worker, reason });
                }
                // It may have been spawned before, by one who was killed, and have ended unseen.
                self.dying.remove(&worker);
                self.alive.insert(worker, (app, instance));
                self.answers.push_back(Event::Spawned { worker, pid: pid(worker) });
            }
            Effect::Signal { worker, signal } => {
                self.assert_out_of_every_route(worker);
                self.signals.push((worker, signal));
            }
            Effect::Kill { worker } => {
                self.assert_out_of_every_route(worker);
                self.kills.push(worker);
                self.exit(worker, Exit::Signal(9));
            }
            Effect::Sweep { worker } => {
                // It may have been swept by a supervisor that was killed, or never have lived.
                self.alive.remove(&worker);
                self.dying.remove(&worker);
                self.distrusted.remove(&worker);
                self.sockets.retain(|_, of| *of != worker);
                self.tickets.retain(|_, (of, _)| *of != worker);
                self.mail.push(Event::Swept { worker });
            }
            Effect::Measure { worker } | Effect::Drain { worker, .. } => {
                if let Effect::Drain { idle: Some(_), .. } = effect
                    && !self.hung_up.contains(&worker)
                {
                    self.hung_up.push(worker);
                }
                self.answers.push_back(Event::Measured { worker, traffic: Some(self.traffic) });
            }
            Effect::Open { group, ticket, scheduling, .. } => {
                let custom = matches!(scheduling.policy, Policy::Custom(_));
                if self.faults.open || self.faults.schedule && !custom {
                    self.tickets.remove(&ticket);
                    let reason = "the port is held".to_owned();
                    let failed = Event::OpenFailed { group, reason, fatal: true };
                    return self.answers.push_back(failed);
                }
                assert!(self.routes.insert(group, Vec::new()).is_none(), "opened twice");
                let unscheduled = self.faults.schedule.then(|| "it is gone".to_owned());
                if unscheduled.is_some() {
                    self.stale.insert(group);
                    self.rules.insert(group, Scheduling::default());
                } else {
                    self.rules.insert(group, *scheduling);
                }
                let opened = Event::Opened { group, ticket, unscheduled };
                if self.opens_late {
                    self.mail.push(opened);
                } else {
                    self.answers.push_back(opened);
                }
            }
            Effect::Schedule { group, scheduling } => self.schedule(group, *scheduling),
            Effect::Join { ticket, group, slot } => {
                let failure = self.faults.join.then(|| "no room".to_owned());
                let event = match self.tickets.remove(&ticket).filter(|_| failure.is_none()) {
                    Some((worker, _))
                        if self.alive.contains_key(&worker) && !self.dying.contains(&worker) =>
                    {
                        let before = self.sockets.insert((group, slot), worker);
                        assert_eq!(before, None, "slot {slot:?} of {group:?} is taken already");
                        Event::Joined { group, slot }
                    }
                    Some(_) | None => Event::JoinFailed { group, slot, reason: failure },
                };
                self.answers.push_back(event);
            }
            Effect::Refuse { ticket } => drop(self.tickets.remove(&ticket)),
            Effect::Publish { group, route } => {
                assert!(!route.contains(&Slot::WAITING_ROOM));
                *self.routes.get_mut(&group).expect("only an open group has a route") = route;
            }
            Effect::Vacate { group, slot } => drop(self.sockets.remove(&(group, slot))),
            Effect::OnMiss { group, on_miss } => drop(self.on_miss.insert(group, on_miss)),
            Effect::Close { group } => {
                self.routes.remove(&group).expect("closed once");
                self.rules.remove(&group);
                self.stale.remove(&group);
                self.sockets.retain(|(of, _), _| *of != group);
                self.mail.retain(
                    |event| !matches!(event, Event::Opened { group: of, .. } if *of == group),
                );
            }
            Effect::Forget { app } => {
                let left = self.alive.values().filter(|(of, _)| *of == app).count();
                assert_eq!(left, 0, "app {app} is forgotten while a worker of it lives");
                self.forgotten.push(app);
            }
            Effect::Distrust { worker, distrusted } => {
                assert!(self.alive.contains_key(&worker), "worker {worker} is not there");
                // Whether it is changed is known only to a supervisor that said the last word.
                if distrusted {
                    self.distrusted.insert(worker);
                } else {
                    self.distrusted.remove(&worker);
                }
            }
            Effect::Resume { worker } => self.resumed.push(worker),
            Effect::Probe { worker, .. } => self.probes.push(worker),
            Effect::Message { worker, .. } => {
                self.assert_out_of_every_route(worker);
                self.signals.push((worker, 0));
            }
            Effect::Rescue { worker } => self.assert_out_of_every_route(worker),
            Effect::Count { app, .. } => {
                self.answers.push_back(Event::Counted { app, moved: 0 });
            }
            // What a worker has closed is told by the tests themselves.
            Effect::Flush { .. } | Effect::Compare { .. } => {}
            Effect::Hook { about, hook, .. } => {
                self.hooks.push((about.worker, hook));
                if hook == Hook::PreStop {
                    self.assert_out_of_every_route(about.worker);
                    self.mail.push(Event::Hooked { worker: about.worker });
                }
            }
            Effect::Announce(announcement) => self.news.push(*announcement),
            Effect::Tell { call, tale } => {
                let told = self.told.get_mut(&call).expect("only who asked is told");
                assert!(told.iter().all(is_progress), "answered twice: {told:?}, {tale:?}");
                told.push(tale);
            }
            Effect::End => self.ended = true,
        }
    }

    fn schedule(&mut self, group: GroupId, scheduling: Scheduling) {
        assert!(self.routes.contains_key(&group), "only an open group has a rule");
        let result = if self.faults.schedule {
            // What it has stays. When that is not what its app has, nobody asks again before the next takeover.
            self.stale.insert(group);
            Err("this host lacks it".to_owned())
        } else {
            self.stale.remove(&group);
            self.rules.insert(group, scheduling);
            Ok(())
        };
        self.answers.push_back(Event::Scheduled { group, result });
    }

    /// Whether the core does not know yet that a socket has joined.
    pub(super) fn joining(&self, group: GroupId, slot: Slot) -> bool {
        let this = |event: &Event| matches!(event, Event::Joined { group: g, slot: s } if (*g, *s) == (group, slot));
        self.answers.iter().any(this)
    }

    /// The live worker of a seat.
    pub(super) fn worker(&self, app: u32, instance: u32) -> Option<WorkerId> {
        let seat = (AppId(app), Instance(instance));
        self.alive
            .iter()
            .find(|(worker, of)| **of == seat && !self.dying.contains(worker))
            .map(|(id, _)| *id)
    }

    /// Who is to take a seat.
    pub(super) fn successor(&self, app: u32, instance: u32) -> Option<WorkerId> {
        let view = self.state.app_of(AppId(app))?;
        let seat = view.seats.into_iter().find(|seat| seat.instance == Instance(instance))?;
        let starting = seat.others.iter().find(|other| {
            matches!(other.status, super::view::Status::Starting | super::view::Status::Ready)
        });
        starting.map(|other| other.worker)
    }

    /// Whether a command was answered, and how.
    pub(super) fn answer(&self, call: CallId) -> Option<&Tale> {
        self.told[&call].last().filter(|tale| !is_progress(tale))
    }
}

fn is_progress(tale: &Tale) -> bool {
    matches!(
        tale,
        Tale::Progress { .. } | Tale::Rolling { .. } | Tale::Back { .. } | Tale::Aside(_)
    )
}

fn pid(worker: WorkerId) -> u32 {
    u32::try_from(worker.0).unwrap() + 100
}

pub(super) fn key(port: u16) -> GroupKey {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    GroupKey { protocol: Protocol::Tcp, address, v6only: false, uid: 0, device: 0, netns: 1 }
}

pub(super) fn spec(name: &str, instances: u32) -> AppSpec {
    AppSpec {
        program: "/bin/true".into(),
        cwd: "/".into(),
        instances,
        ..AppSpec::usual(name.parse().unwrap())
    }
}

pub(super) fn start(spec: AppSpec) -> Command {
    Command::Start { spec: Box::new(spec), idle: false, wait: true }
}

pub(super) fn targets(text: &str) -> Vec<Target> {
    vec![Target::parse(text).unwrap()]
}
