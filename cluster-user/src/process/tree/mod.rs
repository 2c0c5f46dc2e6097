//! A worker's processes: all that it started, also what it sent into the background.
//!
//! In a cgroup the kernel keeps them together, unless the main process goes to another one, as whoever may do anything can.
//! Without one, and then, they are found by what a process can hardly get rid of: its session, its ancestry, and a variable in
//! the environment it was started with. Who has lost all three is not found: it leads a session of its own, its parents have
//! ended, and its environment was replaced, or is another user's, which only root may read. Nor is who leaves the cgroup while
//! the main process stays in it: to look for those, all of `/proc` would have to be read whenever a worker ends.

mod leftovers;
mod marker;
mod remains;
mod scan;

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    sync::atomic::{AtomicBool, Ordering},
};

use nix::errno::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::io::Interest;

pub(super) use self::scan::Snapshot;
pub use self::{
    leftovers::{end_unclaimed, marked},
    marker::Marker,
    remains::Remains,
};
use super::{cgroup::WorkerCgroup, proc::Stat, ready::register};
use crate::environ;

/// Rounds of SIGKILL at once for a tree without a cgroup that forks while it is being killed. Each reads all of `/proc`, and
/// whoever calls has others to look after: [`Tree::end`] goes on.
const ROUNDS: usize = 3;

/// A worker's processes.
#[derive(Debug)]
pub struct Tree {
    pid: u32,
    process: OwnedFd,
    /// When its main process started, in clock ticks since boot; 0 when that could not be read.
    started: u64,
    /// What keeps its processes together, where there are cgroups.
    cgroup: Option<WorkerCgroup>,
    /// What they have in their environment.
    marker: Marker,
    /// Whether the main process was seen outside of its cgroup, or may have been: what it starts there is there, too.
    strayed: AtomicBool,
}

impl Tree {
    /// The tree of a process that leads a session, has `marker` in its environment, and was born in `cgroup`, where there is
    /// one.
    pub fn new(pid: u32, process: OwnedFd, cgroup: Option<WorkerCgroup>, marker: Marker) -> Self {
        let started = Stat::of(pid).map_or(0, |stat| stat.started);
        Self { pid, process, started, cgroup, marker, strayed: AtomicBool::new(false) }
    }

    /// The tree that an earlier daemon of this boot started in `cgroup`, if its main process still lives: the one of that
    /// pid that started then. A pid alone may be anybody's by now. It may have gone to another cgroup, but not to that of
    /// another worker.
    pub fn adopt_in_cgroup(
        pid: u32,
        started: u64,
        cgroup: WorkerCgroup,
        marker: Marker,
    ) -> Option<Self> {
        // The descriptor is taken before it is looked whose it is.
        let process = open(pid)?;
        let member = cgroup.pids().unwrap_or_default().contains(&pid);
        let is_it = member
            || Stat::of(pid).is_some_and(|stat| stat.session == pid)
                && !cgroup.beside().contains(&pid);
        let strayed = AtomicBool::new(false);
        let tree = Self { pid, process, started, cgroup: Some(cgroup), marker, strayed };
        (is_it && lives(pid, started)).then_some(tree)
    }

    /// As [`Tree::adopt_in_cgroup`], of a process that has `marker` in its environment.
    pub fn adopt_marked(pid: u32, started: u64, marker: Marker) -> Option<Self> {
        let process = open(pid)?;
        let member = environ::has_variable(pid, &marker.to_string());
        let strayed = AtomicBool::new(false);
        let tree = Self { pid, process, started, cgroup: None, marker, strayed };
        (member && lives(pid, started)).then_some(tree)
    }

    /// When its main process started, in clock ticks since boot: with its pid, what an adopter needs. 0 when that could
    /// not be read.
    pub fn started(&self) -> u64 {
        self.started
    }

    /// Pid of its main process, the first.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// A descriptor of its main process.
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// Its cgroup, where it has one.
    pub fn cgroup(&self) -> Option<&WorkerCgroup> {
        self.cgroup.as_ref()
    }

    /// Pids of all its living processes. Where there is no cgroup this reads all of `/proc`.
    pub fn pids(&self) -> Vec<u32> {
        let Some(cgroup) = &self.cgroup else {
            let members = Snapshot::take().members(self.pid, self.started, Some(&self.marker));
            return members.into_iter().map(|stat| stat.pid).collect();
        };
        // A cgroup that was removed has none.
        let mut pids = cgroup.pids().unwrap_or_default();
        pids.extend(self.outside(cgroup, &pids));
        pids
    }

    /// Those that are not in its cgroup, beside those that are. All of `/proc` is read only when the main process has left it.
    fn outside(&self, cgroup: &WorkerCgroup, inside: &[u32]) -> Vec<u32> {
        if !inside.contains(&self.pid) && lives(self.pid, self.started) {
            self.strayed.store(true, Ordering::Relaxed);
        }
        if !self.strayed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let all = Snapshot::take();
        let kin: BTreeSet<u32> = self.members(&all).into_iter().map(|stat| stat.pid).collect();
        // Its hooks have the marker too, and cgroups of their own.
        let mut spared = cgroup.beside();
        spared.extend(leftovers::ancestors());
        let marked = all.members(self.pid, self.started, Some(&self.marker)).into_iter();
        let found = marked.map(|stat| stat.pid);
        found
            .filter(|pid| !inside.contains(pid) && (kin.contains(pid) || !spared.contains(pid)))
            .collect()
    }

