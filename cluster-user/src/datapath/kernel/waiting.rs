//! The waiting room: a listener of the supervisor's own, where connections wait while no worker can take them.
//!
//! It is in the group like a worker's socket, in slot 0, which no route names. A connection leaves it in one way
//! only: the listener is closed, and the kernel asks the group's program for another socket (`inet_csk_listen_stop`,
//! `reuseport_migrate_sock`). So handing over is: a new listener takes the slot, the old one is closed. There
//! is no moment without a waiting room, and a connection that finds no worker again ends up in the new one.

use std::{
    io,
    net::SocketAddr,
    num::NonZeroU32,
    os::fd::{AsFd, BorrowedFd},
};

use anyhow::Context as _;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    unistd::{Uid, fchown},
};
use socket2::{Domain, Socket, Type};

use crate::datapath::GroupKey;

/// Connections that can wait; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// A listener in which connections wait.
#[derive(Debug)]
pub(super) struct WaitingRoom(Socket);

impl WaitingRoom {
    /// Makes a listener that the kernel takes as a member of the group with this key.
    ///
    /// The group's program must be attached already: without it the kernel's hash would send connections here.
    ///
    /// # Errors
    /// What the kernel said; `EADDRINUSE` when it does not take the socket as a member.
    pub(super) fn new(key: &GroupKey) -> anyhow::Result<Self> {
        Self::listen(key).with_context(|| format!("make the waiting room of {}", key.address))
    }

    fn listen(key: &GroupKey) -> io::Result<Self> {
        let domain = Domain::for_address(key.address);
        // Non-blocking and closed on exec: `Type::STREAM` alone is neither.
        let socket = Socket::new(domain, Type::STREAM.nonblocking().cloexec(), None)?;
        // The kernel compares the owner of the inode, not of the process (`sk_uid`, set by sockfs_setattr).
        fchown(&socket, Some(Uid::from_raw(key.uid)), None)?;
        socket.set_reuse_port(true)?;
        // A worker may have bound an address this host does not have (yet); its group needs us all the same.
        match key.address {
            SocketAddr::V4(_) => {
                socket.bind_device_by_index_v4(NonZeroU32::new(key.device))?;
                socket.set_freebind_v4(true)?;
            }
            SocketAddr::V6(_) => {
                socket.bind_device_by_index_v6(NonZeroU32::new(key.device))?;
                socket.set_only_v6(key.v6only)?;
                socket.set_freebind_v6(true)?;
            }
        }
        socket.bind(&key.address.into())?;
        socket.listen(BACKLOG)?;
        Ok(Self(socket))
    }

    /// Whether a connection waits here, completely established.
    pub(super) fn is_occupied(&self) -> bool {
        let mut fds = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
        poll(&mut fds, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
    }
}

impl AsFd for WaitingRoom {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
