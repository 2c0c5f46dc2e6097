//! The process whose call waits: its memory, its descriptors, and what it may do.

use std::{
    fs,
    io::{self, IoSliceMut},
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
};

use nix::{
    sys::uio::{RemoteIoVec, process_vm_readv},
    unistd::Pid,
};

use super::notify::Call;
use crate::datapath::socket::{pidfd_getfd, pidfd_open};

/// Length of `struct sockaddr_storage`, the longest address that the kernel takes.
const LONGEST: usize = 128;

/// `CAP_NET_BIND_SERVICE` of include/uapi/linux/capability.h.
const BIND_SERVICE: u64 = 1 << 10;

/// The process whose call waits.
#[derive(Debug)]
pub(super) struct Caller {
    thread: u32,
    /// The process that the thread is of.
    pub(super) pid: u32,
    capabilities: u64,
}

impl Caller {
    pub(super) fn of(call: &Call) -> io::Result<Self> {
        let status = fs::read_to_string(format!("/proc/{}/status", call.thread))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(":\t"));
            line.ok_or_else(|| {
                io::Error::new(io::ErrorKind::InvalidData, format!("no {name} in status"))
            })
        };
        let invalid = |_| io::Error::from(io::ErrorKind::InvalidData);
        Ok(Self {
            thread: call.thread,
            pid: field("Tgid")?.parse().map_err(invalid)?,
            capabilities: u64::from_str_radix(field("CapEff")?, 16).map_err(invalid)?,
        })
    }

    /// A duplicate of one of its descriptors. Threads are taken to share theirs, as all of one process do
    /// unless they take pains not to. `main` is the worker's main process, with its pid.
    pub(super) fn descriptor(&self, main: (u32, BorrowedFd<'_>), fd: u64) -> io::Result<OwnedFd> {
        #[expect(clippy::cast_possible_truncation, reason = "the argument is an int in a register")]
        let fd = fd as RawFd;
        if main.0 == self.pid {
            return pidfd_getfd(main.1, fd);
        }
        pidfd_getfd(pidfd_open(self.pid)?.as_fd(), fd)
    }

    /// Copies a socket address out of its memory.
    pub(super) fn address(&self, pointer: u64, length: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(length & u64::from(u32::MAX)).unwrap_or(LONGEST).min(LONGEST);
        let mut bytes = vec![0; length];
        let base = usize::try_from(pointer)
            .map_err(|_too_large| io::Error::from_raw_os_error(libc::EFAULT))?;
        let pid = Pid::from_raw(self.thread.cast_signed());
        let remote = [RemoteIoVec { base, len: length }];
        let copied = process_vm_readv(pid, &mut [IoSliceMut::new(&mut bytes)], &remote)?;
        bytes.truncate(copied);
        Ok(bytes)
    }

    /// Whether it could bind to this port itself.
    pub(super) fn may_bind(&self, port: u16) -> bool {
        self.capabilities & BIND_SERVICE != 0 || port >= first_unprivileged_port()
    }
}

/// Reads a `sockaddr_in` or `sockaddr_in6`; `None` for every other family.
pub(super) fn parse(address: &[u8]) -> Option<SocketAddr> {
    let family = u16::from_ne_bytes(field(address, 0)?);
    let port = u16::from_be_bytes(field(address, 2)?);
    match i32::from(family) {
        libc::AF_INET => Some((Ipv4Addr::from(field::<4>(address, 4)?), port).into()),
        libc::AF_INET6 => {
            let scope = u32::from_ne_bytes(field(address, 24)?);
            Some(SocketAddrV6::new(Ipv6Addr::from(field::<16>(address, 8)?), port, 0, scope).into())
        }
        _ => None,
    }
}

fn field<const LENGTH: usize>(address: &[u8], at: usize) -> Option<[u8; LENGTH]> {
    address.get(at..at + LENGTH)?.try_into().ok()
}

/// `net.ipv4.ip_unprivileged_port_start`, of both families.
fn first_unprivileged_port() -> u16 {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    text.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_the_internet_are_read() {
        let mut v4 = vec![0; 16];
        v4[..2].copy_from_slice(&2_u16.to_ne_bytes());
        v4[2..8].copy_from_slice(&[0x1f, 0x90, 127, 0, 0, 1]);
        assert_eq!(parse(&v4), Some("127.0.0.1:8080".parse().unwrap()));
        let mut v6 = vec![0; 28];
        v6[..2].copy_from_slice(&10_u16.to_ne_bytes());
        v6[2..4].copy_from_slice(&80_u16.to_be_bytes());
        v6[23] = 1;
        assert_eq!(parse(&v6), Some("[::1]:80".parse().unwrap()));
    }

    #[test]
    fn other_and_short_addresses_are_not() {
        assert_eq!(parse(b"\x01\x00/run/socket"), None);
        assert_eq!(parse(&2_u16.to_ne_bytes()), None);
        assert_eq!(parse(b""), None);
    }
}
