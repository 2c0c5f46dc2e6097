//! What the kernel knows about sockets without anybody's help: `sock_diag(7)` over netlink.
//!
//! Sockets are found by port or by the cgroup they were made in, filtered in the kernel. Everything is of the
//! network namespace of the calling thread.

mod query;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    time::Duration,
};

use self::query::{FAMILIES, IPV4, Query};
use super::{GroupKey, Protocol, Traffic};

// States of a socket, include/net/tcp_states.h
const ESTABLISHED: u8 = 1;
const SYN_RECV: u8 = 3;
const CLOSE: u8 = 7;
const CLOSE_WAIT: u8 = 8;
const LISTEN: u8 = 10;

/// A socket as the kernel describes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// `TCP_…` state; a bound datagram socket is in state 7.
    pub state: u8,
    /// Its own address and port.
    pub local: SocketAddr,
    /// `IPV6_V6ONLY`; false for IPv4 and where the kernel does not tell.
    pub v6only: bool,
    /// Interface it is bound to, 0 for none.
    pub device: u32,
    /// `SO_COOKIE`
    pub cookie: u64,
    /// Of a listener, the connections in its accept queue; of others, bytes to be read.
    pub queued: u32,
    /// What the kernel dropped because there was no room for it (`sk_drops`); 0 where it was not asked.
    pub drops: u32,
    /// Whether a request seems to be under way: see [`Traffic::busy`]. False where it was not asked.
    pub busy: bool,
    /// For how long nothing has been sent or received, in milliseconds; 0 where it was not asked.
    pub silent: u32,
    /// Whether it has carried data at all; false where it was not asked.
    pub used: bool,
    /// Owner of its inode.
    pub uid: u32,
    /// Inode number, as in `socket:[…]`; 0 for connections not yet accepted.
    pub inode: u32,
    /// Id of the cgroup it was made in; absent where the kernel does not tell (before 5.9).
    pub cgroup: Option<u64>,
}

/// An answer that is sent in pieces may pause for so long before it counts as complete.
const PIECES: Duration = Duration::from_secs(1);

impl Entry {
    /// Whether it is a listener.
    pub fn is_listening(&self) -> bool {
        self.state == LISTEN
    }

    /// Whether cutting it now might cut something off: a request is under way, or an answer that comes in pieces.
    pub fn is_active(&self) -> bool {
        let pause = Duration::from_millis(self.silent.into());
        !self.is_listening() && (self.busy || (self.used && pause < PIECES))
    }

    /// Whether nothing is under way and has not been for this long; only of connections that were accepted.
    pub fn is_idle(&self, idle: Duration) -> bool {
        self.inode != 0
            && self.state == ESTABLISHED
            && !self.busy
            && Duration::from_millis(self.silent.into()) >= idle
    }

    /// The group it is in, or would be in. The tables do not tell the network namespace.
    pub fn key(&self, protocol: Protocol, netns: u64) -> GroupKey {
        let Self { local, v6only, device, uid, .. } = *self;
        GroupKey { protocol, address: local, v6only, uid, device, netns }
    }
}

/// Sockets that take what arrives at a port: listening ones of TCP, bound and unconnected ones of UDP.
///
/// # Errors
/// When the kernel cannot be asked; `ENOENT` if it has no `sock_diag` for this protocol.
pub fn listeners(protocol: Protocol, port: u16) -> io::Result<Vec<Entry>> {
    let states = match protocol {
        Protocol::Tcp => 1 << LISTEN,
        Protocol::Udp => 1 << CLOSE,
    };
    let mut found = Vec::new();
    for family in FAMILIES {
        let query = Query { drops: true, port, ..Query::new(family, protocol, states) };
        query.dump(|entry| found.push(entry))?;
    }
    Ok(found)
}

/// What the worker of a cgroup has to do still, on the ports of `addresses`, where it has listened and may have
/// stopped, and on the ports it listens on. Connections it made to others do not count.
///
/// Takes some 0.3 ms for each family among the addresses here, most of it for walking the table of all connections.
///
/// A connection whose last ACK has not come yet belongs to no cgroup and is not counted, unless it came with
/// TCP Fast Open; the kernel moves it to another listener of the group when the worker's is closed. One that
/// moved here from a closed socket is of that socket's cgroup (`inet_csk_clone_lock`), and of its accepted ones only
/// those with an inode number in `moved` are counted.
///
/// # Errors
/// When the kernel cannot be asked; `EINVAL` where it cannot filter by cgroup (before 5.9).
pub fn traffic(
    cgroup: u64,
    addresses: &BTreeSet<SocketAddr>,
    moved: &BTreeSet<u64>,
) -> io::Result<Traffic> {
    traffic_with(cgroup, addresses, moved, |_| {})
}

/// As [`traffic`], and shows each of the connections that it counts as established to `visit`.
///
/// # Errors
/// As [`traffic`].
pub fn traffic_with(
    cgroup: u64,
    addresses: &BTreeSet<SocketAddr>,
    moved: &BTreeSet<u64>,
    mut visit: impl FnMut(&Entry),
) -> io::Result<Traffic> {
    let states = 1 << ESTABLISHED | 1 << SYN_RECV | 1 << CLOSE_WAIT | 1 << LISTEN;
    let mut traffic = Traffic::default();
    let mut ports: BTreeSet<u16> = addresses.iter().map(SocketAddr::port).collect();
    // An IPv4 connection to a dual-stack listener is of IPv6.
    let listened = |v4: bool| addresses.is_empty() || addresses.iter().any(|at| at.is_ipv4() == v4);
    for family in FAMILIES.into_iter().filter(|&family| listened(family == IPV4)) {
        // What moved here is not to be found by the cgroup.
        let cgroup_only = moved.is_empty().then_some(cgroup);
        let query =
            Query { cgroup: cgroup_only, info: true, ..Query::new(family, Protocol::Tcp, states) };
        // The kernel dumps listeners before connections, so their ports are known by then.
        query.dump(|entry| match entry.state {
            _ if entry.cgroup != Some(cgroup) && !moved.contains(&entry.inode.into()) => {}
            LISTEN => {
                traffic.queued += entry.queued;
                ports.insert(entry.local.port());
            }
            SYN_RECV if ports.contains(&entry.local.port()) => traffic.handshakes += 1,
            // Not those the worker has closed: they are in FIN_WAIT1 or LAST_ACK or later.
            ESTABLISHED | CLOSE_WAIT if ports.contains(&entry.local.port()) => {
                traffic.established += 1;
                traffic.busy += u32::from(entry.is_active());
                visit(&entry);
            }
            _ => {}
        })?;
    }
    Ok(traffic)
}

