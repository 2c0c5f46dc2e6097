//! Kernel mode: a program in the kernel picks the socket of each connection.
//!
//! In reading order: what is loaded ([`load`], through [`object`] and [`bpf`]), how a worker's socket is found
//! ([`join`], [`watch`], [`report`]) and kept out of the groups of other apps ([`owners`]), what a group is ([`group`],
//! [`waiting`]), what of it can be waited for ([`hub`], [`trace`]), and how the next supervisor takes all that over
//! ([`adopt`], through [`ids`]). [`custom`] reads programs of users that pick workers. [`trial`] measures them. [`probe`]
//! and [`selftest`] tell why a host cannot do all this, [`depth`] how deep in a
//! container it is.
//!
//! Nothing is pinned, and all that matters outlives the supervisor: a group's program and its maps for as long as the
//! group has a socket, the joining programs and theirs for as long as the daemon's cgroup is there. What is left behind
//! goes with the last worker by itself.

mod adopt;
mod bpf;
pub mod custom;
pub mod depth;
mod drain;
mod group;
mod hub;
mod ids;
mod join;
mod load;
mod mapping;
pub mod measure;
mod meter;
mod object;
mod owners;
pub mod probe;
mod report;
mod rescue;
mod room;
mod selftest;
mod spare;
mod stall;
mod steering;
mod telemetry;
mod trace;
mod tracepoint;
mod traffic;
pub mod trial;
mod trust;
mod types;
mod verifier;
mod waiting;
mod watch;

#[cfg(test)]
mod tests;

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, io,
    net::SocketAddr,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    sync::Arc,
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow, ensure};
use cluster_common::slot::Slot;
use tokio::io::{Interest, unix::AsyncFd};

use self::{
    custom::Loaded,
    drain::Drain,
    group::Group,
    hub::{Hub, Source},
    load::Select,
    meter::Meter,
    spare::Spare,
    stall::Stalls,
    watch::{Pending, Watch},
};
use super::{
    Admission, DataPath, GroupKey, GroupOptions, JoinError, Mode, OnMiss, Place, Report,
    SlotCounters, Slow, Traffic, diag,
    feature::Feature,
    holder::{self, Holder},
    idle,
    record::{GroupRecord, Seated},
    telemetry::{GroupTelemetry, Telemetry},
};
use crate::{
    config::scheduling::Scheduling,
    id::{GroupId, Ticket, WorkerId},
};

/// The kernel's data path.
pub struct Kernel {
    spare: Spare,
    watch: Watch,
    meter: Meter,
    /// How many connections the guard had kept away from workers when that was last asked.
    spared: BTreeMap<WorkerId, u64>,
    stalls: Stalls,
    groups: BTreeMap<GroupId, Group>,
    drain: Drain,
    hub: Arc<Hub>,
    /// The hub, as the runtime sees it.
    arrivals: Arc<AsyncFd<Arc<Hub>>>,
    logs: PathBuf,
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
            Some(Feature { name, detail: Some(detail), .. }) => write!(f, "{name}: {detail}"),
            Some(Feature { name, detail: None, .. }) => write!(f, "{name} is missing"),
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
    /// Takes about 10 ms, most of it for the verifier.
    ///
    /// # Errors
    /// [`Missing`] says what the host lacks.
    pub fn new(root: &Path, worker_level: u32, logs: &Path) -> Result<Self, Missing> {
        Self::try_new(root, worker_level, logs)
            .map_err(|error| Missing { features: probe::missing(root), error })
    }

    fn try_new(root: &Path, worker_level: u32, logs: &Path) -> anyhow::Result<Self> {
        let hub = Arc::new(Hub::new()?);
        let (watch, meter) = Watch::new(root, worker_level)?;
        let spare = Spare::new(Select::new(meter.shared()?)?)?;
        hub.watch(watch.events(), Source::Events)?;
        // SAFETY: the hub keeps its descriptor open for as long as it lives, and is never replaced.
        let arrivals =
            unsafe { AsyncFd::register_with_interest(Arc::clone(&hub), Interest::READABLE) };
        let arrivals = Arc::new(arrivals.map_err(io::Error::from)?);
        let (groups, drain, logs) = (BTreeMap::new(), Drain::new(root), logs.to_owned());
        let (spared, stalls) = (BTreeMap::new(), Stalls::default());
        Ok(Self { spare, watch, meter, spared, stalls, groups, drain, hub, arrivals, logs })
    }

