//! What was counted for workers and ports that have gone, so that no counter of an app ever goes back.
//!
//! It is kept for as long as the app is known, and written down with the journal: an upgrade does not lose it, and a
//! daemon that is killed loses what was counted for those that end while none is there.

use std::{collections::BTreeMap, net::SocketAddr};

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::{
    datapath::{
        Protocol,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
    id::{AppId, GroupId, Instance},
};

/// So many ports of an app are remembered that it serves no more: one that takes another at each start has no end of them.
const PORTS: usize = 64;

/// The past of all apps.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Ledger {
    apps: BTreeMap<AppId, Past>,
    /// What the groups are that can be closed.
    #[serde(skip)]
    open: BTreeMap<GroupId, (AppId, Protocol, SocketAddr)>,
}

/// The past of one app.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Past {
    #[serde(default)]
    seats: BTreeMap<Instance, Seat>,
    #[serde(default)]
    lifetime: Option<Histogram>,
    #[serde(default)]
    wait: Option<Histogram>,
    #[serde(default)]
    round_trip: Option<Histogram>,
    #[serde(default)]
    ports: Vec<Port>,
}

/// The past of one port: what was counted by name, and runs.
type Port = (Protocol, SocketAddr, Vec<u64>, Option<(u64, u64)>);

/// The past of one place: there may be hundreds, and this is written often, so it is as short as can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Seat {
    /// [`Telemetry::counts`], of the release that wrote it.
    counts: Vec<Option<u64>>,
    /// CPU time in microseconds.
    cpu_us: u64,
}

impl Seat {
    fn telemetry(&self) -> Telemetry {
        let mut counts = [None; _];
        for (count, kept) in counts.iter_mut().zip(&self.counts) {
            *count = *kept;
        }
        Telemetry::of_counts(counts)
    }
}

impl Ledger {
    /// Takes in what was counted for a worker that has ended.
    pub(super) fn ended(&mut self, app: AppId, instance: Instance, counted: &Telemetry) {
        let past = self.apps.entry(app).or_default();
        let seat = past.seats.entry(instance).or_default();
        let mut sum = seat.telemetry();
        sum.add(counted);
        seat.counts = sum.counts().to_vec();
        let Past { lifetime, wait, round_trip, .. } = past;
        for (sum, more) in [
            (lifetime, &counted.lifetime),
            (wait, &counted.wait),
            (round_trip, &counted.round_trip),
        ] {
            if let Some(more) = more {
                sum.get_or_insert_default().add(more);
            }
        }
    }

    /// Takes in the CPU time of a worker of which nothing is left.
    pub(super) fn used(&mut self, app: AppId, instance: Instance, cpu_us: u64) {
        let seat = self.apps.entry(app).or_default().seats.entry(instance).or_default();
        seat.cpu_us = seat.cpu_us.saturating_add(cpu_us);
    }

    /// Learns what a group is.
    pub(super) fn opened(
        &mut self,
        group: GroupId,
        app: AppId,
        protocol: Protocol,
        address: SocketAddr,
    ) {
        self.open.insert(group, (app, protocol, address));
    }

    /// Takes in what was counted for a group that is being closed.
    pub(super) fn closed(&mut self, group: GroupId, counted: Option<GroupTelemetry>) {
        let Some((app, protocol, address)) = self.open.remove(&group) else { return };
        let Some(counted) = counted else { return };
        let mut sum = self.port(app, protocol, address);
        sum.add(&counted);
        let GroupTelemetry { misses, waited, refused, shed, other, hashed, unfollowed, runs } = sum;
        let ports = &mut self.apps.entry(app).or_default().ports;
        ports.retain(|(of, at, ..)| (*of, *at) != (protocol, address));
        if ports.len() >= PORTS {
            ports.remove(0);
        }
        let counts = vec![misses, waited, refused, shed, other, hashed, unfollowed];
        ports.push((protocol, address, counts, runs));
    }

    /// Lets go of an app.
    pub(super) fn forget(&mut self, app: AppId) {
        self.apps.remove(&app);
    }

    /// What was counted for those that were in a place before, without histograms, and their CPU time in microseconds.
    pub(super) fn seat(&self, app: AppId, instance: Instance) -> (Telemetry, u64) {
        let seat = self.apps.get(&app).and_then(|past| past.seats.get(&instance));
        seat.map(|seat| (seat.telemetry(), seat.cpu_us)).unwrap_or_default()
    }

    /// What was counted for all workers that an app had, histograms included, and their CPU time in microseconds.
    pub(super) fn app(&self, app: AppId) -> (Telemetry, u64) {
        let Some(past) = self.apps.get(&app) else { return Default::default() };
        let mut sum = Telemetry {
            lifetime: past.lifetime.clone(),
            wait: past.wait.clone(),
            round_trip: past.round_trip.clone(),
            ..Telemetry::default()
        };
        let mut cpu_us = 0_u64;
        for seat in past.seats.values() {
            sum.add(&seat.telemetry());
            cpu_us = cpu_us.saturating_add(seat.cpu_us);
        }
        (sum, cpu_us)
    }

