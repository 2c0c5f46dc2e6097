//! Who holds a port: the bound sockets of a network namespace, and the process behind a socket.

use std::{
    collections::BTreeSet,
    fmt, fs,
    net::{IpAddr, SocketAddr},
};

use procfs::{
    ProcResult,
    net::{TcpState, UdpState},
    process::Process,
};

use super::{Protocol, socket::sockets_of};

/// A socket that listens (TCP) or is bound (UDP).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BoundSocket {
    /// Local address and port.
    pub address: SocketAddr,
    /// Uid of the socket.
    pub uid: u32,
    /// Inode number of the socket.
    pub inode: u64,
    /// Connections that wait to be accepted (TCP), or bytes to be received (UDP).
    pub queued: u32,
}

impl BoundSocket {
    /// Who has it open. This looks through the descriptors of all processes.
    pub fn holder(&self) -> Holder {
        Holder { process: process_of(self.inode), uid: self.uid }
    }
}

/// Who has a socket open. Displays as `pid 123 (nginx)`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The first process found that has it open; absent when the caller may not look into it.
    pub process: Option<(u32, String)>,
    /// Uid of the socket.
    pub uid: u32,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.process {
            Some((pid, command)) => write!(f, "pid {pid} ({command})"),
            None => write!(f, "a process of uid {} that could not be examined", self.uid),
        }
    }
}

/// All sockets of `protocol` that listen or are bound in the network namespace of process (or thread)
/// `viewer`, in the kernel's order.
///
/// # Errors
/// When the process is gone, or its tables cannot be read.
pub fn bound(viewer: u32, protocol: Protocol) -> ProcResult<Vec<BoundSocket>> {
    let viewer = Process::new(viewer.cast_signed())?;
    let mut sockets = Vec::new();
    match protocol {
        Protocol::Tcp => {
            // A kernel without IPv6 has no second table.
            for entry in viewer.tcp()?.into_iter().chain(viewer.tcp6().unwrap_or_default()) {
                if entry.state == TcpState::Listen {
                    sockets.push(BoundSocket {
                        address: entry.local_address,
                        uid: entry.uid,
                        inode: entry.inode,
                        queued: entry.rx_queue,
                    });
                }
            }
        }
        Protocol::Udp => {
            for entry in viewer.udp()?.into_iter().chain(viewer.udp6().unwrap_or_default()) {
                if entry.state == UdpState::Close {
                    sockets.push(BoundSocket {
                        address: entry.local_address,
                        uid: entry.uid,
                        inode: entry.inode,
                        queued: entry.rx_queue,
                    });
                }
            }
        }
    }
    Ok(sockets)
}

/// Who holds `address`, or a wildcard address of the same port, in the network namespace of `viewer`.
/// Sockets whose inode numbers are in `ours` do not count.
///
/// `None` when nobody does, or when a TCP socket is bound there and does not listen: the kernel lists
/// no such sockets.
pub fn stranger(
    viewer: u32,
    protocol: Protocol,
    address: SocketAddr,
    ours: &BTreeSet<u64>,
) -> Option<Holder> {
    let sockets = bound(viewer, protocol).ok()?;
    let found = sockets
        .into_iter()
        .find(|socket| !ours.contains(&socket.inode) && overlap(socket.address, address));
    found.map(|socket| socket.holder())
}

/// The first process, by pid, that has the socket of inode number `inode` open, and its command.
pub fn process_of(inode: u64) -> Option<(u32, String)> {
    let mut pids: Vec<u32> = fs::read_dir("/proc")
        .ok()?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .collect();
    pids.sort_unstable();
    let pid = pids.into_iter().find(|pid| {
        sockets_of(*pid).is_ok_and(|open| open.iter().any(|socket| socket.inode == inode))
    })?;
    Some((pid, command(pid)))
}

/// Name of the command that process `pid` runs, as `ps` shows it; `?` when it is gone.
pub fn command(pid: u32) -> String {
    fs::read_to_string(format!("/proc/{pid}/comm"))
        .map_or_else(|_| "?".to_owned(), |name| name.trim_end().escape_debug().to_string())
}

/// Whether two sockets on these addresses would be in each other's way (kernel: `inet_rcv_saddr_equal`
/// with `match_wildcard`). The IPv6 wildcard counts as dual-stack, since the tables do not say.
fn overlap(one: SocketAddr, other: SocketAddr) -> bool {
    let covers = |a: IpAddr, b: IpAddr| match (a, b) {
        (IpAddr::V4(a), IpAddr::V4(_)) => a.is_unspecified(),
        (IpAddr::V4(_), IpAddr::V6(_)) => false,
        (IpAddr::V6(a), IpAddr::V4(_) | IpAddr::V6(_)) => a.is_unspecified(),
    };
    let (a, b) = (one.ip().to_canonical(), other.ip().to_canonical());
    one.port() == other.port() && (a == b || covers(a, b) || covers(b, a))
}

#[cfg(test)]
mod tests {
    use std::{
        net::{TcpListener, UdpSocket},
        os::fd::AsFd as _,
        process,
    };

    use super::*;
    use crate::datapath::socket::inode;

    #[test]
    fn the_holder_of_a_port_is_named_with_pid_and_command() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let holder =
            stranger(process::id(), Protocol::Tcp, address, &BTreeSet::new()).unwrap().to_string();
        assert_eq!(holder, format!("pid {} ({})", process::id(), command(process::id())));
    }

    #[test]
    fn our_own_sockets_are_no_strangers() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let ours = BTreeSet::from([inode(socket.as_fd()).unwrap()]);
        let address = socket.local_addr().unwrap();
        assert_eq!(stranger(process::id(), Protocol::Udp, address, &ours), None);
        assert!(stranger(process::id(), Protocol::Udp, address, &BTreeSet::new()).is_some());
    }

    #[test]
    fn wildcards_and_mapped_addresses_overlap() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        assert!(overlap(at("0.0.0.0:80"), at("127.0.0.1:80")));
        assert!(overlap(at("[::]:80"), at("127.0.0.1:80")));
        assert!(overlap(at("[::ffff:127.0.0.1]:80"), at("127.0.0.1:80")));
        assert!(!overlap(at("0.0.0.0:80"), at("[::1]:80")));
        assert!(!overlap(at("0.0.0.0:80"), at("0.0.0.0:81")));
        assert!(!overlap(at("127.0.0.1:80"), at("127.0.0.2:80")));
    }
}
