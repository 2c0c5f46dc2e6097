//! Workers that say that they live: whoever stops saying so gets no connections until he says it again.

use std::{collections::BTreeSet, fs};

use cluster_tests::{
    built::fixture,
    host::{Host, freeze, signal},
    http::{self, local},
    wait,
};
use cluster_user::api::message::What;
use nix::sys::signal::Signal;

#[test]
fn a_worker_that_falls_silent_gets_no_connections_until_it_speaks_again() {
    let host = started(&["--guard", "heartbeat=1s"]);
    let pids = host.pids("notify");
    assert_eq!(served(), names(&pids), "both speak");

    host.write("silent-1", "");
    wait::until_true("it is seen to be silent", || reason(&host, 1).is_some());
    assert_eq!(served(), names(&pids[..1]));
    host.cluster(&["describe", "notify"]).ok().says("silent: no WATCHDOG=1 for 1s");
    let told = host.until_happened("notify", What::WorkerSilent);
    assert_eq!(told.detail.as_deref(), Some("no WATCHDOG=1 for 1s: new connections go to others"));
    assert_eq!(told.instance.map(|instance| instance.0), Some(1));

    // A policy that goes by loads would find it idle.
    host.cluster(&["policy", "notify", "least-conn"]).ok();
    assert_eq!(served(), names(&pids[..1]));

    host.kill_daemon();
    assert_eq!(served(), names(&pids[..1]), "nobody is there");
    assert!(reason(&host, 1).is_some(), "the next one knows");
    assert_eq!(served(), names(&pids[..1]));

    fs::remove_file(host.work().join("silent-1")).unwrap();
    wait::until_true("it is heard", || reason(&host, 1).is_none());
    host.until_happened("notify", What::WorkerHeard);
    wait::until_true("both serve", || served() == names(&pids));
    assert_eq!(host.pids("notify"), pids, "nobody was replaced");
}

#[test]
fn a_worker_that_hangs_is_kept_away_from_before_its_watchdog_bites() {
    let host = started(&["--watchdog", "4s"]);
    let pids = host.pids("notify");
    freeze(pids[1]);
    wait::until_true("it is seen to be silent", || reason(&host, 1).is_some());
    assert_eq!(reason(&host, 1).unwrap(), "silent: no WATCHDOG=1 for 3s");
    assert_eq!(served(), names(&pids[..1]));
    wait::until_true("it is replaced", || host.pids("notify")[1] != pids[1]);
    wait::until_true("its successor serves", || served() == names(&host.pids("notify")));
}

#[test]
fn a_guard_that_does_not_mind_silence_trusts_everybody() {
    let host = started(&["--guard", "heartbeat=200ms"]);
    let pids = host.pids("notify");
    host.write("silent-0", "");
    wait::until_true("it is seen to be silent", || reason(&host, 0).is_some());
    assert_eq!(served(), names(&pids[1..]));

    host.cluster(&["policy", "notify", "guard=heartbeat=off"]).ok();
    assert_eq!(reason(&host, 0), None);
    assert_eq!(served(), names(&pids));

    host.cluster(&["policy", "notify", "guard=heartbeat=200ms"]).ok();
    wait::until_true("it is kept away from", || served() == names(&pids[1..]));
    // Somebody has to serve.
    host.write("silent", "");
    wait::until_true("the other is silent, too", || reason(&host, 1).is_some());
    assert!(!served().is_empty());
    signal(pids[0], Signal::SIGKILL);
    wait::until_true("a new one that has said nothing yet serves", || {
        served().iter().any(|pid| !names(&pids).contains(pid))
    });
}

#[test]
fn plain_mode_says_that_it_cannot_keep_away() {
    let host = Host::plain();
    start(&host, &["--guard", "heartbeat=200ms"]);
    host.write("silent-1", "");
    let told = host.until_happened("notify", What::WorkerSilent).detail.unwrap();
    assert!(told.ends_with("plain mode cannot keep connections away from it"), "{told}");
    assert_eq!(served().len(), 2);
}

#[test]
fn under_policy_none_nobody_says_that_connections_go_to_others() {
    let host = started(&["--watchdog", "4s", "--policy", "none"]);
    host.write("silent-1", "");
    let told = host.until_happened("notify", What::WorkerSilent).detail.unwrap();
    assert!(told.contains("connections go on coming to it: policy none"), "{told}");
}

#[test]
fn a_heartbeat_that_is_none_is_refused() {
    let host = Host::kernel();
    let script = fixture("notify.py");
    for (guard, complaint) in [
        ("heartbeat=soon", "guard: heartbeat: `soon` is no duration"),
        ("hartbeat=1s", "is `heartbeat` meant?"),
        ("heartbeat=400d", "up to a year"),
    ] {
        host.cluster(&["start", &script, "--guard", guard]).fails().complains(complaint);
    }
}

fn started(options: &[&str]) -> Host {
    let host = Host::kernel();
    start(&host, options);
    host
}

fn start(host: &Host, options: &[&str]) {
    host.write("ready", "");
    let script = fixture("notify.py");
    let start = ["start", &script, "-i", "2", "--notify", "--env", "BEAT=0.05"];
    host.cluster(&[&start[..], options].concat()).ok();
}

/// Who answers forty connections.
fn served() -> BTreeSet<String> {
    (0..40).map(|_| http::get(local(8080))).collect()
}

fn names(pids: &[u32]) -> BTreeSet<String> {
    pids.iter().map(u32::to_string).collect()
}

fn reason(host: &Host, instance: usize) -> Option<String> {
    host.app("notify").workers[instance].reason.clone()
}
