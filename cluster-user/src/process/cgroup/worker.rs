//! The cgroup of one worker.

use std::{
    fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    str::FromStr,
};

use rustix::{
    fs::{Mode, OFlags, fstat, openat},
    io::{Errno, pread, read, write},
    process::{Pid, Signal, kill_process},
};
use tokio::io::Interest;

use super::{super::ready::register, folders, open_folder, remove_tree};

/// Rounds of SIGKILL for a tree that forks while it is being killed, where `cgroup.kill` is not to be had.
const ROUNDS: usize = 100;

/// The cgroup of one worker, its sub-cgroups included.
#[derive(Debug)]
pub struct WorkerCgroup {
    path: PathBuf,
    folder: OwnedFd,
    id: u64,
}

impl WorkerCgroup {
    pub(super) fn make(path: PathBuf) -> io::Result<Self> {
        match fs::create_dir(&path) {
            // An empty one that an earlier attempt left serves as well.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                remove_tree(&path)?;
                fs::create_dir(&path)?;
            }
            other => other?,
        }
        Self::adopt(path)
    }

    /// Takes hold of one that exists.
    pub(super) fn adopt(path: PathBuf) -> io::Result<Self> {
        let folder = open_folder(&path)?;
        let id = fstat(&folder)?.st_ino;
        Ok(Self { path, folder, id })
    }

    /// What `bpf_get_current_cgroup_id` calls it: the inode number of its folder.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Its folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of its folder, to be born in.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Last part of its path.
    pub(super) fn name(&self) -> String {
        self.path.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned())
    }

    /// Kills every process in it at once (`cgroup.kill`, Linux 5.14), or one by one before that.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        match openat(&self.folder, "cgroup.kill", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()) {
            Ok(file) => Ok(write(&file, b"1").map(drop)?),
            Err(Errno::NOENT) => self.kill_each(),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn kill_each(&self) -> io::Result<()> {
        for _ in 0..ROUNDS {
            let pids = self.pids()?;
            if pids.is_empty() {
                return Ok(());
            }
            for pid in pids.into_iter().filter_map(|pid| Pid::from_raw(pid.cast_signed())) {
                match kill_process(pid, Signal::KILL) {
                    Ok(()) | Err(Errno::SRCH) => {}
                    Err(error) => return Err(error.into()),
                }
            }
        }
        Ok(())
    }

    /// Pids of all processes in it and below it, zombies not counted.
    ///
    /// # Errors
    /// When it was removed.
    pub fn pids(&self) -> io::Result<Vec<u32>> {
        let mut pids = Vec::new();
        read_pids(&self.folder, &mut pids)?;
        // A folder has a link from each sub-folder: without any there is no need to list it.
        if fstat(&self.folder)?.st_nlink > 2 {
            gather(&self.path, &mut pids)?;
        }
        Ok(pids)
    }

    /// Pids of all processes in cgroups of workers and hooks of the same daemon.
    pub fn beside(&self) -> Vec<u32> {
        let mut pids = Vec::new();
        let all = self.path.ancestors().nth(2);
        // What cannot be read is no reason to leave it alone.
        match all.map(|all| gather(all, &mut pids)) {
            Some(Ok(())) => pids,
            Some(Err(_)) | None => Vec::new(),
        }
    }

    /// Whether a process is in it or below it, or was when it became a zombie: it stays where it ended until it is reaped
    /// (cgroup-v2.rst, "Processes"), and `cgroup.procs` does not have it any more.
    pub fn holds(&self, pid: u32) -> bool {
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let Some(place) = text.lines().find_map(|line| line.strip_prefix("0::")) else {
            return false;
        };
        // What the kernel says begins at the root of this process's namespace, wherever that is mounted: what is below it
        // is compared, which are home, app and worker.
        let mut own: Vec<_> = self.path.iter().rev().take(3).collect();
        own.reverse();
        let place: Vec<_> = Path::new(place).iter().collect();
        place.windows(own.len()).any(|names| names == own)
    }

    /// CPU time of all processes that are or were in it, in microseconds.
    ///
    /// # Errors
    /// When it was removed.
    pub fn cpu_usec(&self) -> io::Result<u64> {
        let file = open_file(&self.folder, "cpu.stat")?;
        let mut buffer = [0; 1024];
        let length = read(&file, &mut buffer)?;
        value(&buffer[..length], "usage_usec").ok_or_else(|| unreadable("cpu.stat"))
    }

    /// Whether there is a living process in it or below it.
    ///
    /// # Errors
    /// When it was removed.
    pub fn populated(&self) -> io::Result<bool> {
        populated(&self.events()?)
    }

    /// Waits until no process is left. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn empty(&self) -> io::Result<()> {
        let events = register(self.events()?, Interest::PRIORITY)?;
        loop {
            // Reading arms the next event, so a change after it is never missed (kernel: kernfs_fop_poll).
            if !populated(events.get_ref())? {
                return Ok(());
            }
            events.ready(Interest::PRIORITY).await?.clear_ready();
        }
    }

    /// `cgroup.events`, which can be waited for (`POLLPRI`).
    pub(super) fn events(&self) -> io::Result<OwnedFd> {
        open_file(&self.folder, "cgroup.events")
    }

    /// Removes it and what is below it. One that is gone already is no error.
    ///
    /// # Errors
    /// `EBUSY` when a process is left.
    pub fn remove(&self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Whether `cgroup.events` says that there is a living process.
pub(super) fn populated(events: &OwnedFd) -> io::Result<bool> {
    let mut buffer = [0; 256];
    let length = match pread(events, &mut buffer, 0) {
        // The folder was removed while the file was open: nothing lives there.
        Err(Errno::NODEV) => return Ok(false),
        other => other?,
    };
    let populated: u32 =
        value(&buffer[..length], "populated").ok_or_else(|| unreadable("cgroup.events"))?;
    Ok(populated != 0)
}

fn open_file(folder: &OwnedFd, name: &str) -> io::Result<OwnedFd> {
    Ok(openat(folder, name, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Pids of everything below `path`. Sub-cgroups that vanish meanwhile have no processes.
fn gather(path: &Path, pids: &mut Vec<u32>) -> io::Result<()> {
    for below in folders(path)? {
        if let Ok(folder) = open_folder(&below) {
            read_pids(&folder, pids)?;
            gather(&below, pids)?;
        }
    }
    Ok(())
}

fn read_pids(folder: &OwnedFd, pids: &mut Vec<u32>) -> io::Result<()> {
    let file = match openat(folder, "cgroup.procs", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
    {
        Err(Errno::NOENT) => return Ok(()),
        other => other?,
    };
    let text = match io::read_to_string(fs::File::from(file)) {
        // Removed meanwhile, or a threaded sub-cgroup, whose processes are listed above it.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENODEV | libc::EOPNOTSUPP)) => {
            return Ok(());
        }
        other => other?,
    };
    pids.extend(text.lines().filter_map(|line| line.parse::<u32>().ok()));
    Ok(())
}

/// The value of a line `key value`.
pub(super) fn value<T: FromStr>(text: &[u8], key: &str) -> Option<T> {
    let text = str::from_utf8(text).ok()?;
    text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.parse().ok())
}

fn unreadable(name: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{name} of a cgroup is not understood"))
}
