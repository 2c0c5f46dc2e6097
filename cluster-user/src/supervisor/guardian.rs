//! The guardian of a daemon that runs in the background: the process that starts it again when it was killed.
//!
//! It is the daemon's parent, made before there is any thread, and does nothing but wait. Workers of a daemon that died
//! become its children, so that somebody reaps them; it holds nothing of theirs and nothing of the daemon's. Without it, if
//! it is killed, the daemon goes on. A daemon in the foreground has none: there it is the service manager's task.

use std::{
    fmt, fs, io, mem,
    os::fd::OwnedFd,
    ptr,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::{ForkResult, Pid, fork},
};

use crate::{api::socket::Lock, config::home::Home, process::watch};

/// Signals that are meant for the daemon, whichever of the two gets them.
const PASSED_ON: [Signal; 4] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGUSR2];

/// A daemon that lived for less did not begin well.
const WELL: Duration = Duration::from_secs(10);
/// Pause after the second bad beginning in a row; it doubles each time. After the first there is none.
const PAUSE: Duration = Duration::from_millis(100);
/// How often it looks, meanwhile, whether somebody was faster.
const LOOK: Duration = Duration::from_millis(50);
/// So many bad beginnings in a row are the last.
const ENOUGH: u32 = 10;

/// What the caller of [`stand_by`] is when that returns.
#[derive(Debug)]
pub enum Role {
    /// The daemon, to be run; whoever waits for it is told through `ready`, unless nobody does any more.
    Daemon {
        /// As it was given.
        ready: Option<OwnedFd>,
        /// Whether there was one before it.
        again: bool,
    },
    /// The guardian, whose daemon has ended for good.
    Guardian,
}

/// Makes the calling process the guardian of the daemon of a home, which it starts as often as need be.
///
/// Returns in every daemon, and at last in the guardian. To be called while there is only one thread.
///
/// # Errors
/// When no process can be made.
pub fn stand_by(ready: OwnedFd, home: &Home) -> io::Result<Role> {
    watch::become_subreaper()?;
    let heard = PASSED_ON.into_iter().chain([Signal::SIGCHLD, Signal::SIGHUP]).collect::<SigSet>();
    let before = heard.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let mut ready = Some(ready);
    let mut policy = Policy::default();
    let mut again = false;
    loop {
        let begun = Instant::now();
        // SAFETY: there is one thread, so the child is a whole process.
        let daemon = match unsafe { fork() }? {
            ForkResult::Child => {
                before.thread_set_mask()?;
                return Ok(Role::Daemon { ready, again });
            }
            ForkResult::Parent { child } => child,
        };
        // Whoever waits must see the end if the daemon says nothing.
        ready = None;
        let end = attend(daemon, &heard)?;
        match policy.after(end, begun.elapsed(), again) {
            Next::End => return Ok(Role::Guardian),
            Next::GiveUp => {
                log::error!(
                    "the daemon (pid {daemon}) {end}, {ENOUGH} times in a row soon after its start: giving up; \
                     its workers run on, and the next command starts another"
                );
                return Ok(Role::Guardian);
            }
            Next::Start(pause) => {
                log::warn!("the daemon (pid {daemon}) {end}; starting it again");
                if !pause.is_zero() && is_ended(pause, &heard, home)? {
                    return Ok(Role::Guardian);
                }
            }
        }
        again = true;
    }
}

/// The guardian of a daemon, if it has one: the parent that it is a copy of.
pub fn of(daemon: u32) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{daemon}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(") ")?;
    let parent = fields.split(' ').nth(1)?.parse().ok()?;
    let command = |pid: u32| fs::read(format!("/proc/{pid}/cmdline")).ok();
    (parent > 1 && command(parent)? == command(daemon)?).then_some(parent)
}

/// How a daemon ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Code(i32),
    Signal(Signal),
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exited with code {code}"),
            Self::Signal(signal) => write!(f, "was killed by {signal}"),
        }
    }
}

/// What a panic exits with.
const PANIC: i32 = 101;

/// What follows the end of a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    End,
    GiveUp,
    Start(Duration),
}

#[derive(Debug, Default)]
struct Policy {
    /// Bad beginnings in a row.
    bad: u32,
}

