//! The lines of a file, read from its end.

use std::{fs::File, io, os::unix::fs::FileExt as _};

/// How much is read at a time.
const BLOCK: u64 = 64 << 10;
/// Longer lines come in pieces.
pub(super) const LONGEST: usize = 1 << 20;

/// Lines from the end of a file to its beginning. The first is what follows the last line break, nothing most often.
pub(super) struct Backward<'a> {
    file: &'a File,
    /// What is before this has not been read.
    start: u64,
    /// What has been read and not returned.
    read: Vec<u8>,
    /// Whether the first line has been returned.
    first: bool,
}

impl<'a> Backward<'a> {
    /// Of what is before `end`.
    pub(super) fn new(file: &'a File, end: u64) -> Self {
        Self { file, start: end, read: Vec::new(), first: false }
    }

    /// The next line without its line break, and where it begins.
    ///
    /// # Errors
    /// What the kernel says.
    pub(super) fn next(&mut self) -> io::Result<Option<(u64, Vec<u8>)>> {
        let mut searched = 0; // from the end of `read`
        loop {
            let unsearched = self.read.len() - searched;
            if let Some(at) = self.read[..unsearched].iter().rposition(|byte| *byte == b'\n') {
                let line = self.read.split_off(at + 1);
                self.read.pop();
                return Ok(Some((self.start + u64::try_from(at).unwrap_or(0) + 1, line)));
            }
            if self.start == 0 {
                let first = !std::mem::replace(&mut self.first, true);
                return Ok(first.then(|| (0, std::mem::take(&mut self.read))));
            }
            searched = self.read.len();
            if searched >= LONGEST {
                return Ok(Some((self.start, std::mem::take(&mut self.read))));
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
        let mut backward = Backward::new(file.as_file(), (10 << 30) + 12);
        let mut next = || backward.next().unwrap().unwrap();
        assert_eq!(next(), ((10 << 30) + 9, b"thr".to_vec()));
        assert_eq!(next(), ((10 << 30) + 5, b"two".to_vec()));
        assert_eq!(next(), ((10 << 30) + 1, b"one".to_vec()));
    }

    proptest! {
        #[test]
        fn lines_are_those_of_the_whole_and_begin_where_it_is_said(
            lines in proptest::collection::vec("[a-c]{0,3}", 0..20),
            long in 0usize..200_000,
        ) {
            let mut lines = lines;
            lines.insert(lines.len() / 2, "x".repeat(long));
            let file = tempfile::NamedTempFile::new().unwrap();
            let text = lines.join("\n");
            fs::write(file.path(), &text).unwrap();
            let mut backward = Backward::new(file.as_file(), u64::try_from(text.len()).unwrap());
            let mut read = Vec::new();
            while let Some((offset, line)) = backward.next().unwrap() {
                let at = usize::try_from(offset).unwrap();
                prop_assert_eq!(&text.as_bytes()[at..at + line.len()], &line[..]);
                read.push(String::from_utf8(line).unwrap());
            }
            read.reverse();
            prop_assert_eq!(read, lines);
        }
    }
}
