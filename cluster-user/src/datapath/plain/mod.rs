//! The data path without privileges: the kernel's own hash, and a seccomp filter that says who listens.
//!
//! Workers run under [`filter::PROGRAM`]. Their calls of `bind` and `listen` wait until they were answered
//! here: before a bind the socket gets `SO_REUSEPORT`, and a listen is carried out on a duplicate, so that
//! its result is known. From then on the kernel spreads connections over the sockets of a group by hash;
//! slots and routes are kept account of and change nothing.
//!
//! The kernel makes one notification descriptor per filter and never another. While nobody holds it the
//! two calls fail with `ENOSYS`: sockets that listen go on, new ones cannot. So a worker holds a duplicate of its own:
//! when the supervisor dies its calls wait, until the next one has taken a duplicate from there ([`adopt`]). A program
//! that closes whatever it has inherited loses that, and can bind and listen only under the supervisor that started it.
//! A call that a supervisor had taken up when it died is never answered.

pub mod filter;

mod adopt;
mod answer;
mod caller;
mod notify;
mod rival;
mod traffic;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    task::{Context, Poll, ready},
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use cluster_common::slot::Slot;
use rustix::event::{Timespec, epoll};
use tokio::io::{Interest, unix::AsyncFd};

use self::notify::Notifier;
use super::{
    Admission, DataPath, GroupKey, GroupOptions, JoinError, Mode, OnMiss, Place, Protocol, Report,
    SlotCounters, Slow, Traffic,
    holder::{self, BoundSocket},
    kernel::custom::Loaded,
    record::{GroupRecord, Seated},
    rescue, socket,
    telemetry::{GroupTelemetry, Telemetry},
};
use crate::{
    config::scheduling::{Policy, Scheduling},
    id::{AppId, GroupId, Ticket, WorkerId},
};

/// Events taken at a time.
const BATCH: usize = 32;

/// The second implementation of [`DataPath`].
#[derive(Debug)]
pub struct Plain {
    /// An epoll descriptor over all notifiers: one registration with the runtime for all workers.
    events: AsyncFd<OwnedFd>,
    workers: BTreeMap<WorkerId, Worker>,
    /// Sockets that wait for an answer of the supervisor. The duplicate keeps them from being forgotten
    /// too early and goes with the ticket.
    tickets: BTreeMap<Ticket, Pending>,
    /// Every socket that was reported, by inode number. One stays until it is gone, whatever became of its worker.
    listeners: BTreeMap<u64, Listener>,
    /// `SO_NETNS_COOKIE` of the network namespace the supervisor is in; absent where the kernel does not tell.
    netns: Option<u64>,
    groups: BTreeMap<GroupId, Group>,
    reports: VecDeque<Report>,
    last: u64,
}

/// An admitted worker.
#[derive(Debug)]
struct Worker {
    app: AppId,
    /// Ports to balance; empty for all.
    ports: Vec<u16>,
    /// Sockets that set `SO_REUSEPORT` themselves and let the kernel choose the port; inode numbers.
    private: BTreeSet<u64>,
    running: Option<Running>,
}

/// An admitted worker that was started.
#[derive(Debug)]
struct Running {
    pid: u32,
    process: OwnedFd,
    /// Absent when it could not be found again.
    notifier: Option<Notifier>,
}

/// A group, as far as there is one: an account of who sits where.
#[derive(Debug)]
struct Group {
    on_miss: OnMiss,
    route: Vec<Slot>,
    /// Cookies of the sockets in its slots.
    seats: BTreeMap<Slot, u64>,
}

/// Whose a socket is, and where.
#[derive(Clone, Copy, Debug)]
struct Listener {
    app: AppId,
    /// Absent for one that no group can take.
    at: Option<Port>,
}

/// A port of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Port {
    protocol: Protocol,
    number: u16,
    netns: u64,
}

impl Port {
    fn of(key: &GroupKey) -> Self {
        Self { protocol: key.protocol, number: key.address.port(), netns: key.netns }
    }
}

