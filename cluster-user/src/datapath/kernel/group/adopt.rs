//! Taking a group over from a supervisor that died, while connections go on being placed.

use std::{
    collections::BTreeMap,
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cluster_common::{
    abi, choose,
    load::Seat,
    names,
    publish::Board as _,
    route::{Entry, Lane},
    slot::Slot,
};

use super::{
    super::{
        bpf,
        hub::Hub,
        ids::{self, Program},
        load::{self, SelectMaps},
        meter::Meter,
    },
    Filled, Group, Owner,
};
use crate::{
    datapath::{
        GroupKey, OnMiss, Protocol, SlotCounters,
        record::{GroupRecord, SlotRecord},
    },
    id::GroupId,
};

/// How long the maps of a program that nobody has any more may take to go: an RCU grace period and a work queue.
const PATIENCE: Duration = Duration::from_millis(300);
/// How often it is looked whether they are gone.
const RETRY: Duration = Duration::from_millis(2);

impl Group {
    /// Takes over a group whose program has the layout of this version.
    ///
    /// The program goes on walking its route. The waiting room died with its owner: there is a new one afterwards.
    ///
    /// # Errors
    /// When a map is missing or a trace cannot be read; nothing has been changed then.
    pub(in super::super) fn adopt(
        id: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        program: Program,
        hub: Arc<Hub>,
        trace: Option<&Path>,
        meter: &mut Meter,
    ) -> anyhow::Result<Self> {
        let mut group = Self::new(id, key, SelectMaps::of(program)?, hub);
        group.told = group.settings().context("read the group's settings")?;
        if let Some(file) = trace {
            group.start_trace(file)?;
        }
        let active = group.board.cursor(Lane::Syn).buffer();
        let route: Vec<Entry> =
            group.board.entries(active).iter().map(|&word| Entry::from_word(word)).collect();
        let known = by_socket(record);
        let seats = load::cookies(group.sockets.as_fd()).into_iter();
        for (slot, cookie) in seats.filter(|(slot, _)| slot.is_worker()) {
            // Of a socket that was joined after the record was written, what it had until now is not known.
            let known = known.get(&(slot.get(), cookie));
            let (before, carried) = match known {
                Some(known) => (known.before, known.carried),
                None => (group.total(slot), SlotCounters::default()),
            };
            let seated = route.iter().find(|entry| entry.slot() == slot).map(|entry| entry.seat());
            let recorded = known.and_then(|known| Seat::new(known.seat));
            let seat = seated.or(recorded).unwrap_or(Seat::NONE);
            meter.claim(seat);
            let owner = owner(known);
            group.filled.insert(slot, Filled { cookie, seat, owner, before, carried });
        }
        // A route of another form has each worker more than once; what it is is published again soon.
        group.route = route.iter().map(|entry| entry.slot()).collect();
        let on_miss = group.configured();
        group.resume(on_miss);
        Ok(group)
    }

    /// Builds a group anew beside one whose program has another layout, and moves its sockets over one by one.
    ///
    /// From the moment the new program is attached until the route is published, the kernel's hash places connections
    /// over all sockets of the group; none is lost. `socket` finds a duplicate of the socket with a cookie.
    ///
    /// # Errors
    /// What the kernel said, or when no socket could be moved.
    #[expect(clippy::too_many_arguments, reason = "each is needed once, by the one caller")]
    pub(in super::super) fn bridge(
        id: GroupId,
        key: &GroupKey,
        record: &GroupRecord,
        old: &Program,
        maps: SelectMaps,
        hub: Arc<Hub>,
        trace: Option<&Path>,
        meter: &mut Meter,
        mut socket: impl FnMut(u64) -> Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let mut group = Self::new(id, key, maps, hub);
        if let Some(file) = trace {
            group.start_trace(file)?;
        }
        group.configure(choose::OnMiss::Hash)?;
        let old_sockets = load::sockets(old)?;
        let known = by_socket(record);
        let mut attached = false;
        for (slot, cookie) in load::cookies(old_sockets.as_fd()) {
            // One whose worker is not known to us stays where it is; it gets nothing from now on.
            let Some(socket) = socket(cookie).filter(|_| slot.is_worker()) else { continue };
            if !attached {
                bpf::attach_to_group(group.program.as_fd(), socket.as_fd())
                    .context("attach the program")?;
                attached = true;
            }
            let carried = match known.get(&(slot.get(), cookie)) {
                Some(known) => counted(old, slot)
                    .map_or(known.carried, |now| add(since(now, known.before), known.carried)),
                None => SlotCounters::default(),
            };
            // A socket is in one slot of one map at most (`reuseport_array_update_check`).
            drop(bpf::delete(old_sockets.as_fd(), slot.index()));
            // It may have been closed in this moment.
            if group.put(slot, socket.as_fd()).is_ok() {
                let before = group.total(slot);
                let owner = owner(known.get(&(slot.get(), cookie)));
                let seat = meter.seat(socket.as_fd());
                group.filled.insert(slot, Filled { cookie, seat, owner, before, carried });
            }
        }
        ensure!(!group.filled.is_empty(), "none of its sockets could be moved to a new program");
        let kept = |slot: &Slot| group.filled.contains_key(slot);
        let route: Vec<Slot> =
            record.route.iter().filter_map(|&number| Slot::new(number)).filter(kept).collect();
        group.publish(&route, meter)?;
        group.resume(record.on_miss);
        Ok(group)
    }

    /// Makes a new waiting room, and says again what becomes of connections that find no worker.
    fn resume(&mut self, on_miss: OnMiss) {
        // Everything is compared at the next look.
        self.filled_since = true;
        let resumed = match self.key.protocol {
            Protocol::Tcp => self.replace_waiting_room().and_then(|()| self.set_on_miss(on_miss)),
            Protocol::Udp => self.set_on_miss(on_miss),
        };
        if let Err(error) = resumed {
            // Connections are placed all the same, and are refused while there is no worker.
            log::error!("failed to make a waiting room for {}: {error:#}", self.key.address);
            drop(self.set_on_miss(OnMiss::Refuse));
        }
    }

    /// What becomes of connections that find no worker, as the program has been told.
    fn configured(&self) -> OnMiss {
        match choose::OnMiss::from_word(self.told.on_miss) {
            // Its supervisor died while it founded the group.
            choose::OnMiss::Wait | choose::OnMiss::Hash => OnMiss::Wait,
            choose::OnMiss::Refuse => OnMiss::Refuse,
        }
    }

    /// What the program has been told.
    fn settings(&self) -> io::Result<abi::Config> {
        let mut bytes = [0; size_of::<abi::Config>()];
        bpf::read(self.config.as_fd(), 0, &mut bytes)?;
        // What was steered was so by a supervisor that is gone.
        Ok(abi::Config { steered: 0, ..abi::Config::from_bytes(bytes) })
    }

    /// Cookies of the sockets in its slots, the waiting room's left out.
    pub(in super::super) fn seats(&self) -> impl Iterator<Item = (Slot, u64)> {
        self.filled.iter().map(|(slot, filled)| (*slot, filled.cookie))
    }

    /// Puts a socket into a slot that is in a slot of some other group: one that was lost with a supervisor that died
    /// before it could write it down, and that nobody has adopted.
    ///
    /// # Errors
    /// `EBUSY` when that group cannot be found; it is given the time to go by itself before.
    pub(super) fn take_from_others(
        &self,
        slot: Slot,
        socket: BorrowedFd<'_>,
        cookie: u64,
    ) -> io::Result<()> {
        for program in ids::all_programs().filter(|&id| id != self.program.id) {
            let Ok(program) = Program::open(program) else { continue };
            if !load::is_of_a_group(&program) {
                continue;
            }
            let Ok(sockets) = load::sockets(&program) else { continue };
            for (slot, _) in
                load::cookies(sockets.as_fd()).into_iter().filter(|(_, found)| *found == cookie)
            {
                drop(bpf::delete(sockets.as_fd(), slot.index()));
            }
        }
        // This program has replaced that group's, which may be on its way out, and can no longer be found by its number.
        let begun = Instant::now();
        loop {
            match self.put(slot, socket) {
                Err(error)
                    if error.raw_os_error() == Some(libc::EBUSY) && begun.elapsed() < PATIENCE =>
                {
                    thread::sleep(RETRY);
                }
                other => return other,
            }
        }
    }
}

/// Whose a socket is, as far as the record tells.
fn owner(known: Option<&SlotRecord>) -> Owner {
    Owner { worker: None, number: known.and_then(|known| known.number), cpus: Arc::default() }
}

fn by_socket(record: &GroupRecord) -> BTreeMap<(u16, u64), SlotRecord> {
    record.slots.iter().map(|known| ((known.slot, known.cookie), *known)).collect()
}

/// What a program of whatever version has counted for a slot. In every version the first two words are these, and the
/// fourth is zero where there is no guard yet.
fn counted(program: &Program, slot: Slot) -> Option<SlotCounters> {
    let value = program.value(names::SLOT_STATS, slot.index()).ok()?;
    let (words, _) = value.as_chunks::<8>();
    let [selected, migrated_in, _, guarded, ..] = words else { return None };
    Some(SlotCounters {
        selected: u64::from_ne_bytes(*selected),
        migrated_in: u64::from_ne_bytes(*migrated_in),
        guarded: u64::from_ne_bytes(*guarded),
    })
}

fn since(now: SlotCounters, before: SlotCounters) -> SlotCounters {
    SlotCounters {
        selected: now.selected.saturating_sub(before.selected),
        migrated_in: now.migrated_in.saturating_sub(before.migrated_in),
        guarded: now.guarded.saturating_sub(before.guarded),
    }
}

fn add(one: SlotCounters, other: SlotCounters) -> SlotCounters {
    SlotCounters {
        selected: one.selected + other.selected,
        migrated_in: one.migrated_in + other.migrated_in,
        guarded: one.guarded + other.guarded,
    }
}
