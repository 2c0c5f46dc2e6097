//! What workers write: captured from their pipes into files by one thread of its own.
//!
//! A worker's standard output and error are pipes, and the [`pump`] thread copies what arrives into log
//! files. A worker that floods keeps that thread busy and nobody else.
//!
//! A worker holds its end of a pipe open for reading too, so it is a reader itself: when the daemon dies
//! it gets no SIGPIPE, and whoever comes next can go on reading from the worker's end. It looks at a copy of
//! what is in the pipe (`tee(2)`) to see where lines end, and then moves the bytes themselves from the pipe
//! into the file (`splice(2)`): at every moment at which the daemon can be killed a byte is in one of the two,
//! and in one only. The exceptions are the unfinished last line of one of two workers that write to the same
//! file, and log files that are no regular files.

mod file;
mod names;
mod pipe;
mod pump;
mod recent;
mod rotate;
mod stream;

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt as _},
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc,
    },
    thread::{self, JoinHandle},
};

use nix::sys::eventfd::{EfdFlags, EventFd};
use tokio::sync::oneshot;

pub use self::{names::Kind, recent::Tail};
use self::{
    pipe::Pipe,
    pump::{Command, Pump},
};
use crate::id::{Instance, WorkerId};

/// The thread needs little stack: its buffer is elsewhere.
const STACK: usize = 128 * 1024;

/// When log files are rotated, and how many are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RotateOptions {
    /// Size in bytes that a file does not exceed, except to finish a line that did not fit.
    pub max_size: u64,
    /// Rotated files kept per stream, beside the current one: `.1` is the newest.
    pub keep: u32,
}

impl Default for RotateOptions {
    fn default() -> Self {
        Self { max_size: 10 * 1024 * 1024, keep: 5 }
    }
}

/// A worker's ends of its pipes.
#[derive(Debug)]
pub struct Ends {
    /// To be its standard output.
    pub stdout: OwnedFd,
    /// To be its standard error.
    pub stderr: OwnedFd,
}

/// The capture of all workers' output. Dropping it drains what is there and ends the thread.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
    thread: Option<JoinHandle<()>>,
    /// Bytes dropped, per worker; shared with the thread.
    dropped: BTreeMap<WorkerId, Arc<AtomicU64>>,
    /// Inode numbers of the pipes of standard output and error, per worker.
    pipes: BTreeMap<WorkerId, [u64; 2]>,
}

