//! Workers that cannot stay up: tried again with growing pauses, then given up with the reason.

use std::time::Duration;

use cluster_tests::{
    built::fixture,
    host::{Host, signal},
    http::{self, local},
    in_both_modes,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;

in_both_modes!(
    a_worker_that_exits_at_once_is_given_up_with_its_last_lines,
    a_worker_that_never_listens_is_never_called_online,
    a_worker_that_fails_later_backs_off_and_ends_as_errored,
    an_errored_app_can_be_started_again,
    an_app_that_fails_disturbs_no_other,
);

fn a_worker_that_exits_at_once_is_given_up_with_its_last_lines(host: &Host) {
    let start = ["start", &fixture("exits.py"), "-i", "2", "--max-restarts", "2"];
    host.cluster(&start).fails().code(1).complains("settings are missing").complains("exit");

    let still_running = host.apps().iter().any(|app| app.online > 0);
    assert!(!still_running);
}

fn a_worker_that_never_listens_is_never_called_online(host: &Host) {
    let start = ["start", "sleep 1000", "--listen-timeout", "300ms", "--max-restarts", "1"];
    host.cluster(&start).fails().code(1).complains("listen");

    assert!(!host.apps().iter().any(|app| app.online > 0));
}

fn a_worker_that_fails_later_backs_off_and_ends_as_errored(host: &Host) {
    let script = fixture("exits.py");
    let fails = ["--env", "AFTER=0.1", "--env", "CODE=9", "--max-restarts", "3", "--no-wait"];
    host.cluster(&[&["start", &script], &fails[..]].concat()).ok();

    let app = host.until("exits", "is errored", |app| app.status == Status::Errored);
    let worker = &app.workers[0];
    assert_eq!(worker.unstable, 3, "{worker:#?}");
    assert!(worker.reason.as_ref().is_some_and(|reason| reason.contains('9')), "{worker:#?}");
    host.cluster(&["list"]).ok().says("errored");
    host.cluster(&["describe", "exits"]).ok().says("errored").says("settings are missing");
}

fn an_errored_app_can_be_started_again(host: &Host) {
    let script = host.write("once.sh", "test -e ready || exit 5\nexec app\n");
    host.cluster(&["start", &script, "--max-restarts", "1"]).fails();
    host.write("ready", "");
    let name = if host.apps().is_empty() { script.as_str() } else { "once" };

    host.cluster(&["start", name]).ok();

    host.assert_balanced(local(8080), 1);
}

fn an_app_that_fails_disturbs_no_other(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");
    host.cluster(&["start", &fixture("exits.py"), "--max-restarts", "1"]).fails();

    assert_eq!(host.pids("app"), before);
    host.assert_balanced(local(8080), 2);
}

#[test]
fn what_never_came_up_is_given_up_after_three_attempts() {
    let host = Host::kernel();
    let script = host.write("stamp.sh", "date +%s%N >> stamps\nexit 1\n");
    host.cluster(&["start", &script, "--max-restarts", "5"]).fails();
    assert_eq!(pauses(&host).len(), 2, "whoever started it waits for the answer");
}

#[test]
fn pauses_between_unstable_runs_grow() {
    let host = Host::kernel();
    let script = "date +%s%N >> stamps\ntest -e served && exit 1\ntouch served\nexec app\n";
    let script = host.write("stamp.sh", script);
    host.cluster(&["start", &script, "--max-restarts", "5"]).ok();
    signal(host.pids("stamp")[0], Signal::SIGKILL);
    host.until("stamp", "is errored", |app| app.status == Status::Errored);

    // The first replacement comes at once; the run before it may count as unstable or not.
    let pauses = pauses(&host);
    let last = pauses.last_chunk().unwrap_or_else(|| panic!("too few: {pauses:?}"));
    for (pause, least) in std::iter::zip::<&[Duration; 3], _>(last, [100, 150, 225]) {
        assert!(*pause >= Duration::from_millis(least), "{pauses:?}");
    }
}

#[test]
fn a_worker_that_was_up_long_enough_starts_from_the_beginning() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "--min-uptime", "50ms", "--max-restarts", "2"]).ok();
    for restarts in 1..=4 {
        let pid = host.pids("app")[0];
        host.until("app", "has been up for a while", |app| app.workers[0].uptime_ms > Some(100));
        signal(pid, Signal::SIGKILL);
        host.until("app", "is back", |app| app.online == 1 && app.restarts == restarts);
    }
    http::get(local(8080));
}

/// Times between the runs of `stamp.sh`.
fn pauses(host: &Host) -> Vec<Duration> {
    let stamps = std::fs::read_to_string(host.work().join("stamps")).unwrap();
    let stamps: Vec<u64> = stamps.lines().map(|line| line.parse().unwrap()).collect();
    stamps.windows(2).map(|pair| Duration::from_nanos(pair[1] - pair[0])).collect()
}
