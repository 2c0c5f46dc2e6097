//! Facts about another process' socket, asked of the kernel through a duplicate of it.

use std::{
    fmt,
    fs::{self, read_dir, read_link},
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    os::{
        fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
        unix::fs::MetadataExt as _,
    },
    path::Path,
};

use rustix::{
    fs::fstat,
    net::{SocketType, getsockname, ipproto, sockopt},
    process::{ForeignRawFd, Pid, PidfdFlags, PidfdGetfdFlags},
};

use super::{GroupKey, Protocol};

/// `IPPROTO_MPTCP` of include/uapi/linux/in.h.
const MULTIPATH_TCP: u32 = 262;

/// `SO_BINDTOIFINDEX` of include/uapi/asm-generic/socket.h, Linux 5.1.
const SO_BINDTOIFINDEX: libc::c_int = 62;

/// Why a socket cannot be a member of a reuseport group.
#[derive(Debug)]
pub enum Unfit {
    /// Neither TCP nor UDP over IPv4 or IPv6.
    Foreign,
    /// Multipath TCP, which kernel programs cannot select.
    Multipath {
        /// Where it listens.
        address: SocketAddr,
    },
    /// It is not bound to a port.
    Unbound,
    /// The kernel would not say.
    Unknown(io::Error),
}

impl fmt::Display for Unfit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Foreign => f.write_str("the socket is neither TCP nor UDP over IPv4 or IPv6"),
            Self::Multipath { address } => write!(
                f,
                "the socket on {address} is of multipath TCP, which cannot be balanced; \
                 Go programs use plain TCP with GODEBUG=multipathtcp=0"
            ),
            Self::Unbound => f.write_str("the socket is not bound to a port"),
            Self::Unknown(error) => write!(f, "the socket could not be examined: {error}"),
        }
    }
}

impl std::error::Error for Unfit {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Unknown(error) => Some(error),
            Self::Foreign | Self::Multipath { .. } | Self::Unbound => None,
        }
    }
}

impl From<rustix::io::Errno> for Unfit {
    fn from(error: rustix::io::Errno) -> Self {
        Self::Unknown(error.into())
    }
}

impl From<io::Error> for Unfit {
    fn from(error: io::Error) -> Self {
        Self::Unknown(error)
    }
}

/// A descriptor for process `pid`, close-on-exec (`pidfd_open(2)`, Linux 5.3).
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn pidfd_open(pid: u32) -> io::Result<OwnedFd> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or(rustix::io::Errno::SRCH)?;
    Ok(rustix::process::pidfd_open(pid, PidfdFlags::empty())?)
}

/// A duplicate of descriptor `fd` of `process`, close-on-exec (`pidfd_getfd(2)`, Linux 5.6).
///
/// The duplicate keeps the socket alive: drop it at once, or the kernel cannot migrate its queue when
/// its worker dies.
///
/// # Errors
/// `EBADF` when the descriptor was closed, `ESRCH` when the process is gone, `EPERM` when the caller may
/// not trace it (`ptrace(2)`, `PTRACE_MODE_ATTACH_REALCREDS`).
pub fn pidfd_getfd(process: BorrowedFd<'_>, fd: RawFd) -> io::Result<OwnedFd> {
    let foreign: ForeignRawFd = fd;
    Ok(rustix::process::pidfd_getfd(process, foreign, PidfdGetfdFlags::empty())?)
}

/// The group a bound socket belongs to, or would.
///
/// # Errors
/// [`Unfit`] says why it can belong to none.
pub fn group_key(socket: BorrowedFd<'_>) -> Result<GroupKey, Unfit> {
    let Some(protocol) = protocol(socket)? else { return Err(Unfit::Foreign) };
    let address = local_address(socket)?.ok_or(Unfit::Foreign)?;
    if address.port() == 0 {
        return Err(Unfit::Unbound);
    }
    if is_mptcp(socket)? {
        return Err(Unfit::Multipath { address });
    }
    Ok(key_at(socket, protocol, address)?)
}

/// The group a socket would belong to, were it bound to `address`.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn key_at(
    socket: BorrowedFd<'_>,
    protocol: Protocol,
    address: SocketAddr,
) -> io::Result<GroupKey> {
    Ok(GroupKey {
        protocol,
        address,
        v6only: matches!(address.ip(), IpAddr::V6(_)) && sockopt::ipv6_v6only(socket)?,
        uid: fstat(socket)?.st_uid,
        device: option(socket, SO_BINDTOIFINDEX)?,
        netns: netns(socket)?,
    })
}

