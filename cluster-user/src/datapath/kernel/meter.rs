//! Seats: where the load of a worker's socket is kept, and what has become of its connections.
//!
//! The maps are those of the joining programs, shared with the programs of all groups: they live as long as the daemon's
//! cgroup, so that counting goes on when the daemon dies.

use std::{
    collections::BTreeSet,
    io,
    mem::offset_of,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use anyhow::Context as _;
use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as program};
use cluster_common::{
    load::{Load, Mark, SEATS, Seat, UNIT, tick},
    meter::{self, BUCKETS, TAG_BYTES, Tag},
    names,
};
use rustix::time::{ClockId, clock_gettime};

use super::{
    bpf, ids, join,
    mapping::Mapping,
    object::{Prepared, Wanted},
    tracepoint, types,
};
use crate::datapath::telemetry::Histogram;

const LOAD_WORDS: usize = size_of::<Load>() / size_of::<u64>();
const METER_WORDS: usize = size_of::<meter::Meter>() / size_of::<u64>();

/// The maps of loads, and which seats are taken.
#[derive(Debug)]
pub(super) struct Meter {
    loads: OwnedFd,
    /// Its memory, to write some of a seat while programs write the rest.
    seats: Mapping,
    meters: OwnedFd,
    moved: OwnedFd,
    tags: OwnedFd,
    taken: BTreeSet<Seat>,
    /// What sees that something is read, or why nothing does.
    reads: Result<OwnedFd, String>,
}

/// What is counted in one seat.
#[derive(Clone, Debug, Default)]
pub(super) struct Reading {
    /// Connections that the app has not closed.
    pub(super) live: u64,
    /// Connections that have come into the accept queue.
    pub(super) established: u64,
    /// The most that was seen there.
    pub(super) peak: u64,
    /// Whether the guard saw it accept nothing when it last looked.
    pub(super) stalled: bool,
    /// Connections that were there when the listener was closed.
    pub(super) left: u64,
    /// Bytes received over closed connections.
    pub(super) bytes_in: u64,
    /// Bytes acknowledged over closed connections.
    pub(super) bytes_out: u64,
    /// As in [`Telemetry`](crate::datapath::telemetry::Telemetry).
    pub(super) lifetime: Histogram,
    /// As above; `None` where nothing sees it.
    pub(super) wait: Option<Histogram>,
    /// As above.
    pub(super) round_trip: Histogram,
}

impl Meter {
    /// Takes hold of the maps, which `open` finds by name and bytes of a value.
    ///
    /// # Errors
    /// When one is missing.
    pub(super) fn new(
        mut open: impl FnMut(&str, usize) -> anyhow::Result<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let loads = open(names::LOADS, size_of::<Load>())?;
        let bytes = usize::try_from(SEATS)? * size_of::<Load>();
        let seats = Mapping::new(loads.as_fd(), bytes, true).context("map the loads")?;
        seats.set_word(place(Seat::NONE, offset_of!(Load, share)), UNIT);
        Ok(Self {
            seats,
            loads,
            meters: open(names::METERS, size_of::<meter::Meter>())?,
            moved: open(names::MOVED, size_of::<u32>())?,
            tags: open(names::TAGS, size_of::<Tag>())?,
            taken: BTreeSet::new(),
            reads: Err("nobody looks".to_owned()),
        })
    }

    /// Begins to see when something is read from connections, if that can be seen here.
    pub(super) fn watch_reads(&mut self) {
        self.reads = self.try_watch_reads().map_err(|error| format!("{error:#}"));
        if let Err(why) = &self.reads {
            log::info!("how long connections wait is not counted: {why}");
        }
    }

    fn try_watch_reads(&self) -> anyhow::Result<OwnedFd> {
        let wanted = Wanted {
            name: names::FIRST,
            program_type: program::BPF_PROG_TYPE_TRACING as u32,
            attach_type: attach::BPF_TRACE_RAW_TP as u32,
            target: types::reads()?,
        };
        let given = [
            (names::TAGS.to_owned(), self.tags.try_clone()?),
            (names::METERS.to_owned(), self.meters.try_clone()?),
            (names::LOADS.to_owned(), self.loads.try_clone()?),
            (names::MOVED.to_owned(), self.moved.try_clone()?),
        ];
        let object = Prepared::new(join::OBJECT, &[], &[wanted])?;
        let (program, _) = object.load_one(names::FIRST, &given)?;
        tracepoint::link(program.as_fd()).context("attach to tcp_rcv_space_adjust")
    }

    /// Why something is not counted, if something is not.
    pub(super) fn missing(&self) -> Option<&str> {
        self.reads.as_ref().err().map(String::as_str)
    }

    /// The maps that programs of groups share, by name.
    ///
    /// # Errors
    /// Without a descriptor to spare.
    pub(super) fn shared(&self) -> io::Result<Vec<(String, OwnedFd)>> {
        Ok(vec![
            (names::LOADS.to_owned(), self.loads.try_clone()?),
            (names::MOVED.to_owned(), self.moved.try_clone()?),
        ])
    }

