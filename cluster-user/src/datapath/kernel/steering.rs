//! Connections that are meant for one worker: the supervisor's half of the steering map.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, ensure};
use aya::maps::{HashMap, Map, MapData};
use cluster_common::{
    slot::Slot,
    steer::{STEERED, Source},
};

use super::{Kernel, group::Group};
use crate::{datapath::Protocol, id::WorkerId};

/// The steering map of a group.
#[derive(Debug)]
pub(super) struct Steering {
    map: HashMap<MapData, Source, u32>,
    entered: Vec<(Source, Slot)>,
}

impl Steering {
    /// Takes the map over. What a supervisor that died has left in it is removed: its questions are not asked any more.
    ///
    /// # Errors
    /// When it is no such map.
    pub(super) fn new(map: MapData) -> anyhow::Result<Self> {
        let mut map: HashMap<_, Source, u32> = Map::HashMap(map).try_into()?;
        let stale: Vec<Source> = map.keys().filter_map(Result::ok).collect();
        for source in stale {
            map.remove(&source).context("forget what was steered")?;
        }
        Ok(Self { map, entered: Vec::new() })
    }

    /// How many sources are steered, as [`Config::steered`](cluster_common::abi::Config::steered) has it.
    pub(super) fn count(&self) -> u32 {
        u32::try_from(self.entered.len()).unwrap_or(u32::MAX)
    }

    fn enter(&mut self, from: SocketAddr, slot: Slot) -> anyhow::Result<()> {
        ensure!(self.count() < STEERED, "{STEERED} sources are steered already");
        let source = source(from);
        self.map.insert(source, slot.index(), 0).context("enter a source to be steered")?;
        self.entered.retain(|(other, _)| *other != source);
        self.entered.push((source, slot));
        Ok(())
    }

    fn remove(&mut self, gone: impl Fn(Source, Slot) -> bool) {
        let map = &mut self.map;
        self.entered.retain(|&(source, slot)| {
            let gone = gone(source, slot);
            if gone {
                // It is there, for nobody else writes to this map.
                drop(map.remove(&source));
            }
            !gone
        });
    }
}

impl Group {
    /// Makes connections from a source reach a slot.
    fn steer(&mut self, from: SocketAddr, slot: Slot) -> anyhow::Result<()> {
        // The program looks at the map only once it is told to: the entry must be there by then.
        self.steering.enter(from, slot)?;
        self.tell()
    }

    /// Lets the route decide about connections from a source again.
    fn unsteer(&mut self, from: SocketAddr) {
        let from = source(from);
        self.stop_steering(|source, _| source == from);
    }

    /// Lets the route decide about whatever was steered to a slot.
    pub(super) fn unsteer_slot(&mut self, slot: Slot) {
        self.stop_steering(|_, to| to == slot);
    }

    fn stop_steering(&mut self, gone: impl Fn(Source, Slot) -> bool) {
        let before = self.steering.count();
        self.steering.remove(gone);
        if self.steering.count() != before {
            // Told too late the program looks into an empty map, which changes nothing.
            drop(self.tell());
        }
    }
}

impl Kernel {
    /// [`DataPath::steer`](crate::datapath::DataPath::steer).
    pub(super) fn steer_to(
        &mut self,
        worker: WorkerId,
        to: SocketAddr,
        from: SocketAddr,
    ) -> anyhow::Result<()> {
        let known = self.watch.worker(worker);
        let seen = &known.with_context(|| format!("worker {worker} is not known"))?.seen;
        let takes = |group: &&mut Group| takes(group, to);
        let mut groups = self.groups.values_mut().filter(takes);
        let (group, slot) = groups
            .find_map(|group| group.slot_of(seen).map(|slot| (group, slot)))
            .with_context(|| format!("worker {worker} has no socket in a group on {to}"))?;
        group.steer(from, slot)
    }

    /// [`DataPath::unsteer`](crate::datapath::DataPath::unsteer).
    pub(super) fn unsteer_from(&mut self, to: SocketAddr, from: SocketAddr) {
        for group in self.groups.values_mut().filter(|group| takes(group, to)) {
            group.unsteer(from);
        }
    }
}

/// Whether connections to an address come to a group: the address is its own, or one of those it stands for.
fn takes(group: &Group, to: SocketAddr) -> bool {
    let key = group.key();
    let (own, ip) = (key.address.ip(), to.ip().to_canonical());
    let stands_for = own.is_unspecified() && (ip.is_ipv4() == own.is_ipv4() || !key.v6only);
    key.protocol == Protocol::Tcp
        && key.address.port() == to.port()
        && (own.to_canonical() == ip || stands_for)
}

fn source(from: SocketAddr) -> Source {
    match from.ip() {
        IpAddr::V4(address) => Source::v4(address.octets(), from.port()),
        // One of IPv4 that is mapped has the same octets.
        IpAddr::V6(address) => Source::v6(address.octets(), from.port()),
    }
}
