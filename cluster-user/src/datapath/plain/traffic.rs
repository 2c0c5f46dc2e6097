//! How many connections a worker has, counted without privileges.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use procfs::{
    ProcResult,
    net::{TcpNetEntry, TcpState},
    process::{Process, all_processes},
};

use crate::{
    datapath::{Traffic, diag, idle, socket::sockets_of},
    id::WorkerId,
};

/// Connections of process `pid` and its descendants to the ports that they listen on. Handshakes are not
/// counted: nothing says which socket of a group they belong to.
pub(super) fn of(pid: u32) -> ProcResult<Traffic> {
    let inodes: BTreeSet<u64> = sockets(&family(&Kin::all()?, pid)).collect();
    let viewer = Process::new(pid.cast_signed())?;
    let mut entries = viewer.tcp()?;
    entries.extend(viewer.tcp6().unwrap_or_default());
    entries.retain(|entry| inodes.contains(&entry.inode));
    let mut traffic = count(&entries);
    // Where the kernel has no sock_diag, every connection counts as busy.
    traffic.busy = diag::busy(&inodes).unwrap_or(traffic.established);
    Ok(traffic)
}

/// Pids of a process and its descendants.
pub(super) fn pids(pid: u32) -> ProcResult<BTreeSet<u32>> {
    Ok(family(&Kin::all()?, pid))
}

/// Closes connections of process `pid` and its descendants over which nothing has happened for `idle`.
pub(super) fn hang_up(pid: u32, idle: Duration) -> anyhow::Result<u32> {
    let family = family(&Kin::all()?, pid);
    let of = |pid| sockets_of(pid).unwrap_or_default().into_iter().map(move |socket| (pid, socket));
    let open: Vec<_> = family.into_iter().flat_map(of).collect();
    let inodes = open.iter().map(|(_, socket)| socket.inode).collect();
    let mut listened = BTreeSet::new();
    let mut found = Vec::new();
    // The kernel shows listeners before connections, but those of IPv4 before all of IPv6, and one of IPv6 may have
    // accepted what is of either.
    diag::each_of(&inodes, |entry| {
        if entry.is_listening() {
            listened.insert(entry.local.port());
        } else if entry.is_idle(idle) {
            found.push(*entry);
        }
    })?;
    found.retain(|entry| listened.contains(&entry.local.port()));
    let found = found.iter().map(|entry| entry.inode.into()).collect();
    Ok(idle::hang_up(open, &found, idle, |_| false))
}

/// Connections of every worker, given the pids of their main processes, in one look at all of them.
pub(super) fn of_all(workers: &BTreeMap<WorkerId, u32>) -> anyhow::Result<BTreeMap<WorkerId, u32>> {
    let all = Kin::all()?;
    let mut owners = BTreeMap::new();
    for (worker, pid) in workers {
        owners.extend(sockets(&family(&all, *pid)).map(|inode| (inode, *worker)));
    }
    let owner = |entry: &diag::Entry| owners.get(&u64::from(entry.inode)).copied();
    let counted = diag::connections(BTreeSet::new(), owner)?;
    let count = |worker: &WorkerId| (*worker, counted.get(worker).copied().unwrap_or_default());
    Ok(workers.keys().map(count).collect())
}

/// Process `pid`, the members of its session, and descendants of all of them; `pid` alone if that cannot be told.
pub(super) fn processes(pid: u32) -> BTreeSet<u32> {
    Kin::all().map_or_else(|_| BTreeSet::from([pid]), |all| family(&all, pid))
}

/// As [`processes`], of many in one look at all.
pub(super) fn families<K: Ord + Copy>(mains: &BTreeMap<K, u32>) -> BTreeMap<K, BTreeSet<u32>> {
    let all = Kin::all().unwrap_or_default();
    mains.iter().map(|(id, pid)| (*id, family(&all, *pid))).collect()
}

/// Inode numbers of the sockets that processes have open.
fn sockets(pids: &BTreeSet<u32>) -> impl Iterator<Item = u64> {
    // A process that ended meanwhile, or one that became another user, has none to be counted.
    pids.iter().flat_map(|pid| sockets_of(*pid).unwrap_or_default()).map(|socket| socket.inode)
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
    Traffic { queued, established, busy: established, ..Traffic::default() }
}

/// A process and those it belongs to.
struct Kin {
    pid: u32,
    parent: u32,
    session: u32,
}

impl Kin {
    /// Of every process.
    fn all() -> ProcResult<Vec<Self>> {
        let kin = all_processes()?.filter_map(|process| {
            let stat = process.ok()?.stat().ok()?;
            Some(Self {
                pid: stat.pid.cast_unsigned(),
                parent: stat.ppid.cast_unsigned(),
                session: stat.session.cast_unsigned(),
            })
        });
        Ok(kin.collect())
    }
}

/// Process `pid`, the members of its session, and descendants of all of them.
fn family(all: &[Kin], pid: u32) -> BTreeSet<u32> {
    let mut family = BTreeSet::from([pid]);
    family.extend(all.iter().filter(|kin| kin.session == pid).map(|kin| kin.pid));
    loop {
        let before = family.len();
        for kin in all {
            if family.contains(&kin.parent) {
                family.insert(kin.pid);
            }
        }
        if family.len() == before {
            return family;
        }
    }
}
