//! The thread that moves output from pipes to where it goes.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
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
    Kind, Requests, Tail,
    file::{LogFile, empty},
    form::Form,
    keeper::{Compressed, Keeper},
    lines::{Outlets, Seen},
    pipe::{Arrived, Glass, Pipe},
    recent::KEPT,
    rotate::{self, absent_is_fine},
    stream::{Route, Stream, StreamId},
    times::{self, Times},
};
use crate::{config::spec::logs::Rotation, id::WorkerId};

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

/// A log service that has no room is tried again after this: half a pipe is enough for 50 MB/s until then.
const RETRY: Duration = Duration::from_millis(10);

/// What the supervisor asks for.
#[derive(Debug)]
pub(super) enum Command {
    Attach {
        worker: WorkerId,
        kind: Kind,
        route: Route,
        rotation: Rotation,
        form: Form,
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
        files: Vec<PathBuf>,
        reply: oneshot::Sender<io::Result<()>>,
    },
    Reopen,
    Compressed(Compressed),
    Stop,
}

/// Token of the eventfd; streams count from 1.
const WAKE: u64 = 0;

/// All that the thread owns.
#[derive(Debug)]
pub(super) struct Pump {
    /// Folder of the daemon's logs.
    folder: PathBuf,
    commands: mpsc::Receiver<Command>,
    wake: Arc<EventFd>,
    epoll: Epoll,
    streams: BTreeMap<StreamId, Stream>,
    outlets: Outlets,
    keeper: Keeper,
    last: StreamId,
    glass: Glass,
    buffer: Vec<u8>,
    /// Streams that are told once of what has come, and had more than their turn took.
    pending: BTreeSet<StreamId>,
    /// Streams whose service had no room, and when it is tried again.
    blocked: BTreeMap<StreamId, Instant>,
}

/// A log file and how many streams write to it.
#[derive(Debug)]
pub(super) struct SharedFile {
    pub(super) file: LogFile,
    writers: usize,
}

