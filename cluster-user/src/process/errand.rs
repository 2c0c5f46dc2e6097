//! Commands that are run to their end: short, watched, and ended with all they started.

use std::{
    collections::{BTreeSet, VecDeque},
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::{
    io::{Errno, read},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process_group},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    time::timeout,
};

use super::{
    ready::register,
    spawn::{Bounds, Launch, spawn},
    watch::{ExitStatus, reap},
};
use crate::config::{duration, spec::User};

/// What is kept of the output: its end.
const KEPT: usize = 2048;
/// A longer line is told in parts.
const LONGEST: usize = 4096;
/// Longest line of it that is shown, in characters.
const LINE: usize = 200;

/// A command to be run.
#[derive(Clone, Debug)]
pub struct Errand<'a> {
    /// File to execute; no search in PATH.
    pub program: &'a Path,
    /// All arguments, the program's name first.
    pub args: &'a [String],
    /// The whole environment.
    pub env: &'a [(String, String)],
    /// Working folder, entered as `user`.
    pub cwd: &'a Path,
    /// Whom to become; the daemon's own user when absent.
    pub user: Option<&'a User>,
    /// Folder of the cgroup (v2) to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// What it may use.
    pub bounds: &'a Bounds,
}

/// The commands that are under way. Cloning it gives another hand on the same ones.
#[derive(Clone, Debug, Default)]
pub struct Errands(Arc<Mutex<BTreeSet<u32>>>);

impl Errands {
    /// Starts a command; its process leads a group of its own. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When it cannot be started; a lowercase fragment.
    pub fn start(&self, errand: &Errand<'_>) -> Result<Running, String> {
        let (output, theirs) =
            pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).map_err(text)?;
        rustix::io::ioctl_fionbio(&output, true).map_err(io::Error::from).map_err(text)?;
        let output = register(output, Interest::READABLE).map_err(text)?;
        let Errand { program, args, env, cwd, user, cgroup, bounds } = *errand;
        let launch = Launch {
            program,
            args,
            env,
            cwd,
            user,
            cgroup,
            stdout: theirs.as_fd(),
            stderr: theirs.as_fd(),
            inherited: &[],
            filter: None,
            bounds,
        };
        let spawned = spawn(&launch).map_err(|error| error.to_string())?;
        self.pids().insert(spawned.pid);
        let all = self.clone();
        let leader = Leader { pid: spawned.pid, process: spawned.process, reaped: false, all };
        let end = leader.process.try_clone().and_then(|copy| register(copy, Interest::READABLE));
        Ok(Running { leader, end: end.map_err(text)?, output })
    }

    /// Whether a process is the first one of a command under way, and reaped here.
    pub fn have(&self, pid: u32) -> bool {
        self.pids().contains(&pid)
    }

    fn pids(&self) -> MutexGuard<'_, BTreeSet<u32>> {
        // The set is whole at every moment.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command under way. Dropping it kills the command.
#[derive(Debug)]
pub struct Running {
    leader: Leader,
    /// Its process, readable once it has ended.
    end: AsyncFd<OwnedFd>,
    output: AsyncFd<OwnedFd>,
}

/// Its first process, which leads its group.
#[derive(Debug)]
struct Leader {
    pid: u32,
    process: OwnedFd,
    reaped: bool,
    all: Errands,
}

impl Running {
    /// Waits until it has ended with code 0. Whatever it has started and left is killed.
    ///
    /// # Errors
    /// When it ends otherwise, or not in time; a lowercase fragment with the last line it wrote.
    pub async fn finish(self, patience: Duration) -> Result<(), String> {
        self.finish_telling(patience, |_line| {}).await
    }

    /// As [`Running::finish`], and tells each line of its output as it comes, without the end of the line; one that is
    /// longer than 4 KiB is told in parts.
    ///
    /// # Errors
    /// As [`Running::finish`].
    pub async fn finish_telling(
        mut self,
        patience: Duration,
        tell: impl FnMut(&str),
    ) -> Result<(), String> {
        let mut tail = Tail { kept: VecDeque::new(), line: Vec::new(), tell };
        let in_time = {
            let reading = async {
                // Its end means nothing: what was started may have closed the pipe, or have it still.
                drop(tail.follow(&self.output).await);
                std::future::pending::<()>().await;
            };
            select! {
                ended = timeout(patience, self.end.readable()) => ended.is_ok(),
                () = reading => false,
            }
        };
        let ended = self.leader.end();
        // What it wrote last is in the pipe.
        drop(tail.take(self.output.get_ref()));
        tail.end_line();
        let why = match ended {
            Some(ExitStatus::Code(0)) if in_time => return Ok(()),
            Some(status) if in_time => status.to_string(),
            Some(_) | None => format!("did not end within {}", duration::format(patience)),
        };
        Err(match tail.last_line() {
            Some(line) => format!("{why}: {line}"),
            None => why,
        })
    }
}

impl Leader {
    /// Kills the group, and reaps its first process if that has ended.
    fn end(&mut self) -> Option<ExitStatus> {
        if self.reaped {
            return None;
        }
        // Before it is reaped, the number goes to nobody else.
        if let Some(group) = Pid::from_raw(self.pid.cast_signed()) {
            kill_process_group(group, Signal::KILL).unwrap_or_default();
        }
        let status = reap(self.process.as_fd()).ok().flatten();
        self.reaped = status.is_some();
        status
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.end();
        // One that is still dying becomes a stray, and those are reaped as well.
        self.all.pids().remove(&self.pid);
    }
}