/// Counts the connections of all owners in one walk per family.
///
/// `owner` says whose a socket is. Connections count on the ports that their owner listens on or has `listened` on:
/// those accepted and not closed since, and those in accept queues, which nobody owns yet.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn connections<K: Ord + Copy>(
    mut listened: BTreeSet<(K, u16)>,
    owner: impl Fn(&Entry) -> Option<K>,
) -> io::Result<BTreeMap<K, u32>> {
    let states = 1 << ESTABLISHED | 1 << CLOSE_WAIT | 1 << LISTEN;
    let mut counts = BTreeMap::new();
    for family in FAMILIES {
        let query = Query::new(family, Protocol::Tcp, states);
        // The kernel dumps listeners before connections, so their ports are known by then.
        query.dump(|entry| {
            let Some(owner) = owner(&entry) else { return };
            let port = (owner, entry.local.port());
            let count = match entry.state {
                LISTEN => {
                    listened.insert(port);
                    entry.queued
                }
                _ => u32::from(entry.inode != 0 && listened.contains(&port)),
            };
            *counts.entry(owner).or_default() += count;
        })?;
    }
    Ok(counts)
}

/// How many of the connections with these inode numbers have a request under way: see [`Traffic::busy`].
///
/// # Errors
/// When the kernel cannot be asked.
pub fn busy(inodes: &BTreeSet<u64>) -> io::Result<u32> {
    let mut busy = 0;
    each_of(inodes, |entry| busy += u32::from(entry.is_active()))?;
    Ok(busy)
}

/// Shows those of the sockets with these inode numbers that have accepted something or been accepted: connections, and
/// listeners before them.
///
/// # Errors
/// When the kernel cannot be asked.
pub fn each_of(inodes: &BTreeSet<u64>, mut visit: impl FnMut(&Entry)) -> io::Result<()> {
    let states = 1 << ESTABLISHED | 1 << CLOSE_WAIT | 1 << LISTEN;
    for family in FAMILIES {
        let query = Query { info: true, ..Query::new(family, Protocol::Tcp, states) };
        query.dump(|entry| {
            if inodes.contains(&entry.inode.into()) {
                visit(&entry);
            }
        })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, TcpStream, UdpSocket},
        os::fd::AsFd as _,
    };

    use super::*;
    use crate::datapath::socket::{cookie, inode};

    #[test]
    fn a_listener_is_described_with_its_cookie_and_its_queue() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();

        let found = listeners(Protocol::Tcp, address.port()).unwrap();

        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!((found[0].local, found[0].queued), (address, 1));
        assert_eq!(found[0].cookie, cookie(listener.as_fd()).unwrap());
        assert!(found[0].cgroup.is_some());
    }

    #[test]
    fn a_bound_datagram_socket_is_found() {
        let socket = UdpSocket::bind("[::1]:0").unwrap();
        let address = socket.local_addr().unwrap();

        let found = listeners(Protocol::Udp, address.port()).unwrap();

        assert!(found.iter().any(|entry| entry.local == address), "{found:?}");
    }

    #[test]
    fn connections_are_counted_for_the_cgroup_of_their_listener_only() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _waiting = TcpStream::connect(address).unwrap();
        let entry = listeners(Protocol::Tcp, address.port()).unwrap()[0];
        let mine = entry.cgroup.unwrap();

        // Other tests of this process are in the same cgroup: only a lower bound holds.
        let count = |cgroup| traffic(cgroup, &BTreeSet::new(), &BTreeSet::new()).unwrap();
        let (of_mine, of_nobody) = (count(mine), count(mine + 0x1000_0000));

        assert!(of_mine.established >= 1 && of_mine.queued >= 1, "{of_mine:?}");
        assert_eq!(of_nobody, Traffic::default());
    }

    #[test]
    fn a_connection_of_another_cgroup_is_counted_where_it_moved_to() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..2).map(|_| TcpStream::connect(address).unwrap()).collect();
        let (accepted, _) = listener.accept().unwrap();
        let moved = BTreeSet::from([inode(accepted.as_fd()).unwrap()]);
        let entry = listeners(Protocol::Tcp, address.port()).unwrap()[0];
        let other = entry.cgroup.unwrap() + 0x1000_0000;

        let of_other = traffic(other, &BTreeSet::from([address]), &moved).unwrap();

        assert_eq!((of_other.established, of_other.queued, of_other.handshakes), (1, 0, 0));
    }

    #[test]
    fn connections_are_counted_for_their_owner_accepted_or_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _clients: Vec<_> = (0..3).map(|_| TcpStream::connect(address).unwrap()).collect();
        let (_accepted, _) = listener.accept().unwrap();
        let of_port = |entry: &Entry| (entry.local == address).then_some('a');

        assert_eq!(connections(BTreeSet::new(), of_port).unwrap(), [('a', 3)].into());
    }
}
