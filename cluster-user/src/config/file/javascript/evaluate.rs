//! Runs a program that may do anything, for a while: bounded in time and in what it prints, and ended with its children.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, Read as _, Seek as _},
    os::{
        fd::{AsFd as _, BorrowedFd, OwnedFd},
        unix::process::CommandExt as _,
    },
    path::Path,
    process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};
use rustix::{
    fs::MemfdFlags,
    process::{Pid, PidfdFlags, Signal, kill_process_group, pidfd_open, pidfd_send_signal},
};

use crate::environ;

/// In the environment of the program and of everything it starts, so that all of it is found again.
pub(in crate::config::file) const MARK: &str = "CLUSTER_EVALUATION";
/// More than this is not kept of what it prints.
const KEPT: usize = 64 * 1024;
/// Who prints more than this does nothing else.
const LOUD: usize = 16 * 1024 * 1024;
/// Most that is read of its result.
const LARGEST: u64 = 64 * 1024 * 1024;
/// Rounds of looking for what it left; those that are being forked meanwhile are found by the next.
const ROUNDS: usize = 8;

/// What is run, and where.
pub(super) struct Program<'a> {
    pub(super) path: &'a Path,
    pub(super) args: &'a [&'a str],
    pub(super) env: &'a [(OsString, OsString)],
    pub(super) cwd: &'a Path,
}

/// What came of it.
pub(super) struct Outcome {
    pub(super) status: ExitStatus,
    /// What it wrote into descriptor 0.
    pub(super) result: Vec<u8>,
    /// The beginning of what it printed to standard output.
    pub(super) printed: Vec<u8>,
    /// And to standard error.
    pub(super) complained: Vec<u8>,
}

/// Why nothing came of it.
#[derive(Debug)]
pub(super) enum Failure {
    /// It could not be run, or not be watched.
    Host(io::Error),
    /// It did not end in time.
    Late,
    /// It printed without end.
    Loud,
}

/// Runs it to its end, and for no longer than `patience`. Its descriptor 0 is a file for its result.
pub(super) fn run(program: &Program<'_>, patience: Duration) -> Result<Outcome, Failure> {
    let result = rustix::fs::memfd_create(c"cluster-configuration", MemfdFlags::CLOEXEC)
        .map_err(|error| Failure::Host(error.into()))?;
    let mut result = File::from(result);
    let mark = mark();
    let child = Command::new(program.path)
        .args(program.args)
        .env_clear()
        .envs(program.env.iter().map(|(key, value)| (key, value)))
        .env(MARK, &mark)
        .current_dir(program.cwd)
        .stdin(Stdio::from(result.try_clone().map_err(Failure::Host)?))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(Failure::Host)?;
    let mut running = Running { child, mark };
    let (status, printed, complained) = running.watch(patience)?;
    drop(running);
    let mut written = Vec::new();
    result.rewind().map_err(Failure::Host)?;
    result.take(LARGEST).read_to_end(&mut written).map_err(Failure::Host)?;
    Ok(Outcome { status, result: written, printed, complained })
}

/// Ended with everything that it started when this is dropped.
struct Running {
    child: Child,
    mark: String,
}

impl Running {
    fn watch(&mut self, patience: Duration) -> Result<(ExitStatus, Vec<u8>, Vec<u8>), Failure> {
        let deadline = Instant::now() + patience;
        let ended = pidfd_open(Pid::from_child(&self.child), PidfdFlags::empty())
            .map_err(|error| Failure::Host(error.into()))?;
        let mut stdout = Stream::new(self.child.stdout.take());
        let mut stderr = Stream::new(self.child.stderr.take());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let is_over = wait(&ended, &mut stdout, &mut stderr, left)?;
            if stdout.seen + stderr.seen > LOUD {
                return Err(Failure::Loud);
            }
            if is_over {
                // What it wrote last; a child that it left behind may hold its streams open for ever.
                while wait(&ended, &mut stdout, &mut stderr, Duration::ZERO)?
                    && stdout.seen + stderr.seen <= LOUD
                    && (stdout.has_news || stderr.has_news)
                {}
                let status = self.child.wait().map_err(Failure::Host)?;
                return Ok((status, stdout.kept, stderr.kept));
            }
            if left.is_zero() {
                return Err(Failure::Late);
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A failure means that nobody is left in the group.
        kill_process_group(Pid::from_child(&self.child), Signal::KILL).unwrap_or_default();
        for _ in 0..ROUNDS {
            if end_marked(&self.mark) == 0 {
                break;
            }
        }
        // It was killed, or has been waited for.
        drop(self.child.wait());
    }
}

/// One of its streams.
struct Stream<T> {
    from: Option<T>,
    kept: Vec<u8>,
    seen: usize,
    has_news: bool,
}

impl<T: io::Read + std::os::fd::AsFd> Stream<T> {
    fn new(from: Option<T>) -> Self {
        Self { from, kept: Vec::new(), seen: 0, has_news: false }
    }

    fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.from.as_ref().map(|from| from.as_fd())
    }

