//! By which rule a group picks workers: its program, what that is told, and the form of the route that it walks.

use std::{
    collections::BTreeMap,
    fs,
    os::fd::{AsFd as _, OwnedFd},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use cluster_common::{
    cpu,
    load::{HEAVIEST, Seat, TICK_SHIFT, UNIT},
    names, publish,
    route::Entry,
    slot::Slot,
};

use super::{
    super::{
        bpf,
        custom::Loaded,
        ids::Program,
        load::{self, Select},
        meter::Meter,
    },
    Group, Owner,
    class::{Classes, behind},
    consistent::{self, Candidate},
};
use crate::{
    config::{
        cpus::Cpus,
        scheduling::{Policy, Scheduling, Sticky},
    },
    datapath::Protocol,
};

/// What a program wants its route to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// Turns, in their order.
    Turns,
    /// The same, and behind them those of each class.
    Classes,
    /// Everybody once.
    Set,
    /// Places that stay with their workers.
    Consistent,
}

impl Form {
    /// That of a program.
    pub(super) fn of(program: &str) -> Self {
        let policy = program.split_once('_').map_or(program, |(_, policy)| policy);
        match policy {
            "least" | "p2c" | "queue" | "cpu" => Self::Set,
            "sticky" => Self::Consistent,
            "class" => Self::Classes,
            _ => Self::Turns,
        }
    }
}

/// The program of a policy.
fn program_of(policy: &Policy) -> anyhow::Result<&'static str> {
    let name = match policy {
        // Nothing is picked by it.
        Policy::RoundRobin | Policy::None => "select",
        Policy::LeastConn => "least",
        Policy::P2c => "p2c",
        Policy::Queue => "queue",
        Policy::Hash => "hash",
        Policy::Sticky(_) => "sticky",
        Policy::CpuLocal => "cpu",
        Policy::Random => "random",
        Policy::Class(_) => "class",
        Policy::Custom(_) => "custom",
    };
    let mut programs = names::SELECT.into_iter();
    let found = programs.find(|program| program.strip_prefix("cluster_") == Some(name));
    found.context("the select object has no such program")
}

/// Whether groups could be scheduled by this policy. A program of the user's is not looked at.
///
/// # Errors
/// What is wrong with it, or missing on this host.
pub(in super::super) fn try_policy(policy: &Policy, select: &Select) -> anyhow::Result<()> {
    program_of(policy)?;
    if let (Policy::Queue, Some(blind)) = (policy, &select.blind) {
        bail!(
            "policy queue reads accept queues in the kernel, and this one does not tell where they are: {blind}"
        );
    }
    Ok(())
}

impl Group {
    /// Its maps, for a program that is loaded on another thread.
    ///
    /// # Errors
    /// When descriptors run out.
    pub(in super::super) fn share_maps(&self) -> std::io::Result<Vec<(String, OwnedFd)>> {
        self.maps.iter().map(|(name, map)| Ok((name.clone(), map.try_clone()?))).collect()
    }