    /// Deals with what has arrived; `false` if there was nothing.
    ///
    /// Only once: what comes back at once, such as connections that are sent to the waiting room again, must not keep the
    /// supervisor from whatever would end that.
    fn serve(&mut self) -> bool {
        let ready = self.hub.ready();
        for &source in &ready {
            match source {
                Source::Events => self.watch.take_events(),
                Source::WaitingRoom(group) => {
                    // If there can be no new waiting room now, they go on waiting: until the next one arrives or a route
                    // is published.
                    drop(self.groups.get_mut(&group).map(Group::settle));
                }
                Source::Trace(group) => {
                    if let Some(group) = self.groups.get_mut(&group) {
                        group.flush_trace();
                    }
                }
            }
        }
        !ready.is_empty()
    }

    /// Refuses a founder beside whom somebody else's socket would be in the group.
    fn refuse_strangers(&self, founder: &Pending) -> Result<(), JoinError> {
        let GroupKey { protocol, address, .. } = founder.key;
        let found = diag::listeners(protocol, address.port())
            .context("ask who else is on the port")
            .map_err(JoinError::Failed)?;
        let stranger = found.into_iter().find(|other| {
            // Also beside an address that only overlaps the bind would have failed, had we not made it share.
            founder.key.overlaps(&other.key(protocol, founder.key.netns))
                && !self.watch.owns(other)
                && !self.groups.values().any(|group| group.knows(other.cookie))
        });
        let Some(other) = stranger else { return Ok(()) };
        let holder = Holder { process: holder::process_of(other.inode.into()), uid: other.uid };
        Err(JoinError::Stranger { holder: holder.to_string() })
    }

    fn try_open(
        &mut self,
        id: GroupId,
        ticket: Ticket,
        options: &GroupOptions,
    ) -> Result<(), JoinError> {
        // Sockets of ours that listen already must be known before strangers are looked for.
        self.watch.take_events();
        let founder = self.watch.pending(ticket).ok_or(JoinError::Gone)?;
        if self.groups.contains_key(&id) {
            return Err(JoinError::Failed(anyhow!("group {} exists already", id.0)));
        }
        self.refuse_strangers(founder)?;
        let (maps, trace) = if options.trace {
            // Another program, in the verifier's eyes: only here the code that records is reachable.
            let maps = self.spare.select().load(true);
            (maps, Some(self.trace_file(options)))
        } else {
            (self.spare.take(), None)
        };
        let maps = maps.map_err(JoinError::Failed)?;
        let hub = Arc::clone(&self.hub);
        let mut group =
            Group::found(id, &founder.key, founder.socket.as_fd(), maps, hub, trace.as_deref())
                .map_err(JoinError::Failed)?;
        group.app.clone_from(&options.app);
        self.groups.insert(id, group);
        let (worker, key) = (founder.worker, founder.key.clone());
        if let Some((app, Some(cgroup))) =
            self.watch.worker(worker).map(|worker| (worker.app, worker.app_cgroup))
        {
            self.watch.owners.open(id, app, cgroup, &key);
        }
        Ok(())
    }
}

impl DataPath for Kernel {
    fn mode(&self) -> Mode {
        Mode::Kernel
    }

    fn admit(&mut self, worker: WorkerId, place: &Place<'_>) -> anyhow::Result<Admission> {
        self.watch.admit(worker, place)?;
        // It may found a group.
        self.spare.refill();
        Ok(Admission::Cgroup)
    }

    fn started(
        &mut self,
        worker: WorkerId,
        pid: u32,
        _process: BorrowedFd<'_>,
        _notifier: Option<OwnedFd>,
    ) {
        self.watch.started(worker, pid);
    }

    fn look_at(&mut self, _worker: WorkerId) {
        // The hooks at its cgroup saw them being made.
    }

    fn dismiss(&mut self, worker: WorkerId) {
        self.drain.leave(worker);
        self.forget(worker);
        self.spared.remove(&worker);
    }

