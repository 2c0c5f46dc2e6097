//! Dens: the folder of an arena. It is its keeper's for as long as that lives, and afterwards whoever comes next removes it.
//!
//! A keeper that is killed removes nothing itself. Who showed the experiment does it then, or else the next experiment:
//! the lock on the folder, which the kernel takes back from the dead, says that it has no keeper any more.

use std::{
    collections::BTreeSet,
    env,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use nix::{
    fcntl::{Flock, FlockArg},
    sys::signal::{Signal, kill},
    unistd::{Pid, geteuid, getpid, getsid},
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

    /// Removes it, and everything that belongs to it. What cannot be removed is noted in it still: whoever sweeps next finds
    /// it.
    ///
    /// # Errors
    /// What is left.
    pub(super) fn remove(self) -> anyhow::Result<()> {
        self.remove_within(PATIENCE)
    }

    fn remove_within(self, patience: Duration) -> anyhow::Result<()> {
        end_processes(&self.path);
        let places = fs::read_to_string(self.path.join(CGROUPS)).unwrap_or_default();
        let left: Vec<&str> =
            places.lines().filter(|place| !cgroup::remove(Path::new(place), patience)).collect();
        ensure!(left.is_empty(), "cgroup {} cannot be emptied", left.join(" and "));
        let folder = self.path.display();
        fs::remove_dir_all(&self.path).with_context(|| format!("failed to remove {folder}"))
    }
}

/// Removes what keepers that are dead have left: how many there were, and what is left still. What belongs to somebody else
/// stays.
pub fn sweep() -> (usize, Vec<anyhow::Error>) {
    let (mut removed, mut left) = (0, Vec::new());
    let Ok(top) = fs::canonicalize(env::temp_dir()) else { return (removed, left) };
    let entries = fs::read_dir(top).into_iter().flatten().flatten();
    let dens = entries.filter(|it| it.file_name().to_string_lossy().starts_with(PREFIX));
    for entry in dens {
        let path = entry.path();
        let Some(lock) = lock(&path) else { continue };
        match (Den { path, _lock: lock }).remove() {
            Ok(()) => removed += 1,
            Err(error) => left.push(error),
        }
    }
    (removed, left)
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
///
/// Workers of a daemon are known by their parent alone. Was that killed while it starts one, nobody would find it: all are
/// stopped first, and killed when a look finds nobody who had not stopped before it.
fn end_processes(folder: &Path) {
    let end = Instant::now() + PATIENCE;
    let (mut told, mut still) = (BTreeSet::new(), BTreeSet::new());
    loop {
        let left = processes(folder);
        let is_late = Instant::now() >= end;
        if left.is_empty() {
            return;
        }
        let stand_still = left.iter().all(|place| still.contains(&place.pid));
        let signal = if stand_still || is_late { Signal::SIGKILL } else { Signal::SIGSTOP };
        for Place { pid, runs, .. } in left {
            if told.contains(&pid) && !runs {
                still.insert(pid);
            }
            kill(pid, signal).unwrap_or_default();
            told.insert(pid);
        }
        if is_late {
            return;
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Those that say so in their environment, whatever descends from them, and who shares a session with one of all
/// these: there are programs that write their title over their environment.
fn processes(folder: &Path) -> Vec<Place> {
    let wanted = format!("{VARIABLE}={}", folder.display());
    let is_marked = |pid: Pid| {
        environment(pid).split(|byte| *byte == 0).any(|variable| variable == wanted.as_bytes())
    };
    let (own, own_session) = (getpid(), getsid(None).ok());
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let all: Vec<Place> = pids.filter_map(|pid| Place::of(Pid::from_raw(pid))).collect();
    let mut found: BTreeSet<Pid> =
        all.iter().map(|place| place.pid).filter(|pid| is_marked(*pid)).collect();
    loop {
        let sessions: BTreeSet<Pid> = (all.iter())
            .filter(|place| found.contains(&place.pid) && Some(place.session) != own_session)
            .map(|place| place.session)
            .collect();
        let more = all.iter().filter(|place| {
            !found.contains(&place.pid)
                && place.pid != own
                && (found.contains(&place.parent) || sessions.contains(&place.session))
        });
        let more: Vec<Pid> = more.map(|place| place.pid).collect();
        if more.is_empty() {
            return all.into_iter().filter(|place| found.contains(&place.pid)).collect();
        }
        found.extend(more);
    }
}

/// Where a process stands among the others.
#[derive(Clone, Copy, Debug)]
struct Place {
    pid: Pid,
    parent: Pid,
    session: Pid,
    /// Whether it runs or may do so at any time: neither is it stopped, nor does it wait in the kernel.
    runs: bool,
}

impl Place {
    /// That of a process that has not ended.
    fn of(pid: Pid) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // Its name may have anything in it, brackets too (proc_pid_stat(5)).
        let (_, rest) = stat.rsplit_once(')')?;
        let mut fields = rest.split_whitespace();
        let state = fields.next()?;
        let lives = !matches!(state, "Z" | "X");
        let runs = matches!(state, "R" | "S");
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let [parent, session] = [parent, session].map(Pid::from_raw);
        lives.then_some(Self { pid, parent, session, runs })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::BufRead as _,
        process::{Command, Stdio},
        sync::Mutex,
    };

    use super::*;

    /// Whoever sweeps finds what the other has left.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    #[test]
    fn a_cgroup_that_cannot_be_emptied_is_named_and_found_again() {
        let _alone = ONE_AT_A_TIME.lock();
        let den = Den::make().unwrap();
        let path = den.path().to_owned();
        // What is in it is no cgroup, and stays.
        let stubborn = path.join("stubborn");
        fs::create_dir(&stubborn).unwrap();
        fs::write(stubborn.join("cgroup.procs"), "1").unwrap();
        fs::write(path.join(CGROUPS), stubborn.display().to_string()).unwrap();

        let error = den.remove_within(Duration::from_millis(20)).unwrap_err().to_string();

        assert!(error.contains(stubborn.to_str().unwrap()), "{error}");
        assert!(path.join(CGROUPS).exists(), "it is noted still");
        fs::remove_dir_all(&stubborn).unwrap();
        // Somebody else's experiment may be faster.
        sweep();
        until_gone(&path);
        assert!(!path.exists());
    }

    #[test]
    fn what_has_a_keeper_stays_and_what_has_none_goes_with_its_processes() {
        let _alone = ONE_AT_A_TIME.lock();
        let kept = Den::make().unwrap();
        let left = Den::make().unwrap();
        let path = left.path().to_owned();
        fs::create_dir(path.join("home")).unwrap();
        let mut child = Command::new("sleep").arg("60").env(VARIABLE, &path).spawn().unwrap();
        // Two that say nothing of it: a child of one that does, in a session of its own, and who shares that.
        let script = "setsid env -u $0 sh -c 'sleep 60 & echo $! $$; wait' & wait";
        let mut parent = Command::new("sh")
            .args(["-c", script, VARIABLE])
            .env(VARIABLE, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        io::BufReader::new(parent.stdout.take().unwrap()).read_line(&mut line).unwrap();
        // As when its keeper is killed.
        drop(left);

        // Somebody else's experiment may be faster.
        sweep();
        until_gone(&path);

        assert!(!path.exists());
        assert!(!child.wait().unwrap().success(), "it was ended");
        assert!(!parent.wait().unwrap().success(), "it was ended");
        let unmarked: Vec<Pid> =
            line.split_whitespace().map(|pid| Pid::from_raw(pid.parse().unwrap())).collect();
        assert_eq!(unmarked.len(), 2);
        assert!(unmarked.iter().all(|pid| Place::of(*pid).is_none()), "those were ended, too");
        assert!(kept.path().exists());
        kept.remove().unwrap();
    }

    fn until_gone(path: &Path) {
        let end = Instant::now() + PATIENCE;
        while path.exists() && Instant::now() < end {
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn who_is_started_meanwhile_and_says_nothing_is_ended_too() {
        for _ in 0..5 {
            let folder = tempfile::tempdir().unwrap();
            // Nobody else sleeps for as long.
            let length = format!("1003.{}", std::process::id());
            let script = "while :; do setsid env -u $0 sleep $1 & done";
            let mut parent = Command::new("sh")
                .args(["-c", script, VARIABLE, &length])
                .env(VARIABLE, folder.path())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .unwrap();
            let sleeps = || {
                let of = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("cmdline"));
                let entries = fs::read_dir("/proc").unwrap().flatten();
                let lines = entries.filter_map(|entry| of(entry).ok());
                lines.filter(|line| *line == format!("sleep\0{length}\0")).count()
            };
            let end = Instant::now() + PATIENCE;
            while sleeps() < 3 && Instant::now() < end {}
            end_processes(folder.path());
            parent.wait().unwrap();
            // Who is killed may need a moment to end.
            while sleeps() > 0 && Instant::now() < end {
                thread::sleep(Duration::from_millis(5));
            }
            assert_eq!(sleeps(), 0);
        }
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
