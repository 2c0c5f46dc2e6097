//! The program of groups, loaded once for each, and its maps.

use std::{
    mem::offset_of,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::Context as _;
use aya::maps::MapData;
use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as program};
use cluster_common::{
    abi::Layout,
    names,
    route::{BUFFERS, CursorLine, Lane, RouteTable},
    slot::{SLOTS, Slot},
    stats::GroupStats,
};
use rustix::time::{ClockId, clock_getres};

use super::{
    bpf,
    custom::{self, Custom},
    ids::Program,
    mapping::Mapping,
    object::{Prepared, Wanted},
    steering::Steering,
    types,
};
use crate::datapath::Protocol;

/// Bytes of the ring buffer of a traced group: 2000 decisions or so until somebody reads them.
const TRACE_BYTES: u32 = 256 * 1024;
/// Bytes of the ring buffer of a group that is not traced: one page, the least there is.
const NO_TRACE_BYTES: u32 = 4096;

/// Bytes of a value of [`names::SOCKETS`].
const COOKIE: usize = 8;

/// The compiled object.
pub(super) static SELECT: &[u8] =
    aya::include_bytes_aligned!("../../../../cluster-ebpf/object/select.bpf.o");

/// Flows of datagrams that are remembered where a policy keeps them together.
const FLOWS_OF_DATAGRAMS: u32 = 16 * 1024;

/// The programs of groups, ready to be loaded for one more.
#[derive(Debug)]
pub(super) struct Select {
    /// The one that groups begin with. The others are read when they are wanted.
    usual: Prepared,
    layout: Layout,
    shared: Vec<(String, OwnedFd)>,
    /// Why programs cannot look at accept queues, where they cannot.
    pub(super) blind: Option<String>,
}

/// The program of one group, loaded, and its maps.
#[derive(Debug)]
pub(super) struct SelectMaps {
    /// The program.
    pub(super) program: Program,
    /// [`names::SOCKETS`]
    pub(super) sockets: OwnedFd,
    /// [`names::CONFIG`]
    pub(super) config: OwnedFd,
    /// [`names::STEERING`]
    pub(super) steering: Steering,
    /// [`names::ROUTES`]
    pub(super) routes: Mapping,
    /// [`names::CURSORS`]
    pub(super) cursors: Mapping,
    /// [`names::SLOT_STATS`]
    pub(super) slot_stats: OwnedFd,
    /// [`names::GROUP_STATS`]
    pub(super) group_stats: Mapping,
    /// All of these and the others, by name: what another program of the group is loaded with.
    pub(super) all: Vec<(String, OwnedFd)>,
}

impl Select {
    /// Reads the object. `shared` are maps that all groups have in common.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn new(shared: Vec<(String, OwnedFd)>) -> anyhow::Result<Self> {
        // Programs do without what this kernel does not tell.
        let layout = types::layout();
        let blind = layout.as_ref().err().map(|error| format!("{error:#}"));
        let layout = layout.unwrap_or_default();
        let usual = prepare(names::ROUND_ROBIN, layout, Protocol::Tcp)?;
        Ok(Self { usual, layout, shared, blind })
    }

    /// Makes programs do without what they read of the kernel's memory, for this reason.
    ///
    /// # Errors
    /// The reason, if they do without it already.
    pub(super) fn make_blind(&mut self, why: &anyhow::Error) -> anyhow::Result<()> {
        anyhow::ensure!(self.blind.is_none(), "{why:#}");
        let blind = prepare(names::ROUND_ROBIN, Layout::default(), Protocol::Tcp)?;
        (self.usual, self.layout, self.blind) =
            (blind, Layout::default(), Some(format!("{why:#}")));
        Ok(())
    }

    /// Loads the usual one for one more group.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn load(&self, trace: bool) -> anyhow::Result<SelectMaps> {
        let (program, mut maps) = if trace {
            let name = names::SELECT_TRACED;
            prepare(name, self.layout, Protocol::Udp)?.load_one(name, &self.shared)?
        } else {
            self.usual.load_one(names::ROUND_ROBIN, &self.shared)?
        };
        for (name, map) in &self.shared {
            maps.push((name.clone(), map.try_clone()?));
        }
        SelectMaps::new(Program::of(program).context("ask about the program")?, maps)
    }

    /// Loads another one for a group that has these maps, and looks for these signs of clients. Says which maps it has beside
    /// them.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn load_for(
        &self,
        name: &'static str,
        maps: &[(String, OwnedFd)],
        protocol: Protocol,
        signs: u32,
    ) -> anyhow::Result<(Program, Vec<(String, OwnedFd)>)> {
        let object = prepare_for(name, self.layout, protocol, signs)?;
        let (program, made) = object.load_one(name, maps)?;
        Ok((Program::of(program).context("ask about the program")?, made))
    }
}

impl Select {
    /// As [`Self::load_for`], of a program that the user brings.
    ///
    /// # Errors
    /// When it is no such program, and what the kernel said.
    pub(super) fn load_custom(
        &self,
        path: &Path,
        maps: &[(String, OwnedFd)],
    ) -> anyhow::Result<(Program, Vec<(String, OwnedFd)>)> {
        let joined = self.joined(Custom::read(path)?);
        let joined = joined.with_context(|| format!("policy {} cannot be used", path.display()))?;
        let (program, made) =
            joined.load_one(names::CUSTOM, maps).with_context(|| custom::place(path, &joined))?;
        Ok((Program::of(program).context("ask about the program")?, made))
    }

    /// A user's program, joined to that of ours which calls it.
    ///
    /// # Errors
    /// When a map that both have is of another shape.
    pub(super) fn joined(&self, custom: Custom) -> anyhow::Result<Prepared> {
        custom.join(prepare(names::CUSTOM, self.layout, Protocol::Tcp)?)
    }
}

