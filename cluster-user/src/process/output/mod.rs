//! What workers write: captured from their pipes into files by one thread of its own.
//!
//! A worker's standard output and error are pipes, and the [`pump`] thread copies what arrives into log
//! files. A worker that floods keeps that thread busy and nobody else.
//!
//! A worker holds its end of a pipe open for reading too, so it is a reader itself: when the daemon dies
//! it gets no SIGPIPE, and whoever comes next can go on reading from the worker's end. It looks at a copy of
//! what is in the pipe (`tee(2)`) to see where lines end, and then moves the bytes themselves from the pipe
//! into the file (`splice(2)`): at every moment at which the daemon can be killed a byte is in one of the two,
//! and in one only. The exceptions are a very long unfinished line of one of two workers that write to the same file, and
//! what is no copy of what was written, or goes to several places: lines with times, JSON, log services ([`lines`]).

mod check;
mod file;
mod form;
mod keeper;
mod lines;
mod names;
mod pipe;
mod pump;
mod recent;
mod rotate;
mod service;
mod stream;
pub mod times;

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

pub use self::{
    check::Unusable,
    names::{Files, Kind, Origin},
    recent::Tail,
};
use self::{
    form::Form,
    lines::Lines,
    pipe::Pipe,
    pump::{Command, Pump},
    service::Letterhead,
    stream::Route,
};
use crate::id::WorkerId;

/// Reading the host's time zone takes more than 128 KiB, once; what is not used is no memory.
const STACK: usize = 1024 * 1024;

/// A worker's ends of its pipes.
#[derive(Debug)]
pub struct Ends {
    /// To be its standard output.
    pub stdout: OwnedFd,
    /// To be its standard error.
    pub stderr: OwnedFd,
}

/// The way to the thread.
#[derive(Clone, Debug)]
struct Requests {
    commands: mpsc::Sender<Command>,
    wake: Arc<EventFd>,
}

impl Requests {
    fn send(&self, command: Command) {
        // Neither fails while the thread lives, and without it there is nothing to be done.
        if self.commands.send(command).is_ok() {
            self.wake.write(1).unwrap_or_default();
        }
    }
}

/// The capture of all workers' output. Dropping it drains what is there and ends the thread.
#[derive(Debug)]
pub struct Output {
    folder: PathBuf,
    requests: Requests,
    thread: Option<JoinHandle<()>>,
    /// Bytes dropped, per worker; shared with the thread.
    dropped: BTreeMap<WorkerId, Arc<AtomicU64>>,
    /// Where what a worker writes goes.
    files: BTreeMap<WorkerId, Files>,
    /// Inode numbers of the pipes of standard output and error, per worker.
    pipes: BTreeMap<WorkerId, [u64; 2]>,
}

impl Output {
    /// Starts the thread. Log files go to `folder`, which is made if need be (mode 0700), unless something else is said.
    ///
    /// # Errors
    /// When the folder cannot be made, or threads or descriptors run out.
    pub fn start(folder: &Path) -> io::Result<Self> {
        Self::start_compressing(folder, keeper::SETTLED)
    }

