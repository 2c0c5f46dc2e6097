//! Telemetry: what is counted in the seats of a worker's sockets, put together.

use std::{collections::BTreeMap, time::Instant};

use anyhow::Context as _;

use cluster_common::slot::Slot;

use super::{
    Kernel,
    group::{Group, Seated},
    meter::Reading,
    stall::Stalls,
};
use crate::{
    datapath::{
        Protocol, SlotCounters, diag,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
    id::{GroupId, WorkerId},
};

/// Sockets that one worker has closed, with connections of theirs that it has not, which are counted still.
const LEAVING: u32 = 8;

impl Kernel {
    /// See [`DataPath::telemetry`](crate::datapath::DataPath::telemetry).
    pub(super) fn all_telemetry(&mut self) -> anyhow::Result<BTreeMap<WorkerId, Telemetry>> {
        // One look at all listeners, for what waits in accept queues now.
        let listeners = diag::listeners(Protocol::Tcp, 0).context("ask for accept queues")?;
        let mut seen: BTreeMap<u64, diag::Entry> =
            listeners.into_iter().map(|entry| (entry.cookie, entry)).collect();
        if self.groups.values().any(|group| group.key().protocol == Protocol::Udp) {
            let receivers =
                diag::listeners(Protocol::Udp, 0).context("ask for datagram sockets")?;
            seen.extend(receivers.into_iter().map(|entry| (entry.cookie, entry)));
        }
        let mut stalls = std::mem::take(&mut self.stalls);
        stalls.keep(|cookie| seen.contains_key(&cookie));
        let told = |id: WorkerId| (id, self.telemetry_of(id, &seen, &mut stalls));
        let told = self.watch.workers().map(told).collect();
        self.stalls = stalls;
        Ok(told)
    }

    /// See [`DataPath::counted`](crate::datapath::DataPath::counted).
    pub(super) fn counted_for(&self, id: WorkerId) -> Telemetry {
        let counted = self.telemetry_of(id, &BTreeMap::new(), &mut Stalls::default());
        Telemetry { live: None, queued: None, ..counted }
    }

    /// Empties a slot. Its socket goes on being counted for as long as its worker may have connections of it.
    pub(super) fn empty(&mut self, group: GroupId, slot: Slot) {
        let Some(group) = self.groups.get_mut(&group) else { return };
        let protocol = group.key().protocol;
        let Some((gone, counters)) = group.vacate(slot) else { return };
        let Some(worker) = self.watch.worker_with(gone.cookie) else {
            return self.meter.free(gone.seat);
        };
        worker.left.add(&placed(counters));
        if protocol == Protocol::Udp || !gone.seat.counts() {
            return self.meter.free(gone.seat);
        }
        let older = std::mem::replace(&mut worker.leaving, vec![gone.seat]);
        for (place, seat) in (0..).zip(older.iter().rev()) {
            match self.meter.read(*seat) {
                Some(reading) if reading.live > 0 && place < LEAVING => {
                    worker.leaving.insert(0, *seat);
                    continue;
                }
                Some(reading) => worker.left.add(&past(&reading)),
                None => {}
            }
            self.meter.free(*seat);
        }
    }

    /// Lets go of a worker that is gone, and of what was counted for it.
    pub(super) fn forget(&mut self, id: WorkerId) {
        for seat in self.watch.dismiss(id) {
            self.meter.free(seat);
        }
    }

    /// What was counted for a worker; `seen` are its sockets as the kernel describes them now, by cookie.
    fn telemetry_of(
        &self,
        id: WorkerId,
        seen: &BTreeMap<u64, diag::Entry>,
        stalls: &mut Stalls,
    ) -> Telemetry {
        let Some(worker) = self.watch.worker(id) else { return Telemetry::default() };
        let mut sum = worker.left.clone();
        for reading in worker.leaving.iter().filter_map(|seat| self.meter.read(*seat)) {
            add(&mut sum, &reading, 0);
        }
        for group in self.groups.values() {
            for socket in group.sockets().filter(|socket| worker.seen.contains(&socket.cookie)) {
                sum.add(&self.telemetry_in(group, &socket, seen.get(&socket.cookie), stalls));
            }
        }
        if sum.wait.is_none() && sum.missing.is_none() {
            sum.missing =
                self.meter.missing().map(|why| format!("how long connections wait: {why}"));
        }
        sum
    }

    /// What was counted for one socket.
    fn telemetry_in(
        &self,
        group: &Group,
        socket: &Seated,
        seen: Option<&diag::Entry>,
        stalls: &mut Stalls,
    ) -> Telemetry {
        let mut one = placed(group.counters(socket.slot));
        one.dropped = seen.map(|seen| seen.drops.into());
        if group.key().protocol == Protocol::Udp {
            return one;
        }
        let queued = seen.map_or(0, |seen| seen.queued.into());
        match self.meter.read(socket.seat) {
            Some(reading) => {
                add(&mut one, &reading, queued);
                let accepted = one.accepted.unwrap_or_default();
                let now = Instant::now();
                let is_seen = stalls.look(socket.cookie, accepted, queued, group.patience(), now);
                // The guard does not look again where nothing comes any more: then what waited may have been accepted.
                one.stalled = Some(is_seen || reading.stalled && queued > 0);
            }
            None => one.missing = Some("there was no room to count it in".to_owned()),
        }
        one
    }

    /// How many connections the guard has kept away from a worker since this was last asked; none the first time.
    pub(super) fn spared_since(&mut self, id: WorkerId) -> u32 {
        let now = self.sum_of(id, |_| true, |counters| counters.guarded);
        let before = self.spared.insert(id, now).unwrap_or(now);
        u32::try_from(now.saturating_sub(before)).unwrap_or(u32::MAX)
    }

    /// The sum of a counter over the sockets that a worker has now in these groups.
    pub(super) fn sum_of(
        &self,
        id: WorkerId,
        of: fn(&Group) -> bool,
        counter: fn(&SlotCounters) -> u64,
    ) -> u64 {
        let Some(worker) = self.watch.worker(id) else { return 0 };
        let sockets = self.groups.values().filter(|group| of(group)).flat_map(|group| {
            let own = group.sockets().filter(|socket| worker.seen.contains(&socket.cookie));
            own.map(move |socket| counter(&group.counters(socket.slot)))
        });
        sockets.sum()
    }

    /// See [`DataPath::group_telemetry`](crate::datapath::DataPath::group_telemetry).
    pub(super) fn telemetry_of_group(&self, id: GroupId) -> Option<GroupTelemetry> {
        self.groups.get(&id).map(Group::telemetry)
    }
}

/// What programs of groups counted.
fn placed(counters: SlotCounters) -> Telemetry {
    let SlotCounters { selected, migrated_in, guarded } = counters;
    Telemetry { selected, migrated_in, guarded: Some(guarded), ..Telemetry::default() }
}

/// What was counted in a seat that is given back.
fn past(reading: &Reading) -> Telemetry {
    let mut past = Telemetry::default();
    add(&mut past, reading, 0);
    Telemetry { live: None, queued: None, ..past }
}

fn add(sum: &mut Telemetry, reading: &Reading, queued: u64) {
    let more = |place: &mut Option<u64>, value: u64| *place.get_or_insert(0) += value;
    more(&mut sum.live, reading.live);
    more(&mut sum.queued, queued);
    more(&mut sum.migrated_out, reading.left);
    // What came in, does not wait, and did not wait when the listener was closed, was accepted.
    more(&mut sum.accepted, reading.established.saturating_sub(queued + reading.left));
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
