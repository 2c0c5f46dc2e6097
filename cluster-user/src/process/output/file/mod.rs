//! A log file: what is appended to it, rotation, and what happens when it cannot be written.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{FileExt as _, MetadataExt as _, OpenOptionsExt as _},
    path::Path,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use nix::errno::Errno;

use super::{
    form::Form,
    pipe::Pipe,
    rotate::{self, absent_is_fine, cut, first_line_end},
    stream::StreamId,
    times::Times,
};
use crate::config::spec::logs::Rotation;

/// While a file cannot be written it is tried again this often, when there is output.
const RETRY: Duration = Duration::from_millis(100);

/// A file is looked up by its name this often, when there is output.
const LOOK: Duration = Duration::from_secs(1);

/// The daemon's log says this often of a file that it cannot be written.
const SAY: Duration = Duration::from_mins(1);

/// One log file, shared by all who write to it.
#[derive(Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own, and all pairs occur")]
pub(super) struct LogFile {
    path: Arc<Path>,
    rotation: Rotation,
    /// In which form it is said what was lost.
    form: Form,
    times: Times,
    file: Option<File>,
    /// Whether the open file is one with positions.
    regular: bool,
    /// Whether bytes can be moved into it.
    movable: bool,
    size: u64,
    /// Whether it ends in the middle of a line.
    line_open: bool,
    /// Who wrote last.
    writer: StreamId,
    /// A rotation that failed is tried again when the file has grown by its maximum once more.
    reprieve: u64,
    /// When the first line of the open file was written.
    began: Option<SystemTime>,
    looked: Instant,
    trouble: Option<Trouble>,
    /// When it was last said that it cannot be written.
    said: Option<Instant>,
    /// Whether it has yet to be said how much was lost.
    owed: bool,
    /// Whether it has been rotated since somebody asked.
    rotated: bool,
}

/// Empties the file of this name.
pub(super) fn empty(path: &Path) -> io::Result<()> {
    OpenOptions::new().write(true).truncate(true).open(path).map(drop)
}

fn skip(pipe: Option<&Pipe>, length: usize) {
    if let Some(pipe) = pipe {
        pipe.skip(length);
    }
}

/// Why nothing is being written, and how much has been lost by it.
#[derive(Debug)]
struct Trouble {
    errno: Errno,
    bytes: u64,
    /// Whether the last byte lost was in the middle of a line, whose rest is of no use.
    line_open: bool,
    retry: Instant,
}

impl LogFile {
    pub(super) fn new(
        path: Arc<Path>,
        rotation: Rotation,
        form: Form,
        times: Times,
        now: Instant,
    ) -> Self {
        Self {
            path,
            rotation,
            form,
            times,
            file: None,
            regular: false,
            movable: false,
            size: 0,
            line_open: false,
            writer: StreamId(0),
            reprieve: 0,
            began: None,
            looked: now,
            trouble: None,
            said: None,
            owed: false,
            rotated: false,
        }
    }

    /// From now on it is rotated in this way, and this is how it is said what was lost: whoever came last decides.
    pub(super) fn change(&mut self, rotation: Rotation, form: Form) {
        (self.rotation, self.form) = (rotation, form);
    }

    /// Whether it has been rotated since this was asked last.
    pub(super) fn was_rotated(&mut self) -> bool {
        std::mem::take(&mut self.rotated)
    }

    /// When it is rotated.
    pub(super) fn rotation(&self) -> Rotation {
        self.rotation
    }

    /// Whether it ends in the middle of a line that `writer` wrote.
    pub(super) fn is_inside_line_of(&self, writer: StreamId) -> bool {
        self.line_open && self.writer == writer
    }

    /// Appends `bytes`, rotating where need be, and returns how many were dropped.
    pub(super) fn append(&mut self, writer: StreamId, bytes: &[u8], now: Instant) -> u64 {
        self.append_from(writer, bytes, None, now)
    }

    /// As [`LogFile::append`], of bytes that are still at the head of `pipe`. None of them is afterwards.
    pub(super) fn append_from(
        &mut self,
        writer: StreamId,
        bytes: &[u8],
        pipe: Option<&Pipe>,
        now: Instant,
    ) -> u64 {
        self.look(now);
        let (mut rest, mut dropped) = self.recover(bytes, now);
        skip(pipe, bytes.len() - rest.len());
        if self.line_open && self.writer != writer && self.trouble.is_none() && !rest.is_empty() {
            // What another left unfinished, most often because it died, is not the beginning of this.
            self.append_some(b"\n", None, now);
        }
        self.writer = writer;
        while !rest.is_empty() && self.trouble.is_none() {
            let written = self.append_some(rest, pipe, now);
            rest = rest.get(written..).unwrap_or_default();
        }
        skip(pipe, rest.len());
        dropped += self.lose(rest);
        dropped
    }

