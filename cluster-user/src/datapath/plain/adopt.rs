//! Taking over from a supervisor that died: the notifiers of living workers, and their sockets.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, OwnedFd},
};

use anyhow::{Context as _, ensure};
use cluster_common::slot::Slot;
use rustix::net::sockopt;

use super::{Group, Listener, Plain, Port, answer::wanted, traffic};
use crate::{
    datapath::{
        GroupKey, Protocol, SlotCounters, diag,
        record::{GroupRecord, Seated, SlotRecord},
        socket::{self, pidfd_getfd, pidfd_open, sockets_of},
    },
    id::{AppId, GroupId, WorkerId},
};

/// What `/proc` calls a notification descriptor.
const NOTIFIER: &str = "anon_inode:seccomp notify";

/// A duplicate of the notifier that a worker holds itself, its main process or one that came from it.
pub(super) fn notifier_of(pid: u32) -> Option<OwnedFd> {
    // The main process first: looking for the others takes reading all of /proc.
    held_by(pid).or_else(|| traffic::processes(pid).into_iter().find_map(held_by))
}

fn held_by(pid: u32) -> Option<OwnedFd> {
    let process = pidfd_open(pid).ok()?;
    fs::read_dir(format!("/proc/{pid}/fd")).ok()?.flatten().find_map(|entry| {
        let target = fs::read_link(entry.path()).ok()?;
        let number = entry.file_name().to_str()?.parse().ok()?;
        (target.as_os_str() == NOTIFIER).then(|| pidfd_getfd(process.as_fd(), number).ok())?
    })
}

impl Group {
    pub(super) fn record(&self) -> GroupRecord {
        let none = SlotCounters::default();
        let seat = |(slot, cookie): (&Slot, &u64)| SlotRecord {
            seat: 0,
            number: None,
            slot: slot.get(),
            cookie: *cookie,
            before: none,
            carried: none,
        };
        GroupRecord {
            program: 0,
            loaded: 0,
            on_miss: self.on_miss,
            route: self.route.iter().map(|slot| slot.get()).collect(),
            slots: self.seats.iter().map(seat).collect(),
        }
    }
}

impl Plain {
    /// See [`DataPath::adopt`](crate::datapath::DataPath::adopt).
    pub(super) fn take_over(
        &mut self,
        id: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
    ) -> anyhow::Result<Vec<Seated>> {
        ensure!(!self.groups.contains_key(&id), "group {} exists already", id.0);
        let there = diag::listeners(key.protocol, key.address.port())
            .context("ask who listens on the port")?;
        let there: BTreeMap<u64, u64> = there
            .into_iter()
            .filter(|entry| entry.key(key.protocol, key.netns) == *key)
            .map(|entry| (entry.cookie, entry.inode.into()))
            .collect();
        let owners = self.owners();
        let mut group = Group {
            on_miss: record.on_miss,
            route: record.route.iter().filter_map(|&number| Slot::new(number)).collect(),
            seats: BTreeMap::new(),
        };
        let mut seats = Vec::new();
        for &SlotRecord { slot, cookie, .. } in &record.slots {
            let (Some(slot), Some(inode)) = (Slot::new(slot), there.get(&cookie)) else { continue };
            let owner = owners.get(inode).copied();
            if let Some((_, app)) = owner {
                self.listeners.insert(*inode, Listener { app, at: Some(Port::of(key)) });
            }
            group.seats.insert(slot, cookie);
            seats.push(Seated { slot, cookie, worker: owner.map(|(worker, _)| worker) });
        }
        ensure!(!seats.is_empty(), "none of its sockets is on {} any more", key.address);
        if record.program != 0 {
            self.take_program_off(&seats, &there, key);
        }
        self.groups.insert(id, group);
        Ok(seats)
    }

    /// The group of a supervisor in kernel mode has its program still, which would go on choosing among the sockets it knew,
    /// and find nobody when they are gone.
    fn take_program_off(&self, seats: &[Seated], there: &BTreeMap<u64, u64>, key: &GroupKey) {
        let taken = seats.iter().find_map(|seat| {
            let socket = self.duplicate_of(seat.worker?, *there.get(&seat.cookie)?)?;
            Some(socket::detach_program(socket.as_fd()))
        });
        match taken {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                log::warn!("failed to take the program off {}: {error}", key.address);
            }
            None => log::warn!("failed to take the program off {}: no socket", key.address),
        }
    }

    /// Reports the sockets of workers that listen and are in no group.
    ///
    /// Those that share their port count: the hooks make every socket do so that is to be balanced. One that shares by its
    /// own will, on a port of the kernel's choice, cannot be told from them.
    pub(super) fn look_around(&mut self) {
        let mut waiting = BTreeMap::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for entry in diag::listeners(protocol, 0).unwrap_or_default() {
                waiting.insert(u64::from(entry.inode), entry.local.port());
            }
        }
        for (inode, (worker, _)) in self.owners() {
            let Some(&port) = waiting.get(&inode) else { continue };
            let ports = self.workers.get(&worker).map(|known| known.ports.as_slice());
            if self.listeners.contains_key(&inode) || !ports.is_some_and(|all| wanted(all, port)) {
                continue;
            }
            let Some(socket) = self.duplicate_of(worker, inode) else { continue };
            if sockopt::socket_reuseport(&socket).unwrap_or(false) {
                self.report(worker, socket);
            }
        }
    }

    /// Reports the sockets of one worker's first process that listen and are in no group: those that were made before it
    /// ran under the filter.
    pub(super) fn look_into(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.get(&worker) else { return };
        let Some(pid) = known.running.as_ref().map(|running| running.pid) else { return };
        let ports = known.ports.clone();
        let open = sockets_of(pid).unwrap_or_default();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for entry in diag::listeners(protocol, 0).unwrap_or_default() {
                let inode = u64::from(entry.inode);
                let is_its = open.iter().any(|socket| socket.inode == inode);
                if !is_its
                    || self.listeners.contains_key(&inode)
                    || !wanted(&ports, entry.local.port())
                {
                    continue;
                }
                if let Some(socket) = self.duplicate_of(worker, inode) {
                    self.report(worker, socket);
                }
            }
        }
    }

    /// Whose the sockets are that workers have open, by inode number.
    fn owners(&self) -> BTreeMap<u64, (WorkerId, AppId)> {
        let mut owners = BTreeMap::new();
        let workers = self.workers.iter();
        let running = workers
            .filter_map(|(id, known)| Some(((*id, known.app), known.running.as_ref()?.pid)))
            .collect();
        for (owner, pids) in traffic::families(&running) {
            for pid in pids {
                let open = sockets_of(pid).unwrap_or_default().into_iter();
                owners.extend(open.map(|socket| (socket.inode, owner)));
            }
        }
        owners
    }

    fn duplicate_of(&self, worker: WorkerId, inode: u64) -> Option<OwnedFd> {
        let running = self.workers.get(&worker)?.running.as_ref()?;
        traffic::processes(running.pid).into_iter().find_map(|pid| {
            let process = pidfd_open(pid).ok()?;
            let open = sockets_of(pid).ok()?.into_iter().find(|open| open.inode == inode)?;
            let copy = pidfd_getfd(process.as_fd(), open.fd).ok()?;
            (socket::inode(copy.as_fd()).ok()? == inode).then_some(copy)
        })
    }
}
