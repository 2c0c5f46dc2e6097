//! The thread that moves output from pipes into files.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, atomic::AtomicU64, mpsc},
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
    eventfd::EventFd,
};
use tokio::sync::oneshot;

use super::{
    Kind, RotateOptions, Tail,
    file::{LogFile, empty},
    names::{Age, belongs},
    pipe::{Arrived, Glass, Pipe},
    recent::KEPT,
    rotate::absent_is_fine,
    stream::{Stream, StreamId},
};
use crate::id::{Instance, WorkerId};

/// Size of the one buffer: larger ones leave the CPU's cache and are slower.
const BUFFER: usize = 256 * 1024;

/// Bytes looked at of what goes into a file unseen: one more than is kept of them.
const END: usize = KEPT + 1;

/// Bytes taken from one stream before the others get their turn.
const TURN: usize = 1024 * 1024;

/// Bytes taken from a stream that is to be drained: twice what a pipe holds. A process that is still
/// writing does not hold up the rest.
const DRAIN: usize = 2 * 1024 * 1024;

/// Rounds that move less than this, one after the other, are not worth their wake-ups: a worker that
/// writes line by line is left alone for a [`NAP`], in which its pipe fills a little.
const WORTHWHILE: usize = 16 * 1024;

/// Far less than a pipe takes to fill at the rate that leads to it.
const NAP: Duration = Duration::from_millis(1);

