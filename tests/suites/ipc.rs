//! Messages between the daemon and apps that were written for PM2.

use std::{fs, time::Duration};

use cluster_tests::{
    built::fixture,
    host::{Host, is_alive},
    http::{self, local},
    in_both_modes, wait,
};
use cluster_user::api::message::{Status, What};
use serde_json::{Value, json};

in_both_modes!(
    an_app_finds_its_channel_without_being_asked,
    a_message_reaches_every_worker_and_a_packet_is_pm2s,
    what_an_app_sends_is_among_the_events,
    nothing_that_an_app_says_does_harm,
    an_app_that_has_disconnected_is_stopped_by_a_signal,
    a_cluster_inside_a_worker_listens_through_its_own_primary,
    a_script_that_ends_does_end,
);

fn an_app_finds_its_channel_without_being_asked(host: &Host) {
    host.cluster(&["start", &fixture("ipc.js")]).ok();
    let given = answer();
    assert_eq!((&given["has"], &given["connected"]), (&json!(true), &json!(true)));
    assert_eq!(given["variables"], json!([]), "its children shall not find what is its own");
    assert_eq!((&given["name"], &given["pm_id"]), (&json!("ipc"), &json!("0")));
}

fn a_message_reaches_every_worker_and_a_packet_is_pm2s(host: &Host) {
    host.cluster(&["start", &fixture("ipc.js"), "-i", "2"]).ok();
    host.cluster(&["send", "ipc", "{\"say\": \"got it\"}"]).ok().says("sent to 2 workers");
    let message = |instance: u32| {
        let happening = host.until_happened(&format!("ipc:{instance}"), What::Message);
        (happening.data, happening.instance.map(|instance| instance.0))
    };
    assert_eq!(message(0), (Some(json!("got it")), Some(0)));
    assert_eq!(message(1), (Some(json!("got it")), Some(1)));

    host.cluster(&["scale", "ipc", "1"]).ok();
    host.cluster(&["send", "ipc:0", "--topic", "cache", "[1]"]).ok().says("sent to 1 worker");
    host.cluster(&["send", "ipc", "--raw", "{no json"]).ok();
    let expected = json!([
        { "say": "got it" },
        { "type": "process:msg", "topic": "cache", "data": [1], "id": 0 },
        "{no json"
    ]);
    wait::until_true("it has heard all", || answer()["told"] == expected);
    host.cluster(&["send", "ipc", "{no json"]).code(2).complains("--raw");
    host.cluster(&["send", "nope", "1"]).code(1).complains("nope");
    host.cluster(&["send", "ipc", &format!("\"{}\"", "x".repeat(90_000))]).ok();
}

fn what_an_app_sends_is_among_the_events(host: &Host) {
    host.cluster(&["start", &fixture("ipc.js")]).ok();
    let said = json!({ "say": { "type": "process:msg", "data": { "success": true } } });
    host.cluster(&["send", "ipc", &said.to_string()]).ok();
    wait::until_true("it is in the log, too", || {
        let log = host.cluster(&["logs", "ipc", "--nostream"]).ok();
        log.stdout.contains(r#"[message] {"data":{"success":true},"type":"process:msg"}"#)
    });
    let happening = host.until_happened("ipc", What::Message);
    assert_eq!(happening.data, Some(said["say"].clone()));
    assert_eq!(happening.pid, Some(host.pids("ipc")[0]));
    host.cluster(&["events", "--no-follow"]).ok().says("message").says("\"success\":true");
}

fn nothing_that_an_app_says_does_harm(host: &Host) {
    host.cluster(&["start", &fixture("ipc.js")]).ok();
    let pids = host.pids("ipc");
    let daemon = host.ping().pid;
    host.cluster(&["send", "ipc", "{\"flood\": 100000}"]).ok();
    host.cluster(&["send", "ipc", "{\"long\": 100000000}"]).ok();
    host.cluster(&["send", "ipc", "\"handle\""]).ok();

    wait::until_true("it is heard again after all of it", || {
        let seen = host.events("ipc");
        let after = json!({ "after": "handle" });
        seen.iter().any(|happening| happening.data.as_ref() == Some(&after))
    });

    let dropped = host.events("ipc").into_iter();
    let dropped = dropped.filter(|happening| happening.what == What::MessagesDropped);
    let details: Vec<String> = dropped.filter_map(|happening| happening.detail).collect();
    assert!(details.iter().any(|text| text.contains("100000002 bytes")), "{details:?}");
    let count = |text: &String| text.split(',').next()?.parse::<u64>().ok();
    let messages: u64 = details.iter().filter_map(count).sum();
    assert!(messages > 90_000, "{details:?}");
    assert_eq!(host.pids("ipc"), pids);
    let memory = fs::read_to_string(format!("/proc/{daemon}/status")).unwrap();
    let peak = memory.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().unwrap();
    assert!(peak < 100_000, "the daemon took {peak} kB");
}

fn an_app_that_has_disconnected_is_stopped_by_a_signal(host: &Host) {
    host.cluster(&["start", &fixture("ipc.js"), "--shutdown-with-message"]).ok();
    let pid = host.pids("ipc")[0];
    host.cluster(&["send", "ipc", "\"disconnect\""]).ok();
    wait::until_true("it has disconnected", || answer()["connected"] == json!(false));
    host.cluster(&["send", "ipc", "1"]).fails().complains("disconnected");

    host.cluster(&["stop", "ipc", "--no-wait"]).ok();

    wait::within(Duration::from_secs(5), || (!is_alive(pid)).then_some(()))
        .expect("it does not wait for the kill timeout");
    let failed = host.until_happened("ipc", What::SendFailed);
    assert!(failed.detail.is_some_and(|detail| detail.contains("disconnected")));
    host.until("ipc", "stopped", |app| app.status == Status::Stopped);
}

fn a_cluster_inside_a_worker_listens_through_its_own_primary(host: &Host) {
    host.cluster(&["start", &fixture("own-cluster.js"), "--wait-ready"]).ok();
    let primary = host.pids("own-cluster")[0];
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let given = answer();
        assert_eq!(given["parent"], json!(primary));
        assert_eq!(given["connected"], json!(true), "with its own primary");
        seen.insert(given["pid"].as_u64());
    }
    assert_eq!(seen.len(), 2, "both of them serve");
    host.cluster(&["send", "own-cluster", "\"pass it on\""]).ok();
    wait::until_true("its own workers have heard it", || answer()["told"] == json!("pass it on"));
    host.cluster(&["reload", "own-cluster"]).ok();
    assert_ne!(host.pids("own-cluster")[0], primary);
    assert_eq!(answer()["parent"], json!(host.pids("own-cluster")[0]));
}

fn a_script_that_ends_does_end(host: &Host) {
    let script = host.write("once.mjs", "console.log(process.connected, typeof process.send);");
    host.cluster(&["start", &script, "--no-port", "--no-autorestart", "--no-wait"]).ok();
    let app = host.until("once", "done", |app| app.status == Status::Stopped);
    assert_eq!(app.restarts, 0);
    let log = fs::read_to_string(host.home().join("logs/once-out-0.log")).unwrap();
    assert_eq!(log.trim(), "true function");
}

fn answer() -> Value {
    serde_json::from_str(&http::get(local(8080))).unwrap()
}