/// A reported socket.
#[derive(Debug)]
struct Pending {
    worker: WorkerId,
    key: GroupKey,
    /// A duplicate.
    socket: OwnedFd,
}

impl Plain {
    /// Makes an empty one. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn new() -> io::Result<Self> {
        let events = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        // SAFETY: an owned descriptor is open, and stays the same one until the `AsyncFd` gives it up.
        let events = unsafe { AsyncFd::register_with_interest(events, Interest::READABLE) }?;
        Ok(Self {
            events,
            workers: BTreeMap::new(),
            tickets: BTreeMap::new(),
            listeners: BTreeMap::new(),
            netns: socket::own_netns().ok(),
            groups: BTreeMap::new(),
            reports: VecDeque::new(),
            last: 0,
        })
    }

    /// Stops listening to a worker.
    fn unhook(&mut self, worker: WorkerId) {
        let running = self.workers.get_mut(&worker).and_then(|worker| worker.running.take());
        if let Some(notifier) = running.and_then(|running| running.notifier) {
            // The worker has a duplicate: closing this one would not remove it.
            epoll::delete(self.events.get_ref(), &notifier).unwrap_or_default();
        }
    }

    /// A socket of somebody else that is in the group of this key.
    fn stranger(&self, pid: u32, key: &GroupKey) -> Option<BoundSocket> {
        let sockets = holder::bound(pid, key.protocol).ok()?;
        sockets.into_iter().find(|socket| {
            // The tables name no interface, so the address without its scope has to do.
            (socket.address.ip(), socket.address.port()) == (key.address.ip(), key.address.port())
                && !self.listeners.contains_key(&socket.inode)
        })
    }
}

impl DataPath for Plain {
    fn mode(&self) -> Mode {
        Mode::Plain
    }

    fn admit(&mut self, worker: WorkerId, place: &Place<'_>) -> anyhow::Result<Admission> {
        let ports = place.ports.to_vec();
        let admitted = Worker { app: place.app, ports, private: BTreeSet::new(), running: None };
        self.workers.insert(worker, admitted);
        Ok(Admission::Seccomp)
    }

    fn started(
        &mut self,
        worker: WorkerId,
        pid: u32,
        process: BorrowedFd<'_>,
        notifier: Option<OwnedFd>,
    ) {
        let Some(admitted) = self.workers.get_mut(&worker) else { return };
        let begun = (|| {
            let notifier = notifier.or_else(|| adopt::notifier_of(pid)).map(Notifier::new);
            if let Some(notifier) = &notifier {
                let data = epoll::EventData::new_u64(worker.0);
                epoll::add(self.events.get_ref(), notifier, data, epoll::EventFlags::IN)?;
            } else {
                log::warn!("worker {worker} (pid {pid}) cannot bind or listen any more");
            }
            io::Result::Ok(Running { pid, process: process.try_clone_to_owned()?, notifier })
        })();
        match begun {
            Ok(running) => admitted.running = Some(running),
            Err(error) => self.reports.push_back(Report::Unusable {
                worker,
                address: None,
                reason: format!("its sockets cannot be seen: {error}"),
            }),
        }
    }

    fn look_at(&mut self, worker: WorkerId) {
        self.look_into(worker);
    }

    fn dismiss(&mut self, worker: WorkerId) {
        self.unhook(worker);
        self.workers.remove(&worker);
        self.tickets.retain(|_, pending| pending.worker != worker);
        self.reports.retain(|report| match report {
            Report::Listening { worker: of, .. }
            | Report::Binding { worker: of, .. }
            | Report::Unusable { worker: of, .. } => *of != worker,
        });
    }

