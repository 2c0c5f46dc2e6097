//! Reloads at the times of a cron line.

use cluster_tests::{
    host::Host,
    http::{self, local},
    in_both_modes,
    load::Load,
    wait,
};
use cluster_user::datapath::Mode;

in_both_modes!(a_cron_line_reloads_without_a_request_lost);

fn a_cron_line_reloads_without_a_request_lost(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--cron-restart", "* * * * * *"]).ok();
    let before = host.pids("app");
    let load = Load::start(local(8080), 2);

    wait::until_true("two reloads have been done by cron", || {
        host.history("app").iter().filter(|deploy| deploy.outcome == "done").count() >= 2
    });

    let score = load.stop();
    if host.mode() == Mode::Kernel {
        assert!(score.failures.is_empty(), "{:?}", score.failures);
    }
    assert!(host.history("app").iter().all(|deploy| deploy.who == "cron"));
    let after = host.pids("app");
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?}, then {after:?}");
}

#[test]
fn a_time_that_comes_while_the_app_is_reloaded_is_skipped_and_said_so() {
    let host = Host::plain();
    // A canary waits for somebody to promote it.
    host.cluster(&["start", "app", "-i", "2", "--cron-restart", "* * * * * *"]).ok();
    wait::until_true("a canary waits", || {
        host.cluster(&["reload", "app", "--canary", "1", "--no-wait"]).code == 0
    });
    let log = host.home().join("daemon.log");
    wait::until_true("cron is skipped", || {
        std::fs::read_to_string(&log).unwrap().contains("is skipped, another is under way")
    });
    host.cluster(&["stop", "app"]).ok();
    let reloads = host.history("app").len();
    // A stopped app is not reloaded; two seconds are two lines.
    wait::until_true("two seconds have passed", {
        let began = std::time::Instant::now();
        move || began.elapsed().as_secs() >= 2
    });
    assert_eq!(host.history("app").len(), reloads);
}

#[test]
fn a_line_that_is_none_never_comes_or_has_an_unknown_zone_is_refused_at_the_start() {
    let host = Host::plain();
    let start = |args: &[&str]| host.cluster(&[&["start", "app"], args].concat());
    start(&["--cron-restart", "0 0 30 2 *"]).fails().complains("never comes");
    start(&["--cron-restart", "61 * * * *"]).fails().complains("is no line of cron");
    start(&["-c", "0 3 * * *", "--cron-tz", "Europe/Atlantis"]).fails().complains("no time zone");
    start(&["-c", "0"]).ok();
    assert_eq!(http::get(local(8080)), http::get(local(8080)));
}