/// What the supervisor asks for.
#[derive(Debug)]
pub(super) enum Command {
    Attach {
        worker: WorkerId,
        kind: Kind,
        path: PathBuf,
        pipe: Pipe,
        dropped: Arc<AtomicU64>,
    },
    Detach {
        worker: WorkerId,
    },
    Tail {
        worker: WorkerId,
        lines: usize,
        reply: oneshot::Sender<Tail>,
    },
    Flush {
        folder: PathBuf,
        app: String,
        instance: Option<Instance>,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Reopen,
    Stop,
}

/// Token of the eventfd; streams count from 1.
const WAKE: u64 = 0;

/// All that the thread owns.
#[derive(Debug)]
pub(super) struct Pump {
    options: RotateOptions,
    commands: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    epoll: Epoll,
    streams: BTreeMap<StreamId, Stream>,
    files: BTreeMap<Arc<Path>, SharedFile>,
    last: StreamId,
    glass: Glass,
    buffer: Vec<u8>,
}

/// A log file and how many streams write to it.
#[derive(Debug)]
struct SharedFile {
    file: LogFile,
    writers: usize,
}

impl Pump {
    pub(super) fn new(
        options: RotateOptions,
        commands: mpsc::Receiver<Command>,
        wake: Arc<EventFd>,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            options,
            commands,
            wake,
            epoll,
            streams: BTreeMap::new(),
            files: BTreeMap::new(),
            last: StreamId(0),
            glass: Glass::new()?,
            buffer: vec![0; BUFFER],
        })
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        let mut busy_at = None;
        loop {
            let count = match self.epoll.wait(&mut events, EpollTimeout::NONE) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                // Nothing but a closed descriptor, which cannot be.
                Err(_) => return,
            };
            let now = Instant::now();
            let mut moved = 0;
            for event in events.iter().take(count) {
                match event.data() {
                    WAKE => {
                        if !self.obey(now) {
                            return;
                        }
                    }
                    id => moved += self.turn(StreamId(id), TURN, now),
                }
            }
            let again = busy_at.is_some_and(|before| now.duration_since(before) < NAP);
            if again && moved > 0 && moved < WORTHWHILE {
                thread::sleep(NAP);
            }
            busy_at = (moved > 0).then(Instant::now);
        }
    }

    /// Carries out what was asked for; false to end.
    fn obey(&mut self, now: Instant) -> bool {
        // Only resets the count; all commands are taken in any case.
        self.wake.read().unwrap_or_default();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach { worker, kind, path, pipe, dropped } => {
                    self.attach(worker, kind, path.into(), pipe, dropped, now);
                }
                Command::Detach { worker } => {
                    for id in self.streams_of(worker) {
                        self.turn(id, DRAIN, now);
                        self.forget(id, now);
                    }
                }
                Command::Tail { worker, lines, reply } => {
                    // Whoever asked may have given up meanwhile.
                    reply.send(self.tail(worker, lines, now)).unwrap_or_default();
                }
                Command::Flush { folder, app, instance, reply } => {
                    let result = self.flush(&folder, &app, instance);
                    reply.send(result).unwrap_or_default();
                }
                Command::Reopen => self.files.values_mut().for_each(|shared| shared.file.close()),
                Command::Stop => {
                    let all: Vec<_> = self.streams.keys().copied().collect();
                    for id in all {
                        self.turn(id, DRAIN, now);
                        self.forget(id, now);
                    }
                    return false;
                }
            }
        }
        true
    }

    fn attach(
        &mut self,
        worker: WorkerId,
        kind: Kind,
        path: Arc<Path>,
        pipe: Pipe,
        dropped: Arc<AtomicU64>,
        now: Instant,
    ) {
        self.last.0 += 1;
        let id = self.last;
        // A stream that cannot be watched ends here: its worker's writes fill the pipe and no more. There
        // is a watch for each user and a limit (fs.epoll.max_user_watches) of a million.
        if self.epoll.add(&pipe, EpollEvent::new(EpollFlags::EPOLLIN, id.0)).is_err() {
            return;
        }
        let shared = self.files.entry(Arc::clone(&path)).or_insert_with_key(|path| SharedFile {
            file: LogFile::new(Arc::clone(path), self.options, now),
            writers: 0,
        });
        shared.writers += 1;
        self.streams.insert(id, Stream::new(id, worker, kind, path, pipe, dropped));
    }

    /// Moves up to `limit` bytes of a stream, and says how many it was.
    fn turn(&mut self, id: StreamId, limit: usize, now: Instant) -> usize {
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        let Some(shared) = self.files.get_mut(&stream.path) else { return 0 };
        let mut moved = 0;
        let mut careful = false;
        while moved < limit {
            let Some(pipe) = &mut stream.pipe else { break };
            match pipe.look(&self.glass) {
                Ok(Arrived::Bytes(length)) => {
                    let shared_file = shared.writers > 1;
                    let unseen =
                        !careful && !shared_file && stream.may_pass(length, &mut shared.file, now);
                    // Of what goes into the file as it is only the end is looked at.
                    let seen = if unseen { END } else { length.min(self.buffer.len()) };
                    let bytes = self.buffer.get_mut(..seen).unwrap_or_default();
                    self.glass.pass(if unseen { length - seen } else { 0 });
                    if self.glass.read(bytes).is_err() {
                        // Never, but what is left in there would be taken for what comes next.
                        self.glass.pass(usize::MAX);
                        break;
                    }
                    if unseen {
                        let passed = stream.pass(length, bytes, &mut shared.file);
                        careful = passed < length;
                        moved += passed;
                    } else {
                        self.glass.pass(length - seen);
                        stream.take(bytes, &mut shared.file, shared_file, now);
                        careful = false;
                        moved += seen;
                    }
                    // A pipe that gave less than that is empty; epoll says when it is not.
                    if length < BUFFER && !careful && limit != DRAIN {
                        break;
                    }
                }
                Ok(Arrived::Nothing) => break,
                Ok(Arrived::End) | Err(_) => {
                    stream.release(&mut shared.file, now);
                    stream.pipe = None;
                }
            }
        }
        moved
    }

    fn forget(&mut self, id: StreamId, now: Instant) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        let Some(shared) = self.files.get_mut(&stream.path) else { return };
        stream.release(&mut shared.file, now);
        shared.file.finish(now);
        shared.writers -= 1;
        if shared.writers == 0 {
            self.files.remove(&stream.path);
        }
    }

    fn tail(&mut self, worker: WorkerId, lines: usize, now: Instant) -> Tail {
        let mut tail = Tail::default();
        for id in self.streams_of(worker) {
            self.turn(id, DRAIN, now);
            let Some(stream) = self.streams.get(&id) else { continue };
            let lines = stream.recent.lines(lines);
            match stream.kind {
                Kind::Out => tail.out = lines,
                Kind::Error => tail.error = lines,
            }
        }
        tail
    }

    fn flush(&mut self, folder: &Path, app: &str, instance: Option<Instance>) -> io::Result<()> {
        let mut result = Ok(());
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let age = name.to_str().and_then(|name| belongs(name, app, instance));
            let path = entry.path();
            result = result.and(match age {
                None => Ok(()),
                Some(Age::Rotated) => absent_is_fine(fs::remove_file(&path)),
                Some(Age::Current) => match self.files.get_mut(path.as_path()) {
                    Some(shared) => shared.file.truncate(),
                    None => empty(&path),
                },
            });
        }
        result
    }

    fn streams_of(&self, worker: WorkerId) -> Vec<StreamId> {
        let all = self.streams.iter();
        all.filter(|(_, stream)| stream.worker == worker).map(|(id, _)| *id).collect()
    }
}

#[cfg(test)]
mod tests {}
