//! Ending the listening of a socket that another process has, so that the kernel migrates its queue.

use std::{
    collections::BTreeSet,
    io,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, ensure};
use rustix::net::{Shutdown, shutdown};

use super::socket;

/// Ends the listening of the sockets with these inode numbers, which these processes have open. Those that were closed
/// meanwhile are as good.
///
/// The kernel takes a socket that is shut down for reading out of its group and places its queue anew, as when it is
/// closed (`inet_shutdown`, `inet_csk_listen_stop`). A program that waits for connections on it gets `EINVAL`.
///
/// # Errors
/// When a socket cannot be reached; the others have been dealt with then.
pub(super) fn stop_listening(pids: &[u32], mut inodes: BTreeSet<u64>) -> anyhow::Result<()> {
    let mut refused = None;
    for &pid in pids {
        if inodes.is_empty() {
            break;
        }
        // A process that has ended has none.
        let Ok(process) = socket::pidfd_open(pid) else { continue };
        for open in socket::sockets_of(pid).unwrap_or_default() {
            if !inodes.contains(&open.inode) {
                continue;
            }
            match socket::pidfd_getfd(process.as_fd(), open.fd).and_then(|copy| stop(&copy)) {
                Ok(()) => {
                    inodes.remove(&open.inode);
                }
                Err(error) => refused = Some((pid, error)),
            }
        }
    }
    match refused {
        Some((pid, error)) if !inodes.is_empty() => {
            Err(error).with_context(|| format!("stop the listening of pid {pid}"))
        }
        Some(_) | None => Ok(()),
    }
}

/// Whether the kernel moves queued connections without a program (`net.ipv4.tcp_migrate_req`, Linux 5.14).
///
/// # Errors
/// When it does not, with what to do.
pub(super) fn moves_without_program() -> anyhow::Result<()> {
    const SWITCH: &str = "/proc/sys/net/ipv4/tcp_migrate_req";
    let setting = std::fs::read_to_string(SWITCH).unwrap_or_default();
    ensure!(
        setting.trim() == "1",
        "plain mode cannot move waiting connections: sysctl net.ipv4.tcp_migrate_req is not 1"
    );
    Ok(())
}

fn stop(copy: &OwnedFd) -> io::Result<()> {
    if !socket::is_listening(copy.as_fd())? {
        return Ok(());
    }
    Ok(shutdown(copy, Shutdown::Read)?)
}
