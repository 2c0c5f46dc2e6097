//! One stream of one worker: from its pipe into a log file.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use super::{
    Kind,
    file::LogFile,
    pipe::Pipe,
    recent::{KEPT, Recent},
    rotate::last_line_end,
};
use crate::id::WorkerId;

/// A line held back until it is whole, so that another writer to the file cannot break into it, is given
/// up when it gets longer than this many bytes.
const LONGEST: usize = 64 * 1024;

/// Names a stream, never again after it is gone; 0 names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// One stream of one worker.
#[derive(Debug)]
pub(super) struct Stream {
    id: StreamId,
    pub(super) worker: WorkerId,
    pub(super) kind: Kind,
    /// Its log file.
    pub(super) path: Arc<Path>,
    /// `None` when it has ended.
    pub(super) pipe: Option<Pipe>,
    pub(super) recent: Recent,
    /// The beginning of a line, while others write to the file too.
    held: Vec<u8>,
    dropped: Arc<AtomicU64>,
}

impl Stream {
    pub(super) fn new(
        id: StreamId,
        worker: WorkerId,
        kind: Kind,
        path: Arc<Path>,
        pipe: Pipe,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        Self {
            id,
            worker,
            kind,
            path,
            pipe: Some(pipe),
            recent: Recent::default(),
            held: Vec::new(),
            dropped,
        }
    }

    /// Takes what was seen at the head of the pipe, all of it: into the file in such a way that a daemon that is killed
    /// has either written it or left it in the pipe. Only the beginning of a line that is held back is in its memory alone.
    ///
    /// `shared` says that other streams write to the file too.
    pub(super) fn take(&mut self, bytes: &[u8], file: &mut LogFile, shared: bool, now: Instant) {
        self.recent.add(bytes);
        if !shared {
            self.release(file, now);
            self.transfer(bytes, file, now);
            return;
        }
        let whole = match last_line_end(bytes) {
            Some(end) => end,
            // Its beginning is in the file already.
            None if self.held.is_empty() && file.is_inside_line_of(self.id) => bytes.len(),
            None => 0,
        };
        let (lines, begun) = bytes.split_at(whole);
        if !lines.is_empty() {
            self.release(file, now);
            self.transfer(lines, file, now);
        }
        self.held.extend_from_slice(begun);
        if let Some(pipe) = &self.pipe {
            pipe.skip(begun.len());
        }
        if self.held.len() > LONGEST {
            self.release(file, now);
        }
    }

    /// Writes what was held back.
    pub(super) fn release(&mut self, file: &mut LogFile, now: Instant) {
        if !self.held.is_empty() {
            let held = std::mem::take(&mut self.held);
            self.write(&held, file, now);
        }
    }

    /// Whether the next `length` bytes need not be seen: they all go into the current file, and nobody else writes to it.
    pub(super) fn may_pass(&self, length: usize, file: &mut LogFile, now: Instant) -> bool {
        length > KEPT && self.held.is_empty() && file.has_room(self.id, length, now)
    }

    /// Moves the next `length` bytes, of which only the `end` has been seen, more than is kept. Says how many were moved.
    pub(super) fn pass(&mut self, length: usize, end: &[u8], file: &mut LogFile) -> usize {
        let Some(pipe) = &self.pipe else { return 0 };
        let moved = file.take_from(self.id, pipe, length, end.last() != Some(&b'\n'));
        if moved == length {
            self.recent.add(end);
        }
        moved
    }

    /// Moves what is at the head of the pipe.
    fn transfer(&mut self, bytes: &[u8], file: &mut LogFile, now: Instant) {
        let dropped = file.append_from(self.id, bytes, self.pipe.as_ref(), now);
        self.count(dropped);
    }

    fn write(&mut self, bytes: &[u8], file: &mut LogFile, now: Instant) {
        let dropped = file.append(self.id, bytes, now);
        self.count(dropped);
    }

    fn count(&self, dropped: u64) {
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }
}
