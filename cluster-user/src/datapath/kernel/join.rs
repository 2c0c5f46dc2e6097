//! The programs that see workers bind and listen: one set for all workers of the daemon.
//!
//! They hang on the daemon's cgroup itself, not on a descriptor of ours, and so do their maps: when the daemon dies,
//! workers that bind and listen are still made to share their ports, and what they did can be read by the next daemon,
//! who takes over what hangs there if it is what it would have loaded itself, and replaces it if it is not.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd},
    path::Path,
};

use anyhow::Context as _;
use aya::{
    Pod,
    maps::{HashMap, Map, MapData, RingBuf},
};
use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as program};
use cluster_common::{abi::Layout, event::PortFilter, names, owner::PortOwners};

use super::{
    bpf,
    ids::{self, Program},
    load::places,
    mapping::Mapping,
    meter::Meter,
    object::{Prepared, Wanted},
    types,
};

/// The compiled object.
pub(super) static OBJECT: &[u8] =
    aya::include_bytes_aligned!("../../../../cluster-ebpf/object/join.bpf.o");

/// The map of constants, as the compiler names it.
const CONSTANTS: &str = ".rodata";

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
    /// What counts connections.
    pub(super) meter: Meter,
}

/// The joining programs, attached, and what the supervisor tells them.
#[derive(Debug)]
pub(super) struct Join {
    #[expect(dead_code, reason = "held: closing a link detaches its program")]
    links: Vec<OwnedFd>,
    filters: HashMap<MapData, u64, PortFilter>,
    joining: HashMap<MapData, u64, u64>,
    /// Whether `joining` has what was bound before this set was attached, too.
    remembers: bool,
}

