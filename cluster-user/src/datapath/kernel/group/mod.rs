//! One group: its program, the sockets in its slots, the route, and the waiting room.

mod adopt;
mod class;
mod consistent;
mod room;
mod schedule;

pub(super) use schedule::try_policy;

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
    sync::Arc,
};

use anyhow::Context as _;
use cluster_common::{
    abi, choose,
    load::Seat,
    names,
    publish::{self, Mapped},
    slot::Slot,
    stats::{GroupStats, SlotStats},
};

use self::class::Classes;
use super::{
    bpf,
    hub::{Hub, Source},
    ids::Program,
    load::SelectMaps,
    mapping::Mapping,
    meter::Meter,
    steering::Steering,
    trace::Trace,
    waiting::WaitingRoom,
};
use crate::{
    datapath::{
        GroupKey, JoinError, OnMiss, Protocol, SlotCounters,
        record::{GroupRecord, SlotRecord},
        telemetry::GroupTelemetry,
    },
    id::{GroupId, WorkerId},
};

/// Words of a slot's counters.
const SLOT_WORDS: usize = size_of::<SlotStats>() / size_of::<u64>();

/// A group whose program is attached.
///
/// Dropping it closes the waiting room; the program goes with the last socket of the group.
#[derive(Debug)]
pub(super) struct Group {
    id: GroupId,
    key: GroupKey,
    /// What its app is called, as far as files are named by that.
    pub(super) app: String,
    hub: Arc<Hub>,
    program: Program,
    /// As [`Program::runs`], of those it had before.
    ran: (u64, u64),
    sockets: OwnedFd,
    config: OwnedFd,
    /// What the program has been told.
    told: abi::Config,
    /// The classes that its program was loaded with, if it was and that is known.
    classes: Option<Classes>,
    /// Maps of its program, by name.
    maps: Vec<(String, OwnedFd)>,
    pub(super) steering: Steering,
    board: Mapped,
    /// The memory behind `board`.
    _tables: [Mapping; 2],
    slot_stats: OwnedFd,
    totals: Mapping,
    filled: BTreeMap<Slot, Filled>,
    /// What the program walks.
    route: Vec<Slot>,
    on_miss: OnMiss,
    /// The group's misses when all slots were last compared.
    misses: u64,
    /// Whether a slot was filled since then. A worker that listens anew, time after time, leaves a slot behind each
    /// time, and without connections there are no misses to tell of it.
    filled_since: bool,
    waiting_room: Option<WaitingRoom>,
    trace: Option<Trace>,
}

/// A socket in a slot.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seated {
    /// The slot.
    pub(super) slot: Slot,
    /// `SO_COOKIE` of the socket.
    pub(super) cookie: u64,
    /// Where its load is kept.
    pub(super) seat: Seat,
}

/// Whose a socket is, as far as policies go by that.
#[derive(Clone, Debug)]
pub(super) struct Owner {
    /// The worker; of two of them the younger one has the larger id.
    pub(super) worker: Option<WorkerId>,
    /// Number of the worker in its app, if that is known.
    pub(super) number: Option<u32>,
    /// CPUs that it is pinned to; none if it may run on any.
    pub(super) cpus: Arc<[u32]>,
}

/// A socket that was put into a slot.
#[derive(Clone, Debug)]
struct Filled {
    cookie: u64,
    /// Where its load is kept.
    seat: Seat,
    /// Whose it is.
    owner: Owner,
    /// The slot's counters at that moment; they are never reset.
    before: SlotCounters,
    /// What was counted for it by programs before this one.
    carried: SlotCounters,
}

