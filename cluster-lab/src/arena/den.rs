//! Dens: the folder of an arena. It is its keeper's for as long as that lives, and afterwards whoever comes next removes it.
//!
//! A keeper that is killed removes nothing itself. Who showed the experiment does it then, or else the next experiment:
//! the lock on the folder, which the kernel takes back from the dead, says that it has no keeper any more.

use std::{
    env,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid},
};

use super::{PATIENCE, cgroup};

/// Names of dens begin so.
const PREFIX: &str = "cluster-lab-run-";
/// File with the paths that its cgroup may have, below whatever is mounted over the folder.
const CGROUPS: &str = "cgroups";
/// Every process in an arena has its folder in this variable.
pub(super) const VARIABLE: &str = "CLUSTER_LAB_ARENA";
/// How often a new folder may be taken for one that was left behind, before it is locked.
const ATTEMPTS: u32 = 16;
/// How long it may take to become a program. Whoever has no environment and no command line longer than that will have none.
const BIRTH: Duration = Duration::from_secs(1);

/// A folder that is ours.
#[derive(Debug)]
pub(super) struct Den {
    path: PathBuf,
    _lock: Flock<File>,
}

impl Den {
    /// Makes one.
    pub(super) fn make() -> anyhow::Result<Self> {
        let top = fs::canonicalize(env::temp_dir()).context("there is no temporary folder")?;
        for _ in 0..ATTEMPTS {
            let made = tempfile::Builder::new()
                .prefix(PREFIX)
                .permissions(Permissions::from_mode(0o700))
                .tempdir_in(&top);
            let path = made.context("failed to make a folder")?.keep();
            if let Some(lock) = lock(&path) {
                return Ok(Self { path, _lock: lock });
            }
        }
        anyhow::bail!("somebody takes every new folder in {}", top.display())
    }

    /// Where it is.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Notes where there will be a cgroup of this name.
    pub(super) fn note_cgroup(&self, name: &str) -> io::Result<()> {
        let places: Vec<String> =
            cgroup::places(name).iter().map(|it| it.display().to_string()).collect();
        fs::write(self.path.join(CGROUPS), places.join("\n"))
    }

    /// Removes it, and everything that belongs to it.
    pub(super) fn remove(self) -> io::Result<()> {
        end_processes(&self.path);
        let places = fs::read_to_string(self.path.join(CGROUPS)).unwrap_or_default();
        places.lines().map(Path::new).for_each(cgroup::remove);
        fs::remove_dir_all(&self.path)
    }
}

/// Removes what keepers that are dead have left; how many there were. What belongs to somebody else stays.
pub fn sweep() -> usize {
    let Ok(top) = fs::canonicalize(env::temp_dir()) else { return 0 };
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let dens = entries.filter(|it| it.file_name().to_string_lossy().starts_with(PREFIX));
    dens.filter_map(|entry| Some(Den { _lock: lock(&entry.path())?, path: entry.path() }))
        .filter_map(|den| den.remove().ok())
        .count()
}

/// Locks a folder of this user's, unless its keeper lives.
fn lock(path: &Path) -> Option<Flock<File>> {
    let flags = libc::O_DIRECTORY | libc::O_NOFOLLOW;
    let folder = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    let locked = Flock::lock(folder, FlockArg::LockExclusiveNonblock).ok()?;
    let own = locked.metadata().ok()?;
    // Who had the lock before may have removed it.
    let there = fs::symlink_metadata(path).ok()?;
    let is_it = (own.dev(), own.ino()) == (there.dev(), there.ino());
    (is_it && own.uid() == geteuid().as_raw()).then_some(locked)
}

/// The environment of a process (proc(5)); others' cannot be read, and what has ended has none.
///
/// Nor has who is becoming another program (execve(2)), until that is set up: it is waited for. It has no command line
/// either then, but a program, unlike who has ended and threads of the kernel.
fn environment(pid: Pid) -> Vec<u8> {
    let process = PathBuf::from(format!("/proc/{pid}"));
    let read = |file| fs::read(process.join(file)).unwrap_or_default();
    let end = Instant::now() + BIRTH;
    loop {
        let environment = read("environ");
        if !environment.is_empty() {
            return environment;
        }
        if !read("cmdline").is_empty() {
            // It has none, or has been set up meanwhile.
            return read("environ");
        }
        if process.join("exe").read_link().is_err() || Instant::now() >= end {
            return environment;
        }
        thread::sleep(Duration::from_millis(1));
    }
}

/// Ends what runs in the arena of a dead keeper: without a world of its own nothing has ended it.
fn end_processes(folder: &Path) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let left = processes(folder);
        if left.is_empty() {
            return;
        }
        for pid in left {
            kill(pid, Signal::SIGKILL).unwrap_or_default();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Those that say so in their environment.
fn processes(folder: &Path) -> Vec<Pid> {
    let wanted = format!("{VARIABLE}={}", folder.display());
    let belongs = |pid: &Pid| {
        environment(*pid).split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.map(Pid::from_raw).filter(belongs).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn what_has_a_keeper_stays_and_what_has_none_goes_with_its_processes() {
        let kept = Den::make().unwrap();
        let left = Den::make().unwrap();
        let path = left.path().to_owned();
        fs::create_dir(path.join("home")).unwrap();
        let mut child = Command::new("sleep").arg("60").env(VARIABLE, &path).spawn().unwrap();
        // As when its keeper is killed.
        drop(left);

        // Somebody else's experiment may be faster.
        sweep();
        let end = Instant::now() + PATIENCE;
        while path.exists() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }

        assert!(!path.exists());
        assert!(!child.wait().unwrap().success(), "it was ended");
        assert!(kept.path().exists());
        kept.remove().unwrap();
    }

    #[test]
    fn who_is_just_becoming_a_program_is_not_missed() {
        let folder = tempfile::tempdir().unwrap();
        for _ in 0..200 {
            // Back as soon as the child has left this program behind (vfork(2)), which is before it has an environment.
            let mut child =
                Command::new("sleep").arg("60").env(VARIABLE, folder.path()).spawn().unwrap();
            end_processes(folder.path());
            let end = Instant::now() + BIRTH;
            while child.try_wait().unwrap().is_none() {
                assert!(Instant::now() < end, "it was ended");
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}