    /// The same, where rotated files are compressed when they have not been written for a time.
    fn start_compressing(folder: &Path, settled: std::time::Duration) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        let folder = fs::canonicalize(folder)?;
        let (commands, receiver) = mpsc::channel();
        let wake = Arc::new(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?);
        let requests = Requests { commands, wake };
        let pump = Pump::new(&folder, settled, receiver, requests.clone())?;
        let thread = thread::Builder::new().name("output".to_owned()).stack_size(STACK);
        let thread = Some(thread.spawn(move || pump.run())?);
        Ok(Self {
            folder,
            requests,
            thread,
            dropped: BTreeMap::new(),
            files: BTreeMap::new(),
            pipes: BTreeMap::new(),
        })
    }

    /// Makes the pipes of a worker and begins to capture them. Files are made with the first output, folders now.
    ///
    /// Workers that name the same files write them together, line by line.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn attach(&mut self, worker: WorkerId, origin: &Origin<'_>) -> io::Result<Ends> {
        let (out, stdout) = Pipe::new()?;
        let (err, stderr) = Pipe::new()?;
        self.pipes.insert(worker, [&out, &err].map(|pipe| pipe.inode().unwrap_or(0)));
        self.capture(worker, origin, [Some(out), Some(err)]);
        Ok(Ends { stdout, stderr })
    }

    /// Goes on capturing a worker that an earlier daemon started, to the same places: what it wrote meanwhile comes first.
    ///
    /// `pids` are its processes, the main one first; any of them may still have the pipes, which are known by the inode
    /// numbers that [`Output::pipes`] told. Says which of the two, standard output and error, are still there.
    pub fn readopt(
        &mut self,
        worker: WorkerId,
        origin: &Origin<'_>,
        pids: &[u32],
        pipes: [u64; 2],
    ) -> [bool; 2] {
        let [out, err] = pipes;
        let found = [Pipe::reopen(out, pids, 1), Pipe::reopen(err, pids, 2)];
        let there = found.each_ref().map(Option::is_some);
        self.pipes.insert(worker, pipes);
        self.capture(worker, origin, found);
        there
    }

    fn capture(&mut self, worker: WorkerId, origin: &Origin<'_>, pipes: [Option<Pipe>; 2]) {
        let dropped = Arc::new(AtomicU64::new(0));
        let files = self.files(origin);
        for file in files.all() {
            // Where that fails, output is dropped, counted, and it is said why.
            if let Some(folder) = file.parent().filter(|folder| !folder.exists()) {
                fs::create_dir_all(folder).unwrap_or_default();
            }
        }
        // Folders that were made lead somewhere now.
        let files = self.files(origin);
        let Origin { app, instance, logs, .. } = *origin;
        let form = Form::of(logs, app, instance);
        for (kind, pipe) in [Kind::Out, Kind::Error].into_iter().zip(pipes) {
            let Some(pipe) = pipe else { continue };
            let route = route(origin, &files, &form, kind);
            let (rotation, form) = (logs.rotation, form.clone());
            let dropped = Arc::clone(&dropped);
            self.requests.send(Command::Attach {
                worker,
                kind,
                route,
                rotation,
                form,
                pipe,
                dropped,
            });
        }
        self.dropped.insert(worker, dropped);
        self.files.insert(worker, files);
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
        self.files.remove(&worker);
        self.requests.send(Command::Detach { worker });
    }

    /// The last `lines` lines that a worker wrote to each stream, everything it has written until now
    /// included. Empty for one that is not attached.
    ///
    /// The future does not borrow the capture.
    pub fn tail(&self, worker: WorkerId, lines: usize) -> impl Future<Output = Tail> + use<> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Command::Tail { worker, lines, reply });
        // Only a thread that has ended does not answer, and then there is nothing to show.
        async { answer.await.unwrap_or_default() }
    }

    /// Empties log files, and removes what was rotated of them.
    ///
    /// # Errors
    /// The first file that could not be emptied or removed; the others are all the same.
    pub fn flush(&self, files: Vec<PathBuf>) -> impl Future<Output = io::Result<()>> + use<> {
        let (reply, answer) = oneshot::channel();
        self.requests.send(Command::Flush { files, reply });
        async { answer.await.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())) }
    }

    /// Opens all log files anew, for tools that have renamed them. A file that was removed or renamed is
    /// noticed without this within a second of output.
    pub fn reopen(&self) {
        self.requests.send(Command::Reopen);
    }

    /// Bytes of a worker's output that could not be written, because the disk was full for example.
    pub fn dropped(&self, worker: WorkerId) -> u64 {
        self.dropped.get(&worker).map_or(0, |dropped| dropped.load(Ordering::Relaxed))
    }

    /// The files that a worker's output would go to, were it started now.
    pub fn files(&self, origin: &Origin<'_>) -> Files {
        Files::of(origin, &self.folder)
    }

    /// The files that a worker's output goes to; `None` for one that is not attached.
    pub fn files_of(&self, worker: WorkerId) -> Option<&Files> {
        self.files.get(&worker)
    }
}

/// Where one stream goes.
fn route(origin: &Origin<'_>, files: &Files, form: &Form, kind: Kind) -> Route {
    let logs = origin.logs;
    let named = [files.of_kind(kind), files.combined.as_deref()];
    let mut paths: Vec<Arc<Path>> = named.into_iter().flatten().map(Arc::from).collect();
    paths.dedup();
    let service = logs.service.filter(|_| !logs.disabled);
    let service = service
        .map(|service| (service, Letterhead::new(service, origin.app, origin.instance, kind)));
    match (paths.as_slice(), service, form) {
        ([], None, _) => Route::Nowhere,
        ([path], None, Form::Raw) => Route::File(Arc::clone(path)),
        (_, service, form) => Route::Lines(Box::new(Lines::new(paths, form.clone(), service))),
    }
}

/// Inode numbers of the pipes that a process has as standard output and error, where they are pipes that a daemon of
/// this user made for a worker: for [`Output::readopt`] without a journal. 0 for one that is none, which is never found.
pub fn pipes_of(pid: u32) -> [u64; 2] {
    pipe::of_process(pid).map(Option::unwrap_or_default)
}

impl Drop for Output {
    fn drop(&mut self) {
        self.requests.send(Command::Stop);
        if let Some(thread) = self.thread.take() {
            // A thread that panicked has said so already.
            thread.join().unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests;
