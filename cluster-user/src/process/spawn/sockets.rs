//! Sockets that a process makes before it runs its program: they belong to its cgroup as if the program had made them,
//! and may have ports that the program's user may not.
//!
//! What the child does here allocates nothing, as all in [`child`](super::child).

use std::{mem, net::SocketAddr, os::fd::RawFd, ptr};

use nix::errno::Errno;

/// A socket to be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The number it has in the process: above 2, below [`OWN`](super::OWN), and none that is inherited.
    pub number: RawFd,
    /// Whether it is TCP and listens; else it is UDP.
    pub is_tcp: bool,
    /// Where it is bound.
    pub address: SocketAddr,
    /// For IPv6 whether it takes no IPv4.
    pub v6only: bool,
    /// Connections that wait to be accepted.
    pub backlog: u32,
}

/// The same in C's form.
pub(super) struct Prepared {
    number: RawFd,
    domain: libc::c_int,
    kind: libc::c_int,
    address: libc::sockaddr_storage,
    length: libc::socklen_t,
    v6only: Option<libc::c_int>,
    /// For one that listens.
    backlog: Option<libc::c_int>,
}

impl Prepared {
    pub(super) fn new(socket: &Socket) -> Self {
        let (address, length) = in_c(socket.address);
        let kind = if socket.is_tcp { libc::SOCK_STREAM } else { libc::SOCK_DGRAM };
        let backlog = libc::c_int::try_from(socket.backlog).unwrap_or(libc::c_int::MAX);
        Self {
            number: socket.number,
            domain: if socket.address.is_ipv6() { libc::AF_INET6 } else { libc::AF_INET },
            kind: kind | libc::SOCK_CLOEXEC,
            address,
            length,
            v6only: socket.address.is_ipv6().then_some(socket.v6only.into()),
            backlog: socket.is_tcp.then_some(backlog),
        }
    }

    /// Makes the socket and gives it its number. Async-signal-safe.
    pub(super) fn make(&self) -> Result<(), Errno> {
        // SAFETY: takes no memory.
        let socket = at(unsafe { libc::socket(self.domain, self.kind, 0) })?;
        if let Some(only) = self.v6only {
            set(socket, libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, only)?;
        }
        if self.backlog.is_some() {
            // So that connections of the one before it that are not quite gone are not in the way.
            set(socket, libc::SOL_SOCKET, libc::SO_REUSEADDR, 1)?;
        }
        set(socket, libc::SOL_SOCKET, libc::SO_REUSEPORT, 1)?;
        // SAFETY: the address is valid and that long.
        at(unsafe { libc::bind(socket, (&raw const self.address).cast(), self.length) })?;
        if let Some(backlog) = self.backlog {
            // SAFETY: takes no memory.
            at(unsafe { libc::listen(socket, backlog) })?;
        }
        if socket == self.number {
            // SAFETY: takes no memory.
            at(unsafe { libc::fcntl(socket, libc::F_SETFD, 0) })?;
        } else {
            // The other one is closed by exec.
            // SAFETY: takes no memory.
            at(unsafe { libc::dup2(socket, self.number) })?;
        }
        Ok(())
    }
}

/// Writes a process id as text that ends with a null. Async-signal-safe.
///
/// # Safety
/// There is room for eleven bytes.
pub(super) unsafe fn write_pid(pid: u32, mut to: *mut u8) {
    let mut divisor = 1_000_000_000;
    while divisor > 1 && pid < divisor {
        divisor /= 10;
    }
    while divisor > 0 {
        // A digit fits.
        let digit = b'0' + (pid / divisor % 10) as u8;
        // SAFETY: at most ten digits, by the caller's promise.
        unsafe { to.write(digit) };
        // SAFETY: as above.
        to = unsafe { to.add(1) };
        divisor /= 10;
    }
    // SAFETY: the eleventh byte at most.
    unsafe { to.write(0) };
}

fn set(
    socket: RawFd,
    level: libc::c_int,
    name: libc::c_int,
    value: libc::c_int,
) -> Result<(), Errno> {
    const LENGTH: libc::socklen_t = 4;
    const { assert!(size_of::<libc::c_int>() == LENGTH as usize) };
    // SAFETY: the value is a number of that length.
    at(unsafe { libc::setsockopt(socket, level, name, ptr::from_ref(&value).cast(), LENGTH) })?;
    Ok(())
}

fn at(status: libc::c_int) -> Result<libc::c_int, Errno> {
    if status < 0 { Err(Errno::last()) } else { Ok(status) }
}

fn in_c(address: SocketAddr) -> (libc::sockaddr_storage, libc::socklen_t) {
    let address = socket2::SockAddr::from(address);
    // SAFETY: zero is a valid value of this structure.
    let mut storage: libc::sockaddr_storage = unsafe { mem::zeroed() };
    let to = (&raw mut storage).cast::<u8>();
    // SAFETY: no address is longer than the storage of all.
    unsafe { ptr::copy_nonoverlapping(address.as_ptr().cast(), to, address.len() as usize) };
    (storage, address.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_id_is_written_as_text() {
        for pid in [1, 9, 10, 42, 4_194_304, u32::MAX] {
            let mut text = [b'x'; 11];
            // SAFETY: eleven bytes.
            unsafe { write_pid(pid, text.as_mut_ptr()) };
            let end = text.iter().position(|byte| *byte == 0).unwrap();
            assert_eq!(str::from_utf8(&text[..end]).unwrap(), pid.to_string());
        }
    }
}
