//! The arena: one run in a world of its own, and the guarantee that nothing of it is left.
//!
//! The process that shows the experiment starts a keeper for each run. As root, the keeper makes a network, a
//! tree of mounts and a tree of processes that die with it; its child is process 1 there ([`init`]), whose child
//! drives the run. When the run ends, or whoever asked for it ends, however that happens, the keeper ends
//! process 1 and so everything, and removes what is left of folders and cgroups. When the keeper itself is killed,
//! process 1 dies with it, and who asked for it removes what is left, or else the next experiment: see [`sweep`].

pub mod init;
mod interface;
pub(crate) mod link;
mod cgroup;
mod den;

use std::{
    fs,
    io::{self, BufRead as _, Read as _, Write as _},
    os::{fd::AsFd as _, unix::process::CommandExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sched::{CloneFlags, unshare},
    sys::{
        prctl,
        signal::{SigSet, Signal, kill},
        signalfd::SignalFd,
        wait::{WaitPidFlag, waitpid},
    },
    unistd::{Pid, geteuid, setsid},
};

use self::den::Den;
pub use self::den::sweep;

/// Hidden command of the program: what runs inside of an arena.
pub const COMMAND: &str = "lab-arena";
/// Hidden command of the program: a worker of the laboratory.
pub const WORKER_COMMAND: &str = "lab-worker";

/// How long processes may take to end after SIGKILL.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who a process is in an arena.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Makes the arena and removes it.
    Keeper,
    /// Process 1 in it.
    Init,
    /// Makes the run.
    Driver,
}

impl Role {
    /// As the command line says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Keeper => "keeper",
            Self::Init => "init",
            Self::Driver => "driver",
        }
    }

    /// From the command line.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Keeper, Self::Init, Self::Driver].into_iter().find(|role| role.name() == name)
    }
}

/// Whether runs get a world of their own here.
pub fn is_private() -> bool {
    geteuid().is_root()
}

/// This program, for starting it once more.
pub(crate) fn program() -> PathBuf {
    // What was replaced on disk meanwhile is still what runs.
    std::env::current_exe()
        .ok()
        .filter(|path| path.exists())
        .unwrap_or_else(|| PathBuf::from("/proc/self/exe"))
}

/// Keeps an arena for one run: the run on the first line of standard input, what it came to on standard output.
/// It is over early when standard input ends.
///
/// # Errors
/// When the arena cannot be made.
pub fn keep(home_id: fn(&Path) -> Option<String>) -> anyhow::Result<()> {
    // Ctrl-C is for who shows the experiment; this one cleans up after it.
    let _leads_already = setsid();
    let mut job = String::new();
    io::stdin().lock().read_line(&mut job).context("failed to read a run")?;
    anyhow::ensure!(!job.is_empty(), "there is no run on standard input");
    let den = Den::make()?;
    if let Some(id) = home_id(&home(den.path())) {
        den.note_cgroup(&format!("cluster-{id}")).context("failed to write into a folder")?;
    }
    let result = keep_in(den.path(), &job);
    // It is not mounted where the user is not root.
    umount2(den.path(), MntFlags::MNT_DETACH).unwrap_or_default();
    den.remove().context("failed to remove what a run has left")?;
    result
}

/// The `CLUSTER_HOME` of an arena in this folder.
pub(crate) fn home(folder: &Path) -> PathBuf {
    folder.join("home")
}

fn keep_in(folder: &Path, job: &str) -> anyhow::Result<()> {
    let role = if is_private() {
        enclose(folder).context("failed to make a world for the run")?;
        Role::Init
    } else {
        // What a daemon leaves behind becomes a child of this process, and is ended with the others.
        prctl::set_child_subreaper(true).context("failed to adopt orphans")?;
        Role::Driver
    };
    let mut ends = SigSet::empty();
    ends.add(Signal::SIGCHLD);
    ends.thread_block().context("failed to block a signal")?;
    let children = SignalFd::new(&ends).context("failed to listen to a signal")?;
    let mut child = spawn(role, folder, Stdio::piped()).context("failed to start a run")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(job.as_bytes()).context("failed to hand over a run")?;
    }
    let ended = await_end(&mut child, &children);
    if ended.is_err() {
        child.kill().unwrap_or_default();
    }
    let status = child.wait();
    end_descendants();
    ended?;
    let status = status.context("failed to wait for a run")?;
    anyhow::ensure!(status.success(), "a run ended with {status}");
    Ok(())
}

/// Waits until the child has ended, and ends it when standard input does: then whoever asked for it has ended. There can
/// be no thread for that: this process has another namespace for its children.
fn await_end(child: &mut Child, children: &SignalFd) -> anyhow::Result<()> {
    let mut stdin = io::stdin().lock();
    let mut is_asked_for = true;
    while child.try_wait().context("failed to wait for a run")?.is_none() {
        let mut ready = vec![PollFd::new(children.as_fd(), PollFlags::POLLIN)];
        if is_asked_for {
            ready.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("failed to wait for a run"),
        }
        let has_more = |it: &PollFd<'_>| it.revents().is_some_and(|events| !events.is_empty());
        let has_ended = ready.first().is_some_and(has_more);
        let is_said = ready.get(1).is_some_and(has_more);
        if has_ended {
            children.read_signal().context("failed to read a signal")?;
        }
        if is_said && stdin.read(&mut [0; 64]).unwrap_or_default() == 0 {
            is_asked_for = false;
            child.kill().unwrap_or_default();
        }
    }
    Ok(())
}

/// Starts this program in another role; it dies with its parent.
fn spawn(role: Role, folder: &Path, stdin: Stdio) -> io::Result<Child> {
    let mut command = Command::new(program());
    command.arg(COMMAND).arg(role.name()).arg(folder).env(den::VARIABLE, folder).stdin(stdin);
    // SAFETY: prctl(2) may be called between fork and exec.
    unsafe {
        command.pre_exec(|| prctl::set_pdeathsig(Signal::SIGKILL).map_err(io::Error::from));
    }
    command.spawn()
}

/// A network, mounts and processes of its own for all children of this process.
fn enclose(folder: &Path) -> anyhow::Result<()> {
    unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)
        .context("no namespaces")?;
    private_mounts()?;
    let none = None::<&str>;
    mount(Some("tmpfs"), folder, Some("tmpfs"), MsFlags::empty(), Some("mode=0700"))
        .context("no tmpfs")?;
    // What is pinned goes with the arena. Where there is no such folder, nothing is pinned.
    let pins = Path::new("/sys/fs/bpf");
    if pins.is_dir() {
        mount(Some("bpf"), pins, Some("bpf"), MsFlags::empty(), none).unwrap_or_default();
    }
    Ok(())
}

fn private_mounts() -> anyhow::Result<()> {
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)
        .context("failed to make mounts private")
}

/// Ends every descendant of this process, of which there are none any more where it had a process 1.
fn end_descendants() {
    let own = std::process::id();
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        // Those that have ended are waited for, so that they are not counted.
        while waitpid(None::<Pid>, Some(WaitPidFlag::WNOHANG))
            .is_ok_and(|status| status.pid().is_some())
        {}
        let left = children(own);
        if left.is_empty() {
            return;
        }
        for pid in left {
            kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap_or_default();
        }
        thread::sleep(Duration::from_millis(5));
    }
}

fn children(of: u32) -> Vec<i32> {
    let tasks = fs::read_dir(format!("/proc/{of}/task")).into_iter().flatten().flatten();
    let lists = tasks.filter_map(|task| fs::read_to_string(task.path().join("children")).ok());
    lists
        .flat_map(|list| {
            list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<_>>()
        })
        .collect()
}
