//! How many connections a worker has, counted without privileges.

use std::collections::BTreeSet;

use procfs::{
    ProcResult,
    net::{TcpNetEntry, TcpState},
    process::{Process, all_processes},
};

use crate::datapath::{Traffic, diag, socket::sockets_of};

/// Connections of process `pid` and its descendants to the ports that they listen on. Handshakes are not
/// counted: nothing says which socket of a group they belong to.
pub(super) fn of(pid: u32) -> ProcResult<Traffic> {
    let inodes: BTreeSet<u64> = family(pid)?
        .into_iter()
        // A process that ended meanwhile, or one that became another user, has none to be counted.
        .flat_map(|pid| sockets_of(pid).unwrap_or_default())
        .map(|socket| socket.inode)
        .collect();
    let viewer = Process::new(pid.cast_signed())?;
    let mut entries = viewer.tcp()?;
    entries.extend(viewer.tcp6().unwrap_or_default());
    entries.retain(|entry| inodes.contains(&entry.inode));
    let mut traffic = count(&entries);
    // Where the kernel has no sock_diag, every connection counts as busy.
    traffic.busy = diag::busy(&inodes).unwrap_or(traffic.established);
    Ok(traffic)
}

/// Counts the sockets of one worker.
fn count(entries: &[TcpNetEntry]) -> Traffic {
    let listens = |entry: &&TcpNetEntry| entry.state == TcpState::Listen;
    let ports: BTreeSet<u16> =
        entries.iter().filter(listens).map(|entry| entry.local_address.port()).collect();
    // For a listener the kernel shows the length of its accept queue there (get_tcp4_sock). What waits in
    // it has no inode number yet.
    let queued: u32 = entries.iter().filter(listens).map(|entry| entry.rx_queue).sum();
    let accepted = entries.iter().filter(|entry| {
        !matches!(entry.state, TcpState::Listen | TcpState::Close)
            && ports.contains(&entry.local_address.port())
    });
    let accepted = u32::try_from(accepted.count()).unwrap_or(u32::MAX);
    let established = accepted.saturating_add(queued);
    Traffic { queued, handshakes: 0, established, busy: established }
}

/// Process `pid`, the members of its session, and descendants of all of them.
fn family(pid: u32) -> ProcResult<BTreeSet<u32>> {
    let all: Vec<(u32, u32, u32)> = all_processes()?
        .filter_map(|process| {
            let stat = process.ok()?.stat().ok()?;
            Some((
                stat.pid.cast_unsigned(),
                stat.ppid.cast_unsigned(),
                stat.session.cast_unsigned(),
            ))
        })
        .collect();
    let mut family = BTreeSet::from([pid]);
    family
        .extend(all.iter().filter(|(_, _, session)| *session == pid).map(|(member, _, _)| *member));
    loop {
        let before = family.len();
        for (member, parent, _) in &all {
            if family.contains(parent) {
                family.insert(*member);
            }
        }
        if family.len() == before {
            return Ok(family);
        }
    }
}
