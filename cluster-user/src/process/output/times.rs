//! When what is in a log file was written: time marks beside it, so that files without times can be searched by time.
//!
//! A mark is a time and the size that the file had then. Marks are in a folder of their own, in a file whose name follows from
//! the log file's, and move up with it when it is rotated. They cost a write of 16 bytes a second at most.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, Read as _, Write as _},
    os::unix::{
        ffi::OsStrExt as _,
        fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _},
    },
    path::{Path, PathBuf},
    time::{Duration, Instant, SystemTime},
};

use super::rotate::{absent_is_fine, numbered};

/// Two marks are at least this far from one another.
const SHORTEST: Duration = Duration::from_secs(1);
/// While little is written, they are this far from one another: what follows a mark was written within this time.
pub const USUAL: Duration = Duration::from_secs(5);
/// More than this is not little.
const LITTLE: u64 = 512;

/// Begins a file of marks; the number of the log file's inode follows. Ends with the format's version.
const MAGIC: [u8; 8] = *b"cltimes1";
/// Bytes of the beginning, and of each mark.
const RECORD: usize = 16;
/// More marks than a log file of usual size can have are not read.
const MOST: u64 = 64 << 20;

/// A time, in milliseconds since the epoch, and the size of the file then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// Nothing beyond `offset` was written before this.
    pub at_ms: u64,
    /// In bytes.
    pub offset: u64,
}

/// Where the marks of a log file are, `folder` being that of the daemon's logs.
pub fn place(folder: &Path, log: &Path) -> PathBuf {
    // FNV-1a: stable over releases, which the standard hasher is not.
    let hash = log.as_os_str().as_bytes().iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    folder.join("times").join(format!("{hash:016x}"))
}

/// The marks of a log file, oldest first; of a rotated one where `number` says so. None when there are none of this file:
/// `inode` is its number, where it is known to be the one that was written.
pub fn read(folder: &Path, log: &Path, number: Option<u32>, inode: Option<u64>) -> Vec<Mark> {
    let place = place(folder, log);
    let place = number.map_or_else(|| place.clone(), |number| numbered(&place, number));
    let mut bytes = Vec::new();
    let read = File::open(place).and_then(|file| file.take(MOST).read_to_end(&mut bytes));
    let Some((head, records)) = bytes.split_at_checked(RECORD).filter(|_| read.is_ok()) else {
        return Vec::new();
    };
    let (magic, of) = pair(head);
    if magic != u64::from_le_bytes(MAGIC) || inode.is_some_and(|inode| inode != of) {
        return Vec::new();
    }
    let mut marks: Vec<Mark> = Vec::new();
    for record in records.chunks_exact(RECORD) {
        let (at_ms, offset) = pair(record);
        // A clock that was put back, and a file that was emptied by somebody.
        while marks.last().is_some_and(|before| before.offset >= offset) {
            marks.pop();
        }
        let at_ms = marks.last().map_or(at_ms, |before| at_ms.max(before.at_ms));
        marks.push(Mark { at_ms, offset });
    }
    marks
}

fn pair(record: &[u8]) -> (u64, u64) {
    let number = |at: usize| {
        let bytes = record.get(at..at + 8).and_then(|bytes| bytes.try_into().ok());
        bytes.map_or(0, u64::from_le_bytes)
    };
    (number(0), number(8))
}

/// Makes the marks of one log file.
#[derive(Debug)]
pub(super) struct Times {
    place: PathBuf,
    /// When the last one was made of the file that is open, and its size then.
    last: Option<(Instant, u64)>,
}

impl Times {
    /// Of a log file, in the folder of the daemon's logs.
    pub(super) fn new(folder: &Path, log: &Path) -> Self {
        Self { place: place(folder, log), last: None }
    }

    /// Makes a mark, if it is time for one, before the file grows beyond `size`.
    pub(super) fn mark(&mut self, file: &File, size: u64, now: Instant) {
        if let Some((at, before)) = self.last {
            let since = now.saturating_duration_since(at);
            let little = size.saturating_sub(before) < LITTLE;
            if since < SHORTEST || little && since < USUAL {
                return;
            }
        }
        let first = self.last.is_none();
        self.last = Some((now, size));
        // Without marks a file can be read all the same.
        self.write(file, size, first).unwrap_or_default();
    }

