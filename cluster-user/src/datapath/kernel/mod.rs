//! Kernel mode: a program in the kernel picks the socket of each connection.
//!
//! In reading order: what is loaded ([`load`], through [`object`] and [`bpf`]), how a worker's socket is found
//! ([`report`]), what a group is ([`group`], [`waiting`]), and what of it can be watched ([`hub`], [`trace`]).
//! [`probe`] and [`selftest`] tell why a host cannot do all this.
//!
//! Everything goes when the supervisor goes, except for the program of a group, which the kernel keeps for as long
//! as the group has a socket.

mod bpf;
mod group;
mod hub;
mod load;
mod mapping;
mod object;
pub mod probe;
mod report;
mod selftest;
mod spare;
mod trace;
mod waiting;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fmt, io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, ready},
};

use anyhow::{Context as _, anyhow, ensure};
use aya::maps::{MapData, RingBuf};
use cluster_common::slot::Slot;
use socket2::{Domain, Socket, Type};
use tokio::io::{Interest, unix::AsyncFd};

use self::{
    group::Group,
    hub::{Hub, Source},
    load::{Join, Select},
    report::{Located, Observed, What},
    spare::Spare,
};
use super::{
    Admission, DataPath, GroupKey, GroupOptions, JoinError, Mode, OnMiss, Place, Report,
    SlotCounters, Traffic, diag,
    feature::Feature,
    holder::{self, Holder},
};
use crate::id::{GroupId, Ticket, WorkerId};

/// The kernel's data path.
pub struct Kernel {
    spare: Spare,
    join: Join,
    events: RingBuf<MapData>,
    hub: Arc<Hub>,
    /// The hub, as the runtime sees it.
    arrivals: Arc<AsyncFd<Arc<Hub>>>,
    logs: PathBuf,
    /// `SO_NETNS_COOKIE` of the network namespace the supervisor is in.
    netns: u64,
    workers: BTreeMap<WorkerId, Worker>,
    by_cgroup: BTreeMap<u64, WorkerId>,
    tickets: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    groups: BTreeMap<GroupId, Group>,
    reports: VecDeque<Report>,
}

/// An admitted worker.
struct Worker {
    cgroup: u64,
    cgroup_path: Option<PathBuf>,
    /// Its first process, once it runs.
    pid: Option<u32>,
    /// Where it has listened.
    ports: BTreeSet<u16>,
}

/// A socket whose ticket has not been answered.
struct Pending {
    worker: WorkerId,
    /// Keeps the kernel from clearing slots and migrating queues, so it goes as soon as the ticket is answered.
    socket: OwnedFd,
    cookie: u64,
    key: GroupKey,
}

/// Why there is no kernel mode on this host.
#[derive(Debug)]
pub struct Missing {
    /// What the kernel said.
    pub error: anyhow::Error,
    /// What the host lacks of what kernel mode needs, with how to get it; may be empty.
    pub features: Vec<Feature>,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.features.first() {
            Some(feature) => {
                f.write_str(&feature.name)?;
                match &feature.detail {
                    Some(detail) => write!(f, ": {detail}"),
                    None => f.write_str(" is missing"),
                }
            }
            None => write!(f, "{:#}", self.error),
        }
    }
}

impl std::error::Error for Missing {}

impl Kernel {
    /// Attaches the joining programs to `root`, the daemon's cgroup, below which the workers' cgroups are, and gets
    /// ready to found groups. `worker_level` is the depth of a worker's cgroup below the root of the hierarchy
    /// (`/a/b/c` has depth 3). Records of traced groups go to `logs`, as `<app>-trace.log`.
    ///
    /// Must be called in a tokio runtime with I/O enabled, by the thread whose network namespace is to be served.
    ///
    /// # Errors
    /// [`Missing`] says what the host lacks.
    pub fn new(root: &Path, worker_level: u32, logs: &Path) -> Result<Self, Missing> {
        Self::try_new(root, worker_level, logs)
            .map_err(|error| Missing { features: probe::missing(root), error })
    }

    fn try_new(root: &Path, worker_level: u32, logs: &Path) -> anyhow::Result<Self> {
        let hub = Arc::new(Hub::new()?);
        let spare = Spare::new(Select::new(false)?)?;
        let (join, events) = Join::new(root, worker_level)?;
        hub.watch(&events, Source::Events)?;
        // SAFETY: the hub keeps its descriptor open for as long as it lives, and is never replaced.
        let arrivals =
            unsafe { AsyncFd::register_with_interest(Arc::clone(&hub), Interest::READABLE) };
        let arrivals = Arc::new(arrivals.map_err(io::Error::from)?);
        Ok(Self {
            spare,
            join,
            events,
            hub,
            arrivals,
            logs: logs.to_owned(),
            netns: own_netns().context("ask for the network namespace")?,
            workers: BTreeMap::new(),
            by_cgroup: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            groups: BTreeMap::new(),
            reports: VecDeque::new(),
        })
    }

