//! What carries connections to workers, behind one trait: the kernel program, or plain `SO_REUSEPORT`.
//!
//! Both implementations follow one protocol. The supervisor *admits* a worker before it is spawned, so
//! that the worker's sockets can be seen; the data path *reports* each listening socket with a ticket;
//! the supervisor answers every ticket with `open` (first of its group), `join`, or `refuse`; and it
//! *publishes* routes. Which worker belongs into which slot is decided by `state`, never here.

pub mod feature;
pub mod record;
pub mod socket;
pub mod telemetry;
mod sum;
pub mod activity;
pub mod diag;
pub mod holder;
pub mod idle;
pub mod kernel;
pub mod plain;
mod rescue;

use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, SocketAddr},
    os::fd::{BorrowedFd, OwnedFd},
    path::Path,
    task::{Context, Poll},
    time::Duration,
};

use cluster_common::slot::Slot;
use serde::{Deserialize, Serialize};

use self::{
    kernel::custom::Loaded,
    record::{GroupRecord, Seated},
    telemetry::{GroupTelemetry, Telemetry},
};
use crate::{
    config::scheduling::Scheduling,
    id::{AppId, GroupId, Ticket, WorkerId},
};

/// How connections reach workers; shown in `list`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// A program in the kernel picks the socket of each connection.
    Kernel,
    /// The kernel's own hash over the sockets of the group.
    Plain,
}

/// TCP or UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// A listening stream socket.
    Tcp,
    /// A bound datagram socket.
    Udp,
}

/// What makes two sockets members of one reuseport group (kernel: `inet_reuseport_add_sock`,
/// `inet_rcv_saddr_equal`): all of it must be equal.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupKey {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// Local address and port; the port is never 0.
    pub address: SocketAddr,
    /// `IPV6_V6ONLY`; false for IPv4.
    pub v6only: bool,
    /// Uid of the socket's inode.
    pub uid: u32,
    /// Interface index of `SO_BINDTODEVICE`, 0 for none.
    pub device: u32,
    /// `SO_NETNS_COOKIE` of the socket's network namespace.
    pub netns: u64,
}

impl GroupKey {
    /// Whether two groups would take connections from each other: the more specific address would win, and without
    /// `SO_REUSEPORT` only one of them could be bound (kernel: `inet_rcv_saddr_equal` with `match_wildcard`).
    pub fn overlaps(&self, other: &Self) -> bool {
        let covers = |a: &Self, b: IpAddr| match (a.address.ip().to_canonical(), b) {
            (IpAddr::V4(a), IpAddr::V4(_)) => a.is_unspecified(),
            (IpAddr::V4(_), IpAddr::V6(_)) => false,
            (IpAddr::V6(v6), IpAddr::V4(_)) => v6.is_unspecified() && !a.v6only,
            (IpAddr::V6(v6), IpAddr::V6(_)) => v6.is_unspecified(),
        };
        let (ip, others) = (self.address.ip().to_canonical(), other.address.ip().to_canonical());
        (self.protocol, self.address.port(), self.netns)
            == (other.protocol, other.address.port(), other.netns)
            && (self.device == other.device || self.device == 0 || other.device == 0)
            && (ip == others || covers(self, others) || covers(other, ip))
    }
}

/// What a worker's sockets did, as the data path saw it.
#[derive(Debug)]
pub enum Report {
    /// A socket listens (TCP) or is bound (UDP); answer its ticket with `open`, `join` or `refuse`.
    Listening {
        /// Whose socket it is.
        worker: WorkerId,
        /// Names the socket until it is answered.
        ticket: Ticket,
        /// The group it is, or would be, a member of.
        key: GroupKey,
    },
    /// A worker is about to bind; explains a failure that may follow.
    Binding {
        /// Whose socket it is.
        worker: WorkerId,
        /// TCP or UDP.
        protocol: Protocol,
        /// Where to.
        address: SocketAddr,
    },
    /// A socket listens that no group can take, such as one of multipath TCP.
    Unusable {
        /// Whose socket it is.
        worker: WorkerId,
        /// Where it listens, when that could be read.
        address: Option<SocketAddr>,
        /// A lowercase fragment for the user.
        reason: String,
    },
}