/// Names the network namespace of a socket for as long as that is there: `SO_NETNS_COOKIE`, and before Linux 5.14, which
/// has none, the inode number of the namespace.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn netns(socket: BorrowedFd<'_>) -> io::Result<u64> {
    match option(socket, libc::SO_NETNS_COOKIE) {
        Err(error) if error.raw_os_error() == Some(libc::ENOPROTOOPT) => netns_inode(socket),
        named => named,
    }
}

/// Inode number of the network namespace of a socket. Without `CAP_NET_ADMIN` there, the kernel only tells that of this
/// thread: then workers are taken to be in the same.
fn netns_inode(socket: BorrowedFd<'_>) -> io::Result<u64> {
    /// `linux/sockios.h`; since Linux 4.9.
    const SIOCGSKNS: libc::Ioctl = 0x894c;
    // SAFETY: it takes no argument, and returns a new descriptor.
    let namespace = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCGSKNS) };
    if namespace < 0 {
        let error = io::Error::last_os_error();
        let is_denied = error.raw_os_error() == Some(libc::EPERM);
        return if is_denied { Ok(fs::metadata(OWN_NETNS)?.ino()) } else { Err(error) };
    }
    // SAFETY: nobody else has it.
    let namespace = unsafe { OwnedFd::from_raw_fd(namespace) };
    Ok(fstat(&namespace)?.st_ino)
}

/// That of this thread, which may be another than that of its process.
const OWN_NETNS: &str = "/proc/thread-self/ns/net";

/// That of this thread, as any socket of its own tells it.
///
/// # Errors
/// As [`netns`], and when descriptors run out.
pub fn own_netns() -> io::Result<u64> {
    netns(UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?.as_fd())
}

/// TCP (multipath included) or UDP; `None` for every other kind of socket.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn protocol(socket: BorrowedFd<'_>) -> io::Result<Option<Protocol>> {
    let number = sockopt::socket_protocol(socket)?.map_or(0, |known| known.as_raw().get());
    let of_internet = local_address(socket)?.is_some();
    let kind = sockopt::socket_type(socket)?;
    Ok(match kind {
        _ if !of_internet => None,
        SocketType::STREAM if number == ipproto::TCP.as_raw().get() || number == MULTIPATH_TCP => {
            Some(Protocol::Tcp)
        }
        SocketType::DGRAM if number == ipproto::UDP.as_raw().get() => Some(Protocol::Udp),
        _ => None,
    })
}

/// Whether it is a socket of multipath TCP, which no socket map takes (kernel: `sock_map_sk_is_suitable`).
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn is_mptcp(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_protocol(socket)?.is_some_and(|known| known.as_raw().get() == MULTIPATH_TCP))
}

/// Whether its program may ask the kernel to send its memory without copying it (`SO_ZEROCOPY`).
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn has_zerocopy(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(option::<u32>(socket, libc::SO_ZEROCOPY)? != 0)
}

/// Where a socket of IPv4 or IPv6 is bound to; `None` for other families. Flow information is left out.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn local_address(socket: BorrowedFd<'_>) -> io::Result<Option<SocketAddr>> {
    let mut address = SocketAddr::try_from(getsockname(socket)?).ok();
    if let Some(SocketAddr::V6(v6)) = &mut address {
        v6.set_flowinfo(0);
    }
    Ok(address)
}

/// Whether a TCP socket listens.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn is_listening(socket: BorrowedFd<'_>) -> io::Result<bool> {
    Ok(sockopt::socket_acceptconn(socket)?)
}

/// Takes the program off the group that a bound socket is in: the kernel's hash chooses from now on
/// (`SO_DETACH_REUSEPORT_BPF`, Linux 5.3).
///
/// # Errors
/// `ENOENT` when there is none.
pub fn detach_program(socket: BorrowedFd<'_>) -> io::Result<()> {
    let ignored: libc::c_int = 0;
    // SAFETY: the kernel reads an int, whatever it is.
    let status = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_DETACH_REUSEPORT_BPF,
            (&raw const ignored).cast(),
            u32::LENGTH,
        )
    };
    if status != 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// `SO_COOKIE`: names a socket uniquely for as long as the kernel runs.
///
/// # Errors
/// `ENOTSOCK` when it is no socket.
pub fn cookie(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(sockopt::socket_cookie(socket)?)
}

/// Inode number of a socket: what `/proc/net/tcp` and the links in `/proc/PID/fd` name it by.
///
/// # Errors
/// When `fstat(2)` fails.
pub fn inode(socket: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(fstat(socket)?.st_ino)
}

/// A socket that a process has open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenSocket {
    /// Number of the descriptor in that process.
    pub fd: RawFd,
    /// Inode number of the socket.
    pub inode: u64,
}