impl Group {
    /// Makes a group of the founder's socket: program attached, waiting room open, route empty.
    ///
    /// No connection is lost meanwhile: until the waiting room can be selected, the program leaves connections
    /// to the kernel's hash, that is, to the founder or to the waiting room.
    ///
    /// # Errors
    /// What the kernel said; the program is detached again then.
    pub(super) fn found(
        id: GroupId,
        key: &GroupKey,
        founder: BorrowedFd<'_>,
        maps: SelectMaps,
        hub: Arc<Hub>,
        trace: Option<&Path>,
    ) -> anyhow::Result<Self> {
        let mut group = Self::new(id, key, maps, hub);
        if let Some(file) = trace {
            group.start_trace(file)?;
        }
        group.configure(choose::OnMiss::Hash)?;
        bpf::attach_to_group(group.program.as_fd(), founder).context("attach the program")?;
        let opened = match key.protocol {
            Protocol::Tcp => group.open_waiting_room(),
            // Datagrams cannot wait.
            Protocol::Udp => group.configure(choose::OnMiss::Refuse),
        };
        if let Err(error) = opened {
            // Nothing may be left of the group: without a program the kernel's hash takes over.
            detach(founder);
            return Err(error);
        }
        Ok(group)
    }

    fn new(id: GroupId, key: &GroupKey, maps: SelectMaps, hub: Arc<Hub>) -> Self {
        let SelectMaps {
            program,
            sockets,
            config,
            steering,
            routes,
            cursors,
            slot_stats,
            group_stats,
            mut all,
        } = maps;
        // Rules go with their program: they never change, and no other has them.
        all.retain(|(name, _)| name != names::RULES);
        // SAFETY: both mappings have the size of the tables and are kept in `_tables`; nobody else has them, for there
        // is one daemon.
        let board = unsafe { Mapped::new(routes.start(), cursors.start()) };
        Self {
            id,
            key: key.clone(),
            app: String::new(),
            hub,
            program,
            ran: (0, 0),
            sockets,
            config,
            told: abi::Config { abi: abi::VERSION, ..abi::Config::default() },
            classes: None,
            maps: all,
            steering,
            board,
            _tables: [routes, cursors],
            slot_stats,
            totals: group_stats,
            filled: BTreeMap::new(),
            route: Vec::new(),
            on_miss: OnMiss::Refuse,
            misses: 0,
            filled_since: false,
            waiting_room: None,
            trace: None,
        }
    }

    /// What it is a group of.
    pub(super) fn key(&self) -> &GroupKey {
        &self.key
    }

    fn start_trace(&mut self, file: &Path) -> anyhow::Result<()> {
        let trace = Trace::new(self.program.id, file)?;
        self.hub.watch(&trace, Source::Trace(self.id))?;
        self.trace = Some(trace);
        Ok(())
    }

    /// Writes down what the program has recorded.
    pub(super) fn flush_trace(&mut self) {
        if let Some(trace) = &mut self.trace {
            trace.flush();
        }
    }