/// Where a worker is about to be spawned.
#[derive(Clone, Debug)]
pub struct Place<'a> {
    /// Whose worker it is: the sockets of two apps never share a port.
    pub app: AppId,
    /// Id (inode number) of the worker's own cgroup, when there is one.
    pub cgroup: Option<u64>,
    /// Folder of that cgroup, through which the processes in it are found.
    pub cgroup_path: Option<&'a Path>,
    /// Ports to balance; empty for all.
    pub ports: &'a [u16],
    /// The worker's number in its app: who succeeds it has the same, and a policy may go by it.
    pub number: u32,
}

/// What the spawned process must do for its sockets to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Admission {
    /// Nothing: hooks at its cgroup see it.
    Cgroup,
    /// Install the seccomp filter of [`plain`] and hand over the notification descriptor.
    Seccomp,
}

/// What becomes of a connection that finds no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnMiss {
    /// The waiting room holds it for the next worker (TCP; UDP is refused).
    Wait,
    /// It is refused, and so is what the waiting room holds.
    Refuse,
}

/// A group's properties beyond its key.
#[derive(Clone, Debug)]
pub struct GroupOptions {
    /// Name of the app, for records of decisions.
    pub app: String,
    /// Whether the kernel program logs each decision.
    pub trace: bool,
}

/// What a worker has to do still.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Connections that wait in accept queues.
    pub queued: u32,
    /// Connections in their handshake.
    pub handshakes: u32,
    /// Connections accepted (or queued) and not closed by the worker.
    pub established: u32,
    /// Those of `established` with a request under way: data unread or unsent, something received since the worker last
    /// sent, or something sent in the last second, because an answer may come in pieces (`tcpi_last_data_recv`,
    /// `tcpi_last_data_sent`). Where that cannot be told, all of them.
    pub busy: u32,
    /// Connections that the guard has kept away since this was last asked, because it did not accept: they would wait in
    /// its queue otherwise.
    #[serde(default)]
    pub spared: u32,
    /// Whether it still gets datagrams of flows that the rule keeps on it. Where none does, or they are not counted, no.
    #[serde(default)]
    pub flows: bool,
    /// Connections and datagrams that have come to it so far, those that moved to it included; `None` where nobody counts.
    #[serde(default)]
    pub received: Option<u64>,
}

/// Counters of one slot since it was filled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SlotCounters {
    /// Connections (TCP) or datagrams (UDP) sent to this slot.
    pub selected: u64,
    /// Connections that moved here from a socket that closed.
    pub migrated_in: u64,
    /// Connections that the guard kept away.
    #[serde(default)]
    pub guarded: u64,
}

/// Why a socket could not be joined to a group.
#[derive(Debug)]
pub enum JoinError {
    /// Another program's sockets are in this group already.
    Stranger {
        /// `pid (command)` of the holder, when it could be found.
        holder: String,
    },
    /// The socket is gone: its worker closed it or died.
    Gone,
    /// Anything else the kernel said.
    Failed(anyhow::Error),
}

impl fmt::Display for JoinError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stranger { holder } => write!(f, "the port is held by {holder}"),
            Self::Gone => f.write_str("the socket was closed before it could join"),
            Self::Failed(error) => write!(f, "{error:#}"),
        }
    }
}

impl std::error::Error for JoinError {}

/// What takes long, to be called on another thread.
pub type Slow<T> = Box<dyn FnOnce() -> T + Send>;

/// The protocol between the supervisor and what carries connections.
///
/// All calls return at once (no waiting for a worker); all run on the supervisor's thread. What takes long is handed out as
/// [`Slow`].
pub trait DataPath {
    /// Which implementation this is.
    fn mode(&self) -> Mode;

