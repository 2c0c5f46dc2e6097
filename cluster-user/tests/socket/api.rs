//! The daemon's socket: what it answers to good, bad and hostile clients.

use std::{
    io::{Read as _, Write as _},
    os::unix::{fs::PermissionsExt as _, net::UnixStream, process::CommandExt as _},
    process::Command,
    thread,
    time::Duration,
};

use super::fake::{Daemon, Ran, app, done, pong, spec};
use cluster_user::{
    api::{
        client::{Client, ClientError},
        message::{
            Failure, Line, Notice, Progress, Reason, Request, StartRequest, Status, TargetsRequest,
            VERSION,
        },
        server::MAX_CONNECTIONS,
    },
    id::Instance,
};
use serde_json::Value;

#[test]
fn nouns_answer_one_line_and_verbs_stream() {
    let daemon = Daemon::new(|request| {
        if matches!(request, Request::Ping) {
            return vec![pong()];
        }
        vec![progress(1), progress(2), done(vec![app(0, "web", &[1])])]
    });
    let ping = ask(&daemon, "GET /v1/ping HTTP/1.1", "");
    assert_eq!(ping.status, 200);
    assert_eq!(ping.header("content-type"), "application/json");
    assert_eq!(ping.header("cluster-version"), VERSION.to_string());
    assert_eq!(ping.json()["type"], "pong");
    let stop = ask(&daemon, "POST /v1/stop HTTP/1.1", r#"{"targets":["web"]}"#);
    assert_eq!(stop.header("content-type"), "application/x-ndjson");
    let lines: Vec<&str> = stop.body.lines().filter(|line| line.starts_with('{')).collect();
    assert_eq!(lines.len(), 3, "{}", stop.body);
    assert!(lines[2].contains(r#""type":"done""#));
}

#[test]
fn bad_requests_are_named_and_harm_nothing() {
    let daemon = Daemon::new(|_| vec![pong()]);
    let mut bad_spec =
        serde_json::to_value(StartRequest { spec: spec(), idle: false, wait: true }).unwrap();
    bad_spec["spec"]["instances"] = Value::from("x");
    let wrong_type = bad_spec.to_string();
    bad_spec["spec"]["instances"] = Value::from(0);
    let no_workers = bad_spec.to_string();
    bad_spec["spec"]["instances"] = Value::from(1);
    bad_spec["spec"]["stop"]["kill_timeout"] = Value::from(u64::MAX);
    let for_ever = bad_spec.to_string();
    bad_spec["spec"]["stop"]["kill_timeout"] = Value::from(1);
    let mut probing = |what: &str, interval: u64| {
        let what: Value = serde_json::from_str(what).unwrap();
        bad_spec["spec"]["probe"] = serde_json::json!({
            "what": what, "interval": interval, "timeout": 1, "successes": 1, "failures": 1,
        });
        bad_spec.to_string()
    };
    let no_path = probing(r#"{"http":{"host":null,"port":80,"path":"x"}}"#, 1);
    let no_port = probing(r#"{"tcp":{"port":null}}"#, 1);
    let no_pause = probing(r#"{"command":"true"}"#, 0);
    let deep = "[".repeat(100_000);
    for (head, body, status, message) in [
        ("POST /v1/stop", "{", 400, "EOF while parsing"),
        ("POST /v1/stop", r#"{"targets":["a"]} x"#, 400, "trailing characters"),
        ("POST /v1/stop", r#"{"target":["a"]}"#, 400, "unknown field `target`"),
        ("POST /v1/stop", r#"{"targets":[1]}"#, 400, "at `targets[0]`"),
        ("POST /v1/stop", r#"{"targets":[]}"#, 400, "targets is empty"),
        ("POST /v1/stop", "\u{0}\u{1b}[2J", 400, "malformed request"),
        ("POST /v1/stop", &deep, 400, "malformed request"),
        ("POST /v1/scale", r#"{"target":"a","to":{"to":0}}"#, 400, "out of range"),
        ("POST /v1/scale", r#"{"target":"a","to":{"by":-2147483648}}"#, 400, "out of range"),
        ("POST /v1/start", &wrong_type, 400, "at `spec.instances`"),
        ("POST /v1/start", &no_workers, 400, "instances is 0"),
        ("POST /v1/start", &for_ever, 400, "stop.kill_timeout is longer than a year"),
        ("POST /v1/start", &no_path, 400, "`x` does not begin with a slash"),
        ("POST /v1/start", &no_port, 400, "serves no port that could be asked"),
        ("POST /v1/start", &no_pause, 400, "its interval is 0"),
        ("POST /v1/kill", r#"{"now":true}"#, 400, "unknown field"),
        ("GET /v1/apps?taget=a", "", 400, "unknown parameter `taget`"),
        ("GET /v1/apps?detail=all", "", 400, "unknown detail `all`"),
        ("GET /v1/nothing", "", 404, "there is no `/v1/nothing`"),
        ("GET /", "", 404, "there is no `/`"),
        ("GET /v1/stop", "", 405, "method GET"),
        ("DELETE /v1/ping", "", 405, "method DELETE"),
    ] {
        let answer = ask(&daemon, &format!("{head} HTTP/1.1"), body);
        assert_eq!(answer.status, status, "{head} {}", &body[..body.len().min(80)]);
        let json = answer.json();
        assert_eq!(json["type"], "failed");
        let text = json["message"].as_str().unwrap();
        assert!(text.contains(message), "{head}: {text}");
        assert!(text.len() < 600 && !text.contains('\u{1b}'), "{head}: {text}");
    }
    assert!(daemon.requests().is_empty(), "none of them reached the supervisor");
    assert_eq!(ask(&daemon, "GET /v1/ping HTTP/1.1", "").status, 200);
}

#[test]
fn garbage_and_what_is_too_large_are_refused() {
    let daemon = Daemon::new(|_| vec![pong()]);
    for garbage in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n"[..],
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
    ] {
        assert!(raw(&daemon, garbage).starts_with("HTTP/1.1 400"));
    }
    let header = format!("GET /v1/ping HTTP/1.1\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
    assert!(raw(&daemon, header.as_bytes()).starts_with("HTTP/1.1 431"));
    let body = format!(r#"{{"targets":["{}"]}}"#, "x".repeat(9 << 20));
    let answer = ask(&daemon, "POST /v1/stop HTTP/1.1", &body);
    assert_eq!(answer.status, 413);
    assert!(answer.json()["message"].as_str().unwrap().contains("8 MiB"));
    let announced = "POST /v1/stop HTTP/1.1\r\nhost: x\r\ncontent-length: 99999999999\r\n\r\n";
    let answer = raw(&daemon, announced.as_bytes());
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(ask(&daemon, "GET /v1/ping HTTP/1.1", "").status, 200);
}

#[test]
fn a_failure_before_any_progress_decides_the_status() {
    for (reason, status) in [
        (Reason::BadRequest, 400),
        (Reason::NotFound, 404),
        (Reason::Conflict, 409),
        (Reason::NotPermitted, 403),
        (Reason::Unsupported, 501),
        (Reason::Unavailable, 503),
        (Reason::Failed, 500),
    ] {
        let daemon = Daemon::new(move |_| vec![Line::Failed(Failure::new(reason, "no"))]);
        let answer = ask(&daemon, "POST /v1/stop HTTP/1.1", r#"{"targets":["a"]}"#);
        assert_eq!(answer.status, status);
        assert_eq!(answer.json()["message"], "no");
    }
    let daemon =
        Daemon::new(|_| vec![progress(1), Line::Failed(Failure::new(Reason::Failed, "later"))]);
    let answer = ask(&daemon, "POST /v1/stop HTTP/1.1", r#"{"targets":["a"]}"#);
    assert_eq!(answer.status, 200, "what failed after progress is told in the stream");
    assert!(answer.body.contains("later"));
}

#[test]
fn a_supervisor_that_does_not_answer_is_unavailable() {
    let daemon = Daemon::new(|_| Vec::new());
    assert_eq!(ask(&daemon, "GET /v1/ping HTTP/1.1", "").status, 503);
}

#[tokio::test]
async fn each_line_arrives_before_the_next_is_written() {
    let (replies, mut reply) = tokio::sync::mpsc::unbounded_channel();
    let daemon = Daemon::with("home", move |call| drop(replies.send(call.reply)));
    let mut client = Client::connect(&daemon.home).await.unwrap();
    let asked = tokio::spawn(async move {
        let request = Request::Stop(TargetsRequest { targets: vec!["a".to_owned()], wait: true });
        client.send(&request).await.map(|answer| (client, answer))
    });
    let reply = reply.recv().await.unwrap();
    reply.send(progress(1)).unwrap();
    let (_client, mut answer) = asked.await.unwrap().unwrap();
    assert!(matches!(answer.next().await.unwrap(), Some(Line::Progress(_))));
    let notice = Notice { message: "hm".to_owned(), hint: None };
    reply.send(Line::Notice(notice)).unwrap();
    assert!(matches!(answer.next().await.unwrap(), Some(Line::Notice(_))));
    reply.send(done(Vec::new())).unwrap();
    assert!(matches!(answer.next().await.unwrap(), Some(Line::Done(_))));
    assert!(answer.next().await.unwrap().is_none(), "the reply was not even closed");
}

#[tokio::test]
async fn a_client_that_goes_away_is_noticed() {
    let (replies, mut reply) = tokio::sync::mpsc::unbounded_channel();
    let daemon = Daemon::with("home", move |call| drop(replies.send(call.reply)));
    let mut stream = UnixStream::connect(daemon.home.socket()).unwrap();
    stream.write_all(b"POST /v1/kill HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n").unwrap();
    let reply = reply.recv().await.unwrap();
    reply.send(progress(1)).unwrap();
    drop(stream);
    tokio::time::timeout(Duration::from_secs(5), reply.closed()).await.unwrap();
}

#[test]
fn another_release_is_refused_in_both_directions() {
    let daemon = Daemon::new(|_| vec![pong()]);
    let answer = ask(&daemon, "GET /v1/ping HTTP/1.1\r\ncluster-version: 999", "");
    assert_eq!(answer.status, 409);
    assert!(answer.json()["message"].as_str().unwrap().contains("speaks version 999"));
    assert!(daemon.requests().is_empty());
}

#[test]
fn idle_connections_do_not_pile_up() {
    let daemon = Daemon::new(|_| vec![pong()]);
    let connect = || UnixStream::connect(daemon.home.socket()).unwrap();
    let idle: Vec<UnixStream> = (0..MAX_CONNECTIONS).map(|_| connect()).collect();
    let answer = ask(&daemon, "GET /v1/ping HTTP/1.1", "");
    assert_eq!(answer.status, 503);
    assert!(answer.json()["message"].as_str().unwrap().contains("256 connections"));
    drop(idle);
    let back = (0..100).any(|_| {
        thread::sleep(Duration::from_millis(20));
        ask(&daemon, "GET /v1/ping HTTP/1.1", "").status == 200
    });
    assert!(back, "served again once they are gone");
}

#[test]
fn another_user_is_refused() {
    if !nix::unistd::Uid::effective().is_root() {
        println!("skipped: needs root to become somebody else");
        return;
    }
    let daemon = Daemon::new(|_| vec![pong()]);
    let open = |path: &std::path::Path, mode| {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    // Wide open, so that only the check of the peer is left.
    open(daemon.home.path().parent().unwrap(), 0o755);
    open(daemon.home.path(), 0o755);
    open(&daemon.home.socket(), 0o666);
    let program = daemon.home.path().parent().unwrap().join("cluster");
    std::fs::copy(env!("CARGO_BIN_EXE_cluster"), &program).unwrap();
    let ping = || {
        let mut command = Command::new(&program);
        command.arg("ping").env("CLUSTER_HOME", daemon.home.path()).uid(65534).gid(65534);
        Ran::from(command.output().unwrap())
    };
    let refused = ping();
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.contains("belongs to user 0, not to user 65534"), "{refused:?}");
    assert!(refused.err.contains("hint: "), "{refused:?}");
    assert!(daemon.requests().is_empty());
    open(&daemon.home.socket(), 0o600);
    let refused = ping();
    assert_eq!(refused.code, 4, "{refused:?}");
    assert!(refused.err.contains("Permission denied"), "{refused:?}");
}

#[tokio::test]
async fn what_is_no_daemon_is_said_to_be_none() {
    let folder = tempfile::tempdir().unwrap();
    let home = cluster_user::config::home::Home::at(folder.path()).unwrap();
    assert!(matches!(Client::connect(&home).await, Err(ClientError::NoDaemon)));
    let listener = std::os::unix::net::UnixListener::bind(home.socket()).unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"SSH-2.0-x\r\n").unwrap();
    });
    let mut client = Client::connect(&home).await.unwrap();
    assert!(matches!(client.send(&Request::Ping).await, Err(ClientError::Broken(_))));
}

fn progress(reached: u32) -> Line {
    Line::Progress(Progress {
        app: "web".to_owned(),
        instance: Instance(0),
        status: Status::Starting,
        reached,
        wanted: 2,
    })
}

struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        let start = format!("{name}: ");
        self.head.lines().find_map(|line| line.strip_prefix(&start)).unwrap_or_default()
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap()
    }
}

fn ask(daemon: &Daemon, head: &str, body: &str) -> Answer {
    let length = body.len();
    let text =
        format!("{head}\r\nhost: x\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
    let answer = raw(daemon, text.as_bytes());
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap_or(0);
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

fn raw(daemon: &Daemon, bytes: &[u8]) -> String {
    let mut stream = UnixStream::connect(daemon.home.socket()).unwrap();
    // What is refused may be refused before all of it is written.
    drop(stream.write_all(bytes));
    read(stream)
}

fn read(mut stream: UnixStream) -> String {
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    String::from_utf8_lossy(&answer).into_owned()
}
