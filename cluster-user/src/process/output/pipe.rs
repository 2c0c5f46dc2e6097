//! The pipe between a worker and the daemon.

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{Mode, OFlags, fchmod, open},
    io::{Errno, read},
    pipe::{PipeFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with},
};

/// Capacity of a pipe whose worker writes faster than it is read: what an ordinary user may ask for
/// (`/proc/sys/fs/pipe-max-size`).
const GROWN: usize = 1024 * 1024;

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Pipe {
    end: OwnedFd,
    capacity: usize,
    growable: bool,
}

/// What a look into the pipe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrived {
    /// So many bytes.
    Bytes(usize),
    /// Nothing at the moment.
    Nothing,
    /// The last process that could write has closed it, and it is empty.
    End,
}

impl Pipe {
    /// Makes a pipe; the second is the worker's end.
    pub(super) fn new() -> io::Result<(Self, OwnedFd)> {
        let (end, theirs) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Opened again it is a file description of its own: for both directions, and blocking.
        let worker = open(
            format!("/proc/self/fd/{}", theirs.as_raw_fd()),
            OFlags::RDWR | OFlags::CLOEXEC,
            Mode::empty(),
        )?;
        // Workers of other users open /dev/stdout, which is this pipe; nobody else can name it.
        fchmod(&worker, Mode::from_raw_mode(0o622))?;
        let capacity = fcntl_getpipe_size(&end)?;
        Ok((Self { end, capacity, growable: true }, worker))
    }

    /// Reads what is there, into `buffer`; never waits.
    pub(super) fn read(&mut self, buffer: &mut [u8]) -> io::Result<Arrived> {
        match read(&self.end, buffer) {
            Ok(0) => Ok(Arrived::End),
            Ok(length) => {
                if length >= self.capacity {
                    self.grow();
                }
                Ok(Arrived::Bytes(length))
            }
            Err(Errno::AGAIN | Errno::INTR) => Ok(Arrived::Nothing),
            Err(error) => Err(error.into()),
        }
    }

    /// Capacity is only given to those who need it: it counts against a limit per user
    /// (`pipe-user-pages-soft`), and all pages of a grown pipe may come to be used.
    fn grow(&mut self) {
        if self.growable && self.capacity < GROWN {
            self.growable = false;
            // Refused where the user has too many pipes; it works as it is.
            self.capacity = fcntl_setpipe_size(&self.end, GROWN).unwrap_or(self.capacity);
        }
    }
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Write as _};

    use super::*;

    #[test]
    fn a_writer_outlives_the_reader() {
        let (pipe, worker) = Pipe::new().unwrap();
        drop(pipe);
        File::from(worker).write_all(b"nobody reads this").unwrap();
    }

    #[test]
    fn a_pipe_ends_with_its_last_writer() {
        let (mut pipe, worker) = Pipe::new().unwrap();
        let mut buffer = [0; 16];
        assert_eq!(pipe.read(&mut buffer).unwrap(), Arrived::Nothing);
        File::from(worker).write_all(b"last words").unwrap();
        assert_eq!(pipe.read(&mut buffer).unwrap(), Arrived::Bytes(10));
        assert_eq!(pipe.read(&mut buffer).unwrap(), Arrived::End);
    }

    #[test]
    fn a_pipe_grows_once_it_was_found_full() {
        let (mut pipe, worker) = Pipe::new().unwrap();
        let capacity = pipe.capacity;
        let mut worker = File::from(worker);
        worker.write_all(&vec![b'x'; capacity]).unwrap();
        let mut buffer = vec![0; GROWN];
        assert_eq!(pipe.read(&mut buffer).unwrap(), Arrived::Bytes(capacity));
        assert!(pipe.capacity == GROWN || !pipe.growable);
    }
}
