//! Files that the user names: read to their end, as long as that is not too far away.

use std::{
    fs::File,
    io::{self, Read as _},
    os::unix::fs::FileTypeExt as _,
    path::Path,
};

/// Largest experiment.
pub(crate) const EXPERIMENT: u64 = 1 << 20;
/// Largest trace: millions of lines.
pub(crate) const TRACE: u64 = 16 << 20;
/// Largest file of results.
pub(crate) const RESULTS: u64 = 1 << 30;

const NOT_REGULAR: &str = "it is no regular file";

/// Reads a text of at most so many bytes from a regular file or a pipe.
///
/// # Errors
/// A lowercase fragment: why it cannot be read, what it is instead, or that there is more.
pub(crate) fn read(path: &Path, most: u64) -> Result<String, String> {
    let reason = |error: io::Error| error.to_string();
    let file = File::open(path).map_err(reason)?;
    let kind = file.metadata().map_err(reason)?.file_type();
    if !kind.is_file() && !kind.is_fifo() {
        return Err(NOT_REGULAR.to_owned());
    }
    let mut text = String::new();
    file.take(most + 1).read_to_string(&mut text).map_err(reason)?;
    if text.len() as u64 > most {
        return Err(format!("it is larger than {} MiB", most >> 20));
    }
    Ok(text)
}

/// The same for a file that is read once for each run, which a pipe cannot be.
///
/// # Errors
/// As [`read`].
pub(crate) fn read_again(path: &Path, most: u64) -> Result<String, String> {
    if path.metadata().is_ok_and(|metadata| metadata.file_type().is_fifo()) {
        return Err(NOT_REGULAR.to_owned());
    }
    read(path, most)
}

#[cfg(test)]
mod tests {
    use std::{fs, io::Write as _, thread};

    use nix::sys::stat::Mode;

    use super::*;

    #[test]
    fn what_has_no_end_and_what_is_too_large_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path(), 8).unwrap_err(), "it is no regular file");
        assert_eq!(read(Path::new("/dev/zero"), 8).unwrap_err(), "it is no regular file");
        let file = folder.path().join("file");
        fs::write(&file, vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(read(&file, 1 << 20).unwrap_err(), "it is larger than 1 MiB");
        assert_eq!(read(&file, 2 << 20).unwrap().len(), 2 << 20);
    }

    #[test]
    fn a_pipe_is_read_and_has_the_same_bound() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join("pipe");
        nix::unistd::mkfifo(&pipe, Mode::S_IRWXU).unwrap();
        assert!(read_again(&pipe, 1 << 20).is_err(), "it would be empty the second time");
        for (length, fits) in [(8, true), (2 << 20, false)] {
            let to = pipe.clone();
            let writing = thread::spawn(move || {
                // Who reads may have gone before all is written.
                drop(File::options().write(true).open(to).unwrap().write_all(&vec![b'x'; length]));
            });
            assert_eq!(read(&pipe, 1 << 20).is_ok(), fits);
            writing.join().unwrap();
        }
    }
}