    /// The kernel's number of the map of loads.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn number(&self) -> io::Result<u32> {
        ids::number(self.loads.as_fd())
    }

    /// Gives a listening socket a seat. Without one it works as well, but is not counted.
    pub(super) fn seat(&mut self, socket: BorrowedFd<'_>) -> Seat {
        let free = (1..u16::try_from(SEATS).unwrap_or(u16::MAX)).filter_map(Seat::new);
        let Some(seat) = free.into_iter().find(|seat| !self.taken.contains(seat)) else {
            log::warn!("more than {SEATS} sockets are balanced: the next ones are not counted");
            return Seat::NONE;
        };
        match self.try_seat(seat, socket) {
            Ok(()) => {
                self.taken.insert(seat);
                seat
            }
            Err(error) => {
                log::warn!("the connections of a socket are not counted: {error:#}");
                Seat::NONE
            }
        }
    }

    fn try_seat(&self, seat: Seat, socket: BorrowedFd<'_>) -> anyhow::Result<()> {
        let generation = self.generation(seat).wrapping_add(1);
        let load = Load { share: UNIT, generation, since: now(), ..Load::default() };
        self.write(seat, &load)?;
        let empty = [0; size_of::<meter::Meter>()];
        bpf::update(self.meters.as_fd(), seat.index(), &empty).context("make a meter")?;
        let mut tag = [0; TAG_BYTES as usize];
        tag[offset_of!(Tag, seat)..][..4].copy_from_slice(&seat.index().to_ne_bytes());
        tag[offset_of!(Tag, generation)..][..4].copy_from_slice(&generation.to_ne_bytes());
        // A storage's key is a descriptor.
        let key = socket.as_raw_fd().cast_unsigned();
        bpf::update(self.tags.as_fd(), key, &tag).context("tag a listener")
    }

    /// Takes note that a seat was given out by a supervisor before this one.
    pub(super) fn claim(&mut self, seat: Seat) {
        if seat.counts() {
            self.taken.insert(seat);
        }
    }

    /// Takes a seat back: connections that still are counted there count no more.
    pub(super) fn free(&mut self, seat: Seat) {
        if self.taken.remove(&seat) {
            let generation = self.generation(seat).wrapping_add(1);
            drop(self.write(seat, &Load { share: UNIT, generation, ..Load::default() }));
            drop(bpf::delete(self.meters.as_fd(), seat.index()));
        }
    }

    /// What one connection counts there.
    pub(super) fn set_share(&self, seat: Seat, share: u32) {
        if seat.counts() {
            self.seats.set_word(place(seat, offset_of!(Load, share)), share);
        }
    }

    /// Whether connections are to be kept away from its worker, which has fallen silent.
    pub(super) fn set_distrusted(&self, seat: Seat, distrusted: bool) {
        if seat.counts() {
            self.seats.set_half(place(seat, offset_of!(Load, distrusted)), distrusted.into());
        }
    }

    /// What is counted there.
    pub(super) fn read(&self, seat: Seat) -> Option<Reading> {
        if !seat.counts() {
            return None;
        }
        let load = self.words(seat).ok()?;
        let meter: [u64; METER_WORDS] = bpf::lookup(self.meters.as_fd(), seat.index()).ok()?;
        let of = |at: usize| meter[at / 8];
        let histogram = |at: usize| Histogram {
            buckets: meter[at / 8..][..BUCKETS].to_vec(),
            sum: meter[at / 8 + BUCKETS],
        };
        let peak = u32_at(&bytes(&load), offset_of!(Load, peak));
        Some(Reading {
            // A program that counted for an earlier use may have taken one too many.
            live: load[offset_of!(Load, live) / 8].cast_signed().max(0).cast_unsigned(),
            established: load[offset_of!(Load, established) / 8],
            peak: peak.into(),
            stalled: Mark::from_word(load[offset_of!(Load, mark) / 8]).is_stalled(),
            left: of(offset_of!(meter::Meter, left)),
            bytes_in: of(offset_of!(meter::Meter, bytes_in)),
            bytes_out: of(offset_of!(meter::Meter, bytes_out)),
            lifetime: histogram(offset_of!(meter::Meter, lifetime)),
            wait: self.reads.is_ok().then(|| histogram(offset_of!(meter::Meter, wait))),
            round_trip: histogram(offset_of!(meter::Meter, round_trip)),
        })
    }

    fn generation(&self, seat: Seat) -> u32 {
        self.words(seat).map_or(0, |words| u32_at(&bytes(&words), offset_of!(Load, generation)))
    }

    fn words(&self, seat: Seat) -> io::Result<[u64; LOAD_WORDS]> {
        bpf::lookup(self.loads.as_fd(), seat.index())
    }

    fn write(&self, seat: Seat, load: &Load) -> anyhow::Result<()> {
        let words = [
            (offset_of!(Load, share), load.share),
            (offset_of!(Load, generation), load.generation),
            (offset_of!(Load, since), load.since),
        ];
        let mut bytes = [0; size_of::<Load>()];
        for (at, word) in words {
            bytes[at..][..4].copy_from_slice(&word.to_ne_bytes());
        }
        bpf::update(self.loads.as_fd(), seat.index(), &bytes).context("set up a seat")
    }
}

/// Where a field of a seat is in the map.
fn place(seat: Seat, offset: usize) -> usize {
    usize::from(seat.get()) * size_of::<Load>() + offset
}

fn bytes(words: &[u64; LOAD_WORDS]) -> [u8; size_of::<Load>()] {
    let mut bytes = [0; size_of::<Load>()];
    for (place, word) in bytes.chunks_exact_mut(8).zip(words) {
        place.copy_from_slice(&word.to_ne_bytes());
    }
    bytes
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let word = bytes[at..].first_chunk().copied().unwrap_or_default();
    u32::from_ne_bytes(word)
}

/// The present tick, of the clock that programs have (`bpf_ktime_get_coarse_ns`).
fn now() -> u32 {
    let now = clock_gettime(ClockId::Monotonic);
    let nanoseconds = now.tv_sec.unsigned_abs() * 1_000_000_000 + now.tv_nsec.unsigned_abs();
    tick(nanoseconds)
}