impl Join {
    /// Sees to it that the programs are attached to `root`, once, below which the workers' cgroups are at
    /// `worker_level`, counted from the root of the hierarchy.
    ///
    /// There is no moment at which a worker's bind would not be seen: a set that hangs there from before goes when the
    /// new one is in place.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn attach(root: &Path, worker_level: u32) -> anyhow::Result<Joined> {
        let cgroup = File::open(root).with_context(|| format!("open {}", root.display()))?;
        let level = worker_level.to_ne_bytes();
        // What it reads of the kernel's memory it does without where the kernel does not tell, or does not let it.
        let prepare = |layout| {
            let given = [(names::WORKER_LEVEL, &level[..]), (names::LAYOUT, &places(layout))];
            Prepared::new(OBJECT, &given, &JOIN_PROGRAMS)?.load()
        };
        let mut loaded = match types::layout() {
            Ok(layout) => prepare(layout).or_else(|refused| {
                log::debug!("the joining programs do without the kernel's memory: {refused:#}");
                prepare(Layout::default())
            })?,
            Err(_unknown) => prepare(Layout::default())?,
        };
        let fresh = loaded.take_programs().into_iter();
        let fresh: Vec<(Wanted, Program)> = fresh
            .map(|(wanted, fd)| Ok((wanted, Program::of(fd)?)))
            .collect::<anyhow::Result<_>>()
            .context("ask about a joining program")?;
        // Without CAP_SYS_ADMIN what hangs there could never be found again: then it goes with the daemon.
        let lasting = fresh.first().is_some_and(|(_, program)| Program::open(program.id).is_ok());
        if !lasting {
            let mut links = Vec::new();
            for (wanted, program) in &fresh {
                let link = bpf::link_to_cgroup(program.as_fd(), cgroup.as_fd(), wanted.attach_type)
                    .with_context(|| format!("attach {} to {}", wanted.name, root.display()))?;
                links.push(link);
            }
            return Joined::of(links, |name, _| loaded.take_map(name));
        }
        let before = hanging(cgroup.as_fd()).context("ask what is attached to the cgroup")?;
        let constants = ids::value(loaded.map(CONSTANTS)?, 0)?;
        if let Some(set) = the_same(&before, &fresh, &constants) {
            let mut joined = Joined::of(Vec::new(), |name, value| {
                // Each program has those of the maps that it uses.
                let mut programs = set.iter().map(|(_, program)| program.map(name, value));
                let found = programs.find_map(Result::ok);
                found.with_context(|| format!("the joining programs have no map {name}"))
            })?;
            joined.join.remembers = true;
            return Ok(joined);
        }
        for (wanted, program) in &fresh {
            ids::attach(program.as_fd(), cgroup.as_fd(), wanted.attach_type)
                .with_context(|| format!("attach {} to {}", wanted.name, root.display()))?;
        }
        let mut joined = Joined::of(Vec::new(), |name, _| loaded.take_map(name))?;
        for (_, program) in &before {
            joined.inherit(program);
            joined.join.remembers = true;
        }
        take_off(cgroup.as_fd(), &before)?;
        Ok(joined)
    }

    /// The worker's cgroup whose socket this is, if it was made to share its port.
    pub(super) fn worker_of(&self, cookie: u64) -> Option<u64> {
        self.joining.get(&cookie, 0).ok()
    }

    /// Whether a socket of which no worker is known was left alone on purpose, rather than bound before anybody looked.
    pub(super) fn remembers(&self) -> bool {
        self.remembers
    }

    /// Forgets the restrictions of all cgroups but these.
    pub(super) fn settle(&mut self, claimed: &BTreeSet<u64>) {
        let known: Vec<u64> = self.filters.keys().filter_map(Result::ok).collect();
        for cgroup in known.into_iter().filter(|cgroup| !claimed.contains(cgroup)) {
            self.unfilter(cgroup);
        }
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

impl Joined {
    fn of(
        links: Vec<OwnedFd>,
        mut open: impl FnMut(&str, usize) -> anyhow::Result<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let mut map = |name: &str, value| anyhow::Ok(MapData::from_fd(open(name, value)?)?);
        let events = Map::RingBuf(map(names::EVENTS, 0)?).try_into()?;
        let filters = Map::HashMap(map(names::PORT_FILTER, size_of::<PortFilter>())?).try_into()?;
        let owners = Map::HashMap(map(names::PORT_OWNER, size_of::<PortOwners>())?).try_into()?;
        let joining = Map::LruHashMap(map(names::JOINING, size_of::<u64>())?).try_into()?;
        let overflow = open(names::LOST_EVENTS, size_of::<u64>())?;
        let overflow = Mapping::new(overflow.as_fd(), size_of::<u64>(), false)?;
        let mut meter = Meter::new(&mut open)?;
        meter.watch_reads();
        let join = Join { links, filters, joining, remembers: false };
        Ok(Self { join, events, overflow, owners, meter })
    }

    /// Takes over what a program of another set was told and has noted, as far as it is laid out alike. What is missing
    /// is told again by the supervisor; only sockets that are bound and do not listen yet would not be recognised.
    fn inherit(&mut self, before: &Program) {
        inherit(before, names::JOINING, &mut self.join.joining, Map::LruHashMap);
        inherit(before, names::PORT_FILTER, &mut self.join.filters, Map::HashMap);
        inherit(before, names::PORT_OWNER, &mut self.owners, Map::HashMap);
    }
}

fn inherit<K: Pod, V: Pod>(
    before: &Program,
    name: &str,
    map: &mut HashMap<MapData, K, V>,
    kind: fn(MapData) -> Map,
) {
    let old = before.map(name, size_of::<V>()).and_then(|old| Ok(MapData::from_fd(old)?));
    let Ok(Ok(old)) = old.map(|old| HashMap::<_, K, V>::try_from(kind(old))) else { return };
    for (key, value) in old.iter().filter_map(Result::ok) {
        // What was told since is newer.
        drop(map.insert(key, value, u64::from(aya_obj::generated::BPF_NOEXIST)));
    }
}

/// Takes the joining programs off a cgroup: for a daemon that does without them.
///
/// # Errors
/// What the kernel said.
pub(super) fn remove(root: &Path) -> anyhow::Result<()> {
    let cgroup = File::open(root).with_context(|| format!("open {}", root.display()))?;
    take_off(cgroup.as_fd(), &hanging(cgroup.as_fd())?)
}

/// How many joining programs of ours hang on a cgroup.
#[cfg(test)]
pub(super) fn count(root: &Path) -> usize {
    hanging(File::open(root).unwrap().as_fd()).unwrap().len()
}

/// Takes one of the joining programs off a cgroup.
#[cfg(test)]
pub(super) fn detach_one(root: &Path) {
    let cgroup = File::open(root).unwrap();
    take_off(cgroup.as_fd(), &hanging(cgroup.as_fd()).unwrap()[..1]).unwrap();
}

/// Joining programs of ours, of whatever version, that hang on a cgroup.
fn hanging(cgroup: BorrowedFd<'_>) -> std::io::Result<Vec<(Wanted, Program)>> {
    let mut hanging = Vec::new();
    for wanted in JOIN_PROGRAMS {
        let found = ids::attached(cgroup, wanted.attach_type)?;
        let ours = found.into_iter().filter(|program| program.name == wanted.name);
        hanging.extend(ours.map(|program| (wanted, program)));
    }
    Ok(hanging)
}

fn take_off(cgroup: BorrowedFd<'_>, programs: &[(Wanted, Program)]) -> anyhow::Result<()> {
    for (wanted, program) in programs {
        ids::detach(program.as_fd(), cgroup, wanted.attach_type)
            .with_context(|| format!("detach {} of a daemon before", wanted.name))?;
    }
    Ok(())
}

/// One of the programs that hang there, if they are one whole set of just the code and the constants that were loaded
/// now: two programs that both report would have a socket joined twice.
fn the_same<'a>(
    before: &'a [(Wanted, Program)],
    fresh: &[(Wanted, Program)],
    constants: &[u8],
) -> Option<&'a [(Wanted, Program)]> {
    let alike = |((_, old), (_, new)): (&(Wanted, Program), &(Wanted, Program))| {
        old.name == new.name && old.tag == new.tag
    };
    if before.len() != fresh.len() || !before.iter().zip(fresh).all(alike) {
        return None;
    }
    let mut numbers = BTreeMap::new();
    for (_, program) in before {
        for name in SHARED {
            let Some(id) = program.map_id(name) else { continue };
            if *numbers.entry(name).or_insert(id) != id {
                return None;
            }
        }
    }
    // The first is before a bind, which uses the constants.
    let (_, first) = before.first()?;
    (first.value(CONSTANTS, 0).ok()? == constants).then_some(before)
}