/// The sockets that process `pid` has open, in no order.
///
/// # Errors
/// When `/proc/PID/fd` cannot be read: the process is gone, or belongs to another user.
pub fn sockets_of(pid: u32) -> io::Result<Vec<OpenSocket>> {
    let folder = format!("/proc/{pid}/fd");
    // Descriptors come and go while they are read: one that vanished is no socket.
    let sockets = read_dir(folder)?.filter_map(|entry| socket_behind(&entry.ok()?.path()));
    Ok(sockets.collect())
}

fn socket_behind(link: &Path) -> Option<OpenSocket> {
    let fd = link.file_name()?.to_str()?.parse().ok()?;
    let target = read_link(link).ok()?;
    let inode = target.to_str()?.strip_prefix("socket:[")?.strip_suffix(']')?.parse().ok()?;
    Some(OpenSocket { fd, inode })
}

/// Reads an option of level `SOL_SOCKET` that no wrapper knows.
fn option<T: Number>(socket: BorrowedFd<'_>, name: libc::c_int) -> io::Result<T> {
    let mut value = MaybeUninit::<T>::zeroed();
    let mut length = T::LENGTH;
    // SAFETY: `value` is valid for writes of `length` bytes, and both outlive the call.
    let status = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            value.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then written by the kernel; every bit pattern is a number.
    Ok(unsafe { value.assume_init() })
}

/// A plain integer, for which every bit pattern is valid.
trait Number: Copy {
    /// Its size in bytes.
    const LENGTH: libc::socklen_t;
}

impl Number for u32 {
    const LENGTH: libc::socklen_t = 4;
}

impl Number for u64 {
    const LENGTH: libc::socklen_t = 8;
}

#[cfg(test)]
mod tests {
    use std::{net::TcpListener, os::unix::net::UnixListener, process};

    use socket2::{Domain, Socket, Type};

    use super::*;

    #[test]
    fn a_listener_has_the_key_of_its_group() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let key = group_key(listener.as_fd()).unwrap();
        assert_eq!(key.protocol, Protocol::Tcp);
        assert_eq!(key.address, listener.local_addr().unwrap());
        assert_eq!((key.v6only, key.device), (false, 0));
        assert_eq!(key.uid, nix::unistd::geteuid().as_raw());
        assert_ne!(key.netns, 0);
        assert!(is_listening(listener.as_fd()).unwrap());
    }

    #[test]
    fn a_dual_stack_socket_differs_from_one_of_ipv6_only() {
        let socket = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        socket.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let dual = group_key(socket.as_fd()).unwrap();
        let only = Socket::new(Domain::IPV6, Type::DGRAM, None).unwrap();
        only.set_only_v6(true).unwrap();
        only.bind(&"[::]:0".parse::<SocketAddr>().unwrap().into()).unwrap();
        let only = group_key(only.as_fd()).unwrap();
        assert_eq!((dual.protocol, dual.v6only), (Protocol::Udp, false));
        assert!(only.v6only);
    }

    #[test]
    fn sockets_that_no_group_takes_are_told_apart() {
        let folder = std::env::temp_dir().join(format!("cluster-socket-{}", process::id()));
        let unix = UnixListener::bind(&folder).unwrap();
        fs::remove_file(&folder).unwrap();
        assert!(matches!(group_key(unix.as_fd()), Err(Unfit::Foreign)));
        let unbound = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        assert!(matches!(group_key(unbound.as_fd()), Err(Unfit::Unbound)));
        let file = fs::File::open("/dev/null").unwrap();
        assert!(matches!(group_key(file.as_fd()), Err(Unfit::Unknown(_))));
        if let Ok(multipath) = Socket::new(Domain::IPV4, Type::STREAM, Some(262.into())) {
            multipath.bind(&"127.0.0.1:0".parse::<SocketAddr>().unwrap().into()).unwrap();
            assert!(matches!(group_key(multipath.as_fd()), Err(Unfit::Multipath { .. })));
        }
    }

    #[test]
    fn a_duplicate_of_a_socket_is_found_through_its_process() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let wanted = inode(listener.as_fd()).unwrap();
        let open = sockets_of(process::id()).unwrap();
        let found = open.iter().find(|socket| socket.inode == wanted).unwrap();
        assert_eq!(found.fd, listener.as_raw_fd());
        let me = pidfd_open(process::id()).unwrap();
        let copy = pidfd_getfd(me.as_fd(), found.fd).unwrap();
        assert_eq!(cookie(copy.as_fd()).unwrap(), cookie(listener.as_fd()).unwrap());
    }
}