    fn poll_report(&mut self, context: &mut Context<'_>) -> Poll<Report> {
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(report);
            }
            // Fails only when the runtime ends.
            let Ok(mut guard) = ready!(self.events.poll_read_ready(context)) else {
                return Poll::Pending;
            };
            let waiting = waiting(guard.get_inner());
            if waiting.is_empty() {
                guard.clear_ready();
            }
            for (worker, calls) in waiting {
                if calls { self.take_call(worker) } else { self.unhook(worker) }
            }
        }
    }

    fn open(
        &mut self,
        group: GroupId,
        ticket: Ticket,
        _options: &GroupOptions,
    ) -> Result<(), JoinError> {
        let pending = self.tickets.get(&ticket).ok_or(JoinError::Gone)?;
        let pid =
            self.workers.get(&pending.worker).and_then(|worker| Some(worker.running.as_ref()?.pid));
        let stranger = self.stranger(pid.ok_or(JoinError::Gone)?, &pending.key);
        if let Some(stranger) = stranger {
            self.tickets.remove(&ticket);
            return Err(JoinError::Stranger { holder: stranger.holder().to_string() });
        }
        let seats = BTreeMap::new();
        self.groups.insert(group, Group { on_miss: OnMiss::Wait, route: Vec::new(), seats });
        Ok(())
    }

    fn join(&mut self, ticket: Ticket, group: GroupId, slot: Slot) -> Result<(), JoinError> {
        let pending = self.tickets.remove(&ticket).ok_or(JoinError::Gone)?;
        let cookie = socket::cookie(pending.socket.as_fd());
        if let (Some(group), Ok(cookie)) = (self.groups.get_mut(&group), cookie) {
            group.seats.insert(slot, cookie);
        }
        Ok(())
    }

    fn refuse(&mut self, ticket: Ticket) {
        self.tickets.remove(&ticket);
    }

    fn publish(&mut self, group: GroupId, route: &[Slot]) -> anyhow::Result<()> {
        let known = self.groups.get_mut(&group);
        let known = known.with_context(|| format!("there is no group {}", group.0))?;
        route.clone_into(&mut known.route);
        Ok(())
    }

    fn vacate(&mut self, group: GroupId, slot: Slot) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.seats.remove(&slot);
        }
    }

    fn on_miss(&mut self, group: GroupId, on_miss: OnMiss) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.on_miss = on_miss;
        }
    }

    fn close(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    fn lost(&mut self, _group: GroupId) -> Vec<Slot> {
        Vec::new()
    }

    fn traffic(&mut self, worker: WorkerId) -> anyhow::Result<Traffic> {
        let running = self.workers.get(&worker).and_then(|worker| worker.running.as_ref());
        let running = running.context("the worker does not run")?;
        traffic::of(running.pid)
            .with_context(|| format!("failed to count connections of pid {}", running.pid))
    }

    fn drain(&mut self, worker: WorkerId) -> anyhow::Result<Traffic> {
        // Without a program nothing can be said to clients that the worker does not say.
        self.traffic(worker)
    }

    fn resume(&mut self, _worker: WorkerId) {}

    fn hang_up(&mut self, worker: WorkerId, idle: Duration) -> anyhow::Result<u32> {
        let running = self.workers.get(&worker).and_then(|worker| worker.running.as_ref());
        let running = running.context("the worker does not run")?;
        traffic::hang_up(running.pid, idle)
            .with_context(|| format!("failed to close idle connections of pid {}", running.pid))
    }

    fn connections(&mut self) -> anyhow::Result<BTreeMap<WorkerId, u32>> {
        let workers = self.workers.iter();
        let running: BTreeMap<_, _> =
            workers.filter_map(|(id, worker)| Some((*id, worker.running.as_ref()?.pid))).collect();
        traffic::of_all(&running).context("failed to count the connections of all workers")
    }

    fn try_schedule(&self, scheduling: &Scheduling) -> anyhow::Result<()> {
        match scheduling.policy {
            // The kernel's hash is all there is: for the usual rule the mode says so, and this one asks for just that.
            Policy::RoundRobin | Policy::None => Ok(()),
            Policy::LeastConn
            | Policy::P2c
            | Policy::Queue
            | Policy::Hash
            | Policy::Sticky(_)
            | Policy::CpuLocal
            | Policy::Random
            | Policy::Class(_)
            | Policy::Custom(_) => {
                bail!(
                    "policy {} needs kernel mode, and this is plain mode",
                    scheduling.policy.name()
                )
            }
        }
    }

    fn verification(
        &self,
        _app: &str,
        _scheduling: &Scheduling,
    ) -> Option<Slow<anyhow::Result<()>>> {
        None
    }

    fn loading(&self, _group: GroupId, _scheduling: &Scheduling) -> Option<Slow<Loaded>> {
        None
    }

    fn schedule_loaded(
        &mut self,
        _group: GroupId,
        scheduling: &Scheduling,
        _loaded: Option<Loaded>,
    ) -> anyhow::Result<()> {
        self.try_schedule(scheduling)
    }

    fn cannot_distrust(&self) -> Option<&'static str> {
        Some("plain mode cannot keep connections away from it")
    }

    fn distrust(&mut self, _worker: WorkerId, distrusted: bool) -> anyhow::Result<()> {
        ensure!(!distrusted, "plain mode leaves it to the kernel who gets connections");
        Ok(())
    }

    fn telemetry(&mut self) -> anyhow::Result<BTreeMap<WorkerId, Telemetry>> {
        let connections = self.connections()?;
        let told = |live: u32| Telemetry {
            live: Some(live.into()),
            missing: Some("only kernel mode counts".to_owned()),
            ..Telemetry::default()
        };
        Ok(connections.into_iter().map(|(worker, live)| (worker, told(live))).collect())
    }

    fn counted(&mut self, _worker: WorkerId) -> Telemetry {
        Telemetry::default()
    }

    fn group_telemetry(&self, _group: GroupId) -> Option<GroupTelemetry> {
        None
    }

    fn counters(&self, _group: GroupId, _slot: Slot) -> SlotCounters {
        SlotCounters::default()
    }

    fn steer(
        &mut self,
        _worker: WorkerId,
        _to: SocketAddr,
        _from: SocketAddr,
    ) -> anyhow::Result<()> {
        anyhow::bail!("plain mode cannot probe one worker through a shared port")
    }

    fn unsteer(&mut self, _worker: WorkerId, _to: SocketAddr, _from: SocketAddr) {}

    fn rescue(&mut self, worker: WorkerId) -> anyhow::Result<()> {
        rescue::moves_without_program()?;
        let running = self.workers.get(&worker).and_then(|worker| worker.running.as_ref());
        let pid = running.context("the worker does not run")?.pid;
        let pids: Vec<u32> = traffic::pids(pid)?.into_iter().collect();
        let tcp = |at: &Port| at.protocol == Protocol::Tcp;
        let listeners = self.listeners.iter();
        let listeners = listeners.filter(|(_, listener)| listener.at.as_ref().is_some_and(tcp));
        rescue::stop_listening(&pids, listeners.map(|(inode, _)| *inode).collect())
    }

    fn record(&self, group: GroupId) -> Option<GroupRecord> {
        self.groups.get(&group).map(Group::record)
    }

    fn adopt(
        &mut self,
        group: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        _options: &GroupOptions,
    ) -> anyhow::Result<Vec<Seated>> {
        self.take_over(group, key, record)
    }

    fn waiting_rooms(&self) -> Vec<OwnedFd> {
        Vec::new()
    }

    fn unadopted(&mut self) -> Vec<(GroupKey, GroupRecord)> {
        // There is nothing of ours in the kernel: all sockets are reported in the end.
        Vec::new()
    }

    fn settle(&mut self) {
        self.look_around();
    }
}

/// Workers of which a call waits (true), or whose last process that runs under the filter is gone (false).
fn waiting(events: &OwnedFd) -> Vec<(WorkerId, bool)> {
    let mut batch = Vec::with_capacity(BATCH);
    let at_once = Timespec::default();
    // What fails here is an interrupted call, which is repeated with the next readiness.
    epoll::wait(events, rustix::buffer::spare_capacity(&mut batch), Some(&at_once)).unwrap_or(0);
    let outcome = |event: epoll::Event| {
        let (flags, data) = (event.flags, event.data);
        (WorkerId(data.u64()), flags.contains(epoll::EventFlags::IN))
    };
    batch.into_iter().map(outcome).collect()
}

#[cfg(test)]
mod tests;
