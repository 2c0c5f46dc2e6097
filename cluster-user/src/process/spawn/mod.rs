//! Spawning: a worker is born in its cgroup, with nothing of the daemon's.

mod bounds;
mod child;
mod clone;
mod error;
mod report;

use std::{
    ffi::{CString, NulError, OsStr},
    io,
    os::{
        fd::{AsFd as _, AsRawFd, BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
    path::Path,
    ptr,
};

use nix::errno::Errno;
use rustix::{
    fs::{Mode, OFlags, openat},
    io::fcntl_dupfd_cloexec,
    process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid},
};

pub use self::{bounds::Bounds, child::Step, error::SpawnError};
use self::{
    child::{Identity, Plan},
    clone::{clone, fork},
};
use crate::config::spec::User;

/// The child's own descriptors have numbers from here on, so that none it passes on overwrites them.
pub const OWN: RawFd = 100;

/// A process to be.
#[derive(Clone, Debug)]
pub struct Launch<'a> {
    /// File to execute; no search in PATH.
    pub program: &'a Path,
    /// All arguments, the program's name as typed first.
    pub args: &'a [String],
    /// The whole environment: nothing is added.
    pub env: &'a [(String, String)],
    /// Working folder, entered as `user`.
    pub cwd: &'a Path,
    /// Whom to become; the daemon's own user when absent.
    pub user: Option<&'a User>,
    /// Folder of the cgroup (v2) to be born in.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// Standard output.
    pub stdout: BorrowedFd<'a>,
    /// Standard error.
    pub stderr: BorrowedFd<'a>,
    /// Further descriptors, and the numbers they have in the process: above 2 and below [`OWN`], each once.
    pub inherited: &'a [(BorrowedFd<'a>, RawFd)],
    /// A seccomp filter to run under, whose notifications the caller answers.
    pub filter: Option<&'a [libc::sock_filter]>,
    /// What it may use beside that.
    pub bounds: &'a Bounds,
}

/// A process that runs its program.
#[derive(Debug)]
pub struct Spawned {
    /// Its process id.
    pub pid: u32,
    /// A descriptor for it (`pidfd_open(2)`), close-on-exec.
    pub process: OwnedFd,
    /// Where notifications of its filter arrive (`seccomp_unotify(2)`), when it has one.
    pub notifier: Option<OwnedFd>,
}

/// Starts a process and waits until it runs its program.
///
/// It leads a session of its own, reads from /dev/null, has every signal at its default and none
/// blocked, and no descriptor but the three streams, those it is to inherit and, far above them, the notifier of its
/// filter. Umask, priorities and limits are inherited where `bounds` does not say otherwise, except for the limit of
/// descriptors where [`limits::raise_descriptors`](super::limits::raise_descriptors) changed it.
///
/// # Errors
/// [`SpawnError`]; no process is left then.
pub fn spawn(launch: &Launch<'_>) -> Result<Spawned, SpawnError> {
    match start(Way::Clone, launch) {
        Err(SpawnError {
            step: Step::Clone,
            errno: Errno::ENOSYS | Errno::EPERM | Errno::EINVAL | Errno::E2BIG,
            ..
        }) => start(Way::Fork, launch),
        other => other,
    }
}

/// How a process is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// `clone3(2)`, into the cgroup.
    Clone,
    /// `fork(2)`; the child moves itself into the cgroup. Linux before 5.7, and containers whose
    /// filters refuse `clone3`.
    Fork,
}

fn start(way: Way, launch: &Launch<'_>) -> Result<Spawned, SpawnError> {
    let fail = |step, errno| SpawnError::new(step, errno, launch);
    let before = |error: io::Error| fail(Step::Clone, to_errno(&error));
    let prepared = Prepared::new(launch).map_err(before)?;
    let (ours, theirs) = report::channel().map_err(before)?;
    let theirs = out_of_the_way(theirs).map_err(before)?;
    let made = match way {
        Way::Clone => {
            let plan = prepared.plan(launch, &theirs, None);
            // SAFETY: `prepared` and `launch` hold what the plan points to.
            unsafe { clone(&plan, launch.cgroup) }
        }
        Way::Fork => {
            let procs = launch.cgroup.map(members_of).transpose().map_err(before)?;
            let plan = prepared.plan(launch, &theirs, procs.as_ref());
            // SAFETY: `prepared`, `launch` and `procs` hold what the plan points to.
            unsafe { fork(&plan) }
        }
    };
    let (pid, process) = made.map_err(|errno| fail(Step::Clone, errno))?;
    drop(theirs);
    match report::listen(&ours) {
        Ok(notifier) => Ok(Spawned { pid, process, notifier }),
        Err((step, errno)) => {
            end(&process);
            Err(fail(step, errno))
        }
    }
}

