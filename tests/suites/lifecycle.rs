//! Starting, stopping, restarting, and deleting: the same in both modes.

use cluster_tests::{
    built::fixture,
    host::{Host, is_alive, signal},
    http::{self, local},
    in_both_modes, wait,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;

in_both_modes!(
    a_started_app_serves_when_the_command_returns,
    a_command_line_is_an_app,
    a_stopped_app_serves_no_more_and_is_still_listed,
    a_stopped_app_starts_again_by_its_name,
    a_restart_replaces_every_process_and_no_number,
    a_deleted_app_is_forgotten,
    every_form_of_target_is_understood,
    one_worker_can_be_named,
    a_stubborn_worker_is_killed_after_its_time,
    what_has_left_its_cgroup_is_ended_with_what_it_started_there,
    what_had_left_its_cgroup_is_ended_by_the_next_daemon,
    a_worker_that_ends_is_replaced_under_the_same_number,
    no_autorestart_means_what_it_says,
    exit_codes_can_mean_stop,
    a_program_without_a_port_can_be_an_app,
    starting_can_be_left_to_itself,
);

fn a_started_app_serves_when_the_command_returns(host: &Host) {
    let started = host.cluster(&["start", "app", "-i", "2"]).ok();
    http::get(local(8080));
    started.says("app").says("online");
}

fn a_command_line_is_an_app(host: &Host) {
    let line = format!("python3 {}", fixture("server.py"));
    host.cluster(&["start", &line, "-i", "2", "--name", "line"]).ok();
    host.assert_balanced(local(8080), 2);
}

fn a_stopped_app_serves_no_more_and_is_still_listed(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let pids = host.pids("app");

    host.cluster(&["stop", "app"]).ok();

    assert!(pids.iter().all(|pid| !is_alive(*pid)), "stopped means gone");
    assert!(http::try_get(local(8080)).is_err());
    let app = host.app("app");
    assert_eq!((app.status, app.online), (Status::Stopped, 0));
    assert!(host.pids("app").is_empty());
}

fn a_stopped_app_starts_again_by_its_name(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["stop", "app"]).ok();
    host.cluster(&["start", "app"]).ok();

    host.assert_balanced(local(8080), 2);
    assert_eq!(host.apps().len(), 1, "it is the same app");
}

fn a_restart_replaces_every_process_and_no_number(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let before = host.pids("app");

    host.cluster(&["restart", "app"]).ok();

    let after = host.pids("app");
    assert_eq!(after.len(), 3);
    assert!(after.iter().all(|pid| !before.contains(pid)), "{before:?} and {after:?}");
    assert_eq!(instances(host, "app"), [0, 1, 2]);
    host.assert_balanced(local(8080), 3);
}

fn a_deleted_app_is_forgotten(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let pids = host.pids("app");

    host.cluster(&["delete", "app"]).ok().says("deleted app");

    assert!(pids.iter().all(|pid| !is_alive(*pid)));
    assert!(host.apps().is_empty());
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["del", "app"]).ok();
    assert!(host.apps().is_empty());
}

fn every_form_of_target_is_understood(host: &Host) {
    for (name, port) in [("web", "8081"), ("api", "8082"), ("jobs", "8083")] {
        let port = format!("PORT={port}");
        let namespace = if name == "jobs" { "back" } else { "front" };
        let place = ["--name", name, "--namespace", namespace, "--env", &port];
        host.cluster(&[&["start", "app"], &place[..]].concat()).ok();
    }
    for (targets, stopped) in [
        (&["web"][..], &["web"][..]),
        (&["1"], &["api"]),
        (&["back"], &["jobs"]),
        (&["front"], &["web", "api"]),
        (&["/^(web|jobs)$/"], &["web", "jobs"]),
        (&["web", "api"], &["web", "api"]),
        (&["all"], &["web", "api", "jobs"]),
    ] {
        host.cluster(&[&["stop"], targets].concat()).ok();
        for app in host.apps() {
            let expected =
                if stopped.contains(&app.name.as_str()) { Status::Stopped } else { Status::Online };
            assert_eq!(app.status, expected, "{} after `stop {targets:?}`", app.name);
        }
        host.cluster(&[&["restart"], targets].concat()).ok();
        assert!(host.apps().iter().all(|app| app.status == Status::Online), "restart {targets:?}");
    }
}

fn one_worker_can_be_named(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let before = host.pids("app");

    host.cluster(&["restart", "app:1"]).ok();
    let after = host.pids("app");
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    assert_ne!(after[1], before[1]);

    host.cluster(&["stop", "app:1"]).ok();
    assert_eq!(host.pids("app"), [before[0], before[2]]);
    host.assert_balanced(local(8080), 2);
}

