//! What is in log files: the last lines, or those of a time, of a file and of those it was rotated to.

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader, Read as _, Seek as _, SeekFrom},
    os::unix::fs::{FileExt as _, MetadataExt as _},
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};

use flate2::bufread::MultiGzDecoder;

use super::tail::{self, LONGEST};
use crate::process::output::times::{self, Mark};

/// Lines that are asked for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Wanted {
    /// So many of the last; all when absent.
    pub(super) lines: Option<usize>,
    /// In milliseconds since the epoch.
    pub(super) since: Option<u64>,
    /// The same.
    pub(super) until: Option<u64>,
    /// Whether a last line without line break counts.
    pub(super) partial: bool,
}

/// A line, and when it was written as far as that is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// In milliseconds since the epoch.
    pub(super) at: u64,
    pub(super) text: Vec<u8>,
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// Oldest first.
    pub(super) lines: Vec<Line>,
    /// The current file and where what was not returned begins.
    pub(super) end: Option<(File, u64)>,
    /// Whether it is not known when some of them were written, other than before the file's last change.
    pub(super) vague: bool,
    /// Whether it is no file that lines could be read from: a pipe, a terminal.
    pub(super) unreadable: bool,
    /// Files it was rotated to that are broken, with what is wrong; the others are there all the same.
    pub(super) broken: Vec<(PathBuf, io::Error)>,
}

/// A log file or one that it was rotated to.
struct Segment {
    path: PathBuf,
    file: File,
    size: u64,
    compressed: bool,
    /// When it was last written to.
    modified: u64,
    /// When what is in it was written; none when nobody made marks.
    marks: Vec<Mark>,
}

/// Reads what is `wanted` of a log file, and matches. `folder` is that of the daemon's logs.
///
/// # Errors
/// What the kernel says, other than that there is no such file.
pub(super) fn read(
    folder: &Path,
    path: &Path,
    wanted: Wanted,
    matches: &dyn Fn(&[u8]) -> bool,
) -> io::Result<Past> {
    let mut past = Past::default();
    let Some(current) = Segment::open(folder, path, None)? else {
        past.unreadable = path.exists() && !path.is_file();
        // It may have been rotated and not be there again.
        return rotated(folder, path, wanted, matches, past, None);
    };
    let mut end = current.size;
    if !wanted.partial {
        end -= current.unfinished()?;
    }
    past.end = Some((current.file.try_clone()?, end));
    let inode = current.file.metadata()?.ino();
    let current = Segment { size: end, ..current };
    rotated(folder, path, wanted, matches, past, Some((current, inode)))
}

/// From the newest to the oldest, until there is enough.
fn rotated(
    folder: &Path,
    path: &Path,
    wanted: Wanted,
    matches: &dyn Fn(&[u8]) -> bool,
    mut past: Past,
    current: Option<(Segment, u64)>,
) -> io::Result<Past> {
    let mut inodes: Vec<u64> = Vec::new();
    let mut parts: Vec<Vec<Line>> = Vec::new();
    let mut left = wanted.lines.unwrap_or(usize::MAX);
    let mut number = 0;
    let mut missing = 0;
    let mut next = current.map(|(segment, inode)| {
        inodes.push(inode);
        segment
    });
    loop {
        if let Some(segment) = next.take() {
            if wanted.since.is_some_and(|since| segment.modified < since) {
                break;
            }
            let timed = wanted.since.is_some() || wanted.until.is_some();
            past.vague |= timed && segment.marks.is_empty() && segment.size > 0;
            let lines = match segment.lines(wanted, left, matches) {
                Ok(lines) => lines,
                Err(error) if segment.compressed => {
                    past.broken.push((segment.path, error));
                    Vec::new()
                }
                Err(error) => return Err(error),
            };
            left -= lines.len().min(left);
            parts.push(lines);
        }
        if left == 0 {
            break;
        }
        number += 1;
        let segment = Segment::open(folder, path, Some(number))?;
        let Some(segment) = segment else {
            // One that is missing is being moved to the next name right now.
            missing += 1;
            if missing > 2 {
                break;
            }
            continue;
        };
        missing = 0;
        // Rotated while this was reading.
        let inode = segment.file.metadata()?.ino();
        if !inodes.contains(&inode) {
            inodes.push(inode);
            next = Some(segment);
        }
    }
    parts.reverse();
    past.lines = parts.concat();
    Ok(past)
}

