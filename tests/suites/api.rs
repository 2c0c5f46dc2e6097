//! The daemon's socket: the same API for every client, and no harm from a bad one.

use std::{
    fs,
    io::ErrorKind,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
};

use cluster_tests::{
    api::{self, exchange, request, status, throw},
    command,
    host::{Host, NOBODY},
    http::local,
};
use serde_json::Value;

#[test]
fn curl_is_a_client_too() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let socket = api::socket(&host.home());
    let mut curl = host.command("curl");
    curl.args(["--silent", "--unix-socket"]).arg(&socket).arg("http://cluster/v1/apps");

    let answer = command::run(&mut curl).ok();

    let last: Value = serde_json::from_str(answer.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "done");
    assert_eq!(last["apps"][0]["name"], "app");
    assert_eq!(last["apps"][0]["online"], 2);
}

#[test]
fn malformed_requests_are_refused_and_do_no_harm() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = (host.ping().pid, host.pids("app"));
    let socket = api::socket(&host.home());

    for (request, expected) in [
        (request("GET", "/", ""), 404),
        (request("GET", "/v1/no-such", ""), 404),
        (request("DELETE", "/v1/apps", ""), 405),
        (request("POST", "/v1/stop", "{"), 400),
        (request("POST", "/v1/stop", "[]"), 400),
        (request("POST", "/v1/stop", r#"{"targets":"app"}"#), 400),
        (request("POST", "/v1/stop", r#"{"targets":["app"],"extra":1}"#), 400),
        (request("POST", "/v1/stop", r#"{"targets":[]}"#), 400),
        (request("POST", "/v1/scale", r#"{"target":"app","to":{"to":99999999}}"#), 400),
        (request("POST", "/v1/start", r#"{"spec":{},"wait":true}"#), 400),
    ] {
        let text = String::from_utf8_lossy(&request).into_owned();
        let answer = exchange(&socket, &request).unwrap();
        let code = status(&answer);
        let refused = code == expected || (expected == 400 && code == 422);
        assert!(refused, "{text}\n\nshould have been {expected}: {answer}");
    }
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"\r\n\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/stop HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /v1/stop HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ] {
        match throw(&socket, garbage) {
            Ok(answer) => assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}"),
            // It may hang up before it has read all, and must not wait for more.
            Err(error) => assert_ne!(error.kind(), ErrorKind::WouldBlock, "{garbage:?}"),
        }
    }

    assert_eq!((host.ping().pid, host.pids("app")), before);
    host.assert_balanced(local(8080), 2);
}

#[test]
fn oversized_requests_are_refused_and_do_no_harm() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = (host.ping().pid, host.pids("app"));
    let memory = resident(before.0);
    let socket = api::socket(&host.home());

    let body = "x".repeat(64 << 20);
    for request in [
        request("POST", "/v1/stop", &body),
        request("GET", &format!("/{body}"), ""),
        format!("GET / HTTP/1.1\r\nX-Long: {body}\r\n\r\n").into_bytes(),
    ] {
        let answer = exchange(&socket, &request).unwrap_or_default();
        assert!(!answer.starts_with("HTTP/1.1 2"), "{answer}");
    }

    assert_eq!((host.ping().pid, host.pids("app")), before);
    let grown = resident(before.0).saturating_sub(memory);
    assert!(grown < 16 << 20, "it did not take them in: {grown} bytes more");
}

#[test]
fn many_silent_clients_do_not_keep_others_out() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    let socket = api::socket(&host.home());
    let connect = || std::os::unix::net::UnixStream::connect(&socket);
    let silent: Vec<_> = (0..200).map(|_| connect()).collect();
    host.cluster(&["list"]).ok();
    drop(silent);
    host.cluster(&["list"]).ok();
}

#[test]
fn another_user_is_refused_even_where_the_file_would_let_him_in() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    let socket = api::socket(&host.home());
    host.open_to_all();
    for (path, mode) in [(host.home(), 0o755), (socket.clone(), 0o666)] {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    }
    let mut curl = host.command("curl");
    curl.args(["--silent", "--fail", "--unix-socket"]).arg(&socket).arg("http://cluster/v1/apps");
    let answer = command::run(curl.uid(NOBODY).gid(NOBODY));

    assert_ne!(answer.code, 0, "{answer:?}");
    assert!(!answer.stdout.contains("8080"), "{answer:?}");
    fs::set_permissions(host.home(), fs::Permissions::from_mode(0o700)).unwrap();
    host.cluster(&["list"]).ok();
}

fn resident(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}