    /// Whether `length` bytes of `writer` can go into the open file as they are.
    pub(super) fn has_room(&mut self, writer: StreamId, length: usize, now: Instant) -> bool {
        self.look(now);
        let goes_on = !self.line_open || self.writer == writer;
        let length = u64::try_from(length).unwrap_or(u64::MAX);
        let has_room = self.movable
            && self.trouble.is_none()
            && goes_on
            && self.size.saturating_add(length) <= self.max();
        let Some(file) = self.file.as_ref().filter(|_| has_room) else { return false };
        self.times.mark(file, self.size, now);
        true
    }

    /// The size that it must not exceed now.
    fn max(&self) -> u64 {
        match self.rotation.max_size {
            // A pipe or a terminal has no size.
            Some(max) if self.regular => max.saturating_add(self.reprieve),
            Some(_) | None => u64::MAX,
        }
    }

    /// Moves bytes from the head of a pipe, and says how many: fewer when something is in the way, which will be seen when
    /// the rest is appended. `line_open` says that they end in the middle of a line.
    pub(super) fn take_from(
        &mut self,
        writer: StreamId,
        pipe: &Pipe,
        length: usize,
        line_open: bool,
    ) -> usize {
        let Some(file) = &self.file else { return 0 };
        let mut moved = 0;
        while moved < length {
            let end = file.metadata().map_or(self.size, |metadata| metadata.len());
            match pipe.move_to(file, end, length - moved) {
                Ok(more) if more > 0 => moved += more,
                Ok(_) | Err(_) => break,
            }
        }
        if moved > 0 {
            self.writer = writer;
            self.line_open = line_open || moved < length;
            self.size += u64::try_from(moved).unwrap_or(0);
        }
        moved
    }

    /// Ends in a clean state: says what was dropped, if that can be said now.
    pub(super) fn finish(&mut self, now: Instant) {
        if let Some(trouble) = &mut self.trouble {
            trouble.retry = now;
            trouble.line_open = false;
            self.recover(b"", now);
        }
    }

    /// Empties the current file.
    pub(super) fn truncate(&mut self) -> io::Result<()> {
        self.close();
        absent_is_fine(empty(&self.path))
    }

    /// Forgets the open file: the next output opens, or makes, what has its name.
    pub(super) fn close(&mut self) {
        (self.size, self.line_open, self.reprieve) = (0, false, 0);
        (self.file, self.began) = (None, None);
        self.times.close();
    }

    /// Writes one piece into the current file, or makes room for it. Returns how much was written.
    fn append_some(&mut self, bytes: &[u8], pipe: Option<&Pipe>, now: Instant) -> usize {
        if let Err(error) = self.open() {
            self.fail(&error, now);
            return 0;
        }
        let cut = cut(bytes, self.size, self.line_open, self.max());
        if let Some(file) = self.file.as_ref().filter(|_| self.regular && cut.length > 0) {
            self.times.mark(file, self.size, now);
        }
        let piece = bytes.get(..cut.length).unwrap_or_default();
        let written = match self.write(piece, pipe) {
            Ok(()) => piece.len(),
            Err((written, error)) => {
                self.fail(&error, now);
                return written;
            }
        };
        if cut.full {
            self.rotate();
        }
        written
    }

    fn open(&mut self) -> io::Result<()> {
        if self.file.is_some() {
            return Ok(());
        }
        // Not for appending only: nothing could be moved into such a file (`splice(2)`).
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            // A log file that was made a terminal or a pipe must not hold up all the others.
            .custom_flags(libc::O_NOCTTY | libc::O_NONBLOCK)
            .open(&self.path)?;
        let metadata = file.metadata()?;
        self.size = metadata.len();
        self.regular = metadata.is_file();
        self.movable = self.regular;
        self.began = match self.rotation.max_age.filter(|_| self.regular) {
            None => None,
            Some(_) if self.size == 0 => Some(SystemTime::now()),
            Some(_) => self.times.began(&file).or_else(|| metadata.modified().ok()),
        };
        self.file = Some(file);
        Ok(())
    }

    /// Writes all of it, or says how much was written before an error. What is written leaves the pipe.
    fn write(&mut self, bytes: &[u8], pipe: Option<&Pipe>) -> Result<(), (usize, io::Error)> {
        let Some(file) = &self.file else { return Ok(()) };
        let (mut written, mut pipe) = (0, pipe);
        let result = loop {
            let rest = bytes.get(written..).unwrap_or_default();
            if rest.is_empty() {
                break Ok(());
            }
            // Somebody may have emptied it: written where it ended, it would begin with zeros.
            let end = file.metadata().map_or(self.size, |metadata| metadata.len());
            let moved = match pipe {
                Some(pipe) if self.movable => pipe.move_to(file, end, rest.len()),
                _ => self.copy(file, rest, end).inspect(|written| skip(pipe, *written)),
            };
            match moved {
                Ok(0) => break Err((written, io::ErrorKind::WriteZero.into())),
                Ok(length) => written += length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A file system on which this cannot be done.
                Err(error)
                    if self.movable
                        && pipe.is_some()
                        && error.raw_os_error() == Some(libc::EINVAL) =>
                {
                    self.movable = false;
                }
                // Somebody else has read from the pipe what was seen in it.
                Err(error) if self.movable && error.kind() == io::ErrorKind::WouldBlock => {
                    pipe = None;
                }
                Err(error) => break Err((written, error)),
            }
        };
        if let Some(last) = bytes.get(..written).and_then(<[u8]>::last) {
            self.line_open = *last != b'\n';
            self.size += u64::try_from(written).unwrap_or(0);
        }
        result
    }