/// Reads one program of the object, for which there are no classes.
fn prepare(name: &'static str, layout: Layout, protocol: Protocol) -> anyhow::Result<Prepared> {
    prepare_for(name, layout, protocol, 0)
}

fn prepare_for(
    name: &'static str,
    layout: Layout,
    protocol: Protocol,
    signs: u32,
) -> anyhow::Result<Prepared> {
    let wanted = Wanted {
        name,
        program_type: program::BPF_PROG_TYPE_SK_REUSEPORT as u32,
        // By this type the kernel migrates queues without the tcp_migrate_req sysctl (Linux 5.14,
        // `reuseport_migrate_sock`).
        attach_type: attach::BPF_SK_REUSEPORT_SELECT_OR_MIGRATE as u32,
        target: 0,
    };
    let places = places(layout);
    let jiffy = jiffy().to_ne_bytes();
    let signs = signs.to_ne_bytes();
    let globals =
        [(names::LAYOUT, &places[..]), (names::JIFFY, &jiffy[..]), (names::SIGNS, &signs[..])];
    let mut object = Prepared::new(SELECT, &globals, &[wanted])?;
    object.resize(names::TRACE_LOG, if is_traced(name) { TRACE_BYTES } else { NO_TRACE_BYTES });
    if protocol == Protocol::Udp {
        object.resize(names::PINS, FLOWS_OF_DATAGRAMS);
    }
    Ok(object)
}

/// Nanoseconds of a jiffy: what the coarse clocks advance by (`LOW_RES_NSEC` of the kernel).
fn jiffy() -> u32 {
    let resolution = clock_getres(ClockId::MonotonicCoarse).tv_nsec;
    u32::try_from(resolution).unwrap_or_default().max(1)
}

/// The value of [`names::LAYOUT`].
pub(super) fn places(layout: Layout) -> [u8; size_of::<Layout>()] {
    let Layout { selected, backlog } = layout;
    let mut bytes = [0; size_of::<Layout>()];
    bytes[offset_of!(Layout, selected)..][..4].copy_from_slice(&selected.to_ne_bytes());
    bytes[offset_of!(Layout, backlog)..][..4].copy_from_slice(&backlog.to_ne_bytes());
    bytes
}

impl SelectMaps {
    /// Takes hold of the maps of a loaded program, whose layouts must be those of this version.
    ///
    /// # Errors
    /// When one is missing or its values have another size, and without `CAP_SYS_ADMIN`.
    pub(super) fn of(program: Program) -> anyhow::Result<Self> {
        let maps = program.all_maps()?;
        Self::new(program, maps)
    }

    fn new(program: Program, all: Vec<(String, OwnedFd)>) -> anyhow::Result<Self> {
        let open = |name: &str| {
            let found = all.iter().find(|(other, _)| other == name);
            found.map(|(_, map)| map).with_context(|| format!("the program has no map {name}"))
        };
        let mapping = |name: &str, value: usize, entries: usize, writable| {
            let mapping = Mapping::new(open(name)?.as_fd(), value * entries, writable);
            mapping.with_context(|| format!("map {name}"))
        };
        let routes = mapping(names::ROUTES, size_of::<RouteTable>(), BUFFERS as usize, true)?;
        let cursors = mapping(names::CURSORS, size_of::<CursorLine>(), Lane::ALL.len(), true)?;
        let group_stats = mapping(names::GROUP_STATS, size_of::<GroupStats>(), 1, false)?;
        let sockets = open(names::SOCKETS)?.try_clone()?;
        let config = open(names::CONFIG)?.try_clone()?;
        // Not mapped: the kernel maps an array's pages at once, and these are 256 KiB a group.
        let slot_stats = open(names::SLOT_STATS)?.try_clone()?;
        let steering = open(names::STEERING)?.try_clone()?;
        let steering = Steering::new(MapData::from_fd(steering)?).context("map STEERING")?;
        Ok(Self {
            program,
            sockets,
            config,
            steering,
            routes,
            cursors,
            slot_stats,
            group_stats,
            all,
        })
    }
}

/// Whether a program logs its decisions.
pub(super) fn is_traced(name: &str) -> bool {
    name == names::SELECT_TRACED
}

/// Whether a program is one that is loaded for groups, of whatever version.
pub(super) fn is_of_a_group(found: &Program) -> bool {
    found.kind == program::BPF_PROG_TYPE_SK_REUSEPORT as u32
        && (names::SELECT.contains(&found.name.as_str()) || is_traced(&found.name))
}

/// The version of the layout of a group's maps. In every version the first word of the configuration says it.
///
/// # Errors
/// When it cannot be read.
pub(super) fn version(program: &Program) -> anyhow::Result<u32> {
    let config = program.value(names::CONFIG, 0)?;
    let version = config.first_chunk().context("the group's configuration is empty")?;
    Ok(u32::from_ne_bytes(*version))
}

/// The socket array of a group's program, of whatever version.
///
/// # Errors
/// When it has none.
pub(super) fn sockets(program: &Program) -> anyhow::Result<OwnedFd> {
    program.map(names::SOCKETS, COOKIE)
}

/// The cookies in a socket array.
pub(super) fn cookies(sockets: BorrowedFd<'_>) -> Vec<(Slot, u64)> {
    let number = |slot| u16::try_from(slot).ok().and_then(Slot::new);
    let seat = |slot: Slot| {
        let [cookie] = bpf::lookup(sockets, slot.index()).ok()?;
        Some((slot, cookie))
    };
    (0..SLOTS).filter_map(number).filter_map(seat).collect()
}
