//! Why a process could not be spawned, in words.

use std::fmt;

use nix::errno::Errno;

use super::{Launch, Step};

/// Why there is no process. Displays as `failed to execute /x/y: permission denied`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// What failed.
    pub step: Step,
    /// What the kernel said.
    pub errno: Errno,
    message: String,
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for SpawnError {}

impl SpawnError {
    pub(super) fn new(step: Step, errno: Errno, launch: &Launch<'_>) -> Self {
        let program = launch.program.display();
        let uid = launch.user.map_or(0, |user| user.uid);
        let what = match step {
            Step::Clone => format!("start a process for {program}"),
            Step::Cgroup => "enter the worker's cgroup".to_owned(),
            Step::Session => "begin a session".to_owned(),
            Step::Streams => "put standard input, output and error in place".to_owned(),
            Step::Signals => "reset the signal mask".to_owned(),
            Step::Umask => "set the umask".to_owned(),
            Step::OomScore => format!("set oom_score_adj to {}", launch.bounds.oom_score()),
            Step::Cpus => format!("run on CPUs {}", launch.bounds.cpus()),
            Step::Nice => format!("set nice to {}", launch.bounds.nice()),
            Step::Limits => format!("set its limits {}", launch.bounds.rlimits()),
            Step::Filter => "install the seccomp filter".to_owned(),
            Step::Groups => format!("take the groups of uid {uid}"),
            Step::Gid => format!("become gid {}", launch.user.map_or(0, |user| user.gid)),
            Step::Uid => format!("become uid {uid}"),
            Step::Folder => format!("change to folder {}", launch.cwd.display()),
            Step::Execute => format!("execute {program}"),
        };
        let why = explain(step, errno, launch);
        Self { step, errno, message: format!("failed to {what}: {why}") }
    }
}

/// The kernel's word, and what it means where that is not plain.
fn explain(step: Step, errno: Errno, launch: &Launch<'_>) -> String {
    let mut why = errno.desc().to_lowercase();
    match (step, errno) {
        (Step::Execute, Errno::E2BIG) => {
            let args: usize = launch.args.iter().map(|arg| arg.len() + 1).sum();
            let env: usize =
                launch.env.iter().map(|(name, value)| name.len() + value.len() + 2).sum();
            why = format!(
                "its arguments ({args} bytes) and environment ({env} bytes) are longer than the kernel \
                 allows (128 KiB each, a quarter of the stack limit in all)"
            );
        }
        (Step::Execute, Errno::ENOENT) if is_there(launch) => {
            why.push_str(" (the file exists: what its first line, or its header, names does not)");
        }
        (Step::Limits, Errno::EPERM) => {
            why.push_str(
                " (to lift a limit above the daemon's own hard one takes CAP_SYS_RESOURCE)",
            );
        }
        (Step::Nice | Step::OomScore, Errno::EACCES | Errno::EPERM) => {
            why.push_str(
                " (to better what the daemon itself has takes CAP_SYS_NICE or CAP_SYS_RESOURCE)",
            );
        }
        (Step::Cpus, Errno::EINVAL) => {
            why.push_str(" (none of them is there, or the daemon's cpuset has none of them)");
        }
        (Step::Clone, Errno::EINVAL) => {
            why.push_str(" (an argument or variable contains a null byte?)");
        }
        _ => {}
    }
    why
}

/// Whether the program itself exists; a relative path is meant from a folder that is not ours.
fn is_there(launch: &Launch<'_>) -> bool {
    launch.program.is_absolute() && launch.program.exists()
}
