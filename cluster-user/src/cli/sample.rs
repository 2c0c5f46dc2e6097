//! An app for tests of what is printed.

use crate::{
    api::message::{AppView, LogFiles, PortView, Status, WorkerView},
    config::spec::AppSpec,
    datapath::{
        Mode, Protocol,
        telemetry::{GroupTelemetry, Histogram, Telemetry},
    },
    id::{AppId, Generation, Instance},
};

pub(super) fn app() -> AppView {
    let port = |address: &str| PortView {
        protocol: Protocol::Tcp,
        address: address.parse().unwrap(),
        workers: 1,
        telemetry: None,
    };
    AppView {
        id: AppId(0),
        name: "web".to_owned(),
        namespace: "default".to_owned(),
        mode: Mode::Kernel,
        status: Status::Online,
        online: 1,
        instances: 2,
        generation: Generation(1),
        reload: None,
        history: None,
        ports: vec![port("0.0.0.0:8080"), port("[::]:8080"), port("0.0.0.0:9090")],
        policy: "round-robin".to_owned(),
        unscheduled: None,
        restarts: 3,
        cpu_percent: 12.34,
        memory_bytes: 54_945_382,
        uptime_ms: Some(3_600_000),
        created_ms: 1_790_000_000_000,
        telemetry: None,
        workers: vec![worker(0, Some(4001), Status::Online), worker(1, None, Status::Errored)],
        spec: spec(),
    }
}

/// The same app, counted.
pub(super) fn counted() -> AppView {
    let histogram = |buckets: &[u64]| Some(Histogram { buckets: buckets.to_vec(), sum: 12_345 });
    let telemetry = Telemetry {
        selected: 120,
        accepted: Some(118),
        live: Some(7),
        queued: Some(2),
        queued_peak: Some(31),
        migrated_in: 3,
        migrated_out: Some(0),
        dropped: Some(1),
        guarded: None,
        stalled: Some(false),
        bytes_in: Some(54_321),
        bytes_out: Some(7_654_321),
        lifetime: histogram(&[]),
        wait: histogram(&[0, 0, 0, 0, 10, 40, 30, 5, 0, 0, 1, 1]),
        round_trip: histogram(&[0, 0, 0, 0, 0, 90, 10]),
        missing: Some("guarded: the app has no guard".to_owned()),
    };
    let group = GroupTelemetry {
        misses: 1,
        waited: 2,
        runs: Some((243, 20_000)),
        ..GroupTelemetry::default()
    };
    let mut app = app();
    let mut total = telemetry.clone();
    total.add(&telemetry);
    app.telemetry = Some(total);
    app.workers[0].telemetry = Some(telemetry);
    app.workers[0].connections_per_second = Some(3.25);
    app.ports[0].telemetry = Some(group);
    app
}

pub(super) fn spec() -> AppSpec {
    AppSpec {
        script: "server.js".to_owned(),
        program: "/usr/bin/node".into(),
        args: vec!["/srv/server.js".to_owned(), "a b".to_owned()],
        cwd: "/srv".into(),
        env: [("TOKEN".to_owned(), "secret".to_owned())].into(),
        instances: 2,
        ..AppSpec::usual("web".parse().unwrap())
    }
}

fn worker(instance: u32, pid: Option<u32>, status: Status) -> WorkerView {
    WorkerView {
        instance: Instance(instance),
        generation: Generation(1),
        pid,
        status,
        exit_code: pid.is_none().then_some(1),
        reason: pid.is_none().then(|| "exited with code 1, 16 times in a row".to_owned()),
        restarts: 16 * instance,
        unstable: 16 * instance,
        cpu_percent: 12.34,
        memory_bytes: 54_945_382,
        uptime_ms: pid.map(|_| 3_600_000),
        connections: pid.map(|_| 7),
        selected: Some(120),
        migrated: Some(3),
        telemetry: None,
        connections_per_second: None,
        logs: LogFiles {
            out: format!("/var/lib/cluster/logs/web-out-{instance}.log").into(),
            err: format!("/var/lib/cluster/logs/web-error-{instance}.log").into(),
            combined: None,
        },
        dropped_bytes: if pid.is_some() { 4096 } else { 0 },
        status_text: pid.map(|_| "7 requests in flight".to_owned()),
        errno: None,
        main_pid: None,
        last_words: match pid {
            Some(_) => Vec::new(),
            None => vec!["Error: listen EADDRINUSE".to_owned(), "    at Server.listen".to_owned()],
        },
        env: [("NODE_APP_INSTANCE".to_owned(), instance.to_string())].into(),
        others: vec![],
    }
}
