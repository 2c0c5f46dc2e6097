//! Following log files as they grow, are rotated and emptied, without losing a line.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    io::{self, Read as _},
    os::{
        fd::AsFd as _,
        unix::fs::{FileExt as _, MetadataExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent},
};

use super::{error::Error, logs::Source, printer::Printer, tail::LONGEST};

/// How much of one file is read before the others have their turn.
const TURN: usize = 1 << 20;
/// How long nothing may be heard before it is looked, in case an event was missed.
const LOOK: u16 = 1000;
/// How often the daemon is asked about files nobody knows.
const ASK: Duration = Duration::from_secs(1);

/// How long to follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Until {
    /// As long as somebody reads it.
    NobodyReads,
    /// Until standard input ends, and then to the end of all files.
    InputEnds,
}

/// Prints what comes into `sources`, from `positions` on, for as long as `until` says. `more` gives
/// the sources there are now, when a file turns up in `folder` that none of them knows; what that had in it when
/// following began is older than what is wanted.
///
/// # Errors
/// When the folder cannot be watched or nothing can be written.
pub(super) fn follow(
    folder: &Path,
    sources: &mut Vec<Source>,
    positions: Vec<Option<(File, u64)>>,
    printer: &mut Printer,
    until: Until,
    more: impl Fn() -> Vec<Source>,
) -> Result<(), Error> {
    let failed =
        |error: Errno| Error::failed(format!("failed to watch `{}`: {error}", folder.display()));
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK).map_err(failed)?;
    let flags = AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO;
    let home = inotify.add_watch(folder, flags).map_err(failed)?;
    let watch_others = |sources: &[Source]| {
        let folders: BTreeSet<_> =
            sources.iter().filter_map(|source| source.path.parent()).collect();
        for folder in folders {
            // One that is not there yet, or may not be watched, is looked at each second. Watching twice is watching once.
            inotify.add_watch(folder, flags).unwrap_or(home);
        }
    };
    watch_others(sources);
    let old = sizes(folder);
    if until == Until::InputEnds {
        // Whoever has us follow may begin to write now. One that does not listen need not hear it.
        nix::unistd::write(io::stdin(), b".").unwrap_or_default();
    }
    let mut readers: Vec<Reader> = sources
        .iter()
        .zip(positions)
        .map(|(source, position)| Reader::new(&source.path, position))
        .collect();
    let mut asked = Instant::now();
    // Whatever was written between the last lines and the watch.
    let mut due = vec![true; readers.len()];
    let mut unknown = false;
    let mut ending = false;
    loop {
        if unknown && (ending || asked.elapsed() >= ASK) {
            (unknown, asked) = (false, Instant::now());
            for source in more() {
                if !sources.contains(&source) {
                    readers.push(Reader::new(&source.path, end_of_old(&old, &source.path)));
                    due.push(true);
                    sources.push(source);
                }
            }
            printer.widen(sources);
            watch_others(sources);
        }
        for (at, reader) in readers.iter_mut().enumerate() {
            if due[at] {
                due[at] = reader.advance(|line| printer.print(&sources[at], line));
                printer.flush()?;
            }
        }
        if ending && !due.contains(&true) {
            return Ok(());
        }
        let timeout = if due.contains(&true) { 0 } else { LOOK };
        match wait(&inotify, timeout, until).map_err(failed)? {
            Heard::ReaderGone => return Ok(()),
            Heard::InputEnded => {
                if !ending {
                    due.fill(true);
                    // A file that came a moment ago may be of an app that nobody has asked about.
                    (ending, unknown) = (true, true);
                }
            }
            Heard::Nothing if timeout > 0 => due.fill(true),
            Heard::Nothing => {}
            Heard::Events(events) => {
                for event in events {
                    let name = event.name.as_deref().map(|name| name.to_string_lossy());
                    let Some(name) = name else {
                        due.fill(true); // the queue overflowed
                        continue;
                    };
                    let mut known = false;
                    for (at, reader) in readers.iter().enumerate() {
                        if name.starts_with(&reader.name) {
                            (due[at], known) = (true, true);
                        }
                    }
                    // Other folders hold much that is no log.
                    unknown |= !known && event.wd == home;
                }
            }
        }
    }
}

/// Which files there are, and how large.
fn sizes(folder: &Path) -> BTreeMap<PathBuf, (u64, u64)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    let size = |file: &fs::DirEntry| {
        let metadata = file.metadata().ok()?;
        Some((file.path(), (metadata.ino(), metadata.len())))
    };
    files.filter_map(|file| size(&file)).collect()
}

