//! What happens, as it is told to those who follow.

use std::{io::Write as _, os::unix::net::UnixStream};

use cluster_tests::{
    api::{self, exchange, request},
    built::fixture,
    host::{Host, is_alive, signal},
    in_both_modes, wait,
};
use cluster_user::api::message::What;
use nix::sys::signal::Signal;

in_both_modes!(
    the_life_of_an_app_is_told_in_its_order,
    a_reload_that_fails_is_told_with_its_reason,
    a_worker_tells_of_itself,
);

fn the_life_of_an_app_is_told_in_its_order(host: &Host) {
    let mut following = None;
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let follower = following.insert(host.begin(&["events", "app", "-n", "0"]));
    host.cluster(&["start", "app", "-n", "other", "--env", "PORT=8081"]).ok();
    host.cluster(&["reload", "app"]).ok();
    signal(host.pids("app")[1], Signal::SIGKILL);
    host.until_online("app", 2);
    host.cluster(&["scale", "app", "1"]).ok();
    host.cluster(&["delete", "app"]).ok();
    follower.until_says("app deleted");
    host.cluster(&["kill"]).ok();

    let said = following.take().unwrap().end().ok();
    assert!(!said.stdout.contains("other:"), "{said:?}");
    let mut rest = said.stdout.as_str();
    for step in [
        "reload begun  reload to generation 2, by root",
        "app:0             starting",
        "app:0             online",
        "draining",
        "exited",
        "reload done",
        "app:1             failed  killed by SIGKILL",
        "app:1             online",
        "app scaled  to 1 worker",
        "app:1             exited",
        "app deleted",
    ] {
        let at = rest.find(step).unwrap_or_else(|| panic!("no `{step}` in its place: {said:?}"));
        rest = &rest[at + step.len()..];
    }
}

fn a_reload_that_fails_is_told_with_its_reason(host: &Host) {
    host.start_web(1, &[]);
    host.deploy("throw new Error('broken')");
    host.cluster(&["reload", "web"]).fails();
    let failed = host.until_happened("web", What::ReloadFailed);
    let detail = failed.detail.unwrap();
    assert!(detail.contains("worker 0 exited with code 1"), "{detail}");
}

fn a_worker_tells_of_itself(host: &Host) {
    host.write("ready", "");
    host.cluster(&["start", &fixture("notify.py")]).ok();
    let app = host.until("notify", "serving", |app| app.workers[0].status_text.is_some());
    assert_eq!(app.workers[0].status_text.as_deref(), Some("serving"));
    assert_eq!(host.until_happened("notify", What::Status).detail.as_deref(), Some("serving"));
    host.cluster(&["list", "-v"]).ok().says("serving");
    host.cluster(&["describe", "notify"]).ok().says("0 says");
}

#[test]
fn a_worker_that_says_it_ends_leaves_the_route_at_once() {
    let host = Host::kernel();
    let script = "import http.server, os, signal, socket, sys, threading, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text, '\\0' + os.environ['NOTIFY_SOCKET'][1:])
def end(*_):
    say(b'STOPPING=1\\nERRNO=28')
signal.signal(signal.SIGUSR1, end)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '1'); self.end_headers()
        self.wfile.write(b'x')
    def log_message(self, *args): pass
http.server.ThreadingHTTPServer(('', 8080), Handler).serve_forever()
";
    let script = host.write("leaving.py", script);
    host.cluster(&["start", &script, "-i", "2"]).ok();
    let pids = host.pids("leaving");

    signal(pids[0], Signal::SIGUSR1);

    let app = host.until("leaving", "one has left", |app| app.online == 1);
    assert_eq!(app.workers[0].errno, Some(28));
    assert!(is_alive(pids[0]), "it ends when it likes");
    host.cluster(&["describe", "leaving"]).ok().says("no space left on device");
    let before = app.workers[0].selected;
    (0..10).for_each(|_| drop(cluster_tests::http::get(cluster_tests::http::local(8080))));
    assert_eq!(host.app("leaving").workers[0].selected, before);
    signal(pids[0], Signal::SIGTERM);
    host.until_online("leaving", 2);
}

#[test]
fn a_worker_may_say_which_of_its_processes_is_the_main_one_and_no_other() {
    let host = Host::kernel();
    let script = "import os, socket, subprocess, time
def say(text):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as s:
        s.sendto(text, '\\0' + os.environ['NOTIFY_SOCKET'][1:])
say(b'MAINPID=1')
child = subprocess.Popen(['sleep', '1000'])
say(b'MAINPID=%d\\nSTATUS=moved' % child.pid)
child.wait()
";
    let script = host.write("moved.py", script);
    host.cluster(&["start", &script, "--no-port"]).ok();
    let app = host.until("moved", "moved", |app| app.workers[0].status_text.is_some());
    let main = app.workers[0].main_pid.expect("it has said so");
    assert_eq!(fs_comm(main), "sleep");
    assert_eq!(host.events("moved").iter().filter(|one| one.what == What::MainPid).count(), 1);
}

#[test]
fn who_does_not_read_holds_nobody_up() {
    let host = Host::plain();
    host.cluster(&["start", &fixture("ipc.js")]).ok();
    let socket = api::socket(&host.home());
    let mut deaf = UnixStream::connect(&socket).unwrap();
    deaf.write_all(b"GET /v1/events HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let long = "x".repeat(10_000);
    for _ in 0..60 {
        host.cluster(&["send", "ipc", &format!("{{\"say\": \"{long}\"}}")]).ok();
    }
    host.until_happened("ipc", What::Message);
    drop(deaf);
}

#[test]
fn questions_that_make_no_sense_are_refused() {
    let host = Host::plain();
    host.cluster(&["start", "app"]).ok();
    let socket = api::socket(&host.home());
    for (path, said) in [
        ("/v1/events?follow=maybe", "maybe"),
        ("/v1/events?last=-1", "-1"),
        ("/v1/events?target=%2F(%2F", "regular expression"),
        ("/v1/events?nope=1", "unknown parameter"),
    ] {
        let answer = exchange(&socket, &request("GET", path, "")).unwrap();
        assert_eq!(api::status(&answer), 400, "{path}: {answer}");
        assert!(answer.contains(said), "{path}: {answer}");
    }
    for (body, said) in [
        ("{\"targets\":[],\"message\":1}", "targets is empty"),
        ("{\"targets\":[\"app\"]}", "message"),
        ("{\"targets\":[\"app\"],\"message\":1}", "no IPC channel"),
    ] {
        let answer = exchange(&socket, &request("POST", "/v1/send", body)).unwrap();
        assert!(answer.contains(said), "{body}: {answer}");
    }
    let answer =
        exchange(&socket, &request("GET", "/v1/events?follow=false&target=app", "")).unwrap();
    assert!(answer.contains("\"what\":\"worker_online\""), "{answer}");
}

#[test]
fn who_follows_goes_on_after_an_upgrade() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    let mut follower = host.begin(&["events", "-n", "0"]);
    wait::until_true("it follows", || {
        host.cluster(&["restart", "app"]).ok();
        follower.has_said("online")
    });
    host.cluster(&["upgrade"]).ok();
    follower.until_says("daemon started");
    host.cluster(&["delete", "app"]).ok();
    follower.until_says("app deleted");
    host.cluster(&["kill"]).ok();
    follower.end().ok();
}

fn fs_comm(pid: u32) -> String {
    let comm = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    comm.trim_end().to_owned()
}
