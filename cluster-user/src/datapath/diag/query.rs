//! A question to the kernel about its sockets, and what it answers.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use super::Entry;
use crate::datapath::{Protocol, activity::Activity};

// linux/sock_diag.h and linux/inet_diag.h
const SOCK_DIAG_BY_FAMILY: u16 = 20;
const INET_DIAG_REQ_BYTECODE: u16 = 1;
/// Numbers about memory, and of drops (`SK_MEMINFO_DROPS`): asking for them is bit (number − 1) of the request.
const INET_DIAG_SKMEMINFO: u16 = 7;
const DROPS: usize = 8 * 4;
const INET_DIAG_SKV6ONLY: u16 = 11;
const INET_DIAG_CGROUP_ID: u16 = 21;
const INET_DIAG_BC_CGROUP_COND: u8 = 13;
/// Bytes of that condition: `struct inet_diag_bc_op` and the id.
const CONDITION: u8 = 12;

/// `NLM_F_REQUEST | NLM_F_DUMP`
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;

const TCP: u8 = 6;
const UDP: u8 = 17;

/// `INET_DIAG_INFO`: `struct tcp_info` of a connection. Asking for it is bit (number − 1) of the request.
const INET_DIAG_INFO: u16 = 2;
/// `struct nlmsghdr`
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`
const REQUEST: usize = 56;
/// `struct inet_diag_msg`
const MESSAGE: usize = 72;
/// What one read takes; the kernel fills at most 32 KiB (`netlink_dump`).
const BUFFER: usize = 32 * 1024;

/// `AF_INET`
pub(super) const IPV4: u8 = 2;
/// Both families; the other is `AF_INET6`.
pub(super) const FAMILIES: [u8; 2] = [IPV4, 10];

/// Which sockets are asked for, and what of them.
pub(super) struct Query {
    pub(super) family: u8,
    pub(super) protocol: Protocol,
    /// One bit per state.
    pub(super) states: u32,
    /// Local port, 0 for all.
    pub(super) port: u16,
    pub(super) cgroup: Option<u64>,
    /// Whether to tell of busy connections.
    pub(super) info: bool,
    /// Whether to tell what was dropped.
    pub(super) drops: bool,
}

impl Query {
    /// All of a family in these states.
    pub(super) fn new(family: u8, protocol: Protocol, states: u32) -> Self {
        Self { family, protocol, states, port: 0, cgroup: None, info: false, drops: false }
    }

    fn encode(&self) -> Vec<u8> {
        let protocol = match self.protocol {
            Protocol::Tcp => TCP,
            Protocol::Udp => UDP,
        };
        let mut bytes = vec![0; HEADER];
        let info = u8::from(self.info) << (INET_DIAG_INFO - 1)
            | u8::from(self.drops) << (INET_DIAG_SKMEMINFO - 1);
        bytes.extend([self.family, protocol, info, 0]);
        bytes.extend(self.states.to_ne_bytes());
        bytes.extend(self.port.to_be_bytes());
        bytes.resize(HEADER + REQUEST, 0);
        if let Some(cgroup) = self.cgroup {
            // One instruction: accept by going on at the end, refuse by going on beyond it.
            bytes.extend((4 + u16::from(CONDITION)).to_ne_bytes());
            bytes.extend(INET_DIAG_REQ_BYTECODE.to_ne_bytes());
            bytes.extend([INET_DIAG_BC_CGROUP_COND, CONDITION]);
            bytes.extend((u16::from(CONDITION) + 4).to_ne_bytes());
            bytes.extend(cgroup.to_ne_bytes());
        }
        let length = u32::try_from(bytes.len()).unwrap_or_default();
        bytes[..4].copy_from_slice(&length.to_ne_bytes());
        bytes[4..6].copy_from_slice(&SOCK_DIAG_BY_FAMILY.to_ne_bytes());
        bytes[6..8].copy_from_slice(&DUMP.to_ne_bytes());
        bytes
    }

    /// Calls `visit` with each socket that matches.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn dump(&self, mut visit: impl FnMut(Entry)) -> io::Result<()> {
        let netlink: OwnedFd = socket(
            AddressFamily::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkSockDiag,
        )?;
        send(netlink.as_raw_fd(), &self.encode(), MsgFlags::empty())?;
        let mut buffer = vec![0; BUFFER];
        loop {
            let length = recv(netlink.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while let Some(size) = u32_at(rest, 0).map(|size| size as usize)
                && (HEADER..=rest.len()).contains(&size)
            {
                let body = &rest[HEADER..size];
                match u16_at(rest, 4) {
                    Some(NLMSG_DONE | NLMSG_ERROR) => return status(body),
                    Some(SOCK_DIAG_BY_FAMILY) => {
                        if let Some(entry) = decode(body) {
                            visit(entry);
                        }
                    }
                    _ => {}
                }
                rest = &rest[align(size).min(rest.len())..];
            }
        }
    }
}

/// The errno with which a dump ends, 0 or negative.
fn status(body: &[u8]) -> io::Result<()> {
    match u32_at(body, 0).map(u32::cast_signed) {
        Some(error) if error < 0 => Err(io::Error::from_raw_os_error(-error)),
        _ => Ok(()),
    }
}

fn decode(body: &[u8]) -> Option<Entry> {
    if body.len() < MESSAGE {
        return None;
    }
    let port = u16::from_be_bytes([body[4], body[5]]);
    let address: [u8; 16] = body[8..24].try_into().ok()?;
    let address = if body[0] == IPV4 {
        let [a, b, c, d, ..] = address;
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    } else {
        IpAddr::V6(Ipv6Addr::from(address))
    };
    let cookie = u64::from(u32_at(body, 44)?) | u64::from(u32_at(body, 48)?) << 32;
    let mut entry = Entry {
        state: body[1],
        local: SocketAddr::new(address, port),
        v6only: false,
        device: u32_at(body, 40)?,
        cookie,
        queued: u32_at(body, 56)?,
        drops: 0,
        busy: false,
        silent: 0,
        used: false,
        uid: u32_at(body, 64)?,
        inode: u32_at(body, 68)?,
        cgroup: None,
    };
    let mut rest = &body[MESSAGE..];
    while let (Some(size), Some(kind)) = (u16_at(rest, 0), u16_at(rest, 2)) {
        let size = usize::from(size);
        if size < 4 || size > rest.len() {
            break;
        }
        let value = &rest[4..size];
        match kind {
            INET_DIAG_SKV6ONLY => entry.v6only = value.first().is_some_and(|&only| only != 0),
            INET_DIAG_INFO => {
                let unsent = u32_at(body, 60)?;
                let activity = Activity::of(value);
                entry.busy = entry.queued > 0 || unsent > 0 || activity.awaits_answer;
                entry.silent = activity.silent;
                entry.used = activity.used;
            }
            INET_DIAG_SKMEMINFO => entry.drops = u32_at(value, DROPS).unwrap_or(0),
            INET_DIAG_CGROUP_ID => {
                entry.cgroup = value.try_into().ok().map(u64::from_ne_bytes);
            }
            _ => {}
        }
        rest = &rest[align(size).min(rest.len())..];
    }
    Some(entry)
}

fn align(size: usize) -> usize {
    size.next_multiple_of(4)
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn garbage_describes_no_socket() {
        assert_eq!(decode(&[0; 40]), None);
        assert!(status(&[]).is_ok());
        assert_eq!(status(&(-22_i32).to_ne_bytes()).unwrap_err().raw_os_error(), Some(22));
    }
}