    fn poll_report(&mut self, context: &mut Context<'_>) -> Poll<Report> {
        let arrivals = Arc::clone(&self.arrivals);
        loop {
            if let Some(report) = self.watch.next_report() {
                return Poll::Ready(report);
            }
            // An error means that the runtime is shutting down.
            let Ok(mut guard) = ready!(arrivals.poll_read_ready(context)) else {
                return Poll::Pending;
            };
            if self.serve() {
                if let Some(report) = self.watch.next_report() {
                    return Poll::Ready(report);
                }
                // Others have their turn first, such as those whom the supervisor asks after this.
                context.waker().wake_by_ref();
                return Poll::Pending;
            }
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
            self.watch.answer(ticket);
        }
        opened
    }

    fn join(&mut self, ticket: Ticket, group: GroupId, slot: Slot) -> Result<(), JoinError> {
        // Dropped at the end of this function, whatever happens.
        let pending = self.watch.answer(ticket).ok_or(JoinError::Gone)?;
        let owner = self.watch.owner(pending.worker);
        let group =
            self.groups.get_mut(&group).with_context(|| format!("there is no group {}", group.0));
        let group = group.map_err(JoinError::Failed)?;
        if *group.key() != pending.key {
            return Err(JoinError::Failed(anyhow!(
                "the socket on {} cannot be a member of the group on {}",
                pending.key.address,
                group.key().address
            )));
        }
        group.fill(slot, pending.socket.as_fd(), pending.cookie, owner, &mut self.meter)?;
        self.mark_if_distrusted(pending.worker);
        Ok(())
    }

    fn refuse(&mut self, ticket: Ticket) {
        self.watch.answer(ticket);
    }

    fn publish(&mut self, group: GroupId, route: &[Slot]) -> anyhow::Result<()> {
        ensure!(
            !route.contains(&Slot::WAITING_ROOM),
            "slot 0 is the waiting room's and cannot be in a route"
        );
        let meter = &self.meter;
        let found = self.groups.get_mut(&group);
        found.with_context(|| format!("there is no group {}", group.0))?.publish(route, meter)
    }

    fn vacate(&mut self, group: GroupId, slot: Slot) {
        self.empty(group, slot);
    }

    fn on_miss(&mut self, group: GroupId, on_miss: OnMiss) {
        // The map is an array that exists, and a waiting room that cannot be emptied stays as it is.
        drop(self.groups.get_mut(&group).map(|group| group.set_on_miss(on_miss)));
    }

    fn close(&mut self, group: GroupId) {
        self.watch.owners.close(group);
        if let Some(group) = self.groups.remove(&group) {
            group.free(&mut self.meter);
        }
    }

    fn lost(&mut self, group: GroupId) -> Vec<Slot> {
        self.groups.get_mut(&group).map(Group::lost).unwrap_or_default()
    }

    fn traffic(&mut self, worker: WorkerId) -> anyhow::Result<Traffic> {
        let known = self.watch.worker(worker);
        let known = known.with_context(|| format!("worker {worker} is not known"))?;
        let moved = self.may_have_moved_to(worker);
        let traffic = diag::traffic(known.cgroup, &known.addresses, &moved)
            .context("count the connections of a worker")?;
        let is_counted = !self.groups.values().any(Group::abstains);
        let sum =
            self.sum_of(worker, |_| true, |counters| counters.selected + counters.migrated_in);
        let (spared, received) = (self.spared_since(worker), is_counted.then_some(sum));
        Ok(Traffic { spared, received, ..traffic })
    }

    fn drain(&mut self, worker: WorkerId) -> anyhow::Result<Traffic> {
        let (traffic, found) = self.established(worker)?;
        let watch = &self.watch;
        self.drain.watch(worker, &found, || watch.open_sockets(worker));
        Ok(Traffic { flows: self.has_flows(worker, Instant::now()), ..traffic })
    }

    fn resume(&mut self, worker: WorkerId) {
        self.drain.leave(worker);
    }

    fn hang_up(&mut self, worker: WorkerId, idle: Duration) -> anyhow::Result<u32> {
        let (_, mut found) = self.established(worker)?;
        found.retain(|entry| entry.is_idle(idle));
        if found.is_empty() {
            return Ok(0);
        }
        let found: BTreeSet<u64> = found.iter().map(|entry| entry.inode.into()).collect();
        let open = self.watch.open_sockets(worker);
        let left_alone = |socket: BorrowedFd<'_>| self.drain.is_strange(socket);
        Ok(idle::hang_up(open, &found, idle, left_alone))
    }

