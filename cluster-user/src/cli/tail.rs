//! The last lines of a file, read from its end.

use std::{fs::File, io, os::unix::fs::FileExt as _, path::Path, time::SystemTime};

/// How much is read at a time.
const BLOCK: u64 = 64 << 10;
/// Longer lines come in pieces.
pub(super) const LONGEST: usize = 1 << 20;

/// The last lines of a file.
#[derive(Debug)]
pub(super) struct Tail {
    /// The lines, oldest first, without line breaks.
    pub(super) lines: Vec<Vec<u8>>,
    /// When it was last written to; absent when there is no file yet.
    pub(super) modified: Option<SystemTime>,
    /// The file and where what was not returned begins.
    pub(super) end: Option<(File, u64)>,
}

/// Reads the last `count` lines that are `wanted`. A last line without line break counts only if `partial`.
///
/// # Errors
/// What the kernel says, other than that there is no such file.
pub(super) fn read(
    path: &Path,
    count: usize,
    partial: bool,
    wanted: &dyn Fn(&[u8]) -> bool,
) -> io::Result<Tail> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            return Ok(Tail { lines: Vec::new(), modified: None, end: None });
        }
        Err(error) => return Err(error),
    };
    let metadata = file.metadata()?;
    let mut backward =
        Backward { file: &file, start: metadata.len(), read: Vec::new(), first: false };
    let mut end = metadata.len();
    let mut lines = Vec::new();
    // What follows the last line break.
    if let Some(rest) = backward.next()?
        && !rest.is_empty()
    {
        if partial {
            if wanted(&rest) && count > 0 {
                lines.push(rest);
            }
        } else {
            end -= u64::try_from(rest.len()).unwrap_or(0);
        }
    }
    while lines.len() < count
        && let Some(line) = backward.next()?
    {
        if wanted(&line) {
            lines.push(line);
        }
    }
    lines.reverse();
    Ok(Tail { lines, modified: metadata.modified().ok(), end: Some((file, end)) })
}

/// Lines from the end of a file to its beginning.
struct Backward<'a> {
    file: &'a File,
    /// What is before this has not been read.
    start: u64,
    /// What has been read and not returned.
    read: Vec<u8>,
    /// Whether the first line has been returned.
    first: bool,
}

impl Backward<'_> {
    fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut searched = 0; // from the end of `read`
        loop {
            let unsearched = self.read.len() - searched;
            if let Some(at) = self.read[..unsearched].iter().rposition(|byte| *byte == b'\n') {
                let line = self.read.split_off(at + 1);
                self.read.pop();
                return Ok(Some(line));
            }
            if self.start == 0 {
                let first = !std::mem::replace(&mut self.first, true);
                return Ok(first.then(|| std::mem::take(&mut self.read)));
            }
            searched = self.read.len();
            if searched >= LONGEST {
                return Ok(Some(std::mem::take(&mut self.read)));
            }
            let from = self.start.saturating_sub(BLOCK);
            let mut block = vec![0; usize::try_from(self.start - from).unwrap_or(0)];
            match self.file.read_exact_at(&mut block, from) {
                // It was emptied in the meantime: there is no more.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => block.clear(),
                other => other?,
            }
            block.append(&mut self.read);
            self.read = block;
            self.start = from;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn only_the_end_of_a_large_file_is_read() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(10 << 30).unwrap(); // ten sparse gigabytes
        file.as_file_mut().write_all(b"").unwrap();
        let mut end = fs::OpenOptions::new().append(true).open(file.path()).unwrap();
        end.write_all(b"\none\ntwo\nthr").unwrap();
        let tail = read(file.path(), 2, false, &|_| true).unwrap();
        assert_eq!(tail.lines, [b"one", b"two"]);
        assert_eq!(tail.end.unwrap().1, (10 << 30) + 9, "the partial line is left to come");
        assert_eq!(read(file.path(), 1, true, &|_| true).unwrap().lines, [b"thr"]);
    }

    #[test]
    fn a_file_that_is_not_there_yet_has_no_lines() {
        let tail = read(Path::new("/no/such/file"), 5, false, &|_| true).unwrap();
        assert!(tail.lines.is_empty() && tail.end.is_none());
    }

    #[test]
    fn no_lines_are_no_lines() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "a\nb\n").unwrap();
        assert!(read(file.path(), 0, true, &|_| true).unwrap().lines.is_empty());
    }

    proptest! {
        #[test]
        fn the_last_lines_are_those_of_the_whole(
            lines in proptest::collection::vec("[a-c]{0,3}", 0..20),
            long in 0usize..200_000,
            count in 0usize..25,
        ) {
            let mut lines = lines;
            lines.insert(lines.len() / 2, "x".repeat(long));
            let file = tempfile::NamedTempFile::new().unwrap();
            fs::write(file.path(), format!("{}\n", lines.join("\n"))).unwrap();
            let wanted = |line: &[u8]| !line.starts_with(b"a");
            let tail = read(file.path(), count, false, &wanted).unwrap();
            let kept: Vec<_> = lines.iter().filter(|line| wanted(line.as_bytes())).collect();
            let expected = &kept[kept.len().saturating_sub(count)..];
            let read: Vec<_> = tail.lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
            prop_assert_eq!(read, expected.iter().map(|line| line.as_str()).collect::<Vec<_>>());
        }
    }
}
