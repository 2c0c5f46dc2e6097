//! Telemetry: what is counted in the seats of a worker's sockets, put together.

use std::collections::BTreeMap;

use anyhow::Context as _;

use cluster_common::slot::Slot;

use super::{
    Kernel,
    group::{Group, Seated},
    meter::Reading,
};
use crate::{
    datapath::{
        Protocol, SlotCounters, diag,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
    id::{GroupId, WorkerId},
};

impl Kernel {
    /// See [`DataPath::telemetry`](crate::datapath::DataPath::telemetry).
    pub(super) fn all_telemetry(&mut self) -> anyhow::Result<BTreeMap<WorkerId, Telemetry>> {
        // One look at all listeners, for what waits in accept queues now.
        let listeners = diag::listeners(Protocol::Tcp, 0).context("ask for accept queues")?;
        let queues: BTreeMap<u64, u32> =
            listeners.iter().map(|entry| (entry.cookie, entry.queued)).collect();
        let told = |id: WorkerId| (id, self.telemetry_of(id, &queues));
        Ok(self.watch.workers().map(told).collect())
    }

    /// See [`DataPath::counted`](crate::datapath::DataPath::counted).
    pub(super) fn counted_for(&self, id: WorkerId) -> Telemetry {
        let counted = self.telemetry_of(id, &BTreeMap::new());
        Telemetry { live: None, queued: None, ..counted }
    }

    /// Keeps what was counted for a socket whose slot is being emptied: its worker may go on without it.
    pub(super) fn keep_counted(&mut self, group: GroupId, slot: Slot) {
        let Some(group) = self.groups.get(&group) else { return };
        let Some(socket) = group.sockets().find(|socket| socket.slot == slot) else { return };
        let counted = self.telemetry_in(group, &socket, 0);
        let counted = Telemetry { live: None, queued: None, ..counted };
        self.watch.left(socket.cookie, &counted);
    }

    fn telemetry_of(&self, id: WorkerId, queues: &BTreeMap<u64, u32>) -> Telemetry {
        let Some(worker) = self.watch.worker(id) else { return Telemetry::default() };
        let mut sum = worker.left.clone();
        for group in self.groups.values() {
            for socket in group.sockets().filter(|socket| worker.seen.contains(&socket.cookie)) {
                let queued = u64::from(queues.get(&socket.cookie).copied().unwrap_or(0));
                sum.add(&self.telemetry_in(group, &socket, queued));
            }
        }
        if sum.wait.is_none() && sum.missing.is_none() {
            sum.missing =
                self.meter.missing().map(|why| format!("how long connections wait: {why}"));
        }
        sum
    }

    /// What was counted for one socket.
    fn telemetry_in(&self, group: &Group, socket: &Seated, queued: u64) -> Telemetry {
        let SlotCounters { selected, migrated_in, guarded } = group.counters(socket.slot);
        let guarded = Some(guarded);
        let mut one = Telemetry { selected, migrated_in, guarded, ..Telemetry::default() };
        if group.key().protocol == Protocol::Udp {
            return one;
        }
        match self.meter.read(socket.seat) {
            Some(reading) => add(&mut one, &reading, queued),
            None => one.missing = Some("there was no room to count it in".to_owned()),
        }
        one
    }

    /// How many connections the guard has kept away from a worker since this was last asked; none the first time.
    pub(super) fn spared_since(&mut self, id: WorkerId) -> u32 {
        let Some(worker) = self.watch.worker(id) else { return 0 };
        let sockets = self.groups.values().flat_map(|group| {
            let own = group.sockets().filter(|socket| worker.seen.contains(&socket.cookie));
            own.map(move |socket| group.counters(socket.slot).guarded)
        });
        let now: u64 = sockets.sum();
        let before = self.spared.insert(id, now).unwrap_or(now);
        u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
    }

    /// See [`DataPath::group_telemetry`](crate::datapath::DataPath::group_telemetry).
    pub(super) fn telemetry_of_group(&self, id: GroupId) -> Option<GroupTelemetry> {
        self.groups.get(&id).map(Group::telemetry)
    }
}

fn add(sum: &mut Telemetry, reading: &Reading, queued: u64) {
    let more = |place: &mut Option<u64>, value: u64| *place.get_or_insert(0) += value;
    more(&mut sum.live, reading.live);
    more(&mut sum.queued, queued);
    // What came in and does not wait was accepted, or moved away with its listener.
    more(&mut sum.accepted, reading.established.saturating_sub(queued));
    let peak = sum.queued_peak.get_or_insert(0);
    *peak = (*peak).max(reading.peak).max(queued);
    more(&mut sum.bytes_in, reading.bytes_in);
    more(&mut sum.bytes_out, reading.bytes_out);
    if let Some(wait) = &reading.wait {
        merge(&mut sum.wait, wait);
    }
    merge(&mut sum.lifetime, &reading.lifetime);
    merge(&mut sum.round_trip, &reading.round_trip);
}

fn merge(sum: &mut Option<Histogram>, more: &Histogram) {
    let sum = sum.get_or_insert_with(Histogram::default);
    sum.buckets.resize(sum.buckets.len().max(more.buckets.len()), 0);
    for (place, count) in sum.buckets.iter_mut().zip(&more.buckets) {
        *place += count;
    }
    sum.sum += more.sum;
}