    /// Picks workers by this rule from now on; `loaded` is what was loaded for it before. `duplicate` finds a socket of the
    /// group by its cookie.
    ///
    /// The program is replaced in one step (`reuseport_attach_prog`), between two decisions; what it goes by is told before.
    ///
    /// # Errors
    /// When the kernel refuses the program; the rule is what it was then.
    pub(in super::super) fn schedule(
        &mut self,
        scheduling: &Scheduling,
        loaded: Option<Loaded>,
        select: &Select,
        meter: &Meter,
        duplicate: impl Fn(u64) -> Option<OwnedFd>,
    ) -> anyhow::Result<()> {
        let wanted = program_of(&scheduling.policy)?;
        let classes = if let Policy::Class(rules) = &scheduling.policy {
            Some(Classes::new(rules, self.free_set())?)
        } else {
            None
        };
        let looked_for = classes.as_ref().map_or(Ok(0), Classes::looked_for)?;
        let traced = load::is_traced(&self.program.name);
        let wanted =
            if traced && wanted == names::ROUND_ROBIN { names::SELECT_TRACED } else { wanted };
        // Read and verified first: until it is known to be good, nothing changes.
        let custom = if let Policy::Custom(path) = &scheduling.policy {
            let now = || Loaded(select.load_custom(path, &self.maps));
            Some(loaded.unwrap_or_else(now).0?)
        } else {
            try_policy(&scheduling.policy, select)?;
            None
        };
        let before = self.told;
        self.told.abstains = u32::from(scheduling.policy == Policy::None);
        self.told.shed = scheduling.shed.unwrap_or(0);
        self.told.patience = ticks(scheduling.guard.stalled);
        self.told.queue = scheduling.guard.queue.unwrap_or(0);
        self.told.slow_start = ticks(scheduling.guard.slow_start);
        self.told.heartbeat = scheduling.guard.minds_silence().into();
        let sticky = if let Policy::Sticky(sticky) = &scheduling.policy {
            *sticky
        } else {
            Sticky::default()
        };
        // IPv4 addresses are looked at as mapped ones, behind 96 bits that all have in common.
        self.told.prefix_v4 = 96 + u32::from(sticky.v4);
        self.told.prefix_v6 = sticky.v6.into();
        self.told.connection_id = sticky.quic.unwrap_or(0).into();
        self.tell()?;
        let stays = self.program.name == wanted && self.is_for(classes.as_ref());
        let replaced = match custom {
            // The one that runs goes on if it is the same, with what it has in its maps.
            Some((program, _)) if self.program.is_like(&program).unwrap_or(false) => Ok(()),
            Some(loaded) => self.replace_program(loaded, None, meter, duplicate),
            None if stays => Ok(()),
            None => select
                .load_for(wanted, &self.maps, self.key.protocol, looked_for)
                .and_then(|loaded| self.replace_program(loaded, classes, meter, duplicate)),
        };
        if let Err(error) = replaced {
            self.told = before;
            self.tell()?;
            return Err(error);
        }
        let route = self.route.clone();
        self.publish(&route, meter)
    }

    fn replace_program(
        &mut self,
        (program, mut made): (Program, Vec<(String, OwnedFd)>),
        classes: Option<Classes>,
        meter: &Meter,
        duplicate: impl Fn(u64) -> Option<OwnedFd>,
    ) -> anyhow::Result<()> {
        if let Some(classes) = &classes {
            classes.enter(&made)?;
            // Until the next publication both programs, the one that is there and this one, have their classes in it.
            let route = self.route.clone();
            let mut members = self.members(&route);
            members.extend(self.members_by(classes, &route));
            let entries = self.table(&route, meter);
            publish::publish(&mut self.board, &entries, &behind(entries.len(), &members))?;
        }
        let attached = if let Some(room) = &self.waiting_room {
            bpf::attach_to_group(program.as_fd(), room.as_fd())
        } else {
            let mut sockets = self.filled.values().filter_map(|filled| duplicate(filled.cookie));
            // With no socket there is no group in the kernel: the next one that joins gets the program.
            let socket = sockets.next();
            socket.map_or(Ok(()), |socket| bpf::attach_to_group(program.as_fd(), socket.as_fd()))
        };
        attached.with_context(|| format!("attach program {}", program.name))?;
        let (count, time) = self.program.runs();
        self.ran = (self.ran.0 + count, self.ran.1 + time);
        self.program = program;
        self.classes = classes;
        made.retain(|(name, _)| name != names::RULES);
        self.maps.extend(made);
        Ok(())
    }

    /// Whether datagrams of a flow stay with their worker, one that no route names any more too.
    pub(in super::super) fn keeps_flows(&self) -> bool {
        self.key.protocol == Protocol::Udp && Form::of(&self.program.name) == Form::Consistent
    }

    /// The entries of a route in the form that the program wants it.
    pub(super) fn table(&self, route: &[Slot], meter: &Meter) -> Vec<u32> {
        let entry = |slot: &Slot| self.entry(*slot);
        match Form::of(&self.program.name) {
            Form::Turns => {
                // What sheds goes by connections, which count alike then.
                route.iter().map(entry).collect()
            }
            Form::Classes => {
                self.set_shares(&turns(route), meter);
                route.iter().map(entry).collect()
            }
            Form::Set => {
                let turns = turns(route);
                self.set_shares(&turns, meter);
                turns.keys().map(entry).collect()
            }
            Form::Consistent => {
                let (slots, weights): (Vec<_>, Vec<_>) = turns(route).into_iter().unzip();
                let keyed = self.keys(&slots).into_iter().zip(weights);
                let candidates: Vec<_> =
                    keyed.map(|(key, weight)| Candidate { key, weight }).collect();
                consistent::table(&candidates).into_iter().map(|nth| entry(&slots[nth])).collect()
            }
        }
    }