    /// Deals with everything that has arrived.
    fn serve(&mut self) {
        loop {
            let ready = self.hub.ready();
            if ready.is_empty() {
                return;
            }
            for source in ready {
                match source {
                    Source::Events => self.take_events(),
                    Source::WaitingRoom(group) => {
                        // If there can be no new waiting room now, they go on waiting: until the next one arrives
                        // or a route is published.
                        drop(self.groups.get_mut(&group).map(Group::settle));
                    }
                    Source::Trace(group) => {
                        if let Some(group) = self.groups.get_mut(&group) {
                            group.flush_trace();
                        }
                    }
                }
            }
        }
    }

    fn take_events(&mut self) {
        while let Some(event) = self.events.next().map(|bytes| report::decode(&bytes)) {
            if let Some(event) = event {
                self.observe(&event);
            }
        }
    }

    fn observe(&mut self, event: &Observed) {
        let Some(&id) = self.by_cgroup.get(&event.cgroup) else { return };
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Observed { protocol, address, cookie, .. } = *event;
        match event.what {
            What::Binding => {
                self.reports.push_back(Report::Binding { worker: id, protocol, address });
            }
            What::Joining => {
                match report::locate(worker.cgroup_path.as_deref(), worker.pid, event) {
                    Located::Socket(socket, key) if key.netns == self.netns => {
                        worker.ports.insert(key.address.port());
                        let ticket = Ticket(self.next_ticket);
                        self.next_ticket += 1;
                        let pending = Pending { worker: id, socket, cookie, key: key.clone() };
                        self.tickets.insert(ticket, pending);
                        self.reports.push_back(Report::Listening { worker: id, ticket, key });
                    }
                    Located::Socket(..) => self.reports.push_back(Report::Unusable {
                        worker: id,
                        address: Some(address),
                        reason: format!(
                            "the socket on {address} is in another network namespace than the daemon"
                        ),
                    }),
                    Located::Unfit(reason) => self.reports.push_back(Report::Unusable {
                        worker: id,
                        address: Some(address),
                        reason,
                    }),
                    Located::Nothing => {}
                }
            }
        }
    }

    /// Refuses a founder beside whom somebody else's socket would be in the group.
    fn refuse_strangers(&self, founder: &Pending) -> Result<(), JoinError> {
        let GroupKey { protocol, address, v6only, device, .. } = founder.key;
        let found = diag::listeners(protocol, address.port())
            .context("ask who else is on the port")
            .map_err(JoinError::Failed)?;
        let stranger = found.into_iter().find(|other| {
            // The kernel groups sockets of exactly the same address (`inet_reuseport_add_sock`).
            other.local.ip() == address.ip()
                && other.v6only == v6only
                && other.device == device
                && !self.is_ours(other)
        });
        let Some(other) = stranger else { return Ok(()) };
        let holder = Holder { process: holder::process_of(other.inode.into()), uid: other.uid };
        Err(JoinError::Stranger { holder: holder.to_string() })
    }

    fn is_ours(&self, other: &diag::Entry) -> bool {
        // By its cgroup it is recognised even if its event has not been read yet.
        other.cgroup.is_some_and(|cgroup| self.by_cgroup.contains_key(&cgroup))
            || self.tickets.values().any(|pending| pending.cookie == other.cookie)
            || self.groups.values().any(|group| group.knows(other.cookie))
    }

    fn try_open(
        &mut self,
        id: GroupId,
        ticket: Ticket,
        options: &GroupOptions,
    ) -> Result<(), JoinError> {
        // Sockets of ours that listen already must be known before strangers are looked for.
        self.take_events();
        let founder = self.tickets.get(&ticket).ok_or(JoinError::Gone)?;
        if self.groups.contains_key(&id) {
            return Err(JoinError::Failed(anyhow!("group {} exists already", id.0)));
        }
        self.refuse_strangers(founder)?;
        let maps = if options.trace {
            // Another program, in the verifier's eyes: only here the code that records is reachable.
            Select::new(true).and_then(|select| select.load())
        } else {
            self.spare.take()
        };
        let maps = maps.map_err(JoinError::Failed)?;
        let hub = Arc::clone(&self.hub);
        let mut group = Group::found(id, &founder.key, founder.socket.as_fd(), maps, hub)
            .map_err(JoinError::Failed)?;
        if options.trace {
            let file = self.logs.join(format!("{}-trace.log", options.app));
            group.start_trace(&file).map_err(JoinError::Failed)?;
        }
        self.groups.insert(id, group);
        Ok(())
    }

    fn group(&mut self, id: GroupId) -> anyhow::Result<&mut Group> {
        self.groups.get_mut(&id).with_context(|| format!("there is no group {}", id.0))
    }
}

