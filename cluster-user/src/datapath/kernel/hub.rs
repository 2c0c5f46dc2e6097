//! One descriptor to wait on for everything the kernel may have to say.
//!
//! Rings and waiting rooms come and go with groups; the runtime sees one epoll instance that holds them all.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, RawFd},
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::id::GroupId;

/// What became readable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    /// The ring buffer of joining sockets.
    Events,
    /// A connection arrived in the waiting room of a group.
    WaitingRoom(GroupId),
    /// The records of a traced group.
    Trace(GroupId),
}

const EVENTS: u64 = 0;
const WAITING_ROOM: u64 = 1;
const TRACE: u64 = 2;

impl Source {
    fn to_word(self) -> u64 {
        match self {
            Self::Events => EVENTS << 32,
            Self::WaitingRoom(GroupId(group)) => WAITING_ROOM << 32 | u64::from(group),
            Self::Trace(GroupId(group)) => TRACE << 32 | u64::from(group),
        }
    }

    fn from_word(word: u64) -> Self {
        let [a, b, c, d, ..] = word.to_le_bytes();
        let group = GroupId(u32::from_le_bytes([a, b, c, d]));
        match word >> 32 {
            WAITING_ROOM => Self::WaitingRoom(group),
            TRACE => Self::Trace(group),
            _ => Self::Events,
        }
    }
}

/// An epoll instance.
#[derive(Debug)]
pub(super) struct Hub(Epoll);

impl Hub {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?))
    }

    /// Watches a descriptor until it is closed.
    ///
    /// Each arrival is told once: a waiting room that cannot be emptied must not keep the supervisor awake.
    pub(super) fn watch(&self, fd: impl AsFd, source: Source) -> io::Result<()> {
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        Ok(self.0.add(fd, EpollEvent::new(flags, source.to_word()))?)
    }

    /// What has become readable since the last call; empty when that was nothing.
    pub(super) fn ready(&self) -> Vec<Source> {
        let mut events = [EpollEvent::empty(); 32];
        // It fails when interrupted only, and is asked again then by whoever polls next.
        let count = self.0.wait(&mut events, EpollTimeout::ZERO).unwrap_or(0);
        events[..count].iter().map(|event| Source::from_word(event.data())).collect()
    }
}

impl AsRawFd for Hub {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}
