//! Which app has which port, as the bind hook is told.
//!
//! What a port's entry says is always the groups that are open on it, so it is written anew whenever one of them comes or
//! goes. The hook then lets no other app share what they hold; see [`cluster_common::owner`].

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    os::unix::fs::MetadataExt as _,
    path::Path,
};

use aya::maps::{HashMap, MapData};
use cluster_common::{
    owner::{self, Holding, PortOwners},
    packet::{TCP, UDP},
};

use crate::{
    datapath::{GroupKey, Protocol},
    id::{AppId, GroupId},
};

/// The open groups, and the map that tells the hook of them.
#[derive(Debug)]
pub(super) struct Owners {
    map: HashMap<MapData, u32, PortOwners>,
    groups: BTreeMap<GroupId, Owned>,
}

#[derive(Debug)]
struct Owned {
    app: AppId,
    /// Id of the app's cgroup.
    cgroup: u64,
    key: GroupKey,
}

impl Owners {
    pub(super) fn new(map: HashMap<MapData, u32, PortOwners>) -> Self {
        Self { map, groups: BTreeMap::new() }
    }

    /// Learns the cgroup in which an app's next worker will be.
    ///
    /// An app that has no workers may lose its cgroup and keep its groups: it must not be shut out of them by the id of
    /// the old one.
    pub(super) fn admit(&mut self, app: AppId, cgroup: u64) {
        let mut moved = Vec::new();
        for group in self.groups.values_mut() {
            if group.app == app && group.cgroup != cgroup {
                group.cgroup = cgroup;
                moved.push(group.key.clone());
            }
        }
        for key in moved {
            self.write(&key);
        }
    }

    /// Keeps the other apps away from a group that was opened.
    pub(super) fn open(&mut self, id: GroupId, app: AppId, cgroup: u64, key: &GroupKey) {
        self.groups.insert(id, Owned { app, cgroup, key: key.clone() });
        self.write(key);
    }

    /// Lets others have the address of a group.
    pub(super) fn close(&mut self, id: GroupId) {
        if let Some(group) = self.groups.remove(&id) {
            self.write(&group.key);
        }
    }

    /// Lets go of ports that a daemon before this one has told of, and that have no group now.
    pub(super) fn settle(&mut self) {
        let known: BTreeSet<u32> = self.groups.values().map(|group| port(&group.key)).collect();
        let told: Vec<u32> = self.map.keys().filter_map(Result::ok).collect();
        for port in told.into_iter().filter(|port| !known.contains(port)) {
            drop(self.map.remove(&port));
        }
    }

    /// Tells the hook of the groups that there are on a port.
    fn write(&mut self, key: &GroupKey) {
        let (port, protocol) = (key.address.port(), key.protocol);
        let here = self
            .groups
            .values()
            .filter(|group| (group.key.address.port(), group.key.protocol) == (port, protocol));
        let mut owners = PortOwners::default();
        for (place, group) in owners.holdings.iter_mut().zip(here) {
            *place = group.holding();
        }
        let port = self::port(key);
        // If the kernel refuses, the supervisor still refuses what is in the way; it only comes to know later.
        if owners == PortOwners::default() {
            drop(self.map.remove(&port));
        } else {
            drop(self.map.insert(port, owners, 0));
        }
    }
}

/// The entry of a group's port.
fn port(key: &GroupKey) -> u32 {
    let protocol = match key.protocol {
        Protocol::Tcp => TCP,
        Protocol::Udp => UDP,
    };
    owner::key(key.address.port(), protocol)
}

impl Owned {
    fn holding(&self) -> Holding {
        let octets = match self.key.address.ip() {
            IpAddr::V4(ip) => owner::mapped(ip.octets()),
            IpAddr::V6(ip) => ip.octets(),
        };
        Holding {
            app: self.cgroup,
            address: owner::address(octets),
            v6only: u64::from(self.key.v6only),
        }
    }
}

/// Id of an app's cgroup, by that of one of its workers; `None` if it is gone.
pub(super) fn app_cgroup(worker: &Path) -> Option<u64> {
    Some(worker.parent()?.metadata().ok()?.ino())
}
