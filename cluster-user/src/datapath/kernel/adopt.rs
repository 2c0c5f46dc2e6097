//! Taking over what a supervisor that died has left in the kernel.

use std::{
    collections::{BTreeMap, BTreeSet},
    os::fd::AsFd as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, ensure};
use cluster_common::{abi, names};

use super::{
    Kernel,
    group::Group,
    ids::{self, Program},
    load,
};
use crate::{
    datapath::{
        GroupKey, GroupOptions, OnMiss, Protocol, SlotCounters, diag,
        record::{GroupRecord, Seated, SlotRecord},
    },
    id::GroupId,
};

impl Kernel {
    /// See [`DataPath::adopt`](crate::datapath::DataPath::adopt).
    pub(super) fn take_over(
        &mut self,
        id: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        options: &GroupOptions,
    ) -> anyhow::Result<Vec<Seated>> {
        ensure!(!self.groups.contains_key(&id), "group {} exists already", id.0);
        let listening = diag::listeners(key.protocol, key.address.port())
            .context("ask who listens on the port")?;
        let listening: BTreeMap<u64, diag::Entry> = listening
            .into_iter()
            .filter(|entry| entry.key(key.protocol, key.netns) == *key)
            .map(|entry| (entry.cookie, entry))
            .collect();
        let is_ours = |program: &Program| {
            let sockets = load::sockets(program)?;
            let held = load::cookies(sockets.as_fd());
            ensure!(
                held.iter().any(|(_, cookie)| listening.contains_key(cookie)),
                "none of the sockets of program {} is on {}",
                program.id,
                key.address
            );
            Ok(())
        };
        let program = recorded(record).and_then(|program| is_ours(&program).map(|()| program));
        // Its supervisor may have been killed when another program had taken that one's place, and before it could write
        // that down. The sockets are where they were.
        let program = program
            .or_else(|error| programs().find(|program| is_ours(program).is_ok()).ok_or(error))?;

        let mut group = self.group_of(id, key, record, options, program)?;
        group.app.clone_from(&options.app);
        let mut seats = Vec::new();
        for (slot, cookie) in group.seats().collect::<Vec<_>>() {
            let cgroup = listening.get(&cookie).and_then(|entry| entry.cgroup);
            let worker = self.watch.worker_of(cookie, cgroup);
            if let Some(worker) = worker {
                self.watch.seat(worker, cookie, key.address);
                group.introduce(slot, self.watch.owner(worker));
            }
            seats.push(Seated { slot, cookie, worker });
        }
        self.groups.insert(id, group);
        let mut workers = seats.iter().filter_map(|seat| self.watch.worker(seat.worker?));
        let app = workers.find_map(|worker| Some((worker.app, worker.app_cgroup?)));
        if let Some((app, cgroup)) = app {
            self.watch.owners.open(id, app, cgroup, key);
        }
        Ok(seats)
    }

    fn group_of(
        &mut self,
        id: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        options: &GroupOptions,
        program: Program,
    ) -> anyhow::Result<Group> {
        let trace = self.trace_file(options);
        let hub = Arc::clone(&self.hub);
        let version = load::version(&program)?;
        // A program counts in the maps of the joining programs that were there when it was loaded.
        let counts_here = program.map_id(names::LOADS) == Some(self.meter.number()?);
        if version == abi::VERSION && counts_here {
            // Whether decisions are recorded is a matter of the program that is there.
            let trace = load::is_traced(&program.name).then_some(trace);
            let meter = &mut self.meter;
            return Group::adopt(id, key, record, program, hub, trace.as_deref(), meter);
        }
        log::info!(
            "the group on {} has version {version} of the maps, or others than this daemon: it is built anew",
            key.address,
        );
        let (maps, trace) = if options.trace {
            (self.spare.select().load(true)?, Some(trace))
        } else {
            (self.spare.take()?, None)
        };
        let (watch, meter) = (&self.watch, &mut self.meter);
        Group::bridge(id, key, record, &program, maps, hub, trace.as_deref(), meter, |cookie| {
            watch.duplicate(cookie, key)
        })
    }

    /// Where the records of a traced group go.
    pub(super) fn trace_file(&self, options: &GroupOptions) -> PathBuf {
        self.logs.join(format!("{}-trace.log", options.app))
    }

    /// See [`DataPath::unadopted`](crate::datapath::DataPath::unadopted).
    pub(super) fn find_unadopted(&self) -> Vec<(GroupKey, GroupRecord)> {
        let mut listening = BTreeMap::new();
        for protocol in [Protocol::Tcp, Protocol::Udp] {
            for entry in diag::listeners(protocol, 0).unwrap_or_default() {
                let worker = self.watch.worker_of(entry.cookie, entry.cgroup);
                if worker.is_some() {
                    listening.insert(entry.cookie, entry.key(protocol, self.watch.netns()));
                }
            }
        }
        let known: BTreeSet<u32> = self.groups.values().map(Group::program).collect();
        let mut found = Vec::new();
        for program in programs().filter(|program| !known.contains(&program.id)) {
            let Ok(sockets) = load::sockets(&program) else { continue };
            let held = load::cookies(sockets.as_fd());
            let key = held.iter().find_map(|(_, cookie)| listening.get(cookie));
            let Some(key) = key.cloned() else { continue };
            let none = SlotCounters::default();
            let seat = |slot: u16, cookie| SlotRecord {
                slot,
                cookie,
                seat: 0,
                number: None,
                before: none,
                carried: none,
            };
            let seats = held.into_iter().filter(|(slot, _)| slot.is_worker());
            let slots: Vec<_> = seats.map(|(slot, cookie)| seat(slot.get(), cookie)).collect();
            let route = slots.iter().map(|seat| seat.slot).collect();
            let (program, loaded) = (program.id, program.loaded);
            let record = GroupRecord { program, loaded, on_miss: OnMiss::Wait, route, slots };
            found.push((key, record));
        }
        found
    }

    /// See [`DataPath::settle`](crate::datapath::DataPath::settle).
    pub(super) fn end_adopting(&mut self) {
        let seated: BTreeSet<u64> = self
            .groups
            .values()
            .flat_map(|group| group.seats().map(|(_, cookie)| cookie))
            .collect();
        self.watch.settle(&seated);
    }

    /// Takes the joining programs off the daemon's cgroup `root`: for a daemon that carries connections in another way
    /// than the one before it.
    ///
    /// # Errors
    /// What the kernel said.
    pub fn detach(root: &Path) -> anyhow::Result<()> {
        super::join::remove(root)
    }
}

/// The program that a group had when its record was written.
fn recorded(record: &GroupRecord) -> anyhow::Result<Program> {
    let program = Program::open(record.program)
        .with_context(|| format!("find program {} of the group", record.program))?;
    // Numbers are used again: the moment of loading is not.
    ensure!(
        load::is_of_a_group(&program) && program.loaded == record.loaded,
        "program {} ({}) is not the one that was loaded for the group",
        program.id,
        program.name
    );
    Ok(program)
}

/// The programs of all groups of the host.
fn programs() -> impl Iterator<Item = Program> {
    // They come and go meanwhile.
    ids::all_programs().filter_map(|id| Program::open(id).ok()).filter(load::is_of_a_group)
}
