//! Taking a group over from a supervisor that died, while connections go on being placed.

use std::{
    collections::BTreeMap,
    io,
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cluster_common::{abi, choose, names, publish::Board as _, route::Lane, slot::Slot};

use super::{
    super::{
        bpf,
        hub::Hub,
        ids::{self, Program},
        load::{self, SelectMaps},
    },
    Filled, Group,
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
    ) -> anyhow::Result<Self> {
        let mut group = Self::new(id, key, SelectMaps::of(program)?, hub);
        if let Some(file) = trace {
            group.start_trace(file)?;
        }
        let known = by_socket(record);
        let seats = load::cookies(group.sockets.as_fd()).into_iter();
        for (slot, cookie) in seats.filter(|(slot, _)| slot.is_worker()) {
            // Of a socket that was joined after the record was written, what it had until now is not known.
            let (before, carried) = match known.get(&(slot.get(), cookie)) {
                Some(known) => (known.before, known.carried),
                None => (group.total(slot), SlotCounters::default()),
            };
            group.filled.insert(slot, Filled { cookie, before, carried });
        }
        let active = group.board.cursor(Lane::Syn).buffer();
        let route = group.board.entries(active).iter();
        group.route = route.filter_map(|&number| Slot::new(number)).collect();
        let on_miss = group.configured().context("read the group's settings")?;
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
                group.filled.insert(slot, Filled { cookie, before, carried });
            }
        }
        ensure!(!group.filled.is_empty(), "none of its sockets could be moved to a new program");
        let kept = |slot: &Slot| group.filled.contains_key(slot);
        let route: Vec<Slot> =
            record.route.iter().filter_map(|&number| Slot::new(number)).filter(kept).collect();
        group.publish(&route)?;
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
    fn configured(&self) -> io::Result<OnMiss> {
        const AT: usize = offset_of!(abi::Config, on_miss);
        let words: [u64; CONFIG_WORDS] = bpf::lookup(self.config.as_fd(), 0)?;
        let bytes = words[AT / 8].to_ne_bytes();
        let on_miss = [0, 1, 2, 3].map(|byte| bytes[AT % 8 + byte]);
        Ok(match choose::OnMiss::from_word(u32::from_ne_bytes(on_miss)) {
            // Its supervisor died while it founded the group.
            choose::OnMiss::Wait | choose::OnMiss::Hash => OnMiss::Wait,
            choose::OnMiss::Refuse => OnMiss::Refuse,
        })
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

fn by_socket(record: &GroupRecord) -> BTreeMap<(u16, u64), SlotRecord> {
    record.slots.iter().map(|known| ((known.slot, known.cookie), *known)).collect()
}

/// What a program of whatever version has counted for a slot. In every version the first two words are these.
fn counted(program: &Program, slot: Slot) -> Option<SlotCounters> {
    let value = program.value(names::SLOT_STATS, slot.index()).ok()?;
    let (words, _) = value.as_chunks::<8>();
    let [selected, migrated_in, ..] = words else { return None };
    Some(SlotCounters {
        selected: u64::from_ne_bytes(*selected),
        migrated_in: u64::from_ne_bytes(*migrated_in),
    })
}

fn since(now: SlotCounters, before: SlotCounters) -> SlotCounters {
    SlotCounters {
        selected: now.selected.saturating_sub(before.selected),
        migrated_in: now.migrated_in.saturating_sub(before.migrated_in),
    }
}

fn add(one: SlotCounters, other: SlotCounters) -> SlotCounters {
    SlotCounters {
        selected: one.selected + other.selected,
        migrated_in: one.migrated_in + other.migrated_in,
    }
}

/// Words of a group's settings.
const CONFIG_WORDS: usize = size_of::<abi::Config>() / size_of::<u64>();