    fn write(&self, log: &File, size: u64, first: bool) -> io::Result<()> {
        let mut options = OpenOptions::new();
        options.append(true).create(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
        let opened = options.open(&self.place);
        let mut file = match opened {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if let Some(folder) = self.place.parent() {
                    DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
                }
                options.open(&self.place)?
            }
            other => other?,
        };
        let mut bytes = Vec::with_capacity(2 * RECORD);
        if first {
            let inode = log.metadata()?.ino();
            if self.inode() != Some(inode) {
                file.set_len(0)?;
                bytes.extend_from_slice(&MAGIC);
                bytes.extend_from_slice(&inode.to_le_bytes());
            }
        }
        let at = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        bytes.extend_from_slice(&u64::try_from(at.as_millis()).unwrap_or(0).to_le_bytes());
        bytes.extend_from_slice(&size.to_le_bytes());
        let length = file.metadata()?.len();
        let written = file.write(&bytes)?;
        if written < bytes.len() {
            // A full disk: half a mark would spoil all that follow.
            file.set_len(length)?;
        }
        Ok(())
    }

    fn inode(&self) -> Option<u64> {
        let mut head = [0; RECORD];
        File::open(&self.place).ok()?.read_exact(&mut head).ok()?;
        let (magic, inode) = pair(&head);
        (magic == u64::from_le_bytes(MAGIC)).then_some(inode)
    }

    /// When the first mark of this file was made.
    pub(super) fn began(&self, log: &File) -> Option<SystemTime> {
        if self.inode()? != log.metadata().ok()?.ino() {
            return None;
        }
        let mut bytes = [0; 2 * RECORD];
        File::open(&self.place).ok()?.read_exact(&mut bytes).ok()?;
        let (at, _) = pair(bytes.get(RECORD..)?);
        SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(at))
    }

    /// The next mark is the first of another file.
    pub(super) fn close(&mut self) {
        self.last = None;
    }

    /// Moves the marks up as the log file is.
    pub(super) fn shift(&mut self, keep: u32) {
        self.last = None;
        super::rotate::shift(&self.place, keep).unwrap_or_default();
    }

    /// Forgets the marks of a file that was emptied, and of its rotated ones.
    pub(super) fn clear(place: &Path) {
        absent_is_fine(fs::remove_file(place)).unwrap_or_default();
        for number in 1.. {
            if fs::remove_file(numbered(place, number)).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_are_of_one_file_and_move_up_with_it() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let file = File::create(&log).unwrap();
        let inode = file.metadata().unwrap().ino();
        let mut times = Times::new(folder.path(), &log);
        let now = Instant::now();
        times.mark(&file, 0, now);
        times.mark(&file, 10_000, now + SHORTEST / 2);
        times.mark(&file, 20_000, now + SHORTEST);
        times.mark(&file, 20_010, now + SHORTEST * 3);
        times.mark(&file, 20_020, now + SHORTEST + USUAL);
        let offsets = |number, inode| {
            let marks = read(folder.path(), &log, number, inode);
            marks.into_iter().map(|mark| mark.offset).collect::<Vec<_>>()
        };
        assert_eq!(offsets(None, Some(inode)), [0, 20_000, 20_020]);
        assert_eq!(offsets(None, Some(inode + 1)), [0; 0]);
        let age = times.began(&file).unwrap().elapsed().unwrap();
        assert!(age < Duration::from_mins(1));
        // Whoever comes next goes on.
        let mut next = Times::new(folder.path(), &log);
        next.mark(&file, 30_000, now);
        assert_eq!(offsets(None, Some(inode)), [0, 20_000, 20_020, 30_000]);

        next.shift(5);
        assert_eq!(offsets(Some(1), None), [0, 20_000, 20_020, 30_000]);
        next.mark(&file, 0, now);
        assert_eq!(offsets(None, None), [0]);
        Times::clear(&place(folder.path(), &log));
        assert_eq!((offsets(None, None), offsets(Some(1), None)), (vec![], vec![]));
    }

    #[test]
    fn marks_of_a_file_that_was_emptied_are_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("web.log");
        let file = File::create(&log).unwrap();
        let mut times = Times::new(folder.path(), &log);
        let now = Instant::now();
        for (nth, size) in (0..).zip([0, 5000, 9000, 4000]) {
            times.mark(&file, size, now + USUAL * nth);
        }
        let marks = read(folder.path(), &log, None, None);
        assert_eq!(marks.iter().map(|mark| mark.offset).collect::<Vec<_>>(), [0, 4000]);
    }
}