impl Segment {
    fn open(folder: &Path, path: &Path, number: Option<u32>) -> io::Result<Option<Self>> {
        let name =
            number.map_or_else(|| path.to_owned(), |number| suffixed(path, &format!(".{number}")));
        let names = [(name.clone(), false), (suffixed(&name, ".gz"), true)];
        for (name, compressed) in names {
            if compressed && number.is_none() {
                break;
            }
            // A pipe must not be opened: that would wait, and take what is for another.
            if !std::fs::metadata(&name).is_ok_and(|metadata| metadata.is_file()) {
                continue;
            }
            let file = match File::open(&name) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            let metadata = file.metadata()?;
            let inode = (!compressed).then(|| metadata.ino());
            return Ok(Some(Self {
                size: metadata.len(),
                compressed,
                modified: millis(metadata.modified()?),
                marks: times::read(folder, path, number, inode),
                path: name,
                file,
            }));
        }
        Ok(None)
    }

    /// How many bytes there are after the last line break.
    fn unfinished(&self) -> io::Result<u64> {
        let mut backward = tail::Backward::new(&self.file, self.size);
        let rest = backward.next()?.map_or(0, |(_, rest)| rest.len());
        Ok(u64::try_from(rest).unwrap_or(0))
    }

    /// The last `count` of its lines that are wanted.
    fn lines(
        &self,
        wanted: Wanted,
        count: usize,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Line>> {
        let Some(from) = wanted.since.map_or(Some(0), |since| self.first_since(since)) else {
            return Ok(Vec::new());
        };
        let to = wanted.until.and_then(|until| self.marks.iter().find(|mark| mark.at_ms > until));
        let to = to.map(|mark| mark.offset);
        if !self.compressed && wanted.lines.is_some() && to.is_none() {
            return self.backward(from, count, matches);
        }
        let mut lines = VecDeque::new();
        self.forward(from, to, &mut |offset, text| {
            if matches(text) && count > 0 {
                if lines.len() == count {
                    lines.pop_front();
                }
                lines.push_back(Line { at: self.time(offset), text: text.to_owned() });
            }
        })?;
        Ok(lines.into())
    }

    /// Where what may have been written at that time or later begins; `None` when there is nothing of that.
    fn first_since(&self, since: u64) -> Option<u64> {
        let usual = u64::try_from(times::USUAL.as_millis()).unwrap_or(0);
        let next = self.marks.iter().skip(1).map(|mark| mark.at_ms).chain([u64::MAX]);
        let mut ends = self.marks.iter().zip(next);
        let first = ends.find(|(mark, next)| (mark.at_ms + usual).min(*next) > since);
        match first {
            Some((mark, _)) => Some(mark.offset),
            None => self.marks.is_empty().then_some(0),
        }
    }

    fn backward(
        &self,
        from: u64,
        count: usize,
        matches: &dyn Fn(&[u8]) -> bool,
    ) -> io::Result<Vec<Line>> {
        let mut lines = Vec::new();
        let mut backward = tail::Backward::new(&self.file, self.size);
        while lines.len() < count
            && let Some((offset, text)) = backward.next()?
            && offset >= from
        {
            // After the last line break is no line.
            let is_end = offset == self.size && text.is_empty();
            if !is_end && matches(&text) {
                lines.push(Line { at: self.time(offset), text });
            }
        }
        lines.reverse();
        Ok(lines)
    }

    fn forward(
        &self,
        from: u64,
        to: Option<u64>,
        each: &mut dyn FnMut(u64, &[u8]),
    ) -> io::Result<()> {
        let mut file = self.file.try_clone()?;
        let mut offset;
        let mut reader: Box<dyn BufRead> = if self.compressed {
            file.seek(SeekFrom::Start(0))?;
            let mut reader = BufReader::new(MultiGzDecoder::new(BufReader::new(file)));
            io::copy(&mut reader.by_ref().take(from), &mut io::sink())?;
            offset = from;
            Box::new(reader)
        } else {
            offset = self.begin(from)?;
            file.seek(SeekFrom::Start(offset))?;
            Box::new(BufReader::with_capacity(
                64 << 10,
                file.take(self.size.saturating_sub(offset)),
            ))
        };
        let mut line = Vec::new();
        while to.is_none_or(|to| offset < to) {
            line.clear();
            let longest = u64::try_from(LONGEST).unwrap_or(u64::MAX);
            let read = reader.by_ref().take(longest).read_until(b'\n', &mut line)?;
            if read == 0 {
                break;
            }
            each(offset, line.strip_suffix(b"\n").unwrap_or(&line));
            offset += u64::try_from(read).unwrap_or(0);
        }
        Ok(())
    }

    /// The beginning of the first line at or after `from`.
    fn begin(&self, from: u64) -> io::Result<u64> {
        let Some(before) = from.checked_sub(1) else { return Ok(0) };
        let (mut at, mut chunk) = (before, [0; 4096]);
        loop {
            let read = self.file.read_at(&mut chunk, at)?;
            if let Some(end) = chunk[..read].iter().position(|byte| *byte == b'\n') {
                return Ok(at + u64::try_from(end).unwrap_or(0) + 1);
            }
            at += u64::try_from(read).unwrap_or(0);
            if read == 0 {
                return Ok(at);
            }
        }
    }

    /// When the line at `offset` was written: not before this.
    fn time(&self, offset: u64) -> u64 {
        let after = self.marks.partition_point(|mark| mark.offset <= offset);
        let mark = after.checked_sub(1).and_then(|at| self.marks.get(at));
        mark.map_or(self.modified, |mark| mark.at_ms)
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

fn millis(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use flate2::{Compression, write::GzEncoder};

    use super::*;

    /// A log of three files with a line each second: 1 to 30, the oldest compressed.
    fn log(marked: bool) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        for (number, first) in [(Some(2), 1), (Some(1), 11), (None, 21)] {
            let lines: Vec<_> = (first..first + 10).map(|n| format!("line {n:02}\n")).collect();
            let text = lines.concat();
            let name =
                number.map_or_else(|| path.clone(), |n: u32| suffixed(&path, &format!(".{n}")));
            let name = if number == Some(2) { suffixed(&name, ".gz") } else { name };
            let mut file = File::create(&name).unwrap();
            if number == Some(2) {
                let mut gzip = GzEncoder::new(&file, Compression::fast());
                gzip.write_all(text.as_bytes()).unwrap();
                gzip.finish().unwrap();
            } else {
                file.write_all(text.as_bytes()).unwrap();
            }
            let modified = UNIX_EPOCH + std::time::Duration::from_secs(first + 9);
            file.set_modified(modified).unwrap();
            if !marked {
                continue;
            }
            let inode = file.metadata().unwrap().ino();
            let mut marks = [b"cltimes1".as_slice(), &inode.to_le_bytes()].concat();
            for nth in 0..10_u64 {
                marks.extend_from_slice(&((first + nth) * 1000).to_le_bytes());
                marks.extend_from_slice(&(nth * 8).to_le_bytes());
            }
            let place = times::place(folder.path(), &path);
            fs::create_dir_all(place.parent().unwrap()).unwrap();
            let place =
                number.map_or_else(|| place.clone(), |n| suffixed(&place, &format!(".{n}")));
            fs::write(place, marks).unwrap();
        }
        (folder, path)
    }

    fn numbers(wanted: Wanted, marked: bool, matches: &dyn Fn(&[u8]) -> bool) -> Vec<u32> {
        let (folder, path) = log(marked);
        let past = read(folder.path(), &path, wanted, matches).unwrap();
        assert_eq!(past.end.unwrap().1, 80);
        let number = |line: Line| String::from_utf8(line.text).unwrap()[5..].parse().unwrap();
        past.lines.into_iter().map(number).collect()
    }

    #[test]
    fn the_last_lines_reach_back_into_rotated_and_compressed_files() {
        let last =
            |lines| numbers(Wanted { lines: Some(lines), ..Wanted::default() }, false, &|_| true);
        assert_eq!(last(0), [0; 0]);
        assert_eq!(last(3), [28, 29, 30]);
        assert_eq!(last(12), (19..=30).collect::<Vec<_>>());
        assert_eq!(last(25), (6..=30).collect::<Vec<_>>());
        assert_eq!(last(99), (1..=30).collect::<Vec<_>>());
        let wanted = Wanted { lines: Some(2), ..Wanted::default() };
        assert_eq!(numbers(wanted, false, &|line| line.ends_with(b"5")), [15, 25]);
    }

    #[test]
    fn lines_of_a_time_are_found_by_marks() {
        let between = |since, until, lines| {
            let wanted = Wanted { lines, since, until, partial: false };
            numbers(wanted, true, &|_| true)
        };
        assert_eq!(between(Some(28_000), None, None), [28, 29, 30]);
        assert_eq!(
            between(Some(28_999), None, None),
            [28, 29, 30],
            "begun before, perhaps written after"
        );
        assert_eq!(between(Some(9_000), Some(12_500), None), [9, 10, 11, 12]);
        assert_eq!(between(None, Some(2_000), None), [1, 2]);
        assert_eq!(between(Some(1_000), Some(15_000), Some(2)), [14, 15]);
        assert_eq!(between(Some(31_000), None, None), [0; 0]);
    }

    #[test]
    fn without_marks_whole_files_are_of_the_time() {
        let (folder, path) = log(false);
        let wanted = Wanted { since: Some(25_000), ..Wanted::default() };
        let past = read(folder.path(), &path, wanted, &|_| true).unwrap();
        assert_eq!((past.lines.len(), past.vague), (10, true));
    }

    #[test]
    fn a_broken_file_hides_no_other() {
        let (folder, path) = log(false);
        let broken = suffixed(&path, ".2.gz");
        fs::write(&broken, "no gzip").unwrap();
        let past = read(folder.path(), &path, Wanted::default(), &|_| true).unwrap();
        assert_eq!(past.lines.len(), 20);
        assert_eq!(past.broken.len(), 1);
        assert_eq!(past.broken[0].0, broken);
    }

    #[test]
    fn a_pipe_is_not_touched() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("fifo");
        nix::unistd::mkfifo(&path, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let past = read(folder.path(), &path, Wanted::default(), &|_| true).unwrap();
        assert!(past.unreadable && past.lines.is_empty() && past.end.is_none());
    }

    #[test]
    fn a_line_without_end_is_left_to_come_or_shown() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.log");
        fs::write(&path, "one\ntwo\nthr").unwrap();
        let texts = |partial, lines| {
            let wanted = Wanted { lines, partial, ..Wanted::default() };
            let past = read(folder.path(), &path, wanted, &|_| true).unwrap();
            let lines = past.lines.into_iter();
            let lines = lines.map(|line| String::from_utf8(line.text).unwrap());
            (lines.collect::<Vec<_>>().join(" "), past.end.unwrap().1)
        };
        assert_eq!(texts(false, Some(1)), ("two".to_owned(), 8));
        assert_eq!(texts(true, Some(1)), ("thr".to_owned(), 11));
        assert_eq!(texts(false, None), ("one two".to_owned(), 8));
        assert_eq!(texts(true, None), ("one two thr".to_owned(), 11));
    }
}
