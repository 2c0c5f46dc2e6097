//! Signs of readiness and health, from programs that know nothing of `cluster`.

use std::{fs, path::PathBuf};

use cluster_tests::{
    built::fixture,
    host::{Host, is_alive, signal},
    http::{self, local},
    in_both_modes, wait,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;

in_both_modes!(
    a_worker_is_ready_when_it_sends_ready,
    a_worker_is_ready_when_it_notifies,
    a_worker_that_gives_no_sign_does_not_get_ready,
    a_message_takes_the_place_of_the_stop_signal,
    a_worker_whose_watchdog_falls_silent_is_replaced,
    a_command_says_whether_a_worker_is_ready,
    a_command_says_whether_a_worker_still_works,
    one_worker_can_be_asked_over_its_port,
    a_worker_does_not_lose_its_channel_with_the_daemon,
);

fn a_worker_is_ready_when_it_sends_ready(host: &Host) {
    let script = fixture("health.js");
    host.cluster(&["start", &script, "--wait-ready", "--no-wait"]).ok();
    assert_waits_for_its_sign(host, "health");
}

fn a_worker_is_ready_when_it_notifies(host: &Host) {
    let script = fixture("notify.py");
    host.cluster(&["start", &script, "--notify", "--no-wait"]).ok();
    assert_waits_for_its_sign(host, "notify");
}

fn a_worker_that_gives_no_sign_does_not_get_ready(host: &Host) {
    for (script, option) in [("health.js", "--wait-ready"), ("notify.py", "--notify")] {
        let script = fixture(script);
        host.cluster(&["start", &script, option, "--listen-timeout", "1s", "-n", "mute"]).fails();
        host.cluster(&["delete", "mute"]).ok();
    }
}

fn a_message_takes_the_place_of_the_stop_signal(host: &Host) {
    host.cluster(&["start", &fixture("health.js"), "--shutdown-with-message"]).ok();
    host.cluster(&["stop", "health"]).ok();
    wait_for_log(host, "health", r#"heard "shutdown""#);
}

fn a_worker_whose_watchdog_falls_silent_is_replaced(host: &Host) {
    touch(host, "ready");
    host.cluster(&["start", &fixture("notify.py"), "--notify", "--watchdog", "1s"]).ok();
    let before = host.pids("notify");
    // Longer than the watchdog waits, and nothing happens: it is told in time.
    wait::until_true("it runs for a while", || {
        host.app("notify").uptime_ms.is_some_and(|uptime| uptime > 1500)
    });
    assert_eq!(host.pids("notify"), before);

    touch(host, "silent");

    assert_replaced(host, "notify", &before);
}

fn a_command_says_whether_a_worker_is_ready(host: &Host) {
    let probe = "sh -c 'test -e good || { echo no good; exit 4; }'";
    let started = host.cluster(&[
        "start",
        "app",
        "--probe",
        probe,
        "--probe-interval",
        "50ms",
        "--listen-timeout",
        "1s",
    ]);
    started.fails().complains("exited with code 4: no good");
    host.cluster(&["delete", "app"]).ok();

    touch(host, "good");
    host.cluster(&["start", "app", "-i", "2", "--probe", probe]).ok();
    host.assert_balanced(local(8080), 2);
}

fn a_command_says_whether_a_worker_still_works(host: &Host) {
    let probe = "test ! -e sick-$CLUSTER_INSTANCE -a -d /proc/$CLUSTER_PID";
    host.cluster(&["start", "app", "-i", "2", "--liveness", probe, "--liveness-interval", "50ms"])
        .ok();
    let before = host.pids("app");

    touch(host, "sick-1");

    wait::until_true("the sick one has gone", || !is_alive(before[1]));
    fs::remove_file(host.work().join("sick-1")).unwrap();
    wait::until_true("there are two again", || host.app("app").online == 2);
    assert!(is_alive(before[0]), "the other is well");
}

fn one_worker_can_be_asked_over_its_port(host: &Host) {
    let script = fixture("health.js");
    host.cluster(&["start", &script, "--probe", "/health", "--probe-interval", "20ms"]).ok();
    http::get(local(8080));
    host.cluster(&["delete", "health"]).ok();

    let probe = ["--probe", "/health", "--probe-interval", "20ms", "--listen-timeout", "1s"];
    let sick = [&["start", &script, "--env", "SICK=0"], &probe[..]].concat();
    host.cluster(&sick).fails().complains("503");
}

fn a_worker_does_not_lose_its_channel_with_the_daemon(host: &Host) {
    host.cluster(&["start", &fixture("health.js"), "--shutdown-with-message"]).ok();
    let pids = host.pids("health");
    let daemon = host.ping().pid;
    signal(daemon, Signal::SIGKILL);
    wait::until_true("the daemon has gone", || !is_alive(daemon));
    wait::until_true("there is another", || host.cluster(&["ping"]).code == 0);
    assert_eq!(host.pids("health"), pids);

    host.cluster(&["stop", "health"]).ok();

    wait_for_log(host, "health", r#"heard "shutdown""#);
    assert!(!log(host, "health").contains("disconnected"));
}

#[test]
fn each_worker_is_asked_for_itself() {
    let host = Host::kernel();
    let script = fixture("health.js");
    let probe = ["--probe", "/health", "--probe-interval", "20ms", "--listen-timeout", "2s"];
    let sick = [&["start", &script, "-i", "4", "--env", "SICK=2"], &probe[..]].concat();

    host.cluster(&sick).fails().complains("worker 2").complains("503");

    host.cluster(&["delete", "health"]).ok();
    let well = [&["start", &script, "-i", "4"], &probe[..]].concat();
    host.cluster(&well).ok();
    host.assert_balanced(local(8080), 4);
}

#[test]
fn a_worker_that_answers_wrongly_is_replaced_and_no_other() {
    let host = Host::kernel();
    let script = fixture("health.js");
    let args =
        ["start", &script, "-i", "3", "--liveness", "/health", "--liveness-interval", "50ms"];
    host.cluster(&args).ok();
    let before = host.pids("health");

    touch(&host, "sick-1");

    wait::until_true("the sick one has gone", || !is_alive(before[1]));
    fs::remove_file(host.work().join("sick-1")).unwrap();
    wait::until_true("there are three again", || host.app("health").online == 3);
    let after = host.pids("health");
    assert_eq!((after[0], after[2]), (before[0], before[2]));
}

#[test]
fn plain_mode_refuses_to_ask_one_of_several() {
    let host = Host::plain();
    let script = fixture("health.js");
    let start = ["start", &script, "--probe", "/health"];
    host.cluster(&[&start[..], &["-i", "2"]].concat()).fails().complains("plain mode cannot ask");
    host.cluster(&[&start[..], &["-i", "2", "--liveness", "tcp"]].concat()).fails();
    host.cluster(&start).ok().complains("a reload stops the worker");
    host.cluster(&["scale", "health", "2"]).fails().complains("plain mode cannot ask");
    host.cluster(&["scale", "health", "+1"]).fails();
    assert_eq!(host.app("health").instances, 1);
}

/// It listens, and is not online before it says so.
fn assert_waits_for_its_sign(host: &Host, app: &str) {
    wait_for_log(host, app, "listening");
    assert_eq!(host.app(app).online, 0);
    touch(host, "ready");
    wait::until_true("it is online", || host.app(app).status == Status::Online);
    http::get(local(8080));
}

fn assert_replaced(host: &Host, app: &str, before: &[u32]) {
    wait::until_true("it is replaced", || {
        let now = host.pids(app);
        now.len() == before.len() && now != before
    });
}

fn touch(host: &Host, name: &str) {
    host.write(name, "");
}

fn wait_for_log(host: &Host, app: &str, text: &str) {
    wait::until_true(&format!("its log has {text}"), || log(host, app).contains(text));
}

fn log(host: &Host, app: &str) -> String {
    let path: PathBuf = host.home().join("logs").join(format!("{app}-out-0.log"));
    fs::read_to_string(path).unwrap_or_default()
}