    /// To be called when its main process has ended and was not reaped yet: whether it ended in its cgroup. If it did not, or
    /// if that is not to be seen any more, what it left elsewhere is looked for when the tree is killed.
    pub fn look_back(&self) {
        let Some(cgroup) = &self.cgroup else { return };
        let stat = Stat::of(self.pid);
        let is_it = stat.is_some_and(|stat| stat.state == 'Z' && stat.started == self.started);
        if !(is_it && cgroup.holds(self.pid)) {
            self.strayed.store(true, Ordering::Relaxed);
        }
    }

    /// What is known without looking at environments; for figures, where a stray more or less matters
    /// little.
    pub(super) fn members(&self, all: &Snapshot) -> Vec<Stat> {
        all.members(self.pid, self.started, None)
    }

    /// Sends a signal to its main process. One that has ended is no error.
    ///
    /// # Errors
    /// `EINVAL` for a number that is no signal, `EPERM` when the process may not be signalled.
    pub fn signal(&self, signal: i32) -> io::Result<()> {
        send(self.process.as_fd(), signal)
    }

    /// Sends a signal to every process of the tree.
    ///
    /// # Errors
    /// As for [`Tree::signal`]; the others are signalled all the same.
    pub fn signal_all(&self, signal: i32) -> io::Result<()> {
        self.send_to(&self.pids(), signal)
    }

    /// Kills every process of the tree. [`Tree::end`] sees to those that are forked meanwhile, and says when all are gone.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn kill(&self) -> io::Result<()> {
        let Some(cgroup) = &self.cgroup else { return self.kill_each(self.pids()) };
        // Before anybody ends: whose child a process is, is then not to be seen any more.
        let outside = self.outside(cgroup, &cgroup.pids().unwrap_or_default());
        let killed = match cgroup.kill() {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            other => other,
        };
        if outside.is_empty() { killed } else { killed.and(self.kill_each(outside)) }
    }

    /// Kills these, and whoever is found after that: they may fork while they are being killed.
    fn kill_each(&self, mut pids: Vec<u32>) -> io::Result<()> {
        for _ in 0..ROUNDS {
            if pids.is_empty() {
                break;
            }
            self.send_to(&pids, libc::SIGKILL)?;
            pids = self.pids();
        }
        Ok(())
    }

    /// Waits until none of its processes lives. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn empty(&self) -> io::Result<()> {
        self.wait(|_| {}).await
    }

    /// As [`Tree::empty`], and kills whoever was forked while the tree was killed. Others have their turn between two looks.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn end(&self) -> io::Result<()> {
        // One that may not be killed is waited for.
        self.wait(|pids| drop(self.send_to(pids, libc::SIGKILL))).await
    }

    /// Waits until none of its processes lives; `left` is told who does, at each look.
    async fn wait(&self, left: impl Fn(&[u32])) -> io::Result<()> {
        if let Some(cgroup) = &self.cgroup {
            match cgroup.empty().await {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => other?,
            }
            if !self.strayed.load(Ordering::Relaxed) {
                return Ok(());
            }
        }
        // Whoever comes first is waited for; then it is looked who is left.
        loop {
            let pids = self.pids();
            let Some(first) = pids.first() else { return Ok(()) };
            let process = open(*first);
            left(&pids);
            match process {
                Some(process) => {
                    let process = register(process, Interest::READABLE)?;
                    process.readable().await?.retain_ready();
                }
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// Removes what was made for it, once it is empty.
    ///
    /// # Errors
    /// `EBUSY` when a process is left.
    pub fn remove(&self) -> io::Result<()> {
        self.cgroup.as_ref().map_or(Ok(()), WorkerCgroup::remove)
    }

    /// Signals processes found by pid. Descriptors are taken first and the pids compared again, so that
    /// a pid that went to somebody else meanwhile is not hit.
    fn send_to(&self, pids: &[u32], signal: i32) -> io::Result<()> {
        let opened: Vec<_> = pids.iter().filter_map(|pid| Some((*pid, open(*pid)?))).collect();
        let still = self.pids();
        let mut result = Ok(());
        for (pid, process) in opened {
            if still.contains(&pid) {
                result = result.and(send(process.as_fd(), signal));
            }
        }
        result
    }
}

/// Whether there is a process of this pid that started then, and is no zombie.
fn lives(pid: u32, started: u64) -> bool {
    let stat = Stat::of(pid);
    stat.is_some_and(|stat| stat.started == started && !matches!(stat.state, 'Z' | 'X'))
}

fn open(pid: u32) -> Option<OwnedFd> {
    pidfd_open(Pid::from_raw(pid.cast_signed())?, PidfdFlags::empty()).ok()
}

/// `pidfd_send_signal(2)` for any number: those of realtime signals have no names.
fn send(process: BorrowedFd<'_>, signal: i32) -> io::Result<()> {
    let none = std::ptr::null::<libc::siginfo_t>();
    // SAFETY: the descriptor is valid, and no further information is passed.
    let status =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), signal, none, 0) };
    match Errno::result(status) {
        Ok(_) | Err(Errno::ESRCH) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests;