impl Policy {
    fn after(&mut self, end: End, lived: Duration, again: bool) -> Next {
        match end {
            End::Code(0) => return Next::End,
            // It could not start, and has told whoever started it why.
            End::Code(code) if code != PANIC && !again => return Next::End,
            End::Code(_) | End::Signal(_) => {}
        }
        self.bad = if lived < WELL { self.bad + 1 } else { 0 };
        match self.bad {
            0 | 1 => Next::Start(Duration::ZERO),
            ENOUGH.. => Next::GiveUp,
            bad => Next::Start(PAUSE * 2_u32.pow(bad - 2)),
        }
    }
}

/// Waits for the daemon to end, passes signals on to it, and reaps whom it left.
fn attend(daemon: Pid, heard: &SigSet) -> io::Result<End> {
    loop {
        let signal = heard.wait()?;
        if signal == Signal::SIGCHLD {
            if let Some(end) = reap(daemon)? {
                return Ok(end);
            }
        } else if PASSED_ON.contains(&signal) {
            // It has ended if this fails, and that is heard of next. A terminal that closes is no reason to end.
            kill(daemon, signal).unwrap_or_default();
        }
    }
}

/// Reaps everybody who has ended, and says how the daemon has.
fn reap(daemon: Pid) -> io::Result<Option<End>> {
    let mut end = None;
    loop {
        match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, code)) if pid == daemon => end = Some(End::Code(code)),
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == daemon => {
                end = Some(End::Signal(signal));
            }
            Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return Ok(end),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for a while; whether no daemon is wanted of this guardian any more: a signal came that would have ended it, or a
/// command did not wait and started another, which may have been ended since.
fn is_ended(pause: Duration, heard: &SigSet, home: &Home) -> io::Result<bool> {
    let deadline = Instant::now() + pause;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let signal = next_signal(heard, left.min(LOOK))?;
        if signal == Some(Signal::SIGCHLD) {
            reap(Pid::from_raw(0))?;
        } else if signal
            .is_some_and(|signal| signal != Signal::SIGUSR2 && PASSED_ON.contains(&signal))
        {
            return Ok(true);
        }
        // A daemon that is ended removes its journal.
        if Lock::is_held(home) || !home.journal().exists() {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

/// The next signal, if one comes in time (`sigtimedwait(2)`). To be called with those signals blocked.
///
/// # Errors
/// What the kernel says.
pub fn next_signal(heard: &SigSet, within: Duration) -> io::Result<Option<Signal>> {
    // SAFETY: plain numbers.
    let mut time: libc::timespec = unsafe { mem::zeroed() };
    time.tv_sec = libc::time_t::try_from(within.as_secs()).unwrap_or(libc::time_t::MAX);
    time.tv_nsec = within.subsec_nanos().into();
    // SAFETY: a valid set and a valid time; nothing else is wanted.
    let number = unsafe {
        libc::sigtimedwait(ptr::from_ref(heard.as_ref()), ptr::null_mut(), &raw const time)
    };
    match Errno::result(number) {
        Ok(number) => Ok(Some(Signal::try_from(number)?)),
        Err(Errno::EAGAIN) => Ok(None),
        // To be asked again: something that is not heard of interrupted it.
        Err(Errno::EINTR) => Ok(Some(Signal::SIGCHLD)),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KILLED: End = End::Signal(Signal::SIGKILL);
    const SOON: Duration = Duration::from_millis(5);

    #[test]
    fn a_daemon_that_is_killed_is_started_again_at_once() {
        let mut policy = Policy::default();
        for _ in 0..100 {
            assert_eq!(policy.after(KILLED, WELL, true), Next::Start(Duration::ZERO));
        }
        assert_eq!(policy.after(End::Code(PANIC), WELL, false), Next::Start(Duration::ZERO));
    }

    #[test]
    fn a_daemon_that_ends_or_cannot_start_is_left_alone() {
        let mut policy = Policy::default();
        assert_eq!(policy.after(End::Code(0), WELL, true), Next::End);
        assert_eq!(policy.after(End::Code(1), SOON, false), Next::End);
        assert_eq!(policy.after(End::Code(1), SOON, true), Next::Start(Duration::ZERO));
    }

    #[test]
    fn pauses_grow_until_it_is_enough() {
        let mut policy = Policy::default();
        let mut total = Duration::ZERO;
        for _ in 1..ENOUGH {
            let Next::Start(pause) = policy.after(KILLED, SOON, true) else { panic!("too soon") };
            total += pause;
        }
        assert!(total > Duration::from_secs(20), "{total:?}");
        assert_eq!(policy.after(KILLED, SOON, true), Next::GiveUp);
        assert_eq!(policy.after(KILLED, WELL, true), Next::Start(Duration::ZERO));
    }
}