    /// A socket as it stands in a table.
    pub(super) fn entry(&self, slot: Slot) -> u32 {
        Entry::new(slot, self.seat(slot)).word()
    }

    fn seat(&self, slot: Slot) -> Seat {
        self.filled.get(&slot).map_or(Seat::NONE, |filled| filled.seat)
    }

    /// Makes connections count the more to a worker the fewer turns it has.
    fn set_shares(&self, turns: &BTreeMap<Slot, u32>, meter: &Meter) {
        let most = turns.values().copied().max().unwrap_or(1);
        for (slot, turns) in turns {
            meter.set_share(self.seat(*slot), (UNIT * most / turns).min(HEAVIEST));
        }
    }

    /// What sockets are known by that succeed each other: the number of the worker, and which of those with this number it
    /// is, the oldest worker first. A canary beside the worker that it may succeed takes nothing of that one's.
    fn keys(&self, slots: &[Slot]) -> Vec<u64> {
        let owner = |slot: &Slot| self.filled.get(slot).map(|filled| &filled.owner);
        let mut oldest_first: Vec<usize> = (0..slots.len()).collect();
        oldest_first.sort_by_key(|nth| (owner(&slots[*nth]).and_then(|owner| owner.worker), *nth));
        let mut seen: BTreeMap<u64, u64> = BTreeMap::new();
        let mut keys = vec![0; slots.len()];
        for at in oldest_first {
            let number = owner(&slots[at]).and_then(|owner| owner.number);
            // Without a number it is nobody's successor.
            let number = number.map_or(1 << 32 | u64::from(slots[at].get()), u64::from);
            let nth = seen.entry(number).or_default();
            keys[at] = number | *nth << 40;
            *nth += 1;
        }
        keys
    }

    /// Says whose socket is in a slot.
    pub(in super::super) fn introduce(&mut self, slot: Slot, owner: Owner) {
        if let Some(filled) = self.filled.get_mut(&slot) {
            filled.owner = owner;
        }
    }

    /// Tells the program which workers of a route are near which CPU, if it asks for that.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub(super) fn place_on_cpus(&self, route: &[Slot]) -> anyhow::Result<()> {
        let Some((_, map)) = self.maps.iter().find(|(name, _)| name == names::CPUS) else {
            return Ok(());
        };
        let entries: Vec<(u32, Arc<[u32]>)> = turns(route)
            .into_keys()
            .filter_map(|slot| {
                let filled = self.filled.get(&slot)?;
                let entry = Entry::new(slot, filled.seat).word();
                (!filled.owner.cpus.is_empty()).then(|| (entry, Arc::clone(&filled.owner.cpus)))
            })
            .collect();
        let workers: Vec<(u32, &[u32])> =
            entries.iter().map(|(entry, cpus)| (*entry, &**cpus)).collect();
        let nodes = nodes();
        let node = |cpu| nodes.get(&cpu).copied().unwrap_or(0);
        let mut places = vec![0; usize::try_from(cpu::PLACES).unwrap_or(0)];
        cpu::fill(&workers, node, &mut places);
        for (place, entry) in (0..).zip(&places) {
            bpf::update(map.as_fd(), place, &u32::to_ne_bytes(*entry))
                .context("place workers on CPUs")?;
        }
        Ok(())
    }
}

/// Nodes of CPUs, as far as the host has more than one.
fn nodes() -> BTreeMap<u32, u32> {
    let folders = fs::read_dir("/sys/devices/system/node").into_iter().flatten().flatten();
    let mut nodes = BTreeMap::new();
    for folder in folders {
        let name = folder.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("node")?.parse().ok());
        let list = fs::read_to_string(folder.path().join("cpulist")).unwrap_or_default();
        if let (Some(number), Ok(Cpus::List(cpus))) = (number, list.trim().parse()) {
            nodes.extend(cpus.into_iter().map(|cpu| (cpu, number)));
        }
    }
    nodes
}

/// How many turns each slot of a route has.
fn turns(route: &[Slot]) -> BTreeMap<Slot, u32> {
    let mut turns = BTreeMap::new();
    for slot in route {
        *turns.entry(*slot).or_insert(0) += 1;
    }
    turns
}

/// A time in ticks, at least one unless it is nothing.
fn ticks(time: Duration) -> u32 {
    if time.is_zero() {
        return 0;
    }
    u32::try_from(time.as_nanos() >> TICK_SHIFT).unwrap_or(u32::MAX).max(1)
}
