//! One stream of one worker: from its pipe to where it goes.

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
    lines::Lines,
    pipe::{Glass, Pipe},
    recent::{KEPT, Recent, Tail},
    rotate::last_line_end,
};
use crate::id::WorkerId;

/// A line held back until it is whole, so that another writer to the file cannot break into it, is given
/// up when it gets longer than this many bytes.
const LONGEST: usize = 64 * 1024;

/// Names a stream, never again after it is gone; 0 names none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct StreamId(pub(super) u64);

/// Where a stream goes.
#[derive(Debug)]
pub(super) enum Route {
    /// Nowhere; its end is kept in memory all the same.
    Nowhere,
    /// Into one file, as it is: by the kernel, which copies nothing.
    File(Arc<Path>),
    /// Line by line.
    Lines(Box<Lines>),
}

impl Route {
    /// The one file that it goes into as it is.
    pub(super) fn file(&self) -> Option<Arc<Path>> {
        match self {
            Self::File(path) => Some(Arc::clone(path)),
            Self::Nowhere | Self::Lines(_) => None,
        }
    }

    /// The files among that.
    pub(super) fn files(&self) -> &[Arc<Path>] {
        match self {
            Self::Nowhere => &[],
            Self::File(path) => std::slice::from_ref(path),
            Self::Lines(lines) => &lines.files,
        }
    }
}

/// One stream of one worker.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) id: StreamId,
    pub(super) worker: WorkerId,
    pub(super) kind: Kind,
    pub(super) route: Route,
    /// `None` when it has ended.
    pub(super) pipe: Option<Pipe>,
    /// Whether it is told once of what has come, not as long as it is there: a begun line may stay in the pipe.
    pub(super) edge: bool,
    pub(super) recent: Recent,
    /// The beginning of a line that is too long to be left in the pipe, while others write to the file too.
    held: Vec<u8>,
    dropped: Arc<AtomicU64>,
}

impl Stream {
    pub(super) fn new(
        id: StreamId,
        worker: WorkerId,
        kind: Kind,
        route: Route,
        pipe: Pipe,
        dropped: Arc<AtomicU64>,
    ) -> Self {
        Self {
            id,
            worker,
            kind,
            route,
            pipe: Some(pipe),
            edge: false,
            recent: Recent::default(),
            held: Vec::new(),
            dropped,
        }
    }

    /// Takes what was seen at the head of the pipe into a file of its own, all of it: in such a way that a daemon that is
    /// killed has either written it or left it in the pipe.
    pub(super) fn take(&mut self, bytes: &[u8], file: &mut LogFile, now: Instant) -> usize {
        self.recent.add(bytes);
        self.release(file, now);
        self.transfer(bytes, file, now);
        bytes.len()
    }

    /// The same where other streams write to the file too: whole lines. The beginning of one is left in the pipe, and when
    /// it gets too long for that, in memory.
    pub(super) fn take_shared(&mut self, bytes: &[u8], file: &mut LogFile, now: Instant) -> usize {
        let whole = match last_line_end(bytes) {
            Some(end) => end,
            // Its beginning is in the file already.
            None if self.held.is_empty() && file.is_inside_line_of(self.id) => bytes.len(),
            None => 0,
        };
        let (lines, begun) = bytes.split_at(whole);
        if !lines.is_empty() {
            self.recent.add(lines);
            self.release(file, now);
            self.transfer(lines, file, now);
        }
        let Some(pipe) = &self.pipe else { return whole };
        if self.held.is_empty() && begun.len() < pipe.patience() {
            return whole;
        }
        self.recent.add(begun);
        self.held.extend_from_slice(begun);
        pipe.skip(begun.len());
        if self.held.len() > LONGEST {
            self.release(file, now);
        }
        bytes.len()
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

    /// The last lines, with what is still in the pipe.
    pub(super) fn lines(&mut self, count: usize, glass: &Glass) -> Vec<String> {
        let mut recent = self.recent.clone();
        if let Some(Ok(super::pipe::Arrived::Bytes(length))) =
            self.pipe.as_mut().map(|pipe| pipe.look(glass))
        {
            let mut rest = vec![0; length.min(LONGEST)];
            if glass.read(&mut rest).is_ok() {
                recent.add(&rest);
            }
            glass.pass(usize::MAX);
        }
        recent.lines(count)
    }

    /// Puts the last lines where they belong.
    pub(super) fn tell(&mut self, tail: &mut Tail, count: usize, glass: &Glass) {
        let lines = self.lines(count, glass);
        match self.kind {
            Kind::Out => tail.out = lines,
            Kind::Error => tail.error = lines,
        }
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

    /// Counts bytes that could not be kept.
    pub(super) fn count(&self, dropped: u64) {
        if dropped > 0 {
            self.dropped.fetch_add(dropped, Ordering::Relaxed);
        }
    }
}
