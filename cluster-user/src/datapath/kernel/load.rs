//! The two compiled objects: `select`, loaded once per group, and `join`, loaded once per daemon.

use std::{
    fs::File,
    os::fd::{AsFd as _, OwnedFd},
    path::Path,
};

use anyhow::Context as _;
use aya::maps::{HashMap, Map, MapData, RingBuf};
use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as program};
use cluster_common::{
    event::PortFilter,
    names,
    owner::PortOwners,
    route::{BUFFERS, CursorLine, Lane, RouteTable},
    stats::GroupStats,
};

use super::{
    bpf,
    mapping::Mapping,
    object::{Prepared, Wanted},
};

/// Bytes of the ring buffer of a traced group: 2000 decisions or so until somebody reads them.
const TRACE_BYTES: u32 = 256 * 1024;
/// Bytes of the ring buffer of a group that is not traced: one page, the least there is.
const NO_TRACE_BYTES: u32 = 4096;

static SELECT: &[u8] = aya::include_bytes_aligned!("../../../../cluster-ebpf/object/select.bpf.o");
static JOIN: &[u8] = aya::include_bytes_aligned!("../../../../cluster-ebpf/object/join.bpf.o");

/// The program of groups, ready to be loaded for one more.
#[derive(Debug)]
pub(super) struct Select(Prepared);

/// The program of one group, loaded, and its maps.
#[derive(Debug)]
pub(super) struct SelectMaps {
    /// The program.
    pub(super) program: OwnedFd,
    /// [`names::SOCKETS`]
    pub(super) sockets: OwnedFd,
    /// [`names::CONFIG`]
    pub(super) config: OwnedFd,
    /// [`names::STEERING`]
    pub(super) steering: MapData,
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
        let mut map = |name: &str, bytes: usize, writable: bool| -> anyhow::Result<Mapping> {
            let map = loaded.take_map(name)?;
            Mapping::new(map.as_fd(), bytes, writable).with_context(|| format!("map {name}"))
        };
        let tables = BUFFERS as usize * size_of::<RouteTable>();
        let cursors = Lane::ALL.len() * size_of::<CursorLine>();
        let routes = map(names::ROUTES, tables, true)?;
        let cursors = map(names::CURSORS, cursors, true)?;
        let group_stats = map(names::GROUP_STATS, size_of::<GroupStats>(), false)?;
        let sockets = loaded.take_map(names::SOCKETS)?;
        let config = loaded.take_map(names::CONFIG)?;
        let steering = MapData::from_fd(loaded.take_map(names::STEERING)?)?;
        // Not mapped: the kernel maps an array's pages at once, and these are 256 KiB a group.
        let slot_stats = loaded.take_map(names::SLOT_STATS)?;
        Ok(SelectMaps {
            program,
            sockets,
            config,
            steering,
            routes,
            cursors,
            slot_stats,
            group_stats,
        })
    }
}

/// The joining programs, and what they report through.
pub(super) struct Joined {
    /// The programs.
    pub(super) join: Join,
    /// [`names::EVENTS`]
    pub(super) events: RingBuf<MapData>,
    /// [`names::LOST_EVENTS`]
    pub(super) overflow: Mapping,
    /// [`names::PORT_OWNER`]
    pub(super) owners: HashMap<MapData, u32, PortOwners>,
}

/// The programs that see workers bind and listen, attached for as long as this lives.
#[derive(Debug)]
pub(super) struct Join {
    #[expect(dead_code, reason = "held: closing a link detaches its program")]
    links: Vec<OwnedFd>,
    filters: HashMap<MapData, u64, PortFilter>,
}

impl Join {
    /// Loads the programs and attaches them to `root`, below which the workers' cgroups are at
    /// `worker_level`, counted from the root of the hierarchy.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn attach(root: &Path, worker_level: u32) -> anyhow::Result<Joined> {
        let cgroup = File::open(root).with_context(|| format!("open {}", root.display()))?;
        let level = worker_level.to_ne_bytes();
        let object = Prepared::new(JOIN, &[(names::WORKER_LEVEL, &level)], &JOIN_PROGRAMS)?;
        let mut loaded = object.load()?;
        let mut links = Vec::new();
        for (wanted, program) in loaded.take_programs() {
            let link = bpf::link_to_cgroup(program.as_fd(), cgroup.as_fd(), wanted.attach_type)
                .with_context(|| format!("attach {} to {}", wanted.name, root.display()))?;
            links.push(link);
        }
        let events = Map::RingBuf(MapData::from_fd(loaded.take_map(names::EVENTS)?)?);
        let filters = Map::HashMap(MapData::from_fd(loaded.take_map(names::PORT_FILTER)?)?);
        let owners = Map::HashMap(MapData::from_fd(loaded.take_map(names::PORT_OWNER)?)?);
        let overflow = loaded.take_map(names::LOST_EVENTS)?;
        let overflow = Mapping::new(overflow.as_fd(), size_of::<u64>(), false)?;
        let join = Self { links, filters: filters.try_into()? };
        let (events, owners) = (events.try_into()?, owners.try_into()?);
        Ok(Joined { join, events, overflow, owners })
    }

    /// Restricts the worker of a cgroup to these ports; none means all.
    ///
    /// # Errors
    /// When they are too many for a filter, or the kernel refuses.
    pub(super) fn filter(&mut self, cgroup: u64, ports: &[u16]) -> anyhow::Result<()> {
        if ports.is_empty() {
            return Ok(());
        }
        let mut filter = PortFilter::default();
        anyhow::ensure!(
            ports.len() <= filter.ports.len(),
            "{} ports are to be balanced, but a filter holds {}",
            ports.len(),
            filter.ports.len()
        );
        filter.ports[..ports.len()].copy_from_slice(ports);
        filter.count = u32::try_from(ports.len())?;
        self.filters.insert(cgroup, filter, 0).context("restrict a worker to its ports")
    }

    /// Forgets the restriction of a cgroup.
    pub(super) fn unfilter(&mut self, cgroup: u64) {
        // That there was none is as good.
        drop(self.filters.remove(&cgroup));
    }
}

const JOIN_PROGRAMS: [Wanted; 5] = [
    Wanted {
        name: names::BIND4,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32,
        attach_type: attach::BPF_CGROUP_INET4_BIND as u32,
    },
    Wanted {
        name: names::BIND6,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32,
        attach_type: attach::BPF_CGROUP_INET6_BIND as u32,
    },
    Wanted {
        name: names::POST_BIND4,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK as u32,
        attach_type: attach::BPF_CGROUP_INET4_POST_BIND as u32,
    },
    Wanted {
        name: names::POST_BIND6,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK as u32,
        attach_type: attach::BPF_CGROUP_INET6_POST_BIND as u32,
    },
    Wanted {
        name: names::SOCK_OPS,
        program_type: program::BPF_PROG_TYPE_SOCK_OPS as u32,
        attach_type: attach::BPF_CGROUP_SOCK_OPS as u32,
    },
];