/// Maps that all programs of a set have in common, as far as they use them.
const SHARED: [&str; 8] = [
    names::EVENTS,
    names::JOINING,
    names::PORT_FILTER,
    names::PORT_OWNER,
    names::LOADS,
    names::METERS,
    names::MOVED,
    names::TAGS,
];

const JOIN_PROGRAMS: [Wanted; 5] = [
    Wanted {
        name: names::BIND4,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32,
        attach_type: attach::BPF_CGROUP_INET4_BIND as u32,
        target: 0,
    },
    Wanted {
        name: names::BIND6,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR as u32,
        attach_type: attach::BPF_CGROUP_INET6_BIND as u32,
        target: 0,
    },
    Wanted {
        name: names::POST_BIND4,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK as u32,
        attach_type: attach::BPF_CGROUP_INET4_POST_BIND as u32,
        target: 0,
    },
    Wanted {
        name: names::POST_BIND6,
        program_type: program::BPF_PROG_TYPE_CGROUP_SOCK as u32,
        attach_type: attach::BPF_CGROUP_INET6_POST_BIND as u32,
        target: 0,
    },
    Wanted {
        name: names::SOCK_OPS,
        program_type: program::BPF_PROG_TYPE_SOCK_OPS as u32,
        attach_type: attach::BPF_CGROUP_SOCK_OPS as u32,
        target: 0,
    },
];
