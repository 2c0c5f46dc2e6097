//! The workers that are watched, and the sockets of theirs that wait to be joined.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    net::SocketAddr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use aya::maps::{MapData, RingBuf};
use cluster_common::{cpu::CPUS, load::Seat};
use rustix::net::sockopt::socket_reuseport;

use super::{
    group::Owner,
    join::{Join, Joined},
    mapping::Mapping,
    meter::Meter,
    owners::{self, Owners},
    report::{self, Located, Observed, What},
};
use crate::{
    config::cpus,
    datapath::{
        GroupKey, Place, Protocol, Report, diag,
        socket::{self, OpenSocket},
        telemetry::Telemetry,
    },
    id::{AppId, Ticket, WorkerId},
};

/// Everything about sockets that are in no group yet.
pub(super) struct Watch {
    /// What keeps those of one app out of the groups of another.
    pub(super) owners: Owners,
    join: Join,
    events: RingBuf<MapData>,
    /// Events for which the ring buffer had no room.
    overflow: Mapping,
    /// How many of them have been made good; those before us by [`Watch::settle`], or by nobody to whom it matters.
    made_good: u64,
    /// `SO_NETNS_COOKIE` of the network namespace the supervisor is in.
    netns: u64,
    workers: BTreeMap<WorkerId, Worker>,
    by_cgroup: BTreeMap<u64, WorkerId>,
    tickets: BTreeMap<Ticket, Pending>,
    next_ticket: u64,
    reports: VecDeque<Report>,
}

/// An admitted worker.
pub(super) struct Worker {
    pub(super) app: AppId,
    /// Its number in its app.
    pub(super) number: u32,
    /// Id of its app's cgroup, if that could be read.
    pub(super) app_cgroup: Option<u64>,
    pub(super) cgroup: u64,
    /// Where it has listened.
    pub(super) addresses: BTreeSet<SocketAddr>,
    cgroup_path: Option<PathBuf>,
    /// Its first process, once it runs.
    pid: Option<u32>,
    /// Cookies of the sockets that were reported.
    pub(super) seen: BTreeSet<u64>,
    /// What was counted for sockets of it that are in no slot any more.
    pub(super) left: Telemetry,
    /// Whether connections are kept away from it because it has fallen silent.
    pub(super) distrusted: bool,
    /// How many datagrams had come to it for its flows, and when that was first seen.
    pub(super) datagrams: Option<(u64, Instant)>,
    /// Seats of such sockets in which connections are counted still, the last one last.
    pub(super) leaving: Vec<Seat>,
    /// Whether it was there before this daemon.
    pub(super) taken_over: bool,
}

/// A socket whose ticket has not been answered.
pub(super) struct Pending {
    /// Keeps the kernel from clearing slots and migrating queues, so it goes as soon as the ticket is answered.
    pub(super) socket: OwnedFd,
    pub(super) cookie: u64,
    pub(super) key: GroupKey,
    pub(super) worker: WorkerId,
}

