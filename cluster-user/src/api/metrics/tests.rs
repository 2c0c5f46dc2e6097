//! Tests of what Prometheus reads.

use std::collections::BTreeSet;

use super::{catalogue::full_name, *};
use crate::{
    api::message::{AppTelemetry, DaemonTelemetry, PortTelemetry, Status, WorkerTelemetry},
    datapath::{
        Mode, Protocol,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
    id::{AppId, Generation, Instance},
};

#[test]
fn names_and_units_are_as_the_conventions_say() {
    let mut names = BTreeSet::new();
    for metric in CATALOGUE {
        let name = full_name(metric);
        let plain = |c: char| c.is_ascii_lowercase() || c == '_';
        assert!(name.chars().all(plain), "{name}");
        assert!(name.starts_with("cluster_") || name.starts_with("process_"), "{name}");
        for bad in ["_milliseconds", "_micro", "_ms", "_kb", "_minutes", "gauge", "counter", "__"] {
            assert!(!name.contains(bad), "{name} has `{bad}`");
        }
        for reserved in ["_count", "_sum", "_bucket", "_created"] {
            assert!(!name.ends_with(reserved), "{name}");
        }
        assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
        let help = metric.help;
        assert!(help.starts_with(|c: char| c.is_ascii_uppercase() || c == '1'), "{help}");
        assert!(!help.ends_with('.') && !help.contains('\n'), "{help}");
        assert!(names.insert(name), "two of {}", metric.name);
    }
}

#[test]
fn every_value_is_of_its_metrics_kind() {
    let snapshot = snapshot();
    for metric in CATALOGUE {
        let samples = (metric.samples)(&snapshot);
        assert!(!samples.is_empty(), "nothing of {}", metric.name);
        for Sample { value, .. } in samples {
            let kind = match value {
                Value::Count(_) | Value::Amount(_) => Kind::Counter,
                Value::Level(_) | Value::Moment(_) => Kind::Gauge,
                Value::Buckets { .. } => Kind::Histogram,
                Value::Info => Kind::Info,
            };
            assert_eq!(kind, metric.kind, "{}", metric.name);
        }
    }
}

#[test]
fn both_formats_say_the_same() {
    insta::assert_snapshot!(render(snapshot(), Format::Classic).unwrap());
    let open = render(snapshot(), Format::OpenMetrics).unwrap();
    assert!(open.ends_with("# EOF\n"));
    assert!(open.contains("# TYPE cluster_app_received_bytes counter\n"));
    assert!(open.contains("# UNIT cluster_app_received_bytes bytes\n"));
    let samples = |text: &str| {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(samples(&open), samples(&render(snapshot(), Format::Classic).unwrap()));
}

#[test]
fn a_name_cannot_break_out_of_its_label() {
    let mut snapshot = snapshot();
    snapshot.apps[0].name = "a\"b\\c\nd{} 1".to_owned();
    let text = render(snapshot, Format::Classic).unwrap();
    let escaped = "cluster_app_generation{app=\"a\\\"b\\\\c\\nd{} 1\"} 3\n";
    assert!(text.contains(escaped), "{text}");
}

#[test]
fn what_cannot_be_counted_is_not_there() {
    let mut snapshot = snapshot();
    snapshot.mode = Mode::Plain;
    let app = &mut snapshot.apps[0];
    let live = Telemetry { live: Some(4), ..Telemetry::default() };
    app.total = live.clone();
    app.workers[0].total = live;
    app.groups[0].telemetry = None;
    let text = render(snapshot, Format::Classic).unwrap();
    assert!(text.contains("cluster_app_live_connections{app=\"web\"} 4\n"), "{text}");
    for absent in ["selected", "accepted", "cluster_group", "_bucket", "received"] {
        assert!(!text.contains(absent), "{absent}: {text}");
    }
}

#[test]
fn a_format_is_what_the_reader_accepts() {
    let open =
        "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1";
    assert_eq!(Format::accepted(Some(open)), Format::OpenMetrics);
    for classic in [None, Some("*/*"), Some("text/plain")] {
        assert_eq!(Format::accepted(classic), Format::Classic);
    }
}

fn snapshot() -> Snapshot {
    let histogram = |buckets: &[u64], sum| Some(Histogram { buckets: buckets.to_vec(), sum });
    let telemetry = Telemetry {
        selected: 120,
        accepted: Some(118),
        live: Some(7),
        queued: Some(2),
        queued_peak: Some(31),
        migrated_in: 3,
        migrated_out: Some(0),
        dropped: Some(1),
        guarded: Some(5),
        stalled: Some(false),
        bytes_in: Some(54_321),
        bytes_out: Some(7_654_321),
        lifetime: histogram(&[0; 40], 0),
        wait: histogram(&[0, 0, 0, 0, 10, 40, 30, 5, 0, 0, 1, 1], 12_345),
        round_trip: histogram(&[0, 0, 0, 0, 0, 90, 10], 2_000),
        missing: None,
    };
    let group = GroupTelemetry {
        misses: 1,
        waited: 2,
        refused: 3,
        shed: 4,
        other: 5,
        hashed: 6,
        unfollowed: 7,
        runs: Some((240, 24_000)),
    };
    let worker = WorkerTelemetry {
        instance: Instance(0),
        generation: Generation(3),
        pid: Some(4001),
        status: Status::Online,
        restarts: 2,
        uptime_ms: Some(1_500),
        cpu_percent: 12.5,
        cpu_us: 1_250_000,
        memory_bytes: 54_945_382,
        telemetry: telemetry.clone(),
        total: telemetry.clone(),
        others: Vec::new(),
    };
    let port = PortTelemetry {
        protocol: Protocol::Tcp,
        address: "0.0.0.0:8080".parse().unwrap(),
        telemetry: Some(group),
    };
    let app = AppTelemetry {
        id: AppId(0),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        status: Status::Online,
        online: 1,
        instances: 1,
        generation: Generation(3),
        policy: "round-robin".to_owned(),
        restarts: 2,
        uptime_ms: Some(1_500),
        cpu_percent: 12.5,
        cpu_us: 2_500_000,
        memory_bytes: 54_945_382,
        total: telemetry,
        workers: vec![worker],
        groups: vec![port],
    };
    let daemon = DaemonTelemetry {
        release: "0.1.0".to_owned(),
        uptime_ms: 2_000,
        cpu_us: 10_000,
        memory_bytes: 9_000_000,
        descriptors: 21,
    };
    Snapshot { at_ms: 1_790_000_002_000, mode: Mode::Kernel, daemon, apps: vec![app] }
}