impl Output {
    /// Starts the thread. Log files go to `folder`, which is made if need be (mode 0700).
    ///
    /// # Errors
    /// When the folder cannot be made, or threads or descriptors run out.
    pub fn start(folder: &Path, options: RotateOptions) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let folder = fs::canonicalize(folder)?;
        let (commands, receiver) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let pump = Pump::new(options, receiver, Arc::clone(&wake))?;
        let thread = thread::Builder::new().name("output".to_owned()).stack_size(STACK);
        let thread = Some(thread.spawn(move || pump.run())?);
        Ok(Self {
            folder,
            commands,
            wake,
            thread,
            dropped: BTreeMap::new(),
            pipes: BTreeMap::new(),
        })
    }

    /// Makes the pipes of a worker and begins to capture them. Files are made with the first output.
    ///
    /// Workers with the same app and instance write to the same files.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn attach(&mut self, worker: WorkerId, app: &str, instance: Instance) -> io::Result<Ends> {
        let (out, stdout) = Pipe::new()?;
        let (err, stderr) = Pipe::new()?;
        self.pipes.insert(worker, [&out, &err].map(|pipe| pipe.inode().unwrap_or(0)));
        self.capture(worker, app, instance, [Some(out), Some(err)]);
        Ok(Ends { stdout, stderr })
    }

    /// Goes on capturing a worker that an earlier daemon started, to the same files: what it wrote meanwhile comes first.
    ///
    /// `pids` are its processes, the main one first; any of them may still have the pipes, which are known by the inode
    /// numbers that [`Output::pipes`] told. Says which of the two, standard output and error, are still there.
    pub fn readopt(
        &mut self,
        worker: WorkerId,
        app: &str,
        instance: Instance,
        pids: &[u32],
        pipes: [u64; 2],
    ) -> [bool; 2] {
        let [out, err] = pipes;
        let found = [Pipe::reopen(out, pids, 1), Pipe::reopen(err, pids, 2)];
        let there = found.each_ref().map(Option::is_some);
        self.pipes.insert(worker, pipes);
        self.capture(worker, app, instance, found);
        there
    }

    fn capture(
        &mut self,
        worker: WorkerId,
        app: &str,
        instance: Instance,
        pipes: [Option<Pipe>; 2],
    ) {
        let dropped = Arc::new(AtomicU64::new(0));
        for (kind, pipe) in [Kind::Out, Kind::Error].into_iter().zip(pipes) {
            let Some(pipe) = pipe else { continue };
            let path = self.path(app, kind, instance);
            let dropped = Arc::clone(&dropped);
            self.send(Command::Attach { worker, kind, path, pipe, dropped });
        }
        self.dropped.insert(worker, dropped);
    }

    /// Inode numbers of a worker's pipes, of standard output and error: what a later daemon knows them by.
    pub fn pipes(&self, worker: WorkerId) -> Option<[u64; 2]> {
        self.pipes.get(&worker).copied()
    }

    /// Captures what a worker has written until now, then forgets it. To be called when all its processes
    /// are gone; one that is left would block once its pipe is full.
    pub fn detach(&mut self, worker: WorkerId) {
        self.dropped.remove(&worker);
        self.pipes.remove(&worker);
        self.send(Command::Detach { worker });
    }

    /// The last `lines` lines that a worker wrote to each stream, everything it has written until now
    /// included. Empty for one that is not attached.
    ///
    /// The future does not borrow the capture.
    pub fn tail(&self, worker: WorkerId, lines: usize) -> impl Future<Output = Tail> + use<> {
        let (reply, answer) = oneshot::channel();
        self.send(Command::Tail { worker, lines, reply });
        // Only a thread that has ended does not answer, and then there is nothing to show.
        async { answer.await.unwrap_or_default() }
    }

    /// Empties the current log files of an app, and removes the rotated ones; of one instance or all.
    ///
    /// # Errors
    /// The first file that could not be emptied or removed; the others are all the same.
    pub fn flush(
        &self,
        app: &str,
        instance: Option<Instance>,
    ) -> impl Future<Output = io::Result<()>> + use<> {
        let (reply, answer) = oneshot::channel();
        let (folder, app) = (self.folder.clone(), app.to_owned());
        self.send(Command::Flush { folder, app, instance, reply });
        async { answer.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())) }
    }

    /// Opens all log files anew, for tools that have renamed them. A file that was removed or renamed is
    /// noticed without this within a second of output.
    pub fn reopen(&self) {
        self.send(Command::Reopen);
    }

    /// Bytes of a worker's output that could not be written, because the disk was full for example.
    pub fn dropped(&self, worker: WorkerId) -> u64 {
        self.dropped.get(&worker).map_or(0, |dropped| dropped.load(Ordering::Relaxed))
    }

    /// The file that a stream is captured to.
    pub fn path(&self, app: &str, kind: Kind, instance: Instance) -> PathBuf {
        self.folder.join(names::file_name(app, kind, instance))
    }

    fn send(&self, command: Command) {
        // Neither fails while the thread lives, and without it there is nothing to be done.
        if self.commands.send(command).is_ok() {
            self.wake.write(1).unwrap_or_default();
        }
    }
}

/// Inode numbers of the pipes that a process has as standard output and error, where they are pipes that a daemon of
/// this user made for a worker: for [`Output::readopt`] without a journal. 0 for one that is none, which is never found.
pub fn pipes_of(pid: u32) -> [u64; 2] {
    pipe::of_process(pid).map(Option::unwrap_or_default)
}

impl Drop for Output {
    fn drop(&mut self) {
        self.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            thread.join().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