    /// Puts a socket into a slot, in place of whatever was there.
    ///
    /// # Errors
    /// [`JoinError::Gone`] when the socket listens no more.
    pub(super) fn fill(
        &mut self,
        slot: Slot,
        socket: BorrowedFd<'_>,
        cookie: u64,
        owner: Owner,
        meter: &mut Meter,
    ) -> Result<(), JoinError> {
        let failed =
            |error: io::Error, what| JoinError::Failed(anyhow::Error::new(error).context(what));
        // A group of datagram sockets dies with its last one, and its successor has no program. Other programs
        // may have attached their own. Doing it again is harmless and takes a few microseconds.
        bpf::attach_to_group(self.program.as_fd(), socket).map_err(|error| match error {
            error if error.raw_os_error() == Some(libc::EINVAL) => JoinError::Gone,
            error => failed(error, "attach the program"),
        })?;
        match self.put(slot, socket) {
            Ok(()) => {}
            // A socket is in one slot at most, and setting it again is refused like setting another.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && self.holds(slot, cookie) => {
            }
            // It has listened twice (shutdown(2) and listen(2) again) before the first time was dealt with, and is here.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) && self.has(cookie) => {
                return Err(JoinError::Gone);
            }
            // A group that nobody adopted has it still.
            Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {
                self.take_from_others(slot, socket, cookie)
                    .map_err(|error| failed(error, "take the socket out of another group"))?;
            }
            // Not listening (any more), or not in a group: the worker closed it (`reuseport_array_update_check`).
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
                return Err(JoinError::Gone);
            }
            Err(error) => {
                return Err(failed(error, "put the socket into its slot"));
            }
        }
        let before = self.total(slot);
        let seat = meter.seat(socket);
        let carried = SlotCounters::default();
        if let Some(gone) =
            self.filled.insert(slot, Filled { cookie, seat, owner, before, carried })
        {
            meter.free(gone.seat);
        }
        self.filled_since = true;
        Ok(())
    }

    /// Empties a slot. Says what was in it, whose seat is the caller's now, and what it was given.
    pub(super) fn vacate(&mut self, slot: Slot) -> Option<(Seated, SlotCounters)> {
        self.unsteer_slot(slot);
        let counters = self.counters(slot);
        // A socket that was closed has emptied it already.
        drop(bpf::delete(self.sockets.as_fd(), slot.index()));
        let Filled { cookie, seat, .. } = self.filled.remove(&slot)?;
        Some((Seated { slot, cookie, seat }, counters))
    }

    /// Gives back what is kept for its sockets elsewhere.
    pub(super) fn free(self, meter: &mut Meter) {
        for filled in self.filled.values() {
            meter.free(filled.seat);
        }
    }

    /// Makes `route` what the program walks, and hands over what waits if somebody is in it.
    ///
    /// # Errors
    /// When it is too long, or what waits cannot be handed over; the route is published then all the same.
    pub(super) fn publish(&mut self, route: &[Slot], meter: &Meter) -> anyhow::Result<()> {
        let entries = self.table(route, meter);
        let behind = class::behind(entries.len(), &self.members(route));
        publish::publish(&mut self.board, &entries, &behind)?;
        route.clone_into(&mut self.route);
        self.place_on_cpus(route)?;
        self.settle()
    }

    /// Says what becomes of connections that find no worker. Where nothing can wait they are refused.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn set_on_miss(&mut self, on_miss: OnMiss) -> anyhow::Result<()> {
        self.on_miss = on_miss;
        self.configure(match on_miss {
            OnMiss::Wait if self.waiting_room.is_some() => choose::OnMiss::Wait,
            OnMiss::Wait | OnMiss::Refuse => choose::OnMiss::Refuse,
        })?;
        self.settle()
    }

    /// How many ticks a worker may leave connections waiting before the guard keeps others away; 0 for ever.
    pub(super) fn patience(&self) -> u32 {
        if self.abstains() { 0 } else { self.told.patience }
    }

    /// Whether everything is left to the kernel's hash, which counts nothing.
    pub(super) fn abstains(&self) -> bool {
        self.told.abstains != 0
    }

    /// Slots whose socket has gone although nobody vacated them.
    pub(super) fn lost(&mut self) -> Vec<Slot> {
        let misses = self.totals.counter(offset_of!(GroupStats, misses));
        if misses == self.misses && !self.filled_since {
            return Vec::new();
        }
        (self.misses, self.filled_since) = (misses, false);
        let gone =
            |(slot, filled): (&Slot, &Filled)| (!self.holds(*slot, filled.cookie)).then_some(*slot);
        self.filled.iter().filter_map(gone).collect()
    }

    /// Makes the next look at the slots a thorough one.
    pub(super) fn look_again(&mut self) {
        self.filled_since = true;
    }

    /// A slot that has one of these sockets.
    pub(super) fn slot_of(&self, cookies: &BTreeSet<u64>) -> Option<Slot> {
        let mut filled = self.filled.iter();
        filled.find(|(_, filled)| cookies.contains(&filled.cookie)).map(|(slot, _)| *slot)
    }

    /// Counters of a slot since it was last filled.
    pub(super) fn counters(&self, slot: Slot) -> SlotCounters {
        let Some(filled) = self.filled.get(&slot) else { return SlotCounters::default() };
        let total = self.total(slot);
        let Filled { before, carried, .. } = filled;
        SlotCounters {
            selected: total.selected.saturating_sub(before.selected) + carried.selected,
            migrated_in: total.migrated_in.saturating_sub(before.migrated_in) + carried.migrated_in,
            guarded: total.guarded.saturating_sub(before.guarded) + carried.guarded,
        }
    }

    /// What the program counted for the group as a whole.
    pub(super) fn telemetry(&self) -> GroupTelemetry {
        let counter = |offset| self.totals.counter(offset);
        let (ran, runs) = (self.ran, self.program.runs());
        GroupTelemetry {
            misses: counter(offset_of!(GroupStats, misses)),
            waited: counter(offset_of!(GroupStats, waited)),
            refused: counter(offset_of!(GroupStats, refused)),
            shed: counter(offset_of!(GroupStats, shed)),
            other: counter(offset_of!(GroupStats, other)),
            hashed: counter(offset_of!(GroupStats, hashed)),
            unfollowed: counter(offset_of!(GroupStats, unfollowed)),
            runs: Some((ran.0 + runs.0, ran.1 + runs.1)).filter(|(count, _)| *count > 0),
        }
    }

    /// The sockets in its slots.
    pub(super) fn sockets(&self) -> impl Iterator<Item = Seated> {
        self.filled.iter().map(|(slot, filled)| Seated {
            slot: *slot,
            cookie: filled.cookie,
            seat: filled.seat,
        })
    }

    /// Number of its program.
    pub(super) fn program(&self) -> u32 {
        self.program.id
    }

    /// What the next supervisor needs to take it over.
    pub(super) fn record(&self) -> GroupRecord {
        let slots = self.filled.iter().map(|(slot, filled)| {
            let Filled { cookie, seat, before, carried, .. } = *filled;
            let number = filled.owner.number;
            SlotRecord { slot: slot.get(), cookie, seat: seat.get(), number, before, carried }
        });
        GroupRecord {
            program: self.program.id,
            loaded: self.program.loaded,
            on_miss: self.on_miss,
            route: self.route.iter().map(|slot| slot.get()).collect(),
            slots: slots.collect(),
        }
    }

    /// Whether a socket is one that was put into a slot of this group, the waiting room included.
    pub(super) fn knows(&self, cookie: u64) -> bool {
        self.filled.values().any(|filled| filled.cookie == cookie)
            || self.holds(Slot::WAITING_ROOM, cookie)
    }

    /// Whether connections have moved to one of these sockets: from a socket that was closed, or from the waiting room.
    pub(super) fn has_moved_to(&self, cookies: &BTreeSet<u64>) -> bool {
        let mut filled = self.filled.iter().filter(|(_, filled)| cookies.contains(&filled.cookie));
        filled.any(|(slot, _)| self.counters(*slot).migrated_in > 0)
    }

    fn has_worker(&self) -> bool {
        self.route.iter().any(|&slot| self.cookie_in(slot).is_some())
    }

    /// Whether a slot has the socket with this cookie.
    fn holds(&self, slot: Slot, cookie: u64) -> bool {
        self.cookie_in(slot) == Some(cookie)
    }

    /// Whether any slot has it.
    fn has(&self, cookie: u64) -> bool {
        let mut filled = self.filled.iter();
        filled.any(|(slot, filled)| filled.cookie == cookie && self.holds(*slot, cookie))
    }

    fn cookie_in(&self, slot: Slot) -> Option<u64> {
        bpf::lookup(self.sockets.as_fd(), slot.index()).ok().map(|[cookie]| cookie)
    }

    fn put(&self, slot: Slot, socket: BorrowedFd<'_>) -> io::Result<()> {
        bpf::update_socket(self.sockets.as_fd(), slot.index(), socket)
    }

    fn configure(&mut self, on_miss: choose::OnMiss) -> anyhow::Result<()> {
        self.told.on_miss = on_miss as u32;
        self.tell()
    }

    /// Writes the group's settings.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn tell(&self) -> anyhow::Result<()> {
        let told = abi::Config { steered: self.steering.count(), ..self.told };
        bpf::update(self.config.as_fd(), 0, &told.to_bytes()).context("configure the group")
    }

    fn total(&self, slot: Slot) -> SlotCounters {
        let words: [u64; SLOT_WORDS] =
            bpf::lookup(self.slot_stats.as_fd(), slot.index()).unwrap_or_default();
        SlotCounters {
            selected: words[offset_of!(SlotStats, selected) / 8],
            migrated_in: words[offset_of!(SlotStats, migrated_in) / 8],
            guarded: words[offset_of!(SlotStats, guarded) / 8],
        }
    }
}

/// Takes the program off a group again, whichever it is.
fn detach(socket: BorrowedFd<'_>) {
    // The socket is gone if this fails, and its group with it.
    drop(aya::programs::SkReuseport::detach(socket));
}
