//! The program of groups, loaded once for each, and its maps.

use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use anyhow::Context as _;
use aya::maps::MapData;
use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as program};
use cluster_common::{
    abi, names,
    route::{BUFFERS, CursorLine, Lane, RouteTable},
    slot::{SLOTS, Slot},
    stats::{GroupStats, SlotStats},
};

use super::{
    bpf,
    ids::Program,
    mapping::Mapping,
    object::{Prepared, Wanted},
    steering::Steering,
};

/// Bytes of the ring buffer of a traced group: 2000 decisions or so until somebody reads them.
const TRACE_BYTES: u32 = 256 * 1024;
/// Bytes of the ring buffer of a group that is not traced: one page, the least there is.
const NO_TRACE_BYTES: u32 = 4096;

/// Bytes of a value of [`names::SOCKETS`].
const COOKIE: usize = 8;

/// The compiled object.
pub(super) static SELECT: &[u8] =
    aya::include_bytes_aligned!("../../../../cluster-ebpf/object/select.bpf.o");

/// The program of groups, ready to be loaded for one more.
#[derive(Debug)]
pub(super) struct Select(Prepared);

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
}

impl Select {
    /// Reads the object.
    ///
    /// # Errors
    /// When it is damaged.
    pub(super) fn new(trace: bool) -> anyhow::Result<Self> {
        let wanted = Wanted {
            name: if trace { names::SELECT_TRACED } else { names::SELECT },
            program_type: program::BPF_PROG_TYPE_SK_REUSEPORT as u32,
            // By this type the kernel migrates queues without the tcp_migrate_req sysctl (Linux 5.14,
            // `reuseport_migrate_sock`).
            attach_type: attach::BPF_SK_REUSEPORT_SELECT_OR_MIGRATE as u32,
        };
        let mut object = Prepared::new(SELECT, &[], &[wanted])?;
        object.resize(names::TRACE_LOG, if trace { TRACE_BYTES } else { NO_TRACE_BYTES });
        Ok(Self(object))
    }

    /// Loads it for one more group.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn load(&self) -> anyhow::Result<SelectMaps> {
        let mut loaded = self.0.load()?;
        let (_, program) =
            loaded.take_programs().pop().context("the select object has no program")?;
        let program = Program::of(program).context("ask about the program")?;
        SelectMaps::new(program, |_, name, _| loaded.take_map(name))
    }
}

impl SelectMaps {
    /// Takes hold of the maps of a loaded program, whose layouts must be those of this version.
    ///
    /// # Errors
    /// When one is missing or its values have another size, and without `CAP_SYS_ADMIN`.
    pub(super) fn of(program: Program) -> anyhow::Result<Self> {
        Self::new(program, Program::map)
    }

    /// `open` finds a map of a program by name and bytes of a value.
    fn new(
        program: Program,
        mut open: impl FnMut(&Program, &str, usize) -> anyhow::Result<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let mut mapping = |name: &str, value: usize, entries: usize, writable| {
            let map = open(&program, name, value)?;
            let mapping = Mapping::new(map.as_fd(), value * entries, writable);
            mapping.with_context(|| format!("map {name}"))
        };
        let routes = mapping(names::ROUTES, size_of::<RouteTable>(), BUFFERS as usize, true)?;
        let cursors = mapping(names::CURSORS, size_of::<CursorLine>(), Lane::ALL.len(), true)?;
        let group_stats = mapping(names::GROUP_STATS, size_of::<GroupStats>(), 1, false)?;
        let sockets = open(&program, names::SOCKETS, COOKIE)?;
        let config = open(&program, names::CONFIG, size_of::<abi::Config>())?;
        // Not mapped: the kernel maps an array's pages at once, and these are 256 KiB a group.
        let slot_stats = open(&program, names::SLOT_STATS, size_of::<SlotStats>())?;
        let steering = open(&program, names::STEERING, size_of::<u32>())?;
        let steering = Steering::new(MapData::from_fd(steering)?).context("map STEERING")?;
        Ok(Self { program, sockets, config, steering, routes, cursors, slot_stats, group_stats })
    }
}

/// Whether a program is one that is loaded for groups, of whatever version.
pub(super) fn is_of_a_group(found: &Program) -> bool {
    found.kind == program::BPF_PROG_TYPE_SK_REUSEPORT as u32
        && [names::SELECT, names::SELECT_TRACED].contains(&found.name.as_str())
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
