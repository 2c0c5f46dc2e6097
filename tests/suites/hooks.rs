//! Commands at turns of a worker's life.

use std::{fs, path::Path};

use cluster_tests::{
    host::{Host, is_alive, signal},
    http::{self, local},
    in_both_modes, wait,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;

in_both_modes!(
    hooks_are_run_in_the_order_of_a_life_with_what_they_need_to_know,
    a_worker_whose_pre_start_fails_is_not_started_and_the_reason_is_told,
    a_hook_that_takes_too_long_is_killed_with_all_it_started,
    what_hooks_write_is_in_the_log_of_the_worker,
    a_stop_does_not_wait_for_the_hook_before_the_start,
    hooks_of_a_daemon_that_is_killed_do_not_outlive_it_for_long,
);

fn hooks_are_run_in_the_order_of_a_life_with_what_they_need_to_know(host: &Host) {
    let note = "echo $CLUSTER_HOOK $CLUSTER_APP $CLUSTER_INSTANCE ${CLUSTER_PID:-none} >> life";
    let hooks =
        ["--pre-start", note, "--post-ready", note, "--pre-stop", note, "--post-stop", note];
    host.cluster(&[&["start", "app", "-n", "web"], &hooks[..]].concat()).ok();
    let pid = host.pids("web")[0];
    wait::until_true("it was told that it is ready", || lines(host, "life").len() == 2);
    host.cluster(&["stop", "web"]).ok();
    wait::until_true("it was told of the end", || lines(host, "life").len() == 4);
    let expected = [
        "pre_start web 0 none".to_owned(),
        format!("post_ready web 0 {pid}"),
        format!("pre_stop web 0 {pid}"),
        format!("post_stop web 0 {pid}"),
    ];
    assert_eq!(lines(host, "life"), expected);
}

fn a_worker_whose_pre_start_fails_is_not_started_and_the_reason_is_told(host: &Host) {
    let hook = "sh -c 'echo migrating; echo no database >&2; exit 3'";
    let failure = "echo $CLUSTER_HOOK: $CLUSTER_REASON >> failures";
    let args =
        ["start", "app", "--pre-start", hook, "--on-failure", failure, "--max-restarts", "1"];
    let failed = host.cluster(&args).fails();
    failed.complains("pre_start: exited with code 3: no database");
    wait::until_true("it is told of the failure", || {
        lines(host, "failures")
            .iter()
            .any(|line| line.contains("on_failure: ") && line.contains("no database"))
    });
    assert!(http::try_get(local(8080)).is_err());
}

#[test]
fn an_app_that_fails_again_and_again_does_not_pile_up_hooks() {
    let host = Host::plain();
    let script = host.write("fails.sh", "sleep 0.05\nexit 1\n");
    let hook = "echo one >> runs; until test -e enough; do sleep 0.05; done";
    let args = ["start", &script, "--no-port", "--min-uptime", "10ms", "--no-wait"];
    host.cluster(&[&args[..], &["--on-failure", hook, "--hook-timeout", "90s"]].concat()).ok();
    host.until("fails", "has failed often", |app| {
        app.workers.iter().map(|worker| worker.restarts).sum::<u32>() >= 12
    });
    let runs = lines(&host, "runs").len();
    host.write("enough", "");
    host.cluster(&["stop", "fails"]).ok();
    assert_eq!(runs, 4);
}

#[test]
fn the_daemon_ends_when_the_last_hook_has_ended() {
    let host = Host::plain();
    // Longer than a daemon without hooks may take.
    let hook = "sleep 11; echo done > last";
    host.cluster(&["start", "app", "--post-stop", hook]).ok();
    host.cluster(&["kill"]).ok();
    assert_eq!(lines(&host, "last"), ["done"]);
}

fn a_hook_that_takes_too_long_is_killed_with_all_it_started(host: &Host) {
    let hook = "sleep 1000 & echo $! > sleeper; wait";
    let args =
        ["start", "app", "--pre-start", hook, "--hook-timeout", "300ms", "--max-restarts", "1"];
    host.cluster(&args).fails().complains("pre_start: did not end within 300ms");
    let sleeper: u32 = lines(host, "sleeper")[0].parse().unwrap();
    wait::until_true("what it started is gone", || !is_alive(sleeper));
}

fn what_hooks_write_is_in_the_log_of_the_worker(host: &Host) {
    let hook = "for i in 1 2 3; do echo line $i; done; echo problem >&2";
    host.cluster(&["start", "app", "--pre-start", hook]).ok();
    let logged = || {
        let log = host.home().join("logs");
        let files = fs::read_dir(log).unwrap().flatten();
        let texts = files.map(|file| fs::read_to_string(file.path()).unwrap_or_default());
        texts.collect::<String>()
    };
    wait::until_true("it is logged", || logged().contains("[pre_start] problem\n"));
    assert!(logged().contains("[pre_start] line 1\n[pre_start] line 2\n[pre_start] line 3\n"));
}

fn a_stop_does_not_wait_for_the_hook_before_the_start(host: &Host) {
    let hook = "echo $$ > hook; exec sleep 1000";
    host.cluster(&["start", "app", "--no-wait", "--pre-start", hook, "--hook-timeout", "1h"]).ok();
    wait::until_true("it runs", || !lines(host, "hook").is_empty());
    let pid: u32 = lines(host, "hook")[0].parse().unwrap();
    host.cluster(&["stop", "app"]).ok();
    assert_eq!(host.app("app").status, Status::Stopped);
    wait::until_true("it has gone", || !is_alive(pid));
}

fn hooks_of_a_daemon_that_is_killed_do_not_outlive_it_for_long(host: &Host) {
    let hook = "echo $$ >> hook; exec sleep 1000";
    host.cluster(&["start", "app", "--no-wait", "--pre-start", hook, "--hook-timeout", "1h"]).ok();
    wait::until_true("it runs", || !lines(host, "hook").is_empty());
    let pid: u32 = lines(host, "hook")[0].parse().unwrap();
    let daemon = host.ping().pid;
    signal(daemon, Signal::SIGKILL);
    wait::until_true("there is another", || {
        host.cluster(&["ping"]).code == 0 && host.ping().pid != daemon
    });
    wait::until_true("the hook is gone", || !is_alive(pid));
    host.cluster(&["delete", "app"]).ok();
}

#[test]
fn a_daemon_that_ends_waits_for_the_hooks_after_the_stop() {
    let host = Host::plain();
    host.cluster(&["start", "app", "--post-stop", "sleep 0.3; touch cleaned"]).ok();
    host.cluster(&["kill"]).ok();
    wait::until_true("it was run to its end", || host.work().join("cleaned").exists());
}

#[test]
fn hooks_run_as_the_workers_user_in_its_folder() {
    let host = Host::plain();
    host.open_to_all();
    let hook = "echo $(id -u) $(pwd) $(umask) > /tmp/cluster-hook-$PPID-user; cat /tmp/cluster-hook-$PPID-user; rm /tmp/cluster-hook-$PPID-user";
    let args = [
        "start",
        "app",
        "--uid",
        "65534",
        "--gid",
        "65534",
        "--umask",
        "027",
        "--cwd",
        "/tmp",
        "--post-ready",
        hook,
    ];
    host.cluster(&args).ok();
    let expected = "[post_ready] 65534 /tmp 0027";
    wait::until_true("it says who it is", || {
        let log = host.cluster(&["logs", "app", "--nostream"]);
        log.stdout.contains(expected)
    });
}

#[test]
fn a_hook_that_cannot_be_run_is_refused_at_the_start() {
    let host = Host::plain();
    let refused = host.cluster(&["start", "app", "--post-stop", "no-such-program --now"]).fails();
    refused.complains("post_stop: ");
}

fn lines(host: &Host, name: &str) -> Vec<String> {
    let path: &Path = &host.work().join(name);
    let text = fs::read_to_string(path).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}
