//! Handing over to another program in place: the same process, with the lock and the waiting rooms, as a new supervisor.
//!
//! Everything else is taken over as from a supervisor that died, on purpose: it is one path, and it is used every day.

use std::{
    env, fs, io,
    os::{
        fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
        unix::{fs::MetadataExt as _, process::CommandExt as _},
    },
    path::Path,
    process::Command,
};

use nix::fcntl::{FcntlArg, FdFlag, fcntl};

use super::journal;
pub use crate::config::script::own_program;
use crate::{config::home::Home, datapath::Mode};

/// Names the descriptors that are handed over: that of the lock, then those of waiting rooms.
const VARIABLE: &str = "CLUSTER_INHERITED";

/// What a supervisor gets from the one that it was before.
#[derive(Debug, Default)]
pub struct Inheritance {
    /// The lock of the home.
    pub lock: Option<OwnedFd>,
    /// Listeners in which connections may wait; to be closed when there are others in their place.
    pub rooms: Vec<OwnedFd>,
}

impl Inheritance {
    /// What this process was given, if it was. To be called once, before any descriptor is made.
    pub fn take() -> Self {
        let given = env::var(VARIABLE).unwrap_or_default();
        let mut given = given.split(',').filter_map(|fd| fd.parse::<RawFd>().ok()).filter(|fd| {
            // One that is not there would be taken from whoever gets its number next.
            *fd > 2 && fcntl_get(*fd).is_ok()
        });
        // SAFETY: the descriptors are open, and nobody in this process knows of them: it has only begun.
        let mut own = |fd| unsafe { OwnedFd::from_raw_fd(fd) };
        let lock = given.next().map(&mut own);
        let rooms: Vec<_> = given.map(own).collect();
        for fd in lock.iter().chain(&rooms) {
            // No worker is to have them.
            // It is open, so it can be.
            fcntl(fd, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).unwrap_or_default();
        }
        Self { lock, rooms }
    }
}

fn fcntl_get(fd: RawFd) -> io::Result<i32> {
    // SAFETY: only asks about a number.
    let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
    if flags < 0 { Err(io::Error::last_os_error()) } else { Ok(flags) }
}

/// Becomes `program`, as the next supervisor of this home. Returns only if it cannot.
pub(super) fn become_program(
    program: &Path,
    mode: Option<Mode>,
    inheritance: &Inheritance,
) -> io::Error {
    let fds = inheritance.lock.iter().chain(&inheritance.rooms);
    let mut numbers = Vec::new();
    for fd in fds {
        if let Err(error) = fcntl(fd, FcntlArg::F_SETFD(FdFlag::empty())) {
            return error.into();
        }
        numbers.push(fd.as_raw_fd().to_string());
    }
    command(program, mode).env(VARIABLE, numbers.join(",")).exec()
}

fn command(program: &Path, mode: Option<Mode>) -> Command {
    let mut command = Command::new(program);
    command.arg0("cluster").args(["daemon", "--succeed"]).env_remove(VARIABLE);
    match mode {
        Some(Mode::Kernel) => command.args(["--mode", "kernel"]),
        Some(Mode::Plain) => command.args(["--mode", "plain"]),
        None => &mut command,
    };
    command
}

/// Becomes the program that the daemon before this one was, if that was another: a guardian starts what it is a copy of,
/// and the daemon may have been upgraded since. Returns if there is nothing to become.
pub fn follow_upgrade(home: &Home, mode: Option<Mode>) {
    let Some(program) = journal::program_of(&home.journal()) else { return };
    let same = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
    if same(&program).is_none() || same(&program) == same(Path::new("/proc/self/exe")) {
        return;
    }
    let error = command(&program, mode).exec();
    log::error!("failed to become {}, which was upgraded to: {error}", program.display());
}
