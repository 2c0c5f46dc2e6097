//! How a worker ended, learned through its pidfd: no signal handler, no polling, no reused pid.

use std::{
    fmt, io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
};

use nix::sys::signal::Signal;
use rustix::process::{
    Pid, PidfdFlags, WaitId, WaitIdOptions, WaitIdStatus, pidfd_open, set_child_subreaper, waitid,
};
use tokio::io::{Interest, unix::AsyncFd};

use super::{proc, ready::register, stranger};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExitStatus {
    /// By itself, with this code.
    Code(i32),
    /// Killed.
    Signal {
        /// Number of the signal.
        signal: i32,
        /// Whether it left a core dump.
        core: bool,
    },
    /// Nobody could tell: it was not our child, and its parent was faster on a kernel that does not tell others.
    Unknown,
}

impl ExitStatus {
    /// Reads a wait status (`wait(2)`).
    pub(super) fn from_wait(status: i32) -> Self {
        match status & 0x7f {
            0 => Self::Code(status >> 8 & 0xff),
            signal => Self::Signal { signal, core: status & 0x80 != 0 },
        }
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal { signal, core } => {
                match Signal::try_from(signal) {
                    Ok(known) => write!(f, "killed by {known}")?,
                    // Realtime signals have numbers only.
                    Err(_) => write!(f, "killed by signal {signal}")?,
                }
                f.write_str(if core { " (core dumped)" } else { "" })
            }
            Self::Unknown => f.write_str("ended, nobody knows how"),
        }
    }
}

/// Waits for one process to end, and reaps it if it is a child. Workers of a daemon that died are nobody's children, or
/// somebody else's.
#[derive(Debug)]
pub struct ExitWatcher {
    process: AsyncFd<OwnedFd>,
}