/// Where what is new begins in a file that was there before.
fn end_of_old(old: &BTreeMap<PathBuf, (u64, u64)>, path: &Path) -> Option<(File, u64)> {
    let (inode, size) = old.get(path)?;
    let Open { file, inode: now, .. } = open(path)?;
    (now == *inode).then_some((file, *size))
}

enum Heard {
    /// There is nothing more to be waited for.
    InputEnded,
    Events(Vec<InotifyEvent>),
    Nothing,
    /// Nobody reads standard output any more.
    ReaderGone,
}

fn wait(inotify: &Inotify, timeout: u16, until: Until) -> Result<Heard, Errno> {
    let (stdout, stdin) = (io::stdout(), io::stdin());
    let mut watched = [
        PollFd::new(inotify.as_fd(), PollFlags::POLLIN),
        PollFd::new(stdout.as_fd(), PollFlags::empty()),
        PollFd::new(stdin.as_fd(), PollFlags::POLLIN),
    ];
    let watched = match until {
        Until::NobodyReads => &mut watched[..2],
        Until::InputEnds => &mut watched[..],
    };
    match poll(watched, PollTimeout::from(timeout)) {
        Ok(0) | Err(Errno::EINTR) => return Ok(Heard::Nothing),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let gone = PollFlags::POLLERR | PollFlags::POLLHUP;
    if watched[1].revents().is_some_and(|events| events.intersects(gone)) {
        return Ok(Heard::ReaderGone);
    }
    let input = watched.get(2).and_then(PollFd::any).unwrap_or(false);
    if input && io::stdin().lock().read(&mut [0; 64]).unwrap_or(0) == 0 {
        return Ok(Heard::InputEnded);
    }
    match inotify.read_events() {
        Ok(events) => Ok(Heard::Events(events)),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(Heard::Nothing),
        Err(error) => Err(error),
    }
}

/// One file that is being followed, under whatever name it has by now.
struct Reader {
    path: PathBuf,
    /// What the names of this file and those it was rotated to begin with.
    name: String,
    open: Option<Open>,
    /// A line that has not ended yet.
    partial: Vec<u8>,
}

struct Open {
    file: File,
    inode: u64,
    position: u64,
}

impl Reader {
    fn new(path: &Path, position: Option<(File, u64)>) -> Self {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let open = position.and_then(|(file, position)| {
            let inode = file.metadata().ok()?.ino();
            Some(Open { file, inode, position })
        });
        Self { path: path.to_owned(), name, open, partial: Vec::new() }
    }

    /// Reads what there is, up to a turn's worth; whether there may be more.
    fn advance(&mut self, mut print: impl FnMut(&[u8])) -> bool {
        let Some(mut open) = self.open.take().or_else(|| open(&self.path)) else {
            return false;
        };
        // Looked up before reading: once its successor is written to, a file does not grow any more.
        let successor = self::open(&self.path).filter(|successor| {
            let written = successor.file.metadata().is_ok_and(|metadata| metadata.len() > 0);
            successor.inode != open.inode && written
        });
        let more = self.read(&mut open, &mut print);
        let Some(successor) = successor.filter(|_| !more) else {
            self.open = Some(open);
            return more;
        };
        for mut between in self.between(&open, &successor) {
            while self.read(&mut between, &mut print) {}
        }
        self.open = Some(successor);
        true
    }

    /// Whether there may be more.
    fn read(&mut self, open: &mut Open, print: &mut impl FnMut(&[u8])) -> bool {
        if open.file.metadata().is_ok_and(|metadata| metadata.len() < open.position) {
            // Emptied by `flush`: what follows is new.
            open.position = 0;
            self.partial.clear();
        }
        let mut chunk = vec![0; 64 << 10];
        let mut turn = 0;
        while turn < TURN {
            let Ok(count @ 1..) = open.file.read_at(&mut chunk, open.position) else {
                return false;
            };
            turn += count;
            open.position += u64::try_from(count).unwrap_or(0);
            self.split(&chunk[..count], print);
        }
        true
    }

    fn split(&mut self, mut bytes: &[u8], print: &mut impl FnMut(&[u8])) {
        while let Some(at) = bytes.iter().position(|byte| *byte == b'\n') {
            if self.partial.is_empty() {
                print(&bytes[..at]);
            } else {
                self.partial.extend_from_slice(&bytes[..at]);
                print(&self.partial);
                self.partial.clear();
            }
            bytes = &bytes[at + 1..];
        }
        self.partial.extend_from_slice(bytes);
        if self.partial.len() >= LONGEST {
            print(&self.partial);
            self.partial.clear();
        }
    }

    /// Files that came after `open` and went before `successor` while nobody looked, oldest first. A file
    /// is rotated to its name with `.1`, what was there to `.2`, and so on.
    fn between(&self, open: &Open, successor: &Open) -> Vec<Open> {
        let mut found: Vec<Open> = Vec::new();
        let mut missing = 0;
        for number in 1.. {
            let mut name = self.path.clone().into_os_string();
            name.push(format!(".{number}"));
            let Some(rotated) = self::open(Path::new(&name)) else {
                // One that is missing is being moved to the next name right now.
                missing += 1;
                if missing > 2 {
                    break;
                }
                continue;
            };
            missing = 0;
            if rotated.inode == open.inode {
                break;
            }
            if rotated.inode == successor.inode {
                found.clear(); // it has been rotated, too, and what came before in this list came after it
            } else if found.iter().all(|other| other.inode != rotated.inode) {
                found.push(rotated);
            }
        }
        found.reverse();
        found
    }
}

fn open(path: &Path) -> Option<Open> {
    // A pipe must not be opened: that would wait, and take what is for another.
    fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
    let file = File::open(path).ok()?;
    let inode = file.metadata().ok()?.ino();
    Some(Open { file, inode, position: 0 })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::{
        super::logs::tests::{printed, source},
        *,
    };

    #[test]
    fn lines_come_whole_through_rotation_and_emptying() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web-out-0.log");
        let mut reader = Reader::new(&path, None);
        let seen = |reader: &mut Reader| {
            let mut printer = Printer::default();
            let source = source("/x");
            while reader.advance(|line| printer.print(&source, line)) {}
            printed(&printer)
        };
        assert_eq!(seen(&mut reader), "");
        let append = |path: &Path, text: &str| {
            let mut file = File::options().append(true).create(true).open(path).unwrap();
            file.write_all(text.as_bytes()).unwrap();
        };
        append(&path, "one\ntw");
        assert_eq!(seen(&mut reader), "one\n");
        append(&path, "o\n");
        assert_eq!(seen(&mut reader), "two\n");

        // Rotated: the end of the old file is not lost, and a line may go on in the new one.
        append(&path, "three\nfo");
        fs::rename(&path, folder.path().join("web-out-0.log.1")).unwrap();
        append(&path, "");
        append(&folder.path().join("web-out-0.log.1"), "u");
        assert_eq!(seen(&mut reader), "three\n");
        append(&path, "r\n");
        assert_eq!(seen(&mut reader), "four\n");

        // Rotated twice between two looks: `.1` moves on to `.2` and `.3`.
        let numbered = |number: u32| folder.path().join(format!("web-out-0.log.{number}"));
        fs::rename(numbered(1), numbered(3)).unwrap();
        fs::rename(&path, numbered(2)).unwrap();
        append(&path, "five\n");
        fs::rename(&path, numbered(1)).unwrap();
        append(&path, "six\n");
        assert_eq!(seen(&mut reader), "five\nsix\n");
        assert_eq!(seen(&mut reader), "");

        File::create(&path).unwrap();
        append(&path, "7\n");
        assert_eq!(seen(&mut reader), "7\n");
    }

    #[test]
    fn a_flood_that_is_rotated_all_the_time_is_read_in_order_and_whole() {
        const FILES: u32 = 150;
        const LINES: u32 = 500;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web-out-0.log");
        let numbered = |number: u32| folder.path().join(format!("web-out-0.log.{number}"));
        let write = |file: u32| {
            let lines = (file * LINES..(file + 1) * LINES).map(|n| n.to_string());
            let text = lines.collect::<Vec<_>>().join("\n");
            fs::write(&path, format!("{text}\n")).unwrap();
        };
        write(0);
        let mut reader = Reader::new(&path, None);
        let mut next = 0;
        let mut check = |line: &[u8]| {
            assert_eq!(std::str::from_utf8(line).unwrap(), next.to_string());
            next += 1;
            next
        };
        reader.advance(|line| {
            check(line);
        });
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for file in 1..FILES {
                    for number in (1..file).rev() {
                        fs::rename(numbered(number), numbered(number + 1)).unwrap();
                    }
                    fs::rename(&path, numbered(1)).unwrap();
                    write(file);
                }
            });
            let mut read = 0;
            while read < FILES * LINES {
                reader.advance(|line| read = check(line));
            }
        });
    }
}
