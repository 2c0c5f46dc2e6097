//! From an event of the joining programs to the socket it is about.

use std::{
    fs::{read_dir, read_to_string},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use cluster_common::{
    event::{BINDING, Event, IPV4, LISTENING, UDP_BOUND},
    packet::UDP,
};

use crate::datapath::{
    GroupKey, Protocol,
    socket::{self, Unfit},
};

/// What a worker's socket did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// It is about to be bound.
    Binding,
    /// It listens, or is bound for datagrams.
    Joining,
}

/// An event, decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Observed {
    pub(super) what: What,
    pub(super) protocol: Protocol,
    pub(super) address: SocketAddr,
    pub(super) cookie: u64,
    /// The worker's.
    pub(super) cgroup: u64,
}

/// What was found behind a cookie.
#[derive(Debug)]
pub(super) enum Located {
    /// A duplicate of the socket, and the group it belongs to.
    Socket(OwnedFd, GroupKey),
    /// A socket that no group can take, and why.
    Unfit(String),
    /// Nothing: it was closed meanwhile.
    Nothing,
}

/// Decodes a record of the ring buffer; `None` for one of an unknown kind or length.
pub(super) fn decode(bytes: &[u8]) -> Option<Observed> {
    if bytes.len() != size_of::<Event>() {
        return None;
    }
    // SAFETY: long enough, and every pattern of bytes is an event.
    let event = unsafe { bytes.as_ptr().cast::<Event>().read_unaligned() };
    let what = match event.kind {
        BINDING => What::Binding,
        LISTENING | UDP_BOUND => What::Joining,
        _ => return None,
    };
    let address = if event.family == IPV4 {
        let [a, b, c, d, ..] = event.addr;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(event.addr))
    };
    let address = SocketAddr::new(address, u16::try_from(event.port).ok()?);
    let protocol = if event.protocol == UDP { Protocol::Udp } else { Protocol::Tcp };
    Some(Observed { what, protocol, address, cookie: event.cookie, cgroup: event.cgroup })
}

/// Finds the socket of an event among those that processes of a cgroup have open.
///
/// `first` is looked at before the others, and alone when there is no path.
pub(super) fn locate(cgroup: Option<&Path>, first: Option<u32>, event: &Observed) -> Located {
    let mut pids: Vec<u32> = first.into_iter().collect();
    if let Some(cgroup) = cgroup {
        processes_below(cgroup, &mut pids);
    }
    let mut refused = None;
    let mut multipath = None;
    for pid in pids {
        match search(pid, event, &mut multipath) {
            Ok(Some(socket)) => return examined(socket),
            Ok(None) => {}
            Err(error) => refused = Some((pid, error)),
        }
    }
    match (multipath, refused) {
        (Some(address), _) => Located::Unfit(Unfit::Multipath { address }.to_string()),
        (None, Some((pid, error))) if error.raw_os_error() == Some(libc::EPERM) => {
            Located::Unfit(format!(
                "the socket on {} cannot be reached: the kernel does not let us duplicate \
                 descriptors of pid {pid} (CAP_SYS_PTRACE)",
                event.address
            ))
        }
        (None, _) => Located::Nothing,
    }
}

fn examined(socket: OwnedFd) -> Located {
    match socket::group_key(socket.as_fd()) {
        Ok(key) => Located::Socket(socket, key),
        Err(unfit @ (Unfit::Multipath { .. } | Unfit::Foreign)) => {
            Located::Unfit(unfit.to_string())
        }
        // Closed between the event and now.
        Err(Unfit::Unbound | Unfit::Unknown(_)) => Located::Nothing,
    }
}

/// Looks for the cookie among the sockets of one process.
fn search(
    pid: u32,
    event: &Observed,
    multipath: &mut Option<SocketAddr>,
) -> io::Result<Option<OwnedFd>> {
    let process = socket::pidfd_open(pid)?;
    let mut sockets = socket::sockets_of(pid)?;
    // The newest descriptor tends to have the highest number, and it is a new socket that is looked for.
    sockets.sort_unstable_by_key(|open| std::cmp::Reverse(open.fd));
    let mut error = None;
    for open in sockets {
        let copy = match socket::pidfd_getfd(process.as_fd(), open.fd) {
            Ok(copy) => copy,
            Err(e) => {
                error = Some(e);
                continue;
            }
        };
        match socket::cookie(copy.as_fd()) {
            Ok(cookie) if cookie == event.cookie => return Ok(Some(copy)),
            Ok(_) => {}
            // Closed since it was listed, and its number went to something that is no socket.
            Err(_) => continue,
        }
        // The event of a multipath socket is that of the TCP socket inside, which no descriptor leads to.
        if socket::is_mptcp(copy.as_fd()).unwrap_or(false)
            && let Ok(Some(address)) = socket::local_address(copy.as_fd())
            && address.port() == event.address.port()
        {
            *multipath = Some(address);
        }
    }
    error.map_or(Ok(None), Err)
}

/// Appends the processes of a cgroup and of those below it that are not listed yet.
pub(super) fn processes_below(cgroup: &Path, pids: &mut Vec<u32>) {
    for pid in read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default().lines() {
        if let Ok(pid) = pid.parse()
            && !pids.contains(&pid)
        {
            pids.push(pid);
        }
    }
    // A worker may divide its own cgroup, as container tools do.
    for entry in read_dir(cgroup).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            processes_below(&entry.path(), pids);
        }
    }
}
