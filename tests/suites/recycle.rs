//! Workers that use too much, or have been there for long enough.

use std::collections::BTreeSet;

use cluster_tests::{built::fixture, host::Host, http::local, in_both_modes, load::Load, wait};
use cluster_user::datapath::Mode;

in_both_modes!(
    a_worker_that_uses_too_much_memory_is_replaced_without_a_request_lost,
    workers_that_have_lived_long_enough_are_replaced_one_at_a_time,
);

fn a_worker_that_uses_too_much_memory_is_replaced_without_a_request_lost(host: &Host) {
    let script = fixture("grows.py");
    host.cluster(&["start", &script, "-i", "2", "--max-memory-restart", "100M"]).ok();
    let before = host.pids("grows");
    let load = Load::start(local(8080), 2);

    // It fills 200 MB when it finds its number there.
    host.write("grow-1", "");

    wait::until_true("it is replaced", || {
        let now = host.pids("grows");
        now.len() == 2 && now[1] != before[1]
    });
    std::fs::remove_file(host.work().join("grow-1")).unwrap();
    host.until_online("grows", 2);
    assert_eq!(host.pids("grows")[0], before[0], "the other one is well");
    let score = load.stop();
    // In plain mode it is the kernel's hash that decides, also about a socket that is being closed.
    if host.mode() == Mode::Kernel {
        assert!(score.failures.is_empty(), "{:?}", score.failures);
    }
}

fn workers_that_have_lived_long_enough_are_replaced_one_at_a_time(host: &Host) {
    host.cluster(&["start", "app", "-i", "3", "--max-lifetime", "3s"]).ok();
    let before: BTreeSet<_> = host.pids("app").into_iter().collect();
    let load = Load::start(local(8080), 2);
    wait::until_true("all of them are others", || {
        let app = host.app("app");
        assert!(app.online >= 2, "one at a time: {app:#?}");
        host.pids("app").iter().all(|pid| !before.contains(pid))
    });
    let score = load.stop();
    // In plain mode it is the kernel's hash that decides, also about a socket that is being closed.
    if host.mode() == Mode::Kernel {
        assert!(score.failures.is_empty(), "{:?}", score.failures);
    }
}

#[test]
fn limits_that_make_no_sense_are_refused() {
    let host = Host::plain();
    let start = |args: &[&str]| host.cluster(&[&["start", "app"], args].concat()).fails();
    start(&["--max-memory-restart", "0"]).complains("max_memory_restart is below 1M");
    start(&["--max-memory-restart", "lots"]).complains("is no size");
    start(&["--max-lifetime", "5ms"]).complains("max_lifetime is below 1s");
}
