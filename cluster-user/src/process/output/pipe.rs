//! The pipe between a worker and the daemon.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
};

use rustix::{
    fs::{FileType, Mode, OFlags, fchmod, fstat, open},
    io::{Errno, read},
    pipe::{
        PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice, tee,
    },
    process::geteuid,
};

/// What a pipe holds: what an ordinary user may ask for (`/proc/sys/fs/pipe-max-size`). A worker can write this much
/// while there is no daemon. Pages are taken when they are filled and given back when they are read; empty, a pipe of
/// this size costs 16 KiB of the kernel's memory.
const CAPACITY: usize = 1024 * 1024;

/// A line that is longer comes in pieces where it is not taken as it is.
const LONGEST: usize = 64 * 1024;

/// Who may open the pipe again: see [`Pipe::new`].
const MODE: u32 = 0o622;

/// The daemon's end.
#[derive(Debug)]
pub(super) struct Pipe {
    end: OwnedFd,
    capacity: usize,
    growable: bool,
}

/// A pipe of our own into which others are copied to see what is in them.
#[derive(Debug)]
pub(super) struct Glass {
    inlet: OwnedFd,
    outlet: File,
    /// Where pages go that nobody needs to look at; without it they are read.
    null: Option<File>,
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
        fchmod(&worker, Mode::from_raw_mode(MODE))?;
        Ok((Self::of(end)?, worker))
    }

    /// Opens the pipe with this inode number again, which a process has as one of its descriptors: `likely`, or any.
    ///
    /// The worker's end is open for reading too, so nothing that was written is lost when all daemons are gone. `None` when
    /// none of these processes has it: they have closed it.
    pub(super) fn reopen(inode: u64, pids: &[u32], likely: u32) -> Option<Self> {
        let link = format!("pipe:[{inode}]");
        pids.iter().find_map(|pid| {
            let folder = format!("/proc/{pid}/fd");
            let all = fs::read_dir(&folder).into_iter().flatten().flatten();
            let mut places = [format!("{folder}/{likely}").into()]
                .into_iter()
                .chain(all.map(|entry| entry.path()));
            let place = places
                .find(|place| fs::read_link(place).is_ok_and(|at| at.as_os_str() == &*link))?;
            let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
            let end = open(place, flags, Mode::empty()).ok()?;
            // The descriptor may have become another file's since.
            (inode_of(&end) == Some(inode)).then(|| Self::of(end).ok())?
        })
    }

    fn of(end: OwnedFd) -> io::Result<Self> {
        let capacity = fcntl_getpipe_size(&end)?;
        let mut pipe = Self { end, capacity, growable: true };
        // What ordinary users have in pipes is limited for each of them, to 64 of this size (`pipe-user-pages-soft`):
        // they get it when they need it.
        if geteuid().is_root() {
            pipe.grow();
        }
        Ok(pipe)
    }

    /// What names it to a later daemon.
    pub(super) fn inode(&self) -> Option<u64> {
        inode_of(&self.end)
    }

    /// Copies what is there into `glass`, which must be empty, and leaves it there; never waits. Copies are of references to
    /// pages, not of bytes.
    pub(super) fn look(&mut self, glass: &Glass) -> io::Result<Arrived> {
        match tee(&self.end, &glass.inlet, CAPACITY, SpliceFlags::NONBLOCK) {
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

    /// Moves up to `length` bytes of what is there into a file, at a position: out of the pipe and into the file in one
    /// step, in the middle of which nobody can die. Never waits.
    ///
    /// # Errors
    /// `EINVAL` for a file that takes nothing in this way, `EAGAIN` when nothing is there; else those of writing.
    pub(super) fn move_to(&self, file: &File, position: u64, length: usize) -> io::Result<usize> {
        let mut position = position;
        Ok(splice(&self.end, None, file, Some(&mut position), length, SpliceFlags::NONBLOCK)?)
    }

    /// Takes bytes out that have been seen and are nowhere to go, or have gone there.
    pub(super) fn skip(&self, length: usize) {
        skip(&self.end, length);
    }

    /// The longest beginning of a line that is left in the pipe until the rest of it comes: what is there is in no daemon's
    /// memory, and a worker has room beside it.
    pub(super) fn patience(&self) -> usize {
        LONGEST.min(self.capacity / 2)
    }

    /// Whether so much is in it that the worker may soon have to wait.
    pub(super) fn is_crowded(&self, length: usize) -> bool {
        length >= self.capacity / 2
    }

    fn grow(&mut self) {
        if self.growable && self.capacity < CAPACITY {
            self.growable = false;
            // Refused where the user has too many pipes; it works as it is.
            self.capacity = fcntl_setpipe_size(&self.end, CAPACITY).unwrap_or(self.capacity);
        }
    }
}

impl Glass {
    pub(super) fn new() -> io::Result<Self> {
        let (outlet, inlet) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
        // Where that is refused less is seen at a time.
        fcntl_setpipe_size(&inlet, CAPACITY).unwrap_or(0);
        let null = File::options().write(true).open("/dev/null").ok();
        Ok(Self { inlet, outlet: outlet.into(), null })
    }

    /// Reads as much as `buffer` has room for, which must be in there.
    ///
    /// # Errors
    /// When it is not.
    pub(super) fn read(&self, buffer: &mut [u8]) -> io::Result<()> {
        (&self.outlet).read_exact(buffer)
    }

    /// Takes bytes out of a pipe that nobody needs.
    pub(super) fn discard(&self, pipe: &Pipe, mut length: usize) {
        while let Some(null) = self.null.as_ref().filter(|_| length > 0) {
            match splice(&pipe.end, None, null, None, length, SpliceFlags::NONBLOCK) {
                Ok(passed) if passed > 0 => length -= passed,
                Ok(_) | Err(_) => break,
            }
        }
        pipe.skip(length);
    }

    /// Drops the next bytes.
    pub(super) fn pass(&self, mut length: usize) {
        while let Some(null) = self.null.as_ref().filter(|_| length > 0) {
            match splice(&self.outlet, None, null, None, length, SpliceFlags::NONBLOCK) {
                Ok(passed) if passed > 0 => length -= passed,
                Ok(_) | Err(_) => break,
            }
        }
        skip(&self.outlet, length);
    }
}

fn skip(end: impl AsFd, mut length: usize) {
    let mut buffer = [0; 4096];
    while length > 0 {
        let wanted = length.min(buffer.len());
        match read(&end, buffer.get_mut(..wanted).unwrap_or_default()) {
            Ok(0) | Err(_) => return,
            Ok(taken) => length -= taken,
        }
    }
}

/// Inode number of a pipe; `None` for anything else.
fn inode_of(end: &OwnedFd) -> Option<u64> {
    let stat = fstat(end).ok()?;
    (FileType::from_raw_mode(stat.st_mode) == FileType::Fifo).then_some(stat.st_ino)
}

/// Inode numbers of the pipes that a process has as standard output and error, as far as they were made here and for
/// workers.
pub(super) fn of_process(pid: u32) -> [Option<u64>; 2] {
    [1, 2].map(|fd| {
        let stat = rustix::fs::stat(format!("/proc/{pid}/fd/{fd}")).ok()?;
        let ours = FileType::from_raw_mode(stat.st_mode) == FileType::Fifo
            && stat.st_mode & 0o777 == MODE
            && stat.st_uid == geteuid().as_raw();
        ours.then_some(stat.st_ino)
    })
}

impl AsFd for Pipe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

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
        let (glass, mut buffer) = (Glass::new().unwrap(), [0; 5]);
        assert_eq!(pipe.look(&glass).unwrap(), Arrived::Nothing);
        File::from(worker).write_all(b"last words").unwrap();
        assert_eq!(pipe.look(&glass).unwrap(), Arrived::Bytes(10));
        glass.pass(5);
        glass.read(&mut buffer).unwrap();
        assert_eq!(&buffer, b"words");
        pipe.skip(5);
        assert_eq!(pipe.look(&glass).unwrap(), Arrived::Bytes(5), "it is there still");
        glass.pass(5);
        pipe.skip(5);
        assert_eq!(pipe.look(&glass).unwrap(), Arrived::End);
    }

    #[test]
    fn a_pipe_holds_a_megabyte_where_that_is_allowed_and_grows_where_it_is_not() {
        let (mut pipe, worker) = Pipe::new().unwrap();
        assert_eq!(pipe.capacity == CAPACITY, geteuid().is_root());
        let mut worker = File::from(worker);
        worker.write_all(&vec![b'x'; pipe.capacity]).unwrap();
        let glass = Glass::new().unwrap();
        let seen = pipe.look(&glass).unwrap();
        assert_eq!(seen, Arrived::Bytes(fcntl_getpipe_size(&glass.inlet).unwrap()));
        assert!(pipe.capacity == CAPACITY || !pipe.growable);
    }

    #[test]
    fn a_pipe_is_found_again_by_its_number() {
        let (pipe, worker) = Pipe::new().unwrap();
        let (other, _worker) = Pipe::new().unwrap();
        let inode = pipe.inode().unwrap();
        let me = std::process::id();
        File::from(worker.try_clone().unwrap()).write_all(b"unread").unwrap();
        drop(pipe);

        let mut found = Pipe::reopen(inode, &[me], 1).unwrap();

        let glass = Glass::new().unwrap();
        assert_eq!(found.look(&glass).unwrap(), Arrived::Bytes(6));
        assert_ne!(other.inode(), Some(inode));
        drop((found, worker));
        assert!(Pipe::reopen(inode, &[me], 1).is_none(), "nobody has it");
    }
}