    /// Expects a worker, before it is spawned.
    ///
    /// # Errors
    /// When the kernel refuses; the worker must not be spawned then.
    fn admit(&mut self, worker: WorkerId, place: &Place<'_>) -> anyhow::Result<Admission>;

    /// Learns that an admitted worker runs, with its notification descriptor if it was to hand one over.
    fn started(
        &mut self,
        worker: WorkerId,
        pid: u32,
        process: BorrowedFd<'_>,
        notifier: Option<OwnedFd>,
    );

    /// Looks for sockets that a worker made before it ran its program, and that nothing else tells of.
    fn look_at(&mut self, worker: WorkerId);

    /// Forgets a worker, its tickets included. Its slots are vacated separately.
    fn dismiss(&mut self, worker: WorkerId);

    /// Waits for the next report.
    fn poll_report(&mut self, context: &mut Context<'_>) -> Poll<Report>;

    /// Founds a group with the socket of `ticket`: program attached, waiting room made, route empty. The
    /// ticket stays valid for the `join` that follows.
    ///
    /// # Errors
    /// [`JoinError`]; nothing is left of the group then, and the ticket is spent.
    fn open(
        &mut self,
        group: GroupId,
        ticket: Ticket,
        options: &GroupOptions,
    ) -> Result<(), JoinError>;

    /// Puts the socket of `ticket` into a free slot. It gets no connection until a route names the slot.
    ///
    /// # Errors
    /// [`JoinError`]; the ticket is spent either way.
    fn join(&mut self, ticket: Ticket, group: GroupId, slot: Slot) -> Result<(), JoinError>;

    /// Lets go of a socket that shall not be joined.
    fn refuse(&mut self, ticket: Ticket);

    /// Makes `route` what the program walks, in one step; an empty route leaves `OnMiss`. When the
    /// waiting room holds connections and the route is not empty, they are handed over.
    ///
    /// # Errors
    /// When the group is unknown or the route too long.
    fn publish(&mut self, group: GroupId, route: &[Slot]) -> anyhow::Result<()>;

    /// Empties a slot, if its socket has not done so by closing.
    fn vacate(&mut self, group: GroupId, slot: Slot);

    /// Says what becomes of connections that find no worker.
    fn on_miss(&mut self, group: GroupId, on_miss: OnMiss);

    /// Ends a group: waiting room closed, maps freed.
    fn close(&mut self, group: GroupId);

    /// Slots of `group` whose socket has gone although nobody vacated them. Cheap when nothing missed.
    fn lost(&mut self, group: GroupId) -> Vec<Slot>;

    /// What a worker has to do still.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn traffic(&mut self, worker: WorkerId) -> anyhow::Result<Traffic>;

    /// Tells a worker's connections to close, each at the next point where nothing can be lost, and says what is left.
    /// May be called again and again: it covers what was accepted since.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn drain(&mut self, worker: WorkerId) -> anyhow::Result<Traffic>;

    /// Back into service: its connections are left alone again. Harmless for one that is not drained.
    fn resume(&mut self, worker: WorkerId);

    /// Closes (FIN) connections between messages, with nothing unread or unsent, idle for at least `idle`; says how many.
    ///
    /// An event stream between two events looks like that, too: to be called when waiting for it is over.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn hang_up(&mut self, worker: WorkerId, idle: Duration) -> anyhow::Result<u32>;

    /// Connections of every worker, as [`Traffic::established`] counts them, in one look at all of them.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn connections(&mut self) -> anyhow::Result<BTreeMap<WorkerId, u32>>;

    /// Whether workers of this app could be picked by this rule, as far as that can be known at once and before it serves a
    /// port. Nothing changes.
    ///
    /// # Errors
    /// What is wrong with the rule, or missing on this host.
    fn try_schedule(&self, scheduling: &Scheduling) -> anyhow::Result<()>;

    /// The rest of that, which may take the kernel seconds: whether it takes a program of the user's. `None` when there is
    /// nothing to be asked.
    fn verification(&self, app: &str, scheduling: &Scheduling) -> Option<Slow<anyhow::Result<()>>>;

    /// What of `schedule` may take as long, when anything does: its result is for `schedule_loaded`.
    fn loading(&self, group: GroupId, scheduling: &Scheduling) -> Option<Slow<Loaded>>;

    /// Picks workers by this rule from now on. Connections that are there stay where they are, and none is lost.
    ///
    /// To be called after `open` and `adopt`, and whenever the rule changes; harmless when it is the same.
    ///
    /// # Errors
    /// When the group is unknown or this host cannot do it; the rule is what it was then.
    fn schedule(&mut self, group: GroupId, scheduling: &Scheduling) -> anyhow::Result<()> {
        self.schedule_loaded(group, scheduling, None)
    }

    /// The same with what `loading` has loaded for that group and that rule; without it, it is loaded now.
    ///
    /// # Errors
    /// As with `schedule`, and what kept it from being loaded.
    fn schedule_loaded(
        &mut self,
        group: GroupId,
        scheduling: &Scheduling,
        loaded: Option<Loaded>,
    ) -> anyhow::Result<()>;

    /// Keeps new connections away from a worker, whatever the rule, for as long as there are others; or no longer. It holds
    /// for sockets that join later, too, and what is left there by a supervisor that died is set right. Where the rule's
    /// guard does not mind silence it changes nothing.
    ///
    /// # Errors
    /// When the worker is unknown, and in plain mode, which cannot do it.
    fn distrust(&mut self, worker: WorkerId, distrusted: bool) -> anyhow::Result<()>;

    /// Why [`distrust`](Self::distrust) changes nothing, where that is so for all workers: a sentence.
    fn cannot_distrust(&self) -> Option<&'static str>;

    /// What the kernel counted for every worker, in one look at all of them.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    fn telemetry(&mut self) -> anyhow::Result<BTreeMap<WorkerId, Telemetry>>;

    /// The same for one worker that has ended, to be asked before it is dismissed: its counters, and not what it has now.
    fn counted(&mut self, worker: WorkerId) -> Telemetry;

    /// What the kernel counted for a group; nothing in plain mode.
    fn group_telemetry(&self, group: GroupId) -> Option<GroupTelemetry>;

    /// Counters of a slot.
    fn counters(&self, group: GroupId, slot: Slot) -> SlotCounters;

    /// Makes TCP connections from `from`, a source address and port, to the worker's group on `to` reach that worker,
    /// until `unsteer`: also when no route names it, and no other worker when it listens no more. They take no turn
    /// and are not counted. `to` is the group's address, or one of those it stands for.
    ///
    /// # Errors
    /// When the worker has no socket in such a group, and in plain mode, which cannot do it.
    fn steer(&mut self, worker: WorkerId, to: SocketAddr, from: SocketAddr) -> anyhow::Result<()>;

    /// Ends what `steer` began. Harmless without it.
    fn unsteer(&mut self, worker: WorkerId, to: SocketAddr, from: SocketAddr);

    /// Moves what waits in a worker's accept queues to others, without ending it: for one that hangs or fails its probes.
    /// Its listeners take no more connections afterwards, and `lost` tells of its slots.
    ///
    /// # Errors
    /// When they cannot be reached, and in plain mode where the kernel does not move connections.
    fn rescue(&mut self, worker: WorkerId) -> anyhow::Result<()>;

    /// What the next supervisor needs to take a group over; `None` for an unknown one.
    fn record(&self, group: GroupId) -> Option<GroupRecord>;

    /// Takes over a group of a supervisor that died. Its workers are to be admitted and told as started before.
    ///
    /// Traffic goes on meanwhile by the route that is there, which stays until the next one is published.
    ///
    /// # Errors
    /// When it is not there any more, or is not what the record says; nothing has been changed then.
    fn adopt(
        &mut self,
        group: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        options: &GroupOptions,
    ) -> anyhow::Result<Vec<Seated>>;

    /// Copies of the listeners in which connections wait: whoever holds them while the supervisor becomes another program
    /// keeps what waits.
    fn waiting_rooms(&self) -> Vec<OwnedFd>;

    /// Groups of admitted workers that are in the kernel and have not been adopted: where there is no journal. Each can be
    /// given to [`DataPath::adopt`].
    fn unadopted(&mut self) -> Vec<(GroupKey, GroupRecord)>;

    /// Ends adopting: sockets of admitted workers that listen and are in no slot are reported, and what is kept for
    /// workers and groups that nobody claimed is let go. To be called once, after the last [`DataPath::adopt`].
    fn settle(&mut self);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_would_take_from_each_other_overlap() {
        assert!(key("0.0.0.0:80").overlaps(&key("127.0.0.1:80")));
        assert!(key("127.0.0.1:80").overlaps(&key("0.0.0.0:80")));
        assert!(key("[::]:80").overlaps(&key("127.0.0.1:80")), "it is dual-stack");
        assert!(key("[::]:80").overlaps(&key("[::1]:80")));
        assert!(key("[::ffff:127.0.0.1]:80").overlaps(&key("127.0.0.1:80")));
    }

    #[test]
    fn addresses_that_are_far_apart_do_not() {
        let only = GroupKey { v6only: true, ..key("[::]:80") };
        let datagrams = GroupKey { protocol: Protocol::Udp, ..key("0.0.0.0:80") };
        let elsewhere = GroupKey { netns: 2, ..key("0.0.0.0:80") };
        for other in [only, datagrams, elsewhere, key("0.0.0.0:81"), key("[::1]:80")] {
            assert!(!key("0.0.0.0:80").overlaps(&other), "{other:?}");
        }
        assert!(!key("127.0.0.1:80").overlaps(&key("127.0.0.2:80")));
    }

    fn key(address: &str) -> GroupKey {
        let address = address.parse().unwrap();
        let (protocol, uid, device, netns) = (Protocol::Tcp, 0, 0, 1);
        GroupKey { protocol, address, v6only: false, uid, device, netns }
    }
}
