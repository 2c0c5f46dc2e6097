//! Workers in cgroups (v2): one folder per worker, below one per app, below one per daemon.
//!
//! No controller is needed unless an app has limits ([`controller`]): a bare cgroup says which processes are a worker's, kills all of them in one
//! step, counts their CPU time, and is where hooks attach (kernel: Documentation/admin-guide/cgroup-v2.rst).

mod mount;
mod worker;
mod controller;

use std::{
    collections::BTreeSet,
    fmt, fs, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{Mode, OFlags, open},
};

pub use self::{
    controller::{Lacking, offered},
    worker::WorkerCgroup,
};
use self::{mount::candidates, worker::populated};
use crate::id::{AppId, WorkerId};

/// Names of apps' and of workers' cgroups begin like this, and end with their numbers.
const APP: &str = "app-";
const WORKER: &str = "worker-";
/// Beside the workers of an app: what its hooks run in.
const HOOK: &str = "hook-";

/// How long the processes of an earlier daemon may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(5);

/// Why there are no cgroups for workers. Displays as a fragment for the user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// No file system of cgroup v2 is mounted.
    Mount,
    /// None of the places allows a cgroup to be made.
    Refused {
        /// Each place, and what the kernel said.
        places: Vec<(PathBuf, String)>,
    },
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mount => f.write_str("no cgroup v2 file system is mounted"),
            Self::Refused { places } => {
                f.write_str("no cgroup could be made")?;
                for (place, why) in places {
                    write!(f, "; {}: {why}", place.display())?;
                }
                Ok(())
            }
        }
    }
}

impl std::error::Error for Missing {}

/// The daemon's own part of the cgroup tree.
#[derive(Debug)]
pub struct Hierarchy {
    path: PathBuf,
    folder: OwnedFd,
    level: u32,
}

/// What an earlier daemon of the same home left running, and has been ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leftover {
    /// Which worker of that daemon.
    pub name: String,
    /// Its processes.
    pub pids: Vec<u32>,
}

/// A worker's cgroup that is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundWorker {
    /// Whose worker it is, or was.
    pub app: AppId,
    /// Which worker.
    pub worker: WorkerId,
    /// Its living processes.
    pub pids: Vec<u32>,
    /// Folder of its cgroup.
    pub path: PathBuf,
    /// Id of its cgroup.
    pub id: u64,
}

impl Hierarchy {
    /// Makes `cluster-<home_id>` at the top of the first cgroup v2 mount that allows it, else below this
    /// process' own cgroup.
    ///
    /// # Errors
    /// [`Missing`] names every place tried.
    pub fn open(home_id: &str) -> Result<Self, Missing> {
        let candidates = candidates();
        if candidates.is_empty() {
            return Err(Missing::Mount);
        }
        let mut places = Vec::new();
        for candidate in candidates {
            let path = candidate.path.join(format!("cluster-{home_id}"));
            match Self::make(&path, candidate.level) {
                Ok(hierarchy) => return Ok(hierarchy),
                Err(error) => places.push((path, error.to_string().to_lowercase())),
            }
        }
        Err(Missing::Refused { places })
    }

    fn make(path: &Path, level_above: u32) -> io::Result<Self> {
        make_folder(path)?;
        let hierarchy =
            Self { path: path.to_owned(), folder: open_folder(path)?, level: level_above + 1 };
        // A folder made by somebody else may be visible and still not be ours to fill.
        let trial = hierarchy.path.join("trial");
        make_folder(&trial)?;
        absent_is_fine(fs::remove_dir(&trial))?;
        Ok(hierarchy)
    }