    fn copy(&self, mut file: &File, bytes: &[u8], end: u64) -> io::Result<usize> {
        // A terminal has no positions.
        if self.regular { file.write_at(bytes, end) } else { file.write(bytes) }
    }

    fn rotate(&mut self) {
        if rotate::shift(&self.path, self.rotation.keep).is_ok() {
            // A line too long for one file goes on in the next.
            let line_open = self.line_open;
            self.close();
            self.line_open = line_open;
            self.times.shift(self.rotation.keep);
            self.rotated = true;
        } else {
            self.reprieve = self.size;
        }
    }

    /// Whether it was begun so long ago that the next line goes into another.
    fn is_old(&self) -> bool {
        let Some((began, max)) = self.began.zip(self.rotation.max_age) else { return false };
        // A clock that was put back makes no file old.
        self.size > 0 && !self.line_open && began.elapsed().is_ok_and(|age| age >= max)
    }

    /// Notices that the file was removed, renamed or truncated by somebody else.
    fn look(&mut self, now: Instant) {
        if now.duration_since(self.looked) < LOOK {
            return;
        }
        self.looked = now;
        let Some(Ok(open)) = self.file.as_ref().map(File::metadata) else { return };
        match fs::metadata(&*self.path) {
            Ok(named) if (named.dev(), named.ino()) == (open.dev(), open.ino()) => {
                if named.len() < self.size {
                    (self.size, self.line_open) = (named.len(), false);
                    self.began = self.began.map(|_before| SystemTime::now());
                }
                if self.is_old() {
                    self.rotate();
                    // Where that fails it is tried again when it is as old once more.
                    self.began = self.began.map(|_before| SystemTime::now());
                }
            }
            _ => self.close(),
        }
    }

    fn fail(&mut self, error: &io::Error, now: Instant) {
        let errno = error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
        let retry = now + RETRY;
        if self.said.is_none_or(|said| now.saturating_duration_since(said) >= SAY) {
            (self.said, self.owed) = (Some(now), true);
            let (path, why) = (self.path.display(), errno.desc().to_lowercase());
            log::warn!("output for {path} is dropped: {why}");
        }
        self.trouble = Some(Trouble { errno, bytes: 0, line_open: self.line_open, retry });
    }

    /// While there is trouble, counts bytes as lost.
    fn lose(&mut self, bytes: &[u8]) -> u64 {
        let (Some(trouble), Some(last)) = (&mut self.trouble, bytes.last()) else { return 0 };
        let length = u64::try_from(bytes.len()).unwrap_or(0);
        trouble.bytes += length;
        trouble.line_open = *last != b'\n';
        length
    }

    /// After trouble, tries to write again, beginning with what was lost. Returns what is left to be
    /// written, from the beginning of a line on, and how many bytes before that were dropped.
    fn recover<'b>(&mut self, bytes: &'b [u8], now: Instant) -> (&'b [u8], u64) {
        let Some(trouble) = &self.trouble else { return (bytes, 0) };
        if now < trouble.retry {
            return (bytes, 0);
        }
        let skipped = if trouble.line_open { first_line_end(bytes) } else { Some(0) };
        let Some(skipped) = skipped else { return (bytes, 0) };
        let (skipped, rest) = bytes.split_at(skipped);
        let dropped = self.lose(skipped);
        self.announce(now);
        (rest, dropped)
    }

    /// Writes the line that says what was lost, or nothing of it.
    fn announce(&mut self, now: Instant) {
        let Some(trouble) = &mut self.trouble else { return };
        trouble.retry = now + RETRY;
        if trouble.bytes > 0 {
            let (bytes, why) = (trouble.bytes, trouble.errno.desc().to_lowercase());
            let text = format!("[cluster] {bytes} bytes of output dropped: {why}");
            if self.open().is_err() {
                return;
            }
            let mut notice = self.form.notice(&text);
            if self.line_open {
                notice.insert(0, b'\n');
            }
            let (size, line_open) = (self.size, self.line_open);
            if self.write(&notice, None).is_err() {
                // Half a line would stand there for good. Where even this fails, it does.
                if self.file.as_ref().is_some_and(|file| file.set_len(size).is_ok()) {
                    (self.size, self.line_open) = (size, line_open);
                }
                return;
            }
            if std::mem::take(&mut self.owed) {
                log::warn!(
                    "{bytes} bytes of output for {} were dropped: {why}",
                    self.path.display()
                );
            }
        }
        self.trouble = None;
    }
}

#[cfg(test)]
mod tests;