    /// Reads once what is there, which never blocks after a poll said so.
    fn read(&mut self) {
        let mut chunk = [0; 16 * 1024];
        let read = self.from.as_mut().map_or(Ok(0), |from| from.read(&mut chunk));
        match read {
            Ok(0) | Err(_) => self.from = None,
            Ok(count) => {
                self.seen += count;
                self.has_news = true;
                let room = KEPT.saturating_sub(self.kept.len()).min(count);
                self.kept.extend_from_slice(&chunk[..room]);
            }
        }
    }
}

/// Waits until one of its streams has something, or it has ended, which is the answer.
fn wait(
    ended: &OwnedFd,
    stdout: &mut Stream<ChildStdout>,
    stderr: &mut Stream<ChildStderr>,
    patience: Duration,
) -> Result<bool, Failure> {
    let (mut is_over, mut out, mut err) = (false, false, false);
    {
        let mut sources = vec![(ended.as_fd(), &mut is_over)];
        sources.extend(stdout.descriptor().map(|descriptor| (descriptor, &mut out)));
        sources.extend(stderr.descriptor().map(|descriptor| (descriptor, &mut err)));
        let mut polled: Vec<_> = sources
            .iter()
            .map(|(descriptor, _)| PollFd::new(*descriptor, PollFlags::POLLIN))
            .collect();
        let timeout = PollTimeout::try_from(patience).unwrap_or(PollTimeout::MAX);
        match poll(&mut polled, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failure::Host(error.into())),
        }
        for ((_, has), polled) in sources.iter_mut().zip(&polled) {
            **has = polled.any().unwrap_or(false);
        }
    }
    (stdout.has_news, stderr.has_news) = (false, false);
    if out {
        stdout.read();
    }
    if err {
        stderr.read();
    }
    Ok(is_over)
}

/// No two evaluations on a host have the same one.
fn mark() -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let boot = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    format!("{}.{}.{}.{count}", std::process::id(), boot.tv_sec, boot.tv_nsec)
}

/// Kills what carries the mark, and says how many there were.
fn end_marked(mark: &str) -> usize {
    let wanted = format!("{MARK}={mark}");
    let carries = |pid: i32| environ::has_variable(pid.unsigned_abs(), &wanted);
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = pids.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut ended = 0;
    for pid in pids.filter(|pid| carries(*pid)) {
        // The descriptor is taken before the last look: the pid may have gone to somebody else.
        let process = Pid::from_raw(pid).and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        let Some(process) = process else { continue };
        if carries(pid) && pidfd_send_signal(&process, Signal::KILL).is_ok() {
            ended += 1;
        }
    }
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sh(script: &str, patience: Duration) -> Result<Outcome, Failure> {
        let env = [("PATH".into(), "/usr/bin:/bin".into())];
        let args = ["-c", script];
        let program =
            Program { path: Path::new("/bin/sh"), args: &args, env: &env, cwd: Path::new("/") };
        run(&program, patience)
    }

    const LONG: Duration = Duration::from_mins(1);

    #[test]
    fn result_output_and_complaints_come_apart() {
        let outcome = sh("echo out; echo err >&2; echo result >/proc/self/fd/0; exit 3", LONG).ok();
        let outcome = outcome.unwrap();
        assert_eq!(outcome.status.code(), Some(3));
        assert_eq!(outcome.result, b"result\n");
        assert_eq!((&outcome.printed[..], &outcome.complained[..]), (&b"out\n"[..], &b"err\n"[..]));
    }

    #[test]
    fn who_never_ends_is_ended_with_everything_it_started() {
        let began = Instant::now();
        // Nobody else sleeps for as long.
        let script = "setsid sleep 1001 & sleep 1001";
        let failure = sh(script, Duration::from_millis(300)).err().unwrap();
        assert!(matches!(failure, Failure::Late));
        assert!(began.elapsed() < LONG);
        let mark = format!("{MARK}={}.", std::process::id());
        let is_left = |entry: &fs::DirEntry| {
            let environ = fs::read(entry.path().join("environ")).unwrap_or_default();
            let is_sleep = fs::read_to_string(entry.path().join("cmdline"))
                .is_ok_and(|line| line == "sleep\x001001\x00");
            is_sleep && environ.split(|byte| *byte == 0).any(|v| v.starts_with(mark.as_bytes()))
        };
        let left = || fs::read_dir("/proc").unwrap().flatten().filter(is_left).count();
        // They are killed, and may not have had a CPU to end since.
        while left() > 0 && began.elapsed() < LONG {
            std::thread::sleep(Duration::from_millis(5));
        }
        assert_eq!(left(), 0);
    }

    #[test]
    fn who_prints_without_end_is_ended() {
        assert!(matches!(sh("yes", LONG).err().unwrap(), Failure::Loud));
    }

    #[test]
    fn a_child_that_holds_the_streams_open_is_not_waited_for() {
        let began = Instant::now();
        let outcome = sh("sleep 1000 & echo done", LONG).ok().unwrap();
        assert_eq!(outcome.printed, b"done\n");
        assert!(began.elapsed() < LONG);
    }
}