impl ExitWatcher {
    /// Watches a process through a duplicate of its pidfd. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn new(process: BorrowedFd<'_>) -> io::Result<Self> {
        let copy = process.try_clone_to_owned()?;
        Ok(Self { process: register(copy, Interest::READABLE)? })
    }

    /// Waits for the end, and does not reap: what is to be seen of a zombie can be looked at until [`ExitWatcher::exit`].
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn end(&self) -> io::Result<()> {
        self.process.readable().await?.retain_ready();
        Ok(())
    }

    /// Waits for the end, reaps a child, and says how it ended. May be dropped and called again.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub async fn exit(&self) -> io::Result<ExitStatus> {
        loop {
            // A pidfd is readable once the process and all its threads have ended (`pidfd_open(2)`).
            let mut ready = self.process.readable().await?;
            match reap(self.process.get_ref().as_fd()) {
                Ok(Some(status)) => return Ok(status),
                Ok(None) => ready.clear_ready(),
                Err(error) if error.raw_os_error() == Some(libc::ECHILD) => {
                    return Ok(stranger::status(self.process.get_ref().as_fd()));
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// Waits for the end of any process, child or not. It is found when this is called, and waited for by the
/// future. To be called inside a tokio runtime.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn end_of(pid: u32) -> io::Result<impl Future<Output = io::Result<()>> + use<>> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    let process = register(pidfd_open(pid, PidfdFlags::empty())?, Interest::READABLE)?;
    Ok(async move {
        process.readable().await?.retain_ready();
        Ok(())
    })
}

/// Waits for a child that was sent SIGKILL, and reaps it.
///
/// # Errors
/// `ECHILD` when it is no child of this process, or was reaped before.
pub fn reap_killed(process: BorrowedFd<'_>) -> io::Result<()> {
    waitid(WaitId::PidFd(process), WaitIdOptions::EXITED)?;
    Ok(())
}

/// Reaps the child behind a pidfd if it has ended; never waits.
///
/// # Errors
/// `ECHILD` when it is no child of this process, or was reaped before.
pub fn reap(process: BorrowedFd<'_>) -> io::Result<Option<ExitStatus>> {
    let status = waitid(WaitId::PidFd(process), WaitIdOptions::EXITED | WaitIdOptions::NOHANG)?;
    Ok(status.map(|status| exit_status(&status)))
}

fn exit_status(status: &WaitIdStatus) -> ExitStatus {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => ExitStatus::Code(code),
        (None, signal) => ExitStatus::Signal { signal: signal.unwrap_or(0), core: status.dumped() },
    }
}

/// Makes orphans among this process' descendants its children (`PR_SET_CHILD_SUBREAPER`), so that a
/// worker's daemonised children stay findable. They become zombies for [`reap_strays`].
///
/// # Errors
/// Never, on Linux 3.4 and later.
pub fn become_subreaper() -> io::Result<()> {
    // Any pid at all means yes.
    Ok(set_child_subreaper(Some(Pid::INIT))?)
}

/// Reaps ended children that are nobody's worker, and says how many. To be called when SIGCHLD arrives,
/// which is the only word of an adopted child's end.
///
/// `is_worker` tells the pids that an [`ExitWatcher`] will reap; their zombies are left alone.
pub fn reap_strays(is_worker: impl Fn(u32) -> bool) -> usize {
    // The usual answer costs one system call: there is no zombie, or all of them are strays.
    let look = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let mut reaped = 0;
    loop {
        let first = waitid(WaitId::All, look).ok().flatten().and_then(|_| zombie(&is_worker));
        let Some(pid) = first else { return reaped };
        if !matches!(
            waitid(WaitId::Pid(pid), WaitIdOptions::EXITED | WaitIdOptions::NOHANG),
            Ok(Some(_))
        ) {
            return reaped;
        }
        reaped += 1;
    }
}

/// A zombie among the children that is no worker. `waitid` cannot skip those that are.
fn zombie(is_worker: &impl Fn(u32) -> bool) -> Option<Pid> {
    let me = std::process::id();
    let mut all = proc::pids().into_iter().filter_map(proc::Stat::of);
    let found = all.find(|stat| stat.parent == me && stat.state == 'Z' && !is_worker(stat.pid))?;
    Pid::from_raw(found.pid.cast_signed())
}

#[cfg(test)]
mod tests {
    use std::{
        process::{Command, Stdio},
        thread,
        time::{Duration, Instant},
    };

    use super::*;

    #[test]
    fn codes_and_signals_are_told_apart() {
        assert_eq!(exit_of("exit 3"), ExitStatus::Code(3));
        assert_eq!(exit_of("kill -9 $$"), ExitStatus::Signal { signal: 9, core: false });
        assert_eq!(exit_of("kill -9 $$").to_string(), "killed by SIGKILL");
        assert_eq!(exit_of("exit 3").to_string(), "exited with code 3");
    }

    #[test]
    fn an_exit_is_seen_within_milliseconds_and_reaped_once() {
        runtime().block_on(async {
            let child = shell("sleep 0.05");
            let process = pidfd_open(child).unwrap();
            let watcher = ExitWatcher::new(process.as_fd()).unwrap();
            let start = Instant::now();
            assert_eq!(watcher.exit().await.unwrap(), ExitStatus::Code(0));
            assert!(start.elapsed() < Duration::from_secs(5));
            let again = reap(process.as_fd()).unwrap_err();
            assert_eq!(again.raw_os_error(), Some(libc::ECHILD));
        });
    }

    #[test]
    fn the_end_of_a_process_is_waited_for_without_reaping_it() {
        runtime().block_on(async {
            let child = shell("sleep 0.05");
            end_of(child).unwrap().await.unwrap();
            let process = pidfd_open(child).unwrap();
            assert_eq!(reap(process.as_fd()).unwrap(), Some(ExitStatus::Code(0)));
            assert!(end_of(child).is_err());
        });
    }

    /// Other tests have children in this process too: all but one count as workers.
    #[test]
    fn strays_are_reaped_and_workers_are_not() {
        let (worker, stray) = (shell("exit 4"), shell("exit 5"));
        let worker_process = pidfd_open(worker).unwrap();
        for pid in [worker, stray] {
            while proc::Stat::of(pid).is_some_and(|stat| stat.state != 'Z') {
                thread::sleep(Duration::from_millis(1));
            }
        }
        assert_eq!(reap_strays(|pid| pid != stray), 1);
        assert_eq!(reap_strays(|pid| pid != stray), 0);
        assert_eq!(proc::Stat::of(stray), None);
        assert_eq!(reap(worker_process.as_fd()).unwrap(), Some(ExitStatus::Code(4)));
    }

    fn exit_of(script: &str) -> ExitStatus {
        let process = pidfd_open(shell(script)).unwrap();
        runtime()
            .block_on(async { ExitWatcher::new(process.as_fd()).unwrap().exit().await.unwrap() })
    }

    fn pidfd_open(pid: u32) -> rustix::io::Result<OwnedFd> {
        let pid = Pid::from_raw(pid.cast_signed()).expect("no process is 0");
        rustix::process::pidfd_open(pid, PidfdFlags::empty())
    }

    fn shell(script: &str) -> u32 {
        Command::new("/bin/sh").args(["-c", script]).stderr(Stdio::null()).spawn().unwrap().id()
    }

    fn runtime() -> tokio::runtime::Runtime {
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
    }
}
