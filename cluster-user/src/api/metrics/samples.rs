//! The samples of metrics: one for each app, worker or group that has a value, under its labels.

use super::catalogue::{Sample, Value};
use crate::{
    api::message::{AppTelemetry, PortTelemetry, Snapshot, Status, WorkerTelemetry},
    datapath::{
        Mode, Protocol,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
};

pub(super) fn daemon(value: Value) -> Vec<Sample> {
    vec![Sample { labels: Vec::new(), value }]
}

pub(super) fn apps(
    snapshot: &Snapshot,
    value: impl Fn(&AppTelemetry) -> Option<Value>,
) -> Vec<Sample> {
    let sample = |app| Some(Sample { labels: of_app(app), value: value(app)? });
    snapshot.apps.iter().filter_map(sample).collect()
}

pub(super) fn app_counts(
    snapshot: &Snapshot,
    count: impl Fn(&Telemetry, Mode) -> Option<u64>,
) -> Vec<Sample> {
    apps(snapshot, |app| count(&app.total, snapshot.mode).map(Value::Count))
}

pub(super) fn app_levels(
    snapshot: &Snapshot,
    level: impl Fn(&Telemetry) -> Option<u64>,
) -> Vec<Sample> {
    apps(snapshot, |app| level(&app.total).map(Value::Level))
}

pub(super) fn histograms(
    snapshot: &Snapshot,
    bounds: &[usize],
    histogram: impl Fn(&Telemetry) -> Option<&Histogram>,
) -> Vec<Sample> {
    apps(snapshot, |app| histogram(&app.total).map(|histogram| buckets(histogram, bounds)))
}

pub(super) fn workers(
    snapshot: &Snapshot,
    value: impl Fn(&WorkerTelemetry, &Snapshot) -> Option<Value>,
) -> Vec<Sample> {
    let of = |app: &AppTelemetry| {
        let samples = app.workers.iter().filter_map(|worker| {
            let mut labels = of_app(app);
            labels.push(("worker", worker.instance.to_string()));
            Some(Sample { labels, value: value(worker, snapshot)? })
        });
        samples.collect::<Vec<_>>()
    };
    snapshot.apps.iter().flat_map(of).collect()
}

pub(super) fn worker_counts(
    snapshot: &Snapshot,
    count: impl Fn(&Telemetry, Mode) -> Option<u64>,
) -> Vec<Sample> {
    workers(snapshot, |worker, snapshot| count(&worker.total, snapshot.mode).map(Value::Count))
}

pub(super) fn worker_levels(
    snapshot: &Snapshot,
    level: impl Fn(&Telemetry) -> Option<u64>,
) -> Vec<Sample> {
    workers(snapshot, |worker, _| level(&worker.total).map(Value::Level))
}

pub(super) fn groups(
    snapshot: &Snapshot,
    value: impl Fn(&GroupTelemetry) -> Option<Value>,
) -> Vec<Sample> {
    let of = |app: &AppTelemetry| {
        let samples = app.groups.iter().filter_map(|port: &PortTelemetry| {
            let protocol = match port.protocol {
                Protocol::Tcp => "tcp",
                Protocol::Udp => "udp",
            };
            let mut labels = of_app(app);
            labels.push(("protocol", protocol.to_owned()));
            labels.push(("address", port.address.to_string()));
            Some(Sample { labels, value: value(port.telemetry.as_ref()?)? })
        });
        samples.collect::<Vec<_>>()
    };
    snapshot.apps.iter().flat_map(of).collect()
}

pub(super) fn states(app: &AppTelemetry) -> Vec<Sample> {
    const STATES: [(Status, &str); 8] = [
        (Status::Starting, "starting"),
        (Status::Ready, "ready"),
        (Status::Online, "online"),
        (Status::Draining, "draining"),
        (Status::Stopping, "stopping"),
        (Status::Backoff, "backoff"),
        (Status::Errored, "errored"),
        (Status::Stopped, "stopped"),
    ];
    let sample = |(status, name): (Status, &str)| {
        let seated = app.workers.iter().filter(|worker| worker.status == status).count();
        let others = app.workers.iter().flat_map(|worker| &worker.others);
        let others = others.filter(|other| other.status == status).count();
        let mut labels = of_app(app);
        labels.push(("state", name.to_owned()));
        let value = Value::Level(u64::try_from(seated + others).unwrap_or(u64::MAX));
        Sample { labels, value }
    };
    STATES.into_iter().map(sample).collect()
}

pub(super) fn of_app(app: &AppTelemetry) -> Vec<(&'static str, String)> {
    vec![("app", app.name.clone())]
}

pub(super) fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Kernel => "kernel",
        Mode::Plain => "plain",
    }
}

/// Nothing is known of this in plain mode.
pub(super) fn in_kernel(mode: Mode, count: u64) -> Option<u64> {
    match mode {
        Mode::Kernel => Some(count),
        Mode::Plain => None,
    }
}

/// Seconds of a count of parts of them.
#[expect(
    clippy::cast_precision_loss,
    clippy::as_conversions,
    reason = "2^53 microseconds are 285 years"
)]
pub(super) fn seconds(count: u64, parts: f64) -> f64 {
    count as f64 / parts
}

pub(super) fn buckets(histogram: &Histogram, exponents: &[usize]) -> Value {
    let count = histogram.count();
    let mut before = 0;
    let mut buckets = Vec::new();
    for exponent in exponents {
        let below = histogram.below(*exponent);
        let bound = u32::try_from(*exponent).ok().and_then(|n| 1_u64.checked_shl(n));
        buckets.push((seconds(bound.unwrap_or(u64::MAX), 1e6), below.saturating_sub(before)));
        before = before.max(below);
    }
    buckets.push((f64::INFINITY, count.saturating_sub(before)));
    Value::Buckets { sum: seconds(histogram.sum, 1e6), count, buckets }
}