    fn connections(&mut self) -> anyhow::Result<BTreeMap<WorkerId, u32>> {
        let listened = self.watch.listened().collect();
        let moved: BTreeMap<u64, WorkerId> = (self.watch.workers())
            .flat_map(|id| self.moved_to(id).into_iter().map(move |inode| (inode, id)))
            .collect();
        let owner = |entry: &diag::Entry| {
            let moved = moved.get(&entry.inode.into()).copied();
            moved.or_else(|| self.watch.worker_in(entry.cgroup?))
        };
        let counted =
            diag::connections(listened, owner).context("count the connections of all workers")?;
        let count = |worker| (worker, counted.get(&worker).copied().unwrap_or_default());
        Ok(self.watch.workers().map(count).collect())
    }

    fn try_schedule(&self, scheduling: &Scheduling) -> anyhow::Result<()> {
        group::try_policy(&scheduling.policy, self.spare.select())
    }

    fn verification(&self, app: &str, scheduling: &Scheduling) -> Option<Slow<anyhow::Result<()>>> {
        self.verification_of(app, &scheduling.policy)
    }

    fn loading(&self, group: GroupId, scheduling: &Scheduling) -> Option<Slow<Loaded>> {
        self.loading_for(group, &scheduling.policy)
    }

    fn schedule_loaded(
        &mut self,
        group: GroupId,
        scheduling: &Scheduling,
        loaded: Option<Loaded>,
    ) -> anyhow::Result<()> {
        let (watch, meter, select) = (&self.watch, &self.meter, self.spare.select());
        let found = self.groups.get_mut(&group);
        let group = found.with_context(|| format!("there is no group {}", group.0))?;
        let key = group.key().clone();
        let app = group.app.clone();
        group
            .schedule(scheduling, loaded, select, meter, |cookie| watch.duplicate(cookie, &key))
            .map_err(|error| custom::keep_log(error, &self.policy_log(&app)))
    }

    fn distrust(&mut self, worker: WorkerId, distrusted: bool) -> anyhow::Result<()> {
        self.mark(worker, distrusted)
    }

    fn cannot_distrust(&self) -> Option<&'static str> {
        // A program that selects a socket and cannot look at it trusts its worker (`trusts` of the select program).
        let why =
            "this kernel lets no program look at workers' queues: connections go on coming to it";
        self.spare.select().blind.as_ref().map(|_| why)
    }

    fn telemetry(&mut self) -> anyhow::Result<BTreeMap<WorkerId, Telemetry>> {
        self.all_telemetry()
    }

    fn counted(&mut self, worker: WorkerId) -> Telemetry {
        self.counted_for(worker)
    }

    fn group_telemetry(&self, group: GroupId) -> Option<GroupTelemetry> {
        self.telemetry_of_group(group)
    }

    fn counters(&self, group: GroupId, slot: Slot) -> SlotCounters {
        self.groups.get(&group).map(|group| group.counters(slot)).unwrap_or_default()
    }

    fn steer(&mut self, worker: WorkerId, to: SocketAddr, from: SocketAddr) -> anyhow::Result<()> {
        self.steer_to(worker, to, from)
    }

    fn unsteer(&mut self, _worker: WorkerId, to: SocketAddr, from: SocketAddr) {
        self.unsteer_from(to, from);
    }

    fn rescue(&mut self, worker: WorkerId) -> anyhow::Result<()> {
        self.rescue_queues(worker)
    }

    fn record(&self, group: GroupId) -> Option<GroupRecord> {
        self.groups.get(&group).map(Group::record)
    }

    fn adopt(
        &mut self,
        group: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        options: &GroupOptions,
    ) -> anyhow::Result<Vec<Seated>> {
        self.take_over(group, key, record, options)
    }

    fn waiting_rooms(&self) -> Vec<OwnedFd> {
        self.groups.values().filter_map(Group::copy_of_room).collect()
    }

    fn unadopted(&mut self) -> Vec<(GroupKey, GroupRecord)> {
        self.find_unadopted()
    }

    fn settle(&mut self) {
        self.end_adopting();
    }
}
