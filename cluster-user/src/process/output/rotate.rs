//! Rotation: where a file ends and the next begins, and how files move up.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// How much of the next bytes belongs into the current file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cut {
    /// So many of them.
    pub(super) length: usize,
    /// Whether the file is full then.
    pub(super) full: bool,
}

/// Decides how much of `bytes` goes into a file of `size` bytes that shall not exceed `max`.
///
/// `line_open` says that the file ends in the middle of a line. A file ends at the last line end that
/// fits; a line that began in it may finish beyond `max`, unless the line alone is longer than that.
pub(super) fn cut(bytes: &[u8], size: u64, line_open: bool, max: u64) -> Cut {
    let room = max.saturating_sub(size);
    let (within, beyond) = split(bytes, room);
    if beyond.is_empty() {
        return Cut { length: bytes.len(), full: false };
    }
    if let Some(end) = last_line_end(within) {
        return Cut { length: end, full: true };
    }
    if !line_open && size > 0 {
        return Cut { length: 0, full: true };
    }
    let (finish, rest) = split(bytes, max.saturating_mul(2).saturating_sub(size));
    match (first_line_end(finish), rest.is_empty()) {
        (Some(end), _) => Cut { length: end, full: true },
        (None, true) => Cut { length: bytes.len(), full: false },
        (None, false) => Cut { length: finish.len(), full: true },
    }
}

/// Moves `path` to `path.1`, that to `path.2`, and so on up to `keep`; what is beyond is removed. So with compressed ones.
pub(super) fn shift(path: &Path, keep: u32) -> io::Result<()> {
    // Also what was kept when more were to be kept.
    for number in keep.max(1).. {
        if !remove(path, number)? {
            break;
        }
    }
    if keep == 0 {
        return absent_is_fine(fs::remove_file(path));
    }
    for number in (1..keep).rev() {
        let next = number + 1;
        absent_is_fine(fs::rename(numbered(path, number), numbered(path, next)))?;
        absent_is_fine(fs::rename(compressed(path, number), compressed(path, next)))?;
    }
    absent_is_fine(fs::rename(path, numbered(path, 1)))
}

/// Removes a rotated file, compressed or not; whether there was one.
pub(super) fn remove(path: &Path, number: u32) -> io::Result<bool> {
    let mut found = false;
    for name in [numbered(path, number), compressed(path, number)] {
        match fs::remove_file(name) {
            Ok(()) => found = true,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// `path.number.gz`
pub(super) fn compressed(path: &Path, number: u32) -> PathBuf {
    let mut name = numbered(path, number).into_os_string();
    name.push(".gz");
    name.into()
}

/// `path.number`
pub(super) fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Position after the last line end.
pub(super) fn last_line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().rposition(|byte| *byte == b'\n').map(|at| at + 1)
}

/// Position after the first line end.
pub(super) fn first_line_end(bytes: &[u8]) -> Option<usize> {
    bytes.iter().position(|byte| *byte == b'\n').map(|at| at + 1)
}

fn split(bytes: &[u8], at: u64) -> (&[u8], &[u8]) {
    bytes.split_at(usize::try_from(at).map_or(bytes.len(), |at| at.min(bytes.len())))
}

pub(super) fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_not_cut() {
        assert_eq!(cut(b"abc\n", 6, false, 10), Cut { length: 4, full: false });
    }

    #[test]
    fn a_file_ends_at_the_last_line_end_that_fits() {
        assert_eq!(cut(b"a\nb\ncdefgh\n", 4, false, 10), Cut { length: 4, full: true });
    }

    #[test]
    fn a_line_that_does_not_fit_begins_the_next_file() {
        assert_eq!(cut(b"abcdef\n", 6, false, 10), Cut { length: 0, full: true });
    }

    #[test]
    fn a_line_that_began_in_a_file_ends_in_it() {
        assert_eq!(cut(b"abcdef\nx\n", 6, true, 10), Cut { length: 7, full: true });
    }

    #[test]
    fn a_line_longer_than_a_file_is_split() {
        assert_eq!(cut(&[b'x'; 30], 0, false, 10), Cut { length: 20, full: true });
        assert_eq!(cut(&[b'x'; 30], 20, true, 10), Cut { length: 0, full: true });
    }
}
