//! Every metric: its name, its unit, what it means, and where it comes from.
//!
//! Names and units are those that Prometheus' conventions ask for; a name here is without its unit and `_total`. Labels
//! have as many values as there are apps, workers and ports: numbers of workers, never process ids.

use super::samples::{
    app_counts, app_levels, apps, daemon, groups, histograms, in_kernel, mode, of_app, seconds,
    states, worker_counts, worker_levels, workers,
};
use crate::api::message::{AppTelemetry, Snapshot, Status};

/// A metric.
pub(super) struct Metric {
    pub(super) name: &'static str,
    pub(super) unit: Option<&'static str>,
    pub(super) kind: Kind,
    /// A sentence without its full stop.
    pub(super) help: &'static str,
    pub(super) samples: fn(&Snapshot) -> Vec<Sample>,
}

/// What kind a metric is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Only ever grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts by size.
    Histogram,
    /// Is always 1, and says something with its labels.
    Info,
}

/// A metric's value for one thing.
pub(super) struct Sample {
    pub(super) labels: Vec<(&'static str, String)>,
    pub(super) value: Value,
}

/// A value, of the kind that its metric is.
#[derive(Debug, PartialEq)]
pub(super) enum Value {
    /// Of a counter.
    Count(u64),
    /// Of a counter of seconds.
    Amount(f64),
    /// Of a gauge.
    Level(u64),
    /// Of a gauge of seconds.
    Moment(f64),
    /// Of a histogram: upper bounds, the last one infinite, and what is in each bucket.
    Buckets {
        /// Of all values.
        sum: f64,
        /// How many values.
        count: u64,
        /// See [`Value::Buckets`].
        buckets: Vec<(f64, u64)>,
    },
    /// Of an info.
    Info,
}

/// Exponents of the bounds of histograms, powers of two in microseconds: from 64 µs to 67 s.
const SHORT: [usize; 11] = [6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26];
/// The same for what may last hours: from 256 µs to 19 hours.
const LONG: [usize; 15] = [8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30, 32, 34, 36];

const BYTES: Option<&str> = Some("bytes");
const SECONDS: Option<&str> = Some("seconds");

/// All of them, in the order in which they are written down.
pub(super) const CATALOGUE: &[Metric] = &[
    metric(
        "cluster_build",
        None,
        Kind::Info,
        "Release of the daemon and how it carries connections",
        |s| {
            let labels =
                vec![("version", s.daemon.release.clone()), ("mode", mode(s.mode).to_owned())];
            vec![Sample { labels, value: Value::Info }]
        },
    ),
    metric(
        "process_start_time",
        SECONDS,
        Kind::Gauge,
        "When the daemon was started, since the epoch",
        |s| daemon(Value::Moment(seconds(s.at_ms.saturating_sub(s.daemon.uptime_ms), 1000.0))),
    ),
    metric("process_cpu", SECONDS, Kind::Counter, "CPU time of the daemon", |s| {
        daemon(Value::Amount(seconds(s.daemon.cpu_us, 1e6)))
    }),
    metric("process_resident_memory", BYTES, Kind::Gauge, "Resident memory of the daemon", |s| {
        daemon(Value::Level(s.daemon.memory_bytes))
    }),
    metric(
        "process_open_fds",
        None,
        Kind::Gauge,
        "File descriptors that the daemon has open",
        |s| daemon(Value::Level(s.daemon.descriptors)),
    ),
    metric(
        "cluster_app",
        None,
        Kind::Info,
        "Namespace of an app and the rule that picks a worker: in plain mode hash, the kernel's own",
        |s| {
            let info = |app: &AppTelemetry| {
                let mut labels = of_app(app);
                labels.push(("namespace", app.namespace.clone()));
                labels.push(("policy", app.policy.clone()));
                Sample { labels, value: Value::Info }
            };
            s.apps.iter().map(info).collect()
        },
    ),
    metric("cluster_app_workers", None, Kind::Gauge, "Workers in each state", |s| {
        s.apps.iter().flat_map(states).collect()
    }),
    metric("cluster_app_workers_wanted", None, Kind::Gauge, "Workers that were asked for", |s| {
        apps(s, |app| Some(Value::Level(app.instances.into())))
    }),
    metric(
        "cluster_app_generation",
        None,
        Kind::Gauge,
        "Which version is deployed; a reload makes the next one",
        |s| apps(s, |app| Some(Value::Level(app.generation.0.into()))),
    ),
    metric(
        "cluster_app_cpu",
        SECONDS,
        Kind::Counter,
        "CPU time of all workers that there are and were",
        |s| apps(s, |app| Some(Value::Amount(seconds(app.cpu_us, 1e6)))),
    ),
    metric(
        "cluster_app_memory",
        BYTES,
        Kind::Gauge,
        "Resident memory of all processes of all workers",
        |s| apps(s, |app| Some(Value::Level(app.memory_bytes))),
    ),
    metric(
        "cluster_app_connections_selected",
        None,
        Kind::Counter,
        "Connections (TCP) or datagrams (UDP) sent to workers, those that have gone included",
        |s| app_counts(s, |t, mode| in_kernel(mode, t.selected)),
    ),
    metric(
        "cluster_app_connections_accepted",
        None,
        Kind::Counter,
        "Connections that workers accepted",
        |s| app_counts(s, |t, _| t.accepted),
    ),
    metric(
        "cluster_app_connections_migrated_in",
        None,
        Kind::Counter,
        "Connections that moved to a worker because their listener was closed",
        |s| app_counts(s, |t, mode| in_kernel(mode, t.migrated_in)),
    ),
    metric(
        "cluster_app_connections_migrated_out",
        None,
        Kind::Counter,
        "Connections that moved away from a worker because its listener was closed",
        |s| app_counts(s, |t, _| t.migrated_out),
    ),
    metric(
        "cluster_app_connections_dropped",
        None,
        Kind::Counter,
        "Connections and datagrams that the kernel dropped because a queue was full",
        |s| app_counts(s, |t, _| t.dropped),
    ),
    metric(
        "cluster_app_connections_guarded",
        None,
        Kind::Counter,
        "Times that the guard kept a connection away from a worker",
        |s| app_counts(s, |t, _| t.guarded),
    ),
    metric("cluster_app_received", BYTES, Kind::Counter, "Bytes received over connections", |s| {
        app_counts(s, |t, _| t.bytes_in)
    }),
    metric("cluster_app_sent", BYTES, Kind::Counter, "Bytes that clients acknowledged", |s| {
        app_counts(s, |t, _| t.bytes_out)
    }),
    metric(
        "cluster_app_live_connections",
        None,
        Kind::Gauge,
        "Connections that workers have not closed, queued ones included",
        |s| app_levels(s, |t| t.live),
    ),
    metric(
        "cluster_app_queued_connections",
        None,
        Kind::Gauge,
        "Connections in accept queues",
        |s| app_levels(s, |t| t.queued),
    ),
    metric(
        "cluster_app_connection_duration",
        SECONDS,
        Kind::Histogram,
        "How long connections lasted, from the end of the handshake to the worker's close",
        |s| histograms(s, &LONG, |t| t.lifetime.as_ref()),
    ),
    metric(
        "cluster_app_connection_wait",
        SECONDS,
        Kind::Histogram,
        "How long connections waited from the end of the handshake until the worker first read",
        |s| histograms(s, &SHORT, |t| t.wait.as_ref()),
    ),
    metric(
        "cluster_app_connection_round_trip",
        SECONDS,
        Kind::Histogram,
        "Smoothed round-trip times of connections when they were closed",
        |s| histograms(s, &SHORT, |t| t.round_trip.as_ref()),
    ),
    metric(
        "cluster_worker_online",
        None,
        Kind::Gauge,
        "1 for a worker that is chosen for connections, else 0",
        |s| workers(s, |w, _| Some(Value::Level((w.status == Status::Online).into()))),
    ),
    metric(
        "cluster_worker_stalled",
        None,
        Kind::Gauge,
        "1 for a worker that accepts nothing although connections wait, so that others are kept away",
        |s| worker_levels(s, |t| t.stalled.map(u64::from)),
    ),
    metric(
        "cluster_worker_restarts",
        None,
        Kind::Counter,
        "Times that a worker was replaced since its place was made or reset",
        |s| workers(s, |w, _| Some(Value::Count(w.restarts.into()))),
    ),
    metric(
        "cluster_worker_start_time",
        SECONDS,
        Kind::Gauge,
        "When a worker got ready, since the epoch",
        |s| {
            workers(s, |w, s| {
                let since = s.at_ms.saturating_sub(w.uptime_ms?);
                Some(Value::Moment(seconds(since, 1000.0)))
            })
        },
    ),
    metric(
        "cluster_worker_cpu",
        SECONDS,
        Kind::Counter,
        "CPU time of all processes that there are and were in a worker's place",
        |s| workers(s, |w, _| Some(Value::Amount(seconds(w.cpu_us, 1e6)))),
    ),
    metric(
        "cluster_worker_memory",
        BYTES,
        Kind::Gauge,
        "Resident memory of all processes of a worker",
        |s| workers(s, |w, _| Some(Value::Level(w.memory_bytes))),
    ),
    metric(
        "cluster_worker_connections_selected",
        None,
        Kind::Counter,
        "Connections (TCP) or datagrams (UDP) sent to a worker and those in its place before",
        |s| worker_counts(s, |t, mode| in_kernel(mode, t.selected)),
    ),
    metric(
        "cluster_worker_connections_accepted",
        None,
        Kind::Counter,
        "Connections that a worker accepted",
        |s| worker_counts(s, |t, _| t.accepted),
    ),
    metric(
        "cluster_worker_connections_migrated_in",
        None,
        Kind::Counter,
        "Connections that moved to a worker because their listener was closed",
        |s| worker_counts(s, |t, mode| in_kernel(mode, t.migrated_in)),
    ),
    metric(
        "cluster_worker_connections_migrated_out",
        None,
        Kind::Counter,
        "Connections that moved away from a worker because its listener was closed",
        |s| worker_counts(s, |t, _| t.migrated_out),
    ),
    metric(
        "cluster_worker_connections_dropped",
        None,
        Kind::Counter,
        "Connections and datagrams that the kernel dropped because a worker's queue was full",
        |s| worker_counts(s, |t, _| t.dropped),
    ),
    metric(
        "cluster_worker_connections_guarded",
        None,
        Kind::Counter,
        "Times that the guard kept a connection away from a worker",
        |s| worker_counts(s, |t, _| t.guarded),
    ),
    metric(
        "cluster_worker_received",
        BYTES,
        Kind::Counter,
        "Bytes received over a worker's connections",
        |s| worker_counts(s, |t, _| t.bytes_in),
    ),
    metric(
        "cluster_worker_sent",
        BYTES,
        Kind::Counter,
        "Bytes that a worker's clients acknowledged",
        |s| worker_counts(s, |t, _| t.bytes_out),
    ),
    metric(
        "cluster_worker_live_connections",
        None,
        Kind::Gauge,
        "Connections that a worker has not closed, queued ones included",
        |s| worker_levels(s, |t| t.live),
    ),
    metric(
        "cluster_worker_queued_connections",
        None,
        Kind::Gauge,
        "Connections in a worker's accept queues",
        |s| worker_levels(s, |t| t.queued),
    ),
    metric(
        "cluster_worker_queued_connections_peak",
        None,
        Kind::Gauge,
        "The most connections that were seen in a worker's accept queues",
        |s| worker_levels(s, |t| t.queued_peak),
    ),
    metric(
        "cluster_group_turns_redrawn",
        None,
        Kind::Counter,
        "Turns that were drawn again because their socket was gone",
        |s| groups(s, |t| Some(Value::Count(t.misses))),
    ),
    metric(
        "cluster_group_connections_waited",
        None,
        Kind::Counter,
        "Connections sent to the waiting room",
        |s| groups(s, |t| Some(Value::Count(t.waited))),
    ),
    metric(
        "cluster_group_connections_refused",
        None,
        Kind::Counter,
        "Connections refused because no worker was there",
        |s| groups(s, |t| Some(Value::Count(t.refused))),
    ),
    metric(
        "cluster_group_connections_shed",
        None,
        Kind::Counter,
        "Connections refused because every worker had enough",
        |s| groups(s, |t| Some(Value::Count(t.shed))),
    ),
    metric(
        "cluster_group_connections_hashed",
        None,
        Kind::Counter,
        "Connections left to the kernel's hash",
        |s| groups(s, |t| Some(Value::Count(t.hashed))),
    ),
    metric(
        "cluster_group_answers_unfollowed",
        None,
        Kind::Counter,
        "Times that a policy of the user's named nobody who is there, and round robin chose instead",
        |s| groups(s, |t| Some(Value::Count(t.unfollowed))),
    ),
    metric(
        "cluster_group_stray_packets",
        None,
        Kind::Counter,
        "Packets that start no connection",
        |s| groups(s, |t| Some(Value::Count(t.other))),
    ),
    metric(
        "cluster_group_decisions",
        None,
        Kind::Counter,
        "Runs of the kernel program, while kernel.bpf_stats_enabled is set",
        |s| groups(s, |t| t.runs.map(|(runs, _)| Value::Count(runs))),
    ),
    metric("cluster_group_decision", SECONDS, Kind::Counter, "Time that those runs took", |s| {
        groups(s, |t| t.runs.map(|(_, nanoseconds)| Value::Amount(seconds(nanoseconds, 1e9))))
    }),
];

const fn metric(
    name: &'static str,
    unit: Option<&'static str>,
    kind: Kind,
    help: &'static str,
    samples: fn(&Snapshot) -> Vec<Sample>,
) -> Metric {
    Metric { name, unit, kind, help, samples }
}

/// What a metric is called where it is read.
pub(super) fn full_name(metric: &Metric) -> String {
    let Metric { name, unit, kind, .. } = metric;
    let unit = unit.map(|unit| format!("_{unit}")).unwrap_or_default();
    let suffix = match kind {
        Kind::Counter => "_total",
        Kind::Info => "_info",
        Kind::Gauge | Kind::Histogram => "",
    };
    format!("{name}{unit}{suffix}")
}

/// What the documentation begins with.
const DOCUMENT: &str = "<!-- What `cluster metrics --names` prints; cargo run -p cluster-user -- metrics --names \
                        >docs/metrics.md writes it anew. -->

# Metrics

`cluster_app_…` have the label `app`, `cluster_worker_…` also `worker` (its number, which who succeeds it has too),
`cluster_group_…` also `protocol` and `address`. Counters of an app and of a worker's place go on when a worker is
replaced, through reloads, upgrades and the death of the daemon; what was counted for a worker that ends while there is no
daemon is lost. Restarts are those of a place that is filled: `cluster reset` sets them back, and a place that `cluster scale`
took away and gives again begins at 0, which `rate()` and `increase()` understand. What a host cannot count is not there:
`cluster list -v` says why.

A connection that came while there was no worker waits at a socket of the daemon's (`cluster_group_connections_waited_total`)
and moves to a worker when there is one, which is counted as `…_connections_migrated_in_total` and nowhere else: that it was
accepted, is live, lasted, and what went over it is missing, because the kernel keeps it in the daemon's cgroup, where nothing
is counted. `live` falls short by as many until they are closed.

| metric | kind | what it is |
|---|---|---|
";

/// A table of all metrics, for the documentation.
pub(crate) fn document() -> String {
    let mut text = String::from(DOCUMENT);
    for metric in CATALOGUE {
        let kind = match metric.kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::Info => "info",
        };
        let row = format!("| `{}` | {kind} | {} |\n", full_name(metric), metric.help);
        text.push_str(&row);
    }
    text
}