impl DataPath for Kernel {
    fn mode(&self) -> Mode {
        Mode::Kernel
    }

    fn admit(&mut self, worker: WorkerId, place: &Place<'_>) -> anyhow::Result<Admission> {
        let cgroup = place.cgroup.context("kernel mode recognises a worker by its cgroup")?;
        self.join.filter(cgroup, place.ports)?;
        // It may found a group.
        self.spare.refill();
        self.by_cgroup.insert(cgroup, worker);
        let cgroup_path = place.cgroup_path.map(Path::to_owned);
        let worker_entry = Worker { cgroup, cgroup_path, pid: None, ports: BTreeSet::new() };
        self.workers.insert(worker, worker_entry);
        Ok(Admission::Cgroup)
    }

    fn started(
        &mut self,
        worker: WorkerId,
        pid: u32,
        _process: BorrowedFd<'_>,
        _notifier: Option<OwnedFd>,
    ) {
        if let Some(worker) = self.workers.get_mut(&worker) {
            worker.pid = Some(pid);
        }
    }

    fn dismiss(&mut self, worker: WorkerId) {
        if let Some(gone) = self.workers.remove(&worker) {
            self.by_cgroup.remove(&gone.cgroup);
            self.join.unfilter(gone.cgroup);
        }
        self.tickets.retain(|_, pending| pending.worker != worker);
        self.reports.retain(|report| match report {
            Report::Listening { worker: of, .. }
            | Report::Binding { worker: of, .. }
            | Report::Unusable { worker: of, .. } => *of != worker,
        });
    }

    fn poll_report(&mut self, context: &mut Context<'_>) -> Poll<Report> {
        let arrivals = Arc::clone(&self.arrivals);
        loop {
            if let Some(report) = self.reports.pop_front() {
                return Poll::Ready(report);
            }
            // An error means that the runtime is shutting down.
            let Ok(mut guard) = ready!(arrivals.poll_read_ready(context)) else {
                return Poll::Pending;
            };
            self.serve();
            guard.clear_ready();
        }
    }

    fn open(
        &mut self,
        group: GroupId,
        ticket: Ticket,
        options: &GroupOptions,
    ) -> Result<(), JoinError> {
        let opened = self.try_open(group, ticket, options);
        if opened.is_err() {
            self.tickets.remove(&ticket);
        }
        opened
    }

    fn join(&mut self, ticket: Ticket, group: GroupId, slot: Slot) -> Result<(), JoinError> {
        // Dropped at the end of this function, whatever happens.
        let pending = self.tickets.remove(&ticket).ok_or(JoinError::Gone)?;
        let group = self.group(group).map_err(JoinError::Failed)?;
        if *group.key() != pending.key {
            return Err(JoinError::Failed(anyhow!(
                "the socket on {} cannot be a member of the group on {}",
                pending.key.address,
                group.key().address
            )));
        }
        group.fill(slot, pending.socket.as_fd(), pending.cookie)
    }

    fn refuse(&mut self, ticket: Ticket) {
        self.tickets.remove(&ticket);
    }

    fn publish(&mut self, group: GroupId, route: &[Slot]) -> anyhow::Result<()> {
        ensure!(
            !route.contains(&Slot::WAITING_ROOM),
            "slot 0 is the waiting room's and cannot be in a route"
        );
        self.group(group)?.publish(route)
    }

    fn vacate(&mut self, group: GroupId, slot: Slot) {
        if let Some(group) = self.groups.get_mut(&group) {
            group.vacate(slot);
        }
    }

    fn on_miss(&mut self, group: GroupId, on_miss: OnMiss) {
        // The map is an array that exists, and a waiting room that cannot be emptied stays as it is.
        drop(self.groups.get_mut(&group).map(|group| group.set_on_miss(on_miss)));
    }

    fn close(&mut self, group: GroupId) {
        self.groups.remove(&group);
    }

    fn lost(&mut self, group: GroupId) -> Vec<Slot> {
        self.groups.get_mut(&group).map(Group::lost).unwrap_or_default()
    }

    fn traffic(&mut self, worker: WorkerId) -> anyhow::Result<Traffic> {
        let known = self.workers.get(&worker);
        let known = known.with_context(|| format!("worker {worker} is not known"))?;
        diag::traffic(known.cgroup, &known.ports).context("count the connections of a worker")
    }

    fn counters(&self, group: GroupId, slot: Slot) -> SlotCounters {
        self.groups.get(&group).map(|group| group.counters(slot)).unwrap_or_default()
    }
}

fn own_netns() -> io::Result<u64> {
    let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
    let mut cookie = 0_u64;
    let mut length = size_of_val(&cookie) as libc::socklen_t;
    // SAFETY: `cookie` is valid for writes of `length` bytes, and both outlive the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_NETNS_COOKIE,
            (&raw mut cookie).cast(),
            &raw mut length,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(cookie) }
}