fn a_stubborn_worker_is_killed_after_its_time(host: &Host) {
    host.cluster(&["start", &fixture("stubborn.py"), "--kill-timeout", "300ms"]).ok();
    let pid = host.pids("stubborn")[0];

    host.cluster(&["stop", "stubborn"]).ok();

    assert!(!is_alive(pid));
    assert_eq!(host.app("stubborn").status, Status::Stopped);
}

/// As programs do that make cgroups of their own.
fn what_has_left_its_cgroup_is_ended_with_what_it_started_there(host: &Host) {
    let start = ["start", &fixture("leaves.py"), "--no-port", "--kill-timeout", "200ms"];
    let begin = || {
        host.cluster(&start).ok();
        // The daemon and its guardian are two more.
        wait::until_true("it has a child", || host.processes().len() == 4);
        host.pids("leaves")[0]
    };
    let first = begin();
    host.cluster(&["delete", "leaves"]).ok();
    assert!(!is_alive(first));
    wait::until_true("its child is gone, too", || host.processes().len() == 2);

    let second = begin();
    host.kill_daemon();
    wait::until_true("the next one answers", || host.cluster(&["ping"]).code == 0);
    assert_eq!(host.pids("leaves"), [second], "it is known still");
    host.cluster(&["kill"]).ok();
    wait::until_true("nobody is left", || host.processes().is_empty());
}

fn what_had_left_its_cgroup_is_ended_by_the_next_daemon(host: &Host) {
    host.cluster(&["start", &fixture("leaves.py"), "--no-port", "--kill-timeout", "200ms"]).ok();
    wait::until_true("it has a child", || host.processes().len() == 4);
    let worker = host.pids("leaves")[0];
    host.kill_daemon_and_guardian();
    signal(worker, Signal::SIGKILL);
    wait::until_true("its child is left", || host.processes().len() == 1);
    let child = host.processes()[0];

    host.cluster(&["list"]).ok();

    wait::until_true("it is ended", || !is_alive(child));
    host.until_online("leaves", 1);
}

fn a_worker_that_ends_is_replaced_under_the_same_number(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let before = host.pids("app");

    signal(before[1], Signal::SIGTERM);

    let app = host.until("app", "has a replacement online", |app| {
        app.online == 3 && app.workers[1].pid != Some(before[1])
    });
    assert_eq!(app.workers[1].restarts, 1);
    assert_eq!(app.restarts, 1);
    let after = host.pids("app");
    assert_eq!((after[0], after[2]), (before[0], before[2]));
    let who = format!("pid {} instance 1", after[1]);
    wait::until_true("the replacement answers under its predecessor's number", || {
        http::get(local(8080)) == who
    });
}

fn no_autorestart_means_what_it_says(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--no-autorestart"]).ok();
    signal(host.pids("app")[0], Signal::SIGTERM);

    let app = host.until("app", "has a worker that stays stopped", |app| {
        app.workers[0].status == Status::Stopped
    });
    assert_eq!((app.online, app.restarts), (1, 0));
    host.assert_balanced(local(8080), 1);
}

fn exit_codes_can_mean_stop(host: &Host) {
    let args = ["--stop-exit-codes", "3,7", "--env", "CODE=7", "--env", "AFTER=0.2"];
    let portless = ["--no-port", "--min-uptime", "100ms"];
    host.cluster(&[&["start", &fixture("exits.py")], &args[..], &portless[..]].concat()).ok();

    let app = host.until("exits", "has stopped", |app| app.status == Status::Stopped);
    assert_eq!(app.restarts, 0);
}

fn a_program_without_a_port_can_be_an_app(host: &Host) {
    host.cluster(&["start", "sleep 1000", "-i", "2", "--no-port", "--min-uptime", "50ms"]).ok();

    let app = host.app("sleep");
    assert_eq!((app.online, app.ports.len()), (2, 0));
}

fn starting_can_be_left_to_itself(host: &Host) {
    host.cluster(&["start", &fixture("late.py"), "--no-wait"]).ok();

    assert_eq!(host.app("late").status, Status::Starting);
    host.until_online("late", 1);
    http::get(local(8080));
}

fn instances(host: &Host, name: &str) -> Vec<u32> {
    host.app(name).workers.iter().map(|worker| worker.instance.0).collect()
}

/// A start that takes long says what it waits for while it waits.
#[test]
fn who_waits_for_a_port_that_never_comes_is_told_of_no_port_in_time() {
    let host = Host::plain();
    let mut begun = host.begin(&["start", "sleep 1000"]);
    begun.until_complains("--no-port");
    assert!(!begun.has_ended(), "it waits still");
    host.cluster(&["delete", "sleep"]).ok();
}