    /// Folder of all of the daemon's cgroups.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A descriptor of that folder; hooks attached there see all workers.
    pub fn folder(&self) -> BorrowedFd<'_> {
        self.folder.as_fd()
    }

    /// Depth of a *worker's* cgroup, as `bpf_get_current_ancestor_cgroup_id` counts: the top of the tree
    /// is 0. Inside a cgroup namespace the top that can be seen counts as 0, and is not.
    pub fn level(&self) -> u32 {
        self.level + 2
    }

    /// The top of the tree as it can be seen.
    pub fn top(&self) -> &Path {
        let levels = usize::try_from(self.level).unwrap_or(usize::MAX);
        self.path.ancestors().nth(levels).unwrap_or(&self.path)
    }

    /// Makes the cgroup of a worker, empty.
    ///
    /// # Errors
    /// When it exists and has processes, or the kernel refuses.
    pub fn create_worker(&self, app: AppId, worker: WorkerId) -> io::Result<WorkerCgroup> {
        make_folder(&self.path.join(format!("{APP}{app}")))?;
        WorkerCgroup::make(self.folder_of(app, worker))
    }

    /// Makes the cgroup of a hook that is run for an app, empty.
    ///
    /// # Errors
    /// When it exists and has processes, or the kernel refuses.
    pub fn create_hook(&self, app: AppId, number: u64) -> io::Result<WorkerCgroup> {
        let app = self.path.join(format!("{APP}{app}"));
        make_folder(&app)?;
        WorkerCgroup::make(app.join(format!("{HOOK}{number}")))
    }

    /// Removes the cgroup of an app that has no workers left.
    ///
    /// # Errors
    /// `EBUSY` when it has.
    pub fn remove_app(&self, app: AppId) -> io::Result<()> {
        absent_is_fine(fs::remove_dir(self.path.join(format!("{APP}{app}"))))
    }

    /// The workers whose cgroups are there, those of an earlier daemon of the same home included, with processes or
    /// without. A cgroup that has no worker's name is not ours, and not among them.
    ///
    /// # Errors
    /// When the cgroups cannot be listed.
    pub fn found(&self) -> io::Result<Vec<FoundWorker>> {
        let mut found = Vec::new();
        for above in folders(&self.path)? {
            let Some(app) = number(&above, APP) else { continue };
            // Folders vanish meanwhile only if somebody else removes them.
            for path in folders(&above)? {
                let Some(worker) = number(&path, WORKER) else { continue };
                let cgroup = WorkerCgroup::adopt(path)?;
                found.push(FoundWorker {
                    app: AppId(u32::try_from(app).map_err(io::Error::other)?),
                    worker: WorkerId(worker),
                    pids: cgroup.pids()?,
                    id: cgroup.id(),
                    path: cgroup.path().to_owned(),
                });
            }
        }
        found.sort_unstable_by_key(|found| (found.app, found.worker));
        Ok(found)
    }

    /// Takes hold of the cgroup of a worker that an earlier daemon started.
    ///
    /// # Errors
    /// `NotFound` when there is none.
    pub fn reopen_worker(&self, app: AppId, worker: WorkerId) -> io::Result<WorkerCgroup> {
        WorkerCgroup::adopt(self.folder_of(app, worker))
    }

    /// Ends the workers of an earlier daemon of the same home that nobody claims, removes their cgroups and those of apps
    /// that have none left, and says who they were. Waits for the processes to end: for the start of a daemon, before it
    /// serves anybody.
    ///
    /// # Errors
    /// When a process does not end, or a folder cannot be removed.
    pub fn end_unclaimed(&self, claimed: &BTreeSet<WorkerId>) -> io::Result<Vec<Leftover>> {
        let mut unclaimed = self.found()?;
        unclaimed.retain(|found| !claimed.contains(&found.worker));
        // All of them end at the same time.
        for found in unclaimed.iter().filter(|found| !found.pids.is_empty()) {
            self.reopen_worker(found.app, found.worker)?.kill()?;
        }
        let mut leftovers = Vec::new();
        for found in unclaimed {
            let worker = self.reopen_worker(found.app, found.worker)?;
            wait_until_empty(&worker)?;
            worker.remove()?;
            if !found.pids.is_empty() {
                leftovers.push(Leftover { name: worker.name(), pids: found.pids });
            }
        }
        for app in folders(&self.path)? {
            if number(&app, APP).is_none() {
                continue;
            }
            // Nobody waits for a hook of a daemon that is gone.
            for path in folders(&app)?.into_iter().filter(|path| number(path, HOOK).is_some()) {
                let hook = WorkerCgroup::adopt(path)?;
                let pids = hook.pids()?;
                hook.kill()?;
                wait_until_empty(&hook)?;
                hook.remove()?;
                if !pids.is_empty() {
                    leftovers.push(Leftover { name: hook.name(), pids });
                }
            }
            if folders(&app)?.is_empty() {
                absent_is_fine(fs::remove_dir(&app))?;
            }
        }
        Ok(leftovers)
    }

    fn folder_of(&self, app: AppId, worker: WorkerId) -> PathBuf {
        self.path.join(format!("{APP}{app}")).join(format!("{WORKER}{worker}"))
    }

    /// Removes all of it, at the daemon's end.
    ///
    /// # Errors
    /// `EBUSY` when a worker still has processes.
    pub fn remove(self) -> io::Result<()> {
        remove_tree(&self.path)
    }
}

/// Waits without a runtime, bounded.
fn wait_until_empty(worker: &WorkerCgroup) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    let events = worker.events()?;
    while populated(&events)? {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let message = format!("{} still has processes after SIGKILL", worker.path().display());
            return Err(io::Error::new(io::ErrorKind::TimedOut, message));
        }
        let left = Timespec::try_from(left).unwrap_or_default();
        match poll(&mut [PollFd::new(&events, PollFlags::PRI)], Some(&left)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// The number in the name of a cgroup of ours; `None` for any other.
fn number(path: &Path, prefix: &str) -> Option<u64> {
    let digits = path.file_name()?.to_str()?.strip_prefix(prefix)?;
    let number = digits.parse().ok()?;
    (format!("{number}") == digits).then_some(number)
}

fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

fn open_folder(path: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Sub-cgroups of a cgroup.
fn folders(path: &Path) -> io::Result<Vec<PathBuf>> {
    let mut folders = Vec::new();
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            folders.push(entry.path());
        }
    }
    Ok(folders)
}

/// Removes a cgroup and all below it; the files of a cgroup vanish with their folder.
fn remove_tree(path: &Path) -> io::Result<()> {
    match folders(path) {
        Ok(below) => below.iter().try_for_each(|folder| remove_tree(folder))?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    absent_is_fine(fs::remove_dir(path))
}

fn absent_is_fine(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

#[cfg(test)]
pub(in crate::process) mod tests;
