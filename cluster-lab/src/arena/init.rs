//! Process 1 of an arena: brings the network up, starts the run, and waits for everybody who ends.

use std::{fs, path::Path, process::ExitCode, process::Stdio};

use anyhow::Context as _;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::wait::{WaitStatus, waitpid},
    unistd::Pid,
};

use super::{Role, interface, private_mounts, spawn};

/// Runs until the driver has ended; its exit code.
///
/// # Errors
/// When the arena cannot be furnished.
pub fn run(folder: &Path) -> anyhow::Result<ExitCode> {
    // The keeper goes on with the /proc it knows.
    unshare(CloneFlags::CLONE_NEWNS).context("no namespace of mounts")?;
    private_mounts()?;
    mount(Some("proc"), "/proc", Some("proc"), MsFlags::empty(), None::<&str>)
        .context("failed to mount /proc")?;
    interface::up("lo")?;
    tune();
    let driver = spawn(Role::Driver, folder, Stdio::inherit()).context("failed to start a run")?;
    let driver = Pid::from_raw(driver.id().cast_signed());
    loop {
        match waitpid(None::<Pid>, None).context("failed to wait")? {
            WaitStatus::Exited(pid, code) if pid == driver => {
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(1)));
            }
            WaitStatus::Signaled(pid, signal, _) if pid == driver => {
                anyhow::bail!("the run was ended by {signal}");
            }
            WaitStatus::Exited(..)
            | WaitStatus::Signaled(..)
            | WaitStatus::Stopped(..)
            | WaitStatus::Continued(_)
            | WaitStatus::PtraceEvent(..)
            | WaitStatus::PtraceSyscall(_)
            | WaitStatus::StillAlive => {}
        }
    }
}

/// Room for many short connections: every port there is, and used again after a second.
pub(super) fn tune() {
    for (name, value) in [
        ("ipv4/ip_local_port_range", "1024 65535"),
        ("ipv4/tcp_tw_reuse", "1"),
        ("core/somaxconn", "65535"),
        ("ipv4/tcp_max_syn_backlog", "65535"),
        // There is nobody else who might have an address; looking for them takes a second.
        ("ipv6/conf/all/accept_dad", "0"),
        ("ipv6/conf/default/accept_dad", "0"),
    ] {
        // An older kernel that lacks one of them has its own value, which is none of our business.
        fs::write(format!("/proc/sys/net/{name}"), value).unwrap_or_default();
    }
}