impl Watch {
    /// Attaches the joining programs to `root`, which count what becomes of connections as well.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn new(root: &Path, worker_level: u32) -> anyhow::Result<(Self, Meter)> {
        let Joined { join, events, overflow, owners, meter } = Join::attach(root, worker_level)?;
        let made_good = overflow.counter(0);
        let watch = Self {
            owners: Owners::new(owners),
            join,
            events,
            overflow,
            made_good,
            netns: socket::own_netns().context("ask for the network namespace")?,
            workers: BTreeMap::new(),
            by_cgroup: BTreeMap::new(),
            tickets: BTreeMap::new(),
            next_ticket: 0,
            reports: VecDeque::new(),
        };
        Ok((watch, meter))
    }

    /// What becomes readable when there are events.
    pub(super) fn events(&self) -> &RingBuf<MapData> {
        &self.events
    }

    pub(super) fn admit(&mut self, id: WorkerId, place: &Place<'_>) -> anyhow::Result<()> {
        let cgroup = place.cgroup.context("kernel mode recognises a worker by its cgroup")?;
        self.join.filter(cgroup, place.ports)?;
        self.by_cgroup.insert(cgroup, id);
        let app_cgroup = place.cgroup_path.and_then(owners::app_cgroup);
        if let Some(cgroup) = app_cgroup {
            self.owners.admit(place.app, cgroup);
        }
        let worker = Worker {
            app: place.app,
            number: place.number,
            app_cgroup,
            cgroup,
            addresses: BTreeSet::new(),
            cgroup_path: place.cgroup_path.map(Path::to_owned),
            pid: None,
            seen: BTreeSet::new(),
            left: Telemetry::default(),
            distrusted: false,
            datagrams: None,
            leaving: Vec::new(),
            taken_over: false,
        };
        self.workers.insert(id, worker);
        Ok(())
    }

    pub(super) fn started(&mut self, id: WorkerId, pid: u32) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.pid = Some(pid);
        }
    }

    /// Lets go of a worker. Says which seats are left of it.
    pub(super) fn dismiss(&mut self, id: WorkerId) -> Vec<Seat> {
        let gone = self.workers.remove(&id);
        if let Some(gone) = &gone {
            self.by_cgroup.remove(&gone.cgroup);
            self.join.unfilter(gone.cgroup);
        }
        self.tickets.retain(|_, pending| pending.worker != id);
        self.reports.retain(|report| match report {
            Report::Listening { worker, .. }
            | Report::Binding { worker, .. }
            | Report::Unusable { worker, .. } => *worker != id,
        });
        gone.map(|gone| gone.leaving).unwrap_or_default()
    }

    /// The worker that has, or had, the socket with this cookie.
    pub(super) fn worker_with(&mut self, cookie: u64) -> Option<&mut Worker> {
        self.workers.values_mut().find(|worker| worker.seen.contains(&cookie))
    }

    /// What policies go by of a worker.
    pub(super) fn owner(&self, id: WorkerId) -> Owner {
        let worker = self.workers.get(&id);
        let cpus = worker.and_then(|worker| Some(pinned_to(worker.pid?)));
        Owner {
            worker: Some(id),
            number: worker.map(|worker| worker.number),
            cpus: cpus.unwrap_or_default(),
        }
    }

    pub(super) fn worker(&self, id: WorkerId) -> Option<&Worker> {
        self.workers.get(&id)
    }

    /// The same, to be changed.
    pub(super) fn worker_mut(&mut self, id: WorkerId) -> Option<&mut Worker> {
        self.workers.get_mut(&id)
    }

    /// The processes of a worker, the first one first.
    pub(super) fn processes(&self, id: WorkerId) -> Vec<u32> {
        let Some(worker) = self.workers.get(&id) else { return Vec::new() };
        let mut pids: Vec<u32> = worker.pid.into_iter().collect();
        if let Some(path) = &worker.cgroup_path {
            report::processes_below(path, &mut pids);
        }
        pids
    }

    /// Inode numbers of the sockets that a worker has open.
    pub(super) fn sockets(&self, id: WorkerId) -> BTreeSet<u64> {
        self.open_sockets(id).into_iter().map(|(_, socket)| socket.inode).collect()
    }

    /// The sockets that a worker has open, and which of its processes has them.
    pub(super) fn open_sockets(&self, id: WorkerId) -> Vec<(u32, OpenSocket)> {
        // A process that has ended meanwhile has none.
        let of =
            |pid| socket::sockets_of(pid).unwrap_or_default().into_iter().map(move |s| (pid, s));
        self.processes(id).into_iter().flat_map(of).collect()
    }

    /// Every admitted worker.
    pub(super) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.workers.keys().copied()
    }

    /// The worker of a cgroup.
    pub(super) fn worker_in(&self, cgroup: u64) -> Option<WorkerId> {
        self.by_cgroup.get(&cgroup).copied()
    }

    /// Ports on which workers have listened.
    pub(super) fn listened(&self) -> impl Iterator<Item = (WorkerId, u16)> {
        self.workers
            .iter()
            .flat_map(|(id, worker)| worker.addresses.iter().map(|address| (*id, address.port())))
    }

    pub(super) fn next_report(&mut self) -> Option<Report> {
        self.reports.pop_front()
    }

    pub(super) fn pending(&self, ticket: Ticket) -> Option<&Pending> {
        self.tickets.get(&ticket)
    }

    /// Takes a socket out, to be joined or dropped.
    pub(super) fn answer(&mut self, ticket: Ticket) -> Option<Pending> {
        self.tickets.remove(&ticket)
    }

    /// Whether a socket is a worker's. By its cgroup it is recognised even if its event has not been read yet.
    pub(super) fn owns(&self, other: &diag::Entry) -> bool {
        other.cgroup.is_some_and(|cgroup| self.by_cgroup.contains_key(&cgroup))
            || self.tickets.values().any(|pending| pending.cookie == other.cookie)
    }

    /// The worker whose socket this is, by what the programs noted when it was bound, or by the cgroup it was made in.
    pub(super) fn worker_of(&self, cookie: u64, cgroup: Option<u64>) -> Option<WorkerId> {
        let noted = self.join.worker_of(cookie).and_then(|cgroup| self.worker_in(cgroup));
        noted.or_else(|| self.worker_in(cgroup?))
    }

    /// Learns that a worker's socket is in a slot already.
    pub(super) fn seat(&mut self, id: WorkerId, cookie: u64, address: SocketAddr) {
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.seen.insert(cookie);
            worker.addresses.insert(address);
        }
    }

    /// A duplicate of a socket that some worker has open. It keeps the socket alive: to be dropped at once.
    pub(super) fn duplicate(&self, cookie: u64, key: &GroupKey) -> Option<OwnedFd> {
        let GroupKey { protocol, address, .. } = *key;
        // The likeliest first; a socket may have been handed on to a process of another worker.
        let likely = self.worker_of(cookie, None);
        let others = self.workers.keys().copied().filter(|id| Some(*id) != likely);
        likely.into_iter().chain(others).find_map(|id| {
            let cgroup = self.workers.get(&id)?.cgroup;
            let event = Observed { what: What::Joining, protocol, address, cookie, cgroup };
            match self.locate(id, &event) {
                Located::Socket(socket, _) => Some(socket),
                Located::Unfit(_) | Located::Nothing => None,
            }
        })
    }

    /// That of the namespace the supervisor is in.
    pub(super) fn netns(&self) -> u64 {
        self.netns
    }

    /// Catches up with what happened while nobody read events, and lets go of what is kept for workers and groups that
    /// are no more. `seated` are the cookies of all sockets that are in a slot.
    pub(super) fn settle(&mut self, seated: &BTreeSet<u64>) {
        while let Some(event) = self.events.next().map(|bytes| report::decode(&bytes)) {
            // What they say of sockets is looked up anew: they may be from before their sockets were seated.
            if let Some(event) = event.filter(|event| event.what == What::Binding) {
                self.observe(&event);
            }
        }
        self.made_good = self.overflow.counter(0);
        for worker in self.workers.values_mut() {
            let noted = |cookie: &u64| self.join.worker_of(*cookie) == Some(worker.cgroup);
            worker.seen.extend(seated.iter().copied().filter(noted));
            worker.taken_over = true;
        }
        self.look_around(self.join.remembers());
        self.join.settle(&self.by_cgroup.keys().copied().collect());
        self.owners.settle();
    }

    /// Reads what the programs have reported.
    pub(super) fn take_events(&mut self) {
        while let Some(event) = self.events.next().map(|bytes| report::decode(&bytes)) {
            if let Some(event) = event {
                self.observe(&event);
            }
        }
        let overflow = self.overflow.counter(0);
        if overflow != self.made_good {
            self.made_good = overflow;
            self.look_around(false);
        }
    }

    fn observe(&mut self, event: &Observed) {
        let Some(&id) = self.by_cgroup.get(&event.cgroup) else { return };
        let Observed { protocol, address, .. } = *event;
        match event.what {
            What::Binding => {
                self.reports.push_back(Report::Binding { worker: id, protocol, address });
            }
            What::Joining => {
                let located = self.locate(id, event);
                self.found(id, event, located);
            }
        }
    }

    /// Finds the sockets whose events were lost: the kernel's own list has them all. With `only_noted` those count that
    /// the programs have made to share their port, without it those that share it.
    fn look_around(&mut self, only_noted: bool) {
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            // Without the list there is nothing more to be done: such a worker will not get ready.
            for entry in diag::listeners(protocol, 0).unwrap_or_default() {
                let Some(id) = self.worker_of(entry.cookie, entry.cgroup) else { continue };
                if only_noted && self.join.worker_of(entry.cookie).is_none() {
                    continue;
                }
                if self.workers.get(&id).is_none_or(|worker| worker.seen.contains(&entry.cookie)) {
                    continue;
                }
                let event = Observed {
                    what: What::Joining,
                    protocol,
                    address: entry.local,
                    cookie: entry.cookie,
                    cgroup: entry.cgroup.unwrap_or_default(),
                };
                let located = self.locate(id, &event);
                // The hooks make every socket share its port, except those that are to be left alone.
                if let Located::Socket(socket, _) = &located
                    && !socket_reuseport(socket).unwrap_or(false)
                {
                    continue;
                }
                self.found(id, &event, located);
            }
        }
    }

    fn locate(&self, id: WorkerId, event: &Observed) -> Located {
        match self.workers.get(&id) {
            Some(worker) => report::locate(worker.cgroup_path.as_deref(), worker.pid, event),
            None => Located::Nothing,
        }
    }

    fn found(&mut self, id: WorkerId, event: &Observed, located: Located) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Observed { address, cookie, .. } = *event;
        let reason = match located {
            Located::Socket(socket, key) if key.netns == self.netns => {
                worker.addresses.insert(key.address);
                worker.seen.insert(cookie);
                let ticket = Ticket(self.next_ticket);
                self.next_ticket += 1;
                self.tickets
                    .insert(ticket, Pending { socket, cookie, key: key.clone(), worker: id });
                self.reports.push_back(Report::Listening { worker: id, ticket, key });
                return;
            }
            Located::Socket(..) => {
                format!("the socket on {address} is in another network namespace than the daemon")
            }
            Located::Unfit(reason) => reason,
            Located::Nothing => return,
        };
        worker.seen.insert(cookie);
        self.reports.push_back(Report::Unusable { worker: id, address: Some(address), reason });
    }
}

/// The CPUs that a process is pinned to; none if it may run on all that are there.
fn pinned_to(pid: u32) -> Arc<[u32]> {
    let pid = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    let (Ok(own), Some(all)) = (rustix::thread::sched_getaffinity(pid), cpus::online()) else {
        return Arc::default();
    };
    let cpus: Arc<[u32]> =
        (0..CPUS).filter(|cpu| usize::try_from(*cpu).is_ok_and(|cpu| own.is_set(cpu))).collect();
    if cpus.len() < all.len() { cpus } else { Arc::default() }
}