/// What is written, and the end of it.
struct Tail<F> {
    kept: VecDeque<u8>,
    /// The line that is being written.
    line: Vec<u8>,
    tell: F,
}

impl<F: FnMut(&str)> Tail<F> {
    async fn follow(&mut self, output: &AsyncFd<OwnedFd>) -> io::Result<()> {
        loop {
            let mut ready = output.readable().await?;
            if self.take(output.get_ref())? {
                return Ok(());
            }
            ready.clear_ready();
        }
    }

    /// Reads what is there, a bounded amount of it; whether that was the end.
    fn take(&mut self, output: &OwnedFd) -> io::Result<bool> {
        let mut chunk = [0; 4096];
        for _ in 0..64 {
            match read(output, &mut chunk) {
                Ok(0) => return Ok(true),
                Ok(count) => {
                    self.kept.extend(&chunk[..count]);
                    let excess = self.kept.len().saturating_sub(KEPT);
                    self.kept.drain(..excess);
                    self.split(&chunk[..count]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(false),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(false)
    }

    /// Tells the lines that are whole.
    fn split(&mut self, bytes: &[u8]) {
        for part in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line.extend_from_slice(part);
            if part.ends_with(b"\n") || self.line.len() >= LONGEST {
                self.end_line();
            }
        }
    }

    fn end_line(&mut self) {
        if !self.line.is_empty() {
            (self.tell)(String::from_utf8_lossy(&self.line).trim_end_matches(['\r', '\n']));
            self.line.clear();
        }
    }

    /// The last line with something in it, without control characters.
    fn last_line(&mut self) -> Option<String> {
        let text = String::from_utf8_lossy(self.kept.make_contiguous());
        let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
        let plain = line.chars().map(|c| if c.is_control() { ' ' } else { c });
        Some(plain.take(LINE).collect())
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_command_that_ends_well_is_a_good_answer() {
        assert_eq!(run("echo all is well", PATIENCE).await, Ok(()));
    }

    #[tokio::test]
    async fn a_command_that_fails_says_why_in_its_last_line() {
        let error = run("echo first; printf 'no \\033database\\n\\n' >&2; exit 3", PATIENCE).await;
        assert_eq!(error.unwrap_err(), "exited with code 3: no  database");
        assert_eq!(run("kill -9 $$", PATIENCE).await.unwrap_err(), "killed by SIGKILL");
        let flood = "yes 12345678 | head -c 2700000; exit 1";
        assert_eq!(run(flood, PATIENCE).await.unwrap_err(), "exited with code 1: 12345678");
    }

    #[tokio::test]
    async fn a_command_that_takes_too_long_is_killed_with_all_it_started() {
        let errands = Errands::default();
        let running = start(&errands, "sleep 1000 & echo waiting; wait");
        let group = running.leader.pid;
        assert!(errands.have(group));
        let asked = Instant::now();

        let error = running.finish(Duration::from_millis(200)).await.unwrap_err();

        assert_eq!(error, "did not end within 200ms: waiting");
        assert!(asked.elapsed() < PATIENCE);
        gone(group);
        assert!(!errands.have(group));
    }

    #[tokio::test]
    async fn what_a_command_writes_is_told_line_by_line() {
        let script = "echo one; printf 'two\\r\\n\\nthr'; sleep 0.05; echo ee >&2; printf end";
        let mut lines = Vec::new();
        let running = start(&Errands::default(), script);
        let ended = running.finish_telling(PATIENCE, |line| lines.push(line.to_owned())).await;
        assert_eq!(ended, Ok(()));
        assert_eq!(lines, ["one", "two", "", "three", "end"]);

        let running = start(&Errands::default(), "head -c 100000 /dev/zero | tr '\\0' x");
        let mut longest = 0;
        let told = |line: &str| longest = longest.max(line.len());
        assert_eq!(running.finish_telling(PATIENCE, told).await, Ok(()));
        assert!((LONGEST..LONGEST * 2).contains(&longest), "{longest}");
    }

    #[tokio::test]
    async fn what_a_command_leaves_behind_is_killed() {
        let errands = Errands::default();
        let running = start(&errands, "sleep 1000 & exit 0");
        let group = running.leader.pid;
        assert_eq!(running.finish(PATIENCE).await, Ok(()));
        gone(group);
    }

    #[tokio::test]
    async fn a_command_that_is_given_up_is_killed() {
        let running = start(&Errands::default(), "sleep 1000");
        let group = running.leader.pid;
        drop(running);
        gone(group);
    }

    async fn run(script: &str, patience: Duration) -> Result<(), String> {
        start(&Errands::default(), script).finish(patience).await
    }

    fn start(errands: &Errands, script: &str) -> Running {
        let args = ["sh".to_owned(), "-c".to_owned(), script.to_owned()];
        let env = [("PATH".to_owned(), "/usr/bin:/bin".to_owned())];
        let program = Path::new("/bin/sh");
        let errand = Errand {
            program,
            args: &args,
            env: &env,
            cwd: Path::new("/"),
            user: None,
            cgroup: None,
            bounds: &Bounds::default(),
        };
        errands.start(&errand).unwrap()
    }

    /// Waits until no process of a group lives; one that is killed may take a moment, and nobody reaps orphans here.
    fn gone(group: u32) {
        let deadline = Instant::now() + PATIENCE;
        let lives = || {
            super::super::proc::pids()
                .into_iter()
                .filter_map(super::super::proc::Stat::of)
                .any(|stat| stat.session == group && stat.state != 'Z')
        };
        while lives() {
            assert!(Instant::now() < deadline, "something of group {group} is left");
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}