/// What the child needs, in C's form. It outlives the plans that point into it.
struct Prepared {
    program: CString,
    args: Vec<CString>,
    env: Vec<CString>,
    cwd: CString,
    argv: Vec<*const libc::c_char>,
    envp: Vec<*const libc::c_char>,
    streams: [OwnedFd; 3],
    /// Holds the first of each pair in `passed` open.
    _inherited: Vec<(OwnedFd, RawFd)>,
    passed: Vec<(RawFd, RawFd)>,
}

impl Prepared {
    fn new(launch: &Launch<'_>) -> io::Result<Self> {
        let text = |text: &OsStr| CString::new(text.as_bytes());
        let args = launch
            .args
            .iter()
            .map(|arg| text(arg.as_ref()))
            .collect::<Result<Vec<_>, NulError>>()?;
        let pair = |(name, value): &(String, String)| CString::new(format!("{name}={value}"));
        let env = launch.env.iter().map(pair).collect::<Result<Vec<_>, NulError>>()?;
        let null = rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let copy = |fd: BorrowedFd<'_>| fcntl_dupfd_cloexec(fd, OWN);
        let inherited = launch
            .inherited
            .iter()
            .map(|&(fd, number)| Ok((copy(fd)?, number)))
            .collect::<io::Result<Vec<_>>>()?;
        let passed = inherited.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
        Ok(Self {
            program: text(launch.program.as_os_str())?,
            cwd: text(launch.cwd.as_os_str())?,
            argv: pointers(&args),
            envp: pointers(&env),
            args,
            env,
            streams: [out_of_the_way(null)?, copy(launch.stdout)?, copy(launch.stderr)?],
            _inherited: inherited,
            passed,
        })
    }

    fn plan(&self, launch: &Launch<'_>, report: &OwnedFd, procs: Option<&OwnedFd>) -> Plan {
        debug_assert_eq!(
            (self.argv.len(), self.envp.len()),
            (self.args.len() + 1, self.env.len() + 1)
        );
        Plan {
            program: self.program.as_ptr(),
            argv: self.argv.as_ptr(),
            envp: self.envp.as_ptr(),
            cwd: self.cwd.as_ptr(),
            procs: procs.map(AsRawFd::as_raw_fd),
            streams: self.streams.each_ref().map(AsRawFd::as_raw_fd),
            passed: self.passed.as_ptr(),
            passed_count: self.passed.len(),
            report: report.as_raw_fd(),
            identity: launch.user.filter(|user| !is_me(user)).map(|user| Identity {
                uid: user.uid,
                gid: user.gid,
                groups: user.groups.as_ptr(),
                count: user.groups.len(),
            }),
            filter: launch.filter.map(|program| libc::sock_fprog {
                len: u16::try_from(program.len()).unwrap_or(u16::MAX),
                filter: program.as_ptr().cast_mut(),
            }),
            bounds: launch.bounds.plan(),
        }
    }
}

/// An array as `execve(2)` wants it.
fn pointers(texts: &[CString]) -> Vec<*const libc::c_char> {
    texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// Whether an unprivileged daemon is asked to become what it is, which it could not even repeat.
fn is_me(user: &User) -> bool {
    !nix::unistd::geteuid().is_root()
        && nix::unistd::geteuid().as_raw() == user.uid
        && nix::unistd::getegid().as_raw() == user.gid
}

/// Moves a descriptor to where none that is passed on will overwrite it.
fn out_of_the_way(fd: OwnedFd) -> io::Result<OwnedFd> {
    if fd.as_raw_fd() >= OWN { Ok(fd) } else { Ok(fcntl_dupfd_cloexec(fd, OWN)?) }
}

fn members_of(cgroup: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    Ok(openat(cgroup, "cgroup.procs", OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty())?)
}

/// Ends a child that did not get to its program, and reaps it.
fn end(process: &OwnedFd) {
    // Most often it has ended by itself and is a zombie, and neither can fail in a way that matters.
    pidfd_send_signal(process, Signal::KILL).unwrap_or_default();
    waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED).unwrap_or_default();
}

fn to_errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
}

#[cfg(test)]
mod tests;
