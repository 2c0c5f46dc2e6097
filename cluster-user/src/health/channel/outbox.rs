//! What a worker is told and has not read yet.

use std::{
    collections::VecDeque,
    io,
    os::fd::OwnedFd,
    sync::{Mutex, PoisonError},
};

use rustix::{
    io::Errno,
    net::{SendFlags, send},
};
use tokio::{io::unix::AsyncFd, sync::Notify};

/// So many bytes wait for a worker that does not read, at most.
const ROOM: usize = 2 << 20;

/// The daemon's end of a channel, and what waits to be written to it.
#[derive(Debug)]
pub(super) struct Outbox {
    pub(super) end: AsyncFd<OwnedFd>,
    waiting: Mutex<VecDeque<u8>>,
    /// Says that something waits.
    pub(super) filled: Notify,
}

impl Outbox {
    pub(super) fn over(end: AsyncFd<OwnedFd>) -> Self {
        Self { end, waiting: Mutex::default(), filled: Notify::new() }
    }

    /// Sends one line, or lets it wait.
    ///
    /// # Errors
    /// `EAGAIN` when too much waits already, `EPIPE` when the worker has closed its end.
    pub(super) fn send(&self, line: &[u8]) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() + line.len() > ROOM {
            return Err(Errno::AGAIN.into());
        }
        let mut sent = 0;
        while waiting.is_empty() && sent < line.len() {
            match send(self.end.get_ref(), &line[sent..], SendFlags::NOSIGNAL) {
                Ok(count) => sent += count,
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        if sent < line.len() {
            // A line that was begun must be finished before the next one.
            waiting.extend(&line[sent..]);
            self.filled.notify_one();
        }
        Ok(())
    }

    /// Whether something waits.
    pub(super) fn is_filled(&self) -> bool {
        !self.waiting.lock().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Sends what waits, as far as there is room.
    ///
    /// # Errors
    /// `EAGAIN` when there is none, `EPIPE` when the worker has closed its end.
    pub(super) fn flush(&self) -> io::Result<()> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        while !waiting.is_empty() {
            let (next, _) = waiting.as_slices();
            let sent = send(self.end.get_ref(), next, SendFlags::NOSIGNAL)?;
            waiting.drain(..sent);
        }
        // A megabyte that was needed once need not be kept.
        waiting.shrink_to_fit();
        Ok(())
    }
}
