//! Telemetry: what is counted in the seats of a worker's sockets, put together.

use std::collections::BTreeMap;

use anyhow::Context as _;

use super::{Kernel, group::Group, meter::Reading};
use crate::{
    datapath::{
        Protocol, diag,
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

    fn telemetry_of(&self, id: WorkerId, queues: &BTreeMap<u64, u32>) -> Telemetry {
        let mut sum = Telemetry::default();
        let Some(worker) = self.watch.worker(id) else { return sum };
        let sockets = self.groups.values().flat_map(|group| {
            let own = group.sockets().filter(|socket| worker.seen.contains(&socket.cookie));
            own.map(move |socket| (group, socket))
        });
        for (group, socket) in sockets {
            let counters = group.counters(socket.slot);
            sum.selected += counters.selected;
            sum.migrated_in += counters.migrated_in;
            *sum.guarded.get_or_insert(0) += group.guarded(socket.slot);
            if group.key().protocol == Protocol::Udp {
                continue;
            }
            let Some(reading) = self.meter.read(socket.seat) else {
                sum.missing = Some("there was no room to count it in".to_owned());
                continue;
            };
            let queued = u64::from(queues.get(&socket.cookie).copied().unwrap_or(0));
            add(&mut sum, &reading, queued);
        }
        sum
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
    merge(&mut sum.wait, &reading.wait);
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
