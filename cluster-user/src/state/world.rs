//! A world around the core for its tests: it carries effects out, slowly or not at all, and watches the invariants.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::{Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use cluster_common::slot::Slot;

use super::{
    State,
    effect::{Effect, Tale},
    event::{CallId, Command, Event, Exit},
};
use crate::{
    config::{
        spec::{AppSpec, Readiness, RestartPolicy, StopPolicy},
        target::Target,
    },
    datapath::{GroupKey, OnMiss, Protocol, Traffic},
    id::{AppId, GroupId, Instance, Ticket, WorkerId},
};

/// The core, and what would be true outside of it.
pub(super) struct World {
    pub(super) state: State,
    pub(super) now: Instant,
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
    tickets: BTreeMap<Ticket, WorkerId>,
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
}

/// Effects that fail while they are set.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Faults {
    pub(super) spawn: bool,
    pub(super) open: bool,
    pub(super) join: bool,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: State::default(),
            now: Instant::now(),
            mail: Vec::new(),
            answers: VecDeque::new(),
            alive: BTreeMap::new(),
            dying: BTreeSet::new(),
            routes: BTreeMap::new(),
            sockets: BTreeMap::new(),
            on_miss: BTreeMap::new(),
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
        }
    }

    pub(super) fn command(&mut self, command: Command) -> CallId {
        let call = CallId(self.next_call);
        self.next_call += 1;
        self.told.insert(call, Vec::new());
        self.handle(Event::Command { call, command });
        call
    }

    /// Lets a live worker listen on a port.
    pub(super) fn listen(&mut self, worker: WorkerId, port: u16) {
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.tickets.insert(ticket, worker);
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
            self.handle(Event::Tick);
            assert!(
                self.state.deadline().is_none_or(|next| next > self.now),
                "a passed deadline is left in place"
            );
        }
        self.now = until;
    }

    pub(super) fn handle(&mut self, event: Event) {
        let effects = self.state.handle(self.now, event);
        for effect in effects {
            self.perform(effect);
        }
        self.check();
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Spawn { worker, app, instance, .. } => {
                let same = self.alive.values().filter(|seat| **seat == (app, instance)).count();
                assert_eq!(same, 0, "seat {app}:{instance} is taken already");
                if self.faults.spawn {
                    let reason = "failed to execute".to_owned();
                    return self.answers.push_back(Event::SpawnFailed { worker, reason });
                }
                self.alive.insert(worker, (app, instance));
                self.answers.push_back(Event::Spawned {
                    worker,
                    pid: u32::try_from(worker.0).unwrap() + 100,
                });
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
                self.alive.remove(&worker).expect("only what lived is swept");
                self.dying.remove(&worker);
                self.tickets.retain(|_, of| *of != worker);
                self.mail.push(Event::Swept { worker });
            }
            Effect::Measure { worker } => {
                self.answers.push_back(Event::Measured { worker, traffic: Some(self.traffic) });
            }
            Effect::Open { group, ticket, .. } => {
                if self.faults.open {
                    self.tickets.remove(&ticket);
                    let reason = "the port is held".to_owned();
                    let failed = Event::OpenFailed { group, reason, fatal: true };
                    return self.answers.push_back(failed);
                }
                assert!(self.routes.insert(group, Vec::new()).is_none(), "opened twice");
                self.answers.push_back(Event::Opened { group, ticket });
            }
            Effect::Join { ticket, group, slot } => {
                let failure = self.faults.join.then(|| "no room".to_owned());
                let event = match self.tickets.remove(&ticket).filter(|_| failure.is_none()) {
                    Some(worker)
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
                self.sockets.retain(|(of, _), _| *of != group);
            }
            Effect::Forget { app } => {
                let left = self.alive.values().filter(|(of, _)| *of == app).count();
                assert_eq!(left, 0, "app {app} is forgotten while a worker of it lives");
                self.forgotten.push(app);
            }
            // What a worker has closed is told by the tests themselves.
            Effect::Flush { .. } | Effect::Compare { .. } => {}
            Effect::Tell { call, tale } => {
                let told = self.told.get_mut(&call).expect("only who asked is told");
                assert!(
                    told.iter().all(|tale| matches!(tale, Tale::Progress { .. })),
                    "answered twice"
                );
                told.push(tale);
            }
            Effect::End => self.ended = true,
        }
    }

    /// What must be true after every event.
    fn check(&self) {
        for (group, route) in &self.routes {
            let mut turns = BTreeMap::new();
            let owner = |slot: &Slot| self.sockets.get(&(*group, *slot));
            // One that has ended is in the route until that is known.
            for worker in route.iter().filter_map(owner) {
                *turns.entry(worker).or_insert(0) += 1;
            }
            let (least, most) = (turns.values().min(), turns.values().max());
            let gone = route.iter().any(|slot| owner(slot).is_none());
            assert!(least == most || gone, "{group:?} favours a worker: {turns:?}");
        }
        for view in self.state.apps(&[]) {
            for seat in view.seats.iter().filter(|seat| seat.online_since.is_some()) {
                for (group, slot) in &seat.slots {
                    let joined = self.sockets.get(&(*group, *slot)) == seat.worker.as_ref();
                    let joining = self.joining(*group, *slot);
                    let routed = self.routes[group].contains(slot);
                    assert!(
                        routed || !joined || joining,
                        "an online worker is missing from its route"
                    );
                }
            }
        }
    }

    fn assert_out_of_every_route(&self, worker: WorkerId) {
        for ((group, slot), of) in &self.sockets {
            let routed = self.routes.get(group).is_some_and(|route| route.contains(slot));
            assert!(*of != worker || !routed, "worker {worker} is told to end while in the route");
        }
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

    /// Whether a command was answered, and how.
    pub(super) fn answer(&self, call: CallId) -> Option<&Tale> {
        self.told[&call].last().filter(|tale| !matches!(tale, Tale::Progress { .. }))
    }
}

pub(super) fn key(port: u16) -> GroupKey {
    let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
    GroupKey { protocol: Protocol::Tcp, address, v6only: false, uid: 0, device: 0, netns: 1 }
}

pub(super) fn spec(name: &str, instances: u32) -> AppSpec {
    AppSpec {
        name: name.parse().unwrap(),
        namespace: "default".parse().unwrap(),
        script: name.to_owned(),
        program: "/bin/true".into(),
        args: vec![],
        cwd: "/".into(),
        env: BTreeMap::new(),
        user: None,
        instances,
        ports: vec![],
        readiness: Readiness::Listening,
        listen_timeout: Duration::from_secs(30),
        probe: None,
        liveness: None,
        watchdog: None,
        overlap: true,
        restart: RestartPolicy {
            autorestart: true,
            max_restarts: 16,
            min_uptime: Duration::from_secs(1),
            restart_delay: Duration::ZERO,
            stop_exit_codes: vec![],
        },
        stop: StopPolicy {
            signal: 15,
            with_message: false,
            drain_timeout: Duration::from_secs(30),
            kill_timeout: Duration::from_secs(10),
        },
        wait_timeout: Duration::from_secs(30),
        trace: false,
        require_kernel: false,
    }
}

pub(super) fn start(spec: AppSpec) -> Command {
    Command::Start { spec: Box::new(spec), wait: true }
}

pub(super) fn targets(text: &str) -> Vec<Target> {
    vec![Target::parse(text).unwrap()]
}