    /// What was counted for groups on a port that were closed.
    pub(super) fn port(
        &self,
        app: AppId,
        protocol: Protocol,
        address: SocketAddr,
    ) -> GroupTelemetry {
        let mut ports = self.apps.get(&app).into_iter().flat_map(|past| &past.ports);
        let kept = ports.find(|(of, at, ..)| (*of, *at) == (protocol, address));
        kept.map_or_else(GroupTelemetry::default, |(_, _, counts, runs)| {
            // Releases that counted less wrote less.
            let mut all = [0; 7];
            all.iter_mut().zip(counts).for_each(|(count, kept)| *count = *kept);
            let [misses, waited, refused, shed, other, hashed, unfollowed] = all;
            GroupTelemetry { misses, waited, refused, shed, other, hashed, unfollowed, runs: *runs }
        })
    }
}

impl<'de> Deserialize<'de> for Ledger {
    /// What another release wrote and this one cannot read is lost: figures are no reason to lose workers.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        struct Kept {
            apps: BTreeMap<AppId, Past>,
        }
        let kept = serde_json::from_value::<Kept>(Value::deserialize(deserializer)?);
        let apps = kept.map(|kept| kept.apps).unwrap_or_default();
        Ok(Self { apps, open: BTreeMap::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WEB: AppId = AppId(0);

    #[test]
    fn what_was_counted_for_those_that_have_gone_adds_up() {
        let mut ledger = Ledger::default();
        ledger.ended(WEB, Instance(0), &counted(10));
        ledger.ended(WEB, Instance(0), &counted(5));
        ledger.ended(WEB, Instance(1), &counted(1));
        ledger.used(WEB, Instance(1), 300);
        ledger.used(WEB, Instance(1), 40);

        assert_eq!(ledger.seat(WEB, Instance(0)).0.selected, 15);
        assert_eq!(ledger.seat(WEB, Instance(1)).1, 340);
        assert_eq!(ledger.seat(WEB, Instance(7)), (Telemetry::default(), 0));
        let (sum, cpu) = ledger.app(WEB);
        assert_eq!((sum.selected, sum.accepted, sum.dropped, cpu), (16, Some(16), None, 340));
        assert_eq!(sum.live, None, "who has gone has none");
        assert_eq!(sum.wait.map(|wait| wait.sum), Some(16));
        ledger.forget(WEB);
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn a_port_that_is_opened_again_goes_on_and_ports_without_end_are_forgotten() {
        let mut ledger = Ledger::default();
        let misses = |misses| Some(GroupTelemetry { misses, ..GroupTelemetry::default() });
        for group in 0..2 {
            ledger.opened(GroupId(group), WEB, Protocol::Tcp, at(80));
            ledger.closed(GroupId(group), misses(4));
        }
        ledger.closed(GroupId(7), misses(100));
        assert_eq!(ledger.port(WEB, Protocol::Tcp, at(80)).misses, 8);
        assert_eq!(ledger.port(WEB, Protocol::Udp, at(80)).misses, 0);
        for port in 1000..2000 {
            ledger.opened(GroupId(1), WEB, Protocol::Tcp, at(port));
            ledger.closed(GroupId(1), misses(1));
        }
        assert_eq!(ledger.port(WEB, Protocol::Tcp, at(1999)).misses, 1);
        assert_eq!(ledger.apps[&WEB].ports.len(), PORTS);
    }

    #[test]
    fn the_next_daemon_reads_it_and_what_it_cannot_read_is_lost() {
        let mut ledger = Ledger::default();
        ledger.ended(WEB, Instance(0), &counted(10));
        ledger.opened(GroupId(0), WEB, Protocol::Tcp, at(80));
        ledger.closed(GroupId(0), Some(GroupTelemetry::default()));
        let text = serde_json::to_string(&ledger).unwrap();
        assert_eq!(serde_json::from_str::<Ledger>(&text).unwrap(), ledger);
        for strange in ["3", "null", "{\"apps\":{\"0\":{\"seats\":7}}}", "{}"] {
            assert_eq!(serde_json::from_str::<Ledger>(strange).unwrap(), Ledger::default());
        }
        // An older release counted less.
        let short = "{\"apps\":{\"0\":{\"seats\":{\"0\":{\"counts\":[3],\"cpu_us\":1}}}}}";
        let short: Ledger = serde_json::from_str(short).unwrap();
        assert_eq!(short.seat(WEB, Instance(0)).0.selected, 3);
    }

    fn counted(count: u64) -> Telemetry {
        let wait = Some(Histogram { buckets: vec![0, count], sum: count });
        let accepted = Some(count);
        Telemetry { selected: count, accepted, wait, ..Telemetry::default() }
    }

    fn at(port: u16) -> SocketAddr {
        ([127, 0, 0, 1], port).into()
    }
}