impl Pump {
    pub(super) fn new(
        folder: &Path,
        settled: Duration,
        commands: mpsc::Receiver<Command>,
        requests: Requests,
    ) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let wake = Arc::clone(&requests.wake);
        epoll.add(&*wake, EpollEvent::new(EpollFlags::EPOLLIN, WAKE))?;
        Ok(Self {
            folder: folder.to_owned(),
            commands,
            wake,
            epoll,
            streams: BTreeMap::new(),
            outlets: Outlets::new(),
            keeper: Keeper::new(settled, requests),
            last: StreamId(0),
            glass: Glass::new()?,
            buffer: vec![0; BUFFER],
            pending: BTreeSet::new(),
            blocked: BTreeMap::new(),
        })
    }

    /// Works until told to stop.
    pub(super) fn run(mut self) {
        let mut events = [EpollEvent::empty(); 64];
        let mut busy_at = None;
        loop {
            let count = match self.epoll.wait(&mut events, self.timeout()) {
                Ok(count) => count,
                Err(nix::errno::Errno::EINTR) => continue,
                // Nothing but a closed descriptor, which cannot be.
                Err(_) => return,
            };
            let now = Instant::now();
            let mut moved = 0;
            for id in std::mem::take(&mut self.pending) {
                moved += self.turn(id, TURN, false, now);
            }
            for id in self.unblocked(now) {
                moved += self.turn(id, TURN, false, now);
            }
            for event in events.iter().take(count) {
                match event.data() {
                    WAKE => {
                        if !self.obey(now) {
                            return;
                        }
                    }
                    id => {
                        let last = event.events().contains(EpollFlags::EPOLLHUP);
                        moved += self.turn(StreamId(id), TURN, last, now);
                    }
                }
            }
            self.keeper.look(now);
            let again = busy_at.is_some_and(|before| now.duration_since(before) < NAP);
            if again && moved > 0 && moved < WORTHWHILE {
                thread::sleep(NAP);
            }
            busy_at = (moved > 0).then(Instant::now);
        }
    }

    /// How long may be waited for the next event.
    fn timeout(&self) -> EpollTimeout {
        if !self.pending.is_empty() {
            return EpollTimeout::ZERO;
        }
        let deadlines = self.blocked.values().copied().chain(self.keeper.deadline());
        let Some(next) = deadlines.min() else { return EpollTimeout::NONE };
        // Rounded up: otherwise it is waited again for nothing.
        let wait = next.saturating_duration_since(Instant::now()) + Duration::from_millis(1);
        EpollTimeout::try_from(wait).unwrap_or(EpollTimeout::MAX)
    }

    fn unblocked(&mut self, now: Instant) -> Vec<StreamId> {
        let due = self.blocked.iter().filter(|(_, due)| **due <= now);
        let due: Vec<_> = due.map(|(id, _)| *id).collect();
        self.blocked.retain(|_, due| *due > now);
        due
    }

    /// Carries out what was asked for; false to end.
    fn obey(&mut self, now: Instant) -> bool {
        // Only resets the count; all commands are taken in any case.
        self.wake.read().unwrap_or_default();
        while let Ok(command) = self.commands.try_recv() {
            match command {
                Command::Attach { worker, kind, route, rotation, form, pipe, dropped } => {
                    self.last.0 += 1;
                    let stream = Stream::new(self.last, worker, kind, route, pipe, dropped);
                    self.attach(stream, rotation, &form, now);
                }
                Command::Detach { worker } => {
                    for id in self.streams_of(worker) {
                        self.turn(id, DRAIN, true, now);
                        self.forget(id, now);
                    }
                }
                Command::Tail { worker, lines, reply } => {
                    // Whoever asked may have given up meanwhile.
                    reply.send(self.tail(worker, lines, now)).unwrap_or_default();
                }
                Command::Flush { files, reply } => {
                    reply.send(self.flush(&files)).unwrap_or_default();
                }
                Command::Reopen => {
                    self.outlets.files.values_mut().for_each(|shared| shared.file.close());
                }
                Command::Compressed(compressed) => self.keeper.finish(compressed),
                Command::Stop => {
                    let all: Vec<_> = self.streams.keys().copied().collect();
                    for id in all {
                        // Their workers go on: what is begun is left to whoever comes next.
                        self.turn(id, DRAIN, false, now);
                        self.forget(id, now);
                    }
                    self.keeper.stop();
                    return false;
                }
            }
        }
        true
    }

    fn attach(&mut self, mut stream: Stream, rotation: Rotation, form: &Form, now: Instant) {
        let paths = stream.route.files().to_vec();
        let mut shared = false;
        for path in &paths {
            let folder = &self.folder;
            let entry = self.outlets.files.entry(Arc::clone(path));
            let file = entry.or_insert_with_key(|path| {
                let times = Times::new(folder, path);
                let file = LogFile::new(Arc::clone(path), rotation, form.clone(), times, now);
                SharedFile { file, writers: 0 }
            });
            file.file.change(rotation, form.clone());
            file.writers += 1;
            shared |= file.writers > 1;
            self.keeper.expect(path, rotation, now);
        }
        stream.edge = shared || matches!(stream.route, Route::Lines(_));
        let flags = if stream.edge { edge() } else { EpollFlags::EPOLLIN };
        // A stream that cannot be watched ends here: its worker's writes fill the pipe and no more. There
        // is a watch for each user and a limit (fs.epoll.max_user_watches) of a million.
        let watched = stream
            .pipe
            .as_ref()
            .map(|pipe| self.epoll.add(pipe, EpollEvent::new(flags, stream.id.0)));
        if watched.is_none_or(|watched| watched.is_err()) {
            stream.pipe = None;
        }
        self.streams.insert(stream.id, stream);
        if shared {
            self.sharpen(&paths);
        }
    }

    /// Streams that share a file from now on leave begun lines in their pipes, of which they must not be told all the time.
    fn sharpen(&mut self, paths: &[Arc<Path>]) {
        for stream in self.streams.values_mut() {
            if stream.edge || !stream.route.files().iter().any(|path| paths.contains(path)) {
                continue;
            }
            if let Some(pipe) = &stream.pipe
                && self.epoll.modify(pipe, &mut EpollEvent::new(edge(), stream.id.0)).is_ok()
            {
                stream.edge = true;
            }
        }
    }

    /// Moves up to `limit` bytes of a stream, and says how many it was. `last` says that nothing follows.
    fn turn(&mut self, id: StreamId, limit: usize, last: bool, now: Instant) -> usize {
        let Some(stream) = self.streams.get_mut(&id) else { return 0 };
        let mut moved = 0;
        let mut careful = false;
        loop {
            if moved >= limit {
                if stream.edge {
                    self.pending.insert(id);
                }
                break;
            }
            let Some(pipe) = &mut stream.pipe else { break };
            let length = match pipe.look(&self.glass) {
                Ok(Arrived::Bytes(length)) => length,
                Ok(Arrived::Nothing) => break,
                Ok(Arrived::End) | Err(_) => {
                    if let Some(path) = stream.route.file()
                        && let Some(shared) = self.outlets.files.get_mut(&path)
                    {
                        stream.release(&mut shared.file, now);
                    }
                    stream.pipe = None;
                    break;
                }
            };
            let (crowded, patience) = (pipe.is_crowded(length), pipe.patience());
            // Of what goes into a file as it is, or nowhere, only the end is looked at.
            let unseen = match &stream.route {
                Route::Nowhere => length > END,
                Route::File(path) => self.outlets.files.get_mut(path).is_some_and(|shared| {
                    !careful && shared.writers < 2 && stream.may_pass(length, &mut shared.file, now)
                }),
                Route::Lines(_) => false,
            };
            let seen = if unseen { END } else { length.min(self.buffer.len()) };
            let bytes = self.buffer.get_mut(..seen).unwrap_or_default();
            self.glass.pass(if unseen { length - seen } else { 0 });
            if self.glass.read(bytes).is_err() {
                // Never, but what is left in there would be taken for what comes next.
                self.glass.pass(usize::MAX);
                break;
            }
            self.glass.pass(if unseen { 0 } else { length - seen });
            let mut blocked = false;
            let taken = match Target::of(&stream.route) {
                Target::Nowhere => {
                    stream.recent.add(bytes);
                    let length = if unseen { length } else { seen };
                    if let Some(pipe) = &stream.pipe {
                        self.glass.discard(pipe, length);
                    }
                    length
                }
                Target::File(path) => {
                    let Some(shared) = self.outlets.files.get_mut(&path) else { break };
                    let taken = if unseen {
                        let passed = stream.pass(length, bytes, &mut shared.file);
                        careful = passed < length;
                        passed
                    } else {
                        careful = false;
                        if shared.writers > 1 && !last {
                            stream.take_shared(bytes, &mut shared.file, now)
                        } else {
                            stream.take(bytes, &mut shared.file, now)
                        }
                    };
                    if shared.file.was_rotated() {
                        self.keeper.expect(&path, shared.file.rotation(), now);
                    }
                    taken
                }
                Target::Lines => {
                    let last = last && seen == length;
                    let seen = Seen { bytes, last, crowded, patience };
                    let taken = stream.take_lines(&seen, &mut self.outlets, now);
                    for path in stream.route.files() {
                        if let Some(shared) = self.outlets.files.get_mut(path)
                            && shared.file.was_rotated()
                        {
                            self.keeper.expect(path, shared.file.rotation(), now);
                        }
                    }
                    blocked = taken == 0 && (bytes.len() >= patience || bytes.contains(&b'\n'));
                    taken
                }
            };
            moved += taken;
            if blocked {
                self.blocked.insert(id, now + RETRY);
            }
            // What is left waits for its end, or until the service has room.
            if taken == 0 && !careful {
                break;
            }
            // A pipe that gave less than that is empty; epoll says when it is not.
            if !stream.edge && length < BUFFER && !careful && limit != DRAIN {
                break;
            }
        }
        moved
    }

    fn forget(&mut self, id: StreamId, now: Instant) {
        let Some(mut stream) = self.streams.remove(&id) else { return };
        self.blocked.remove(&id);
        self.pending.remove(&id);
        for path in stream.route.files().to_vec() {
            let Some(shared) = self.outlets.files.get_mut(&path) else { continue };
            stream.release(&mut shared.file, now);
            shared.file.finish(now);
            shared.writers -= 1;
            if shared.writers == 0 {
                self.outlets.files.remove(&path);
                continue;
            }
            // What others left in their pipes for its sake may be written now.
            let others = self.streams.values().filter(|other| other.route.files().contains(&path));
            self.pending.extend(others.filter(|other| other.edge).map(|other| other.id));
        }
    }

    fn tail(&mut self, worker: WorkerId, lines: usize, now: Instant) -> Tail {
        let mut tail = Tail::default();
        for id in self.streams_of(worker) {
            self.turn(id, DRAIN, false, now);
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.tell(&mut tail, lines, &self.glass);
            }
        }
        tail
    }

    fn flush(&mut self, files: &[PathBuf]) -> io::Result<()> {
        let mut result = Ok(());
        for path in files {
            let emptied = match self.outlets.files.get_mut(path.as_path()) {
                Some(shared) => shared.file.truncate(),
                None if path.is_file() => absent_is_fine(empty(path)),
                // Nothing is kept of what went into a device.
                None => Ok(()),
            };
            let removed = (1..).try_for_each(|number| match rotate::remove(path, number) {
                Ok(true) => Ok(()),
                Ok(false) => Err(None),
                Err(error) => Err(Some(error)),
            });
            result = result.and(emptied).and(removed.or_else(|why| why.map_or(Ok(()), Err)));
            Times::clear(&times::place(&self.folder, path));
        }
        result
    }

    fn streams_of(&self, worker: WorkerId) -> Vec<StreamId> {
        let all = self.streams.iter();
        all.filter(|(_, stream)| stream.worker == worker).map(|(id, _)| *id).collect()
    }
}

/// Which kind of route a stream has, while the stream itself is changed.
enum Target {
    Nowhere,
    File(Arc<Path>),
    Lines,
}

impl Target {
    fn of(route: &Route) -> Self {
        match route {
            Route::Nowhere => Self::Nowhere,
            Route::File(path) => Self::File(Arc::clone(path)),
            Route::Lines(_) => Self::Lines,
        }
    }
}

/// To be told once, when something has come or nothing will come any more.
fn edge() -> EpollFlags {
    EpollFlags::EPOLLIN | EpollFlags::EPOLLET
}
