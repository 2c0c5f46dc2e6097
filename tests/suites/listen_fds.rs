//! Sockets that workers are given, as systemd gives them.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, UdpSocket},
    os::unix::{
        fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::Path,
    time::Duration,
};

use cluster_tests::{
    built::{fixture, static_go_given},
    host::{Host, NOBODY, is_alive, signal},
    http::{self, local, local6},
    in_both_modes,
    load::Load,
    wait,
};
use cluster_user::datapath::Mode;
use nix::sys::signal::Signal;
use serde_json::Value;

in_both_modes!(
    a_program_serves_on_the_sockets_it_was_given,
    nobody_serves_a_port_that_only_root_may_bind,
    a_go_program_serves_and_is_reloaded,
    a_unix_socket_is_shared_and_outlives_its_workers_and_the_daemon,
    a_port_that_is_held_names_its_holder,
    a_path_that_is_something_else_is_kept,
    a_program_that_binds_for_itself_is_told_so,
);

fn a_program_serves_on_the_sockets_it_was_given(host: &Host) {
    host.cluster(&[
        "start",
        &fixture("given.py"),
        "-i",
        "2",
        "--listen",
        "tcp://0.0.0.0:8080?name=web",
        "--listen",
        "tcp://[::]:8080",
        "--listen",
        "udp://127.0.0.1:8053?name=dns",
    ])
    .ok();
    host.assert_balanced(local(8080), 2);
    let told: Value = serde_json::from_str(&http::get(local6(8080))).unwrap();
    assert_eq!(told["names"], serde_json::json!(["web", "given.socket", "dns"]));
    let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    udp.send_to(b"x", "127.0.0.1:8053").unwrap();
    let mut answer = [0; 500];
    let length = udp.recv(&mut answer).unwrap();
    assert!(String::from_utf8_lossy(&answer[..length]).contains("8053"));
}

fn nobody_serves_a_port_that_only_root_may_bind(host: &Host) {
    host.open_to_all();
    let script = host.write("given.py", &fs::read_to_string(fixture("given.py")).unwrap());
    let start = ["start", &script, "--uid", "nobody", "--gid", "nogroup"];
    host.cluster(&[&start[..], &["--listen", "tcp://0.0.0.0:80", "-i", "2"]].concat()).ok();
    host.assert_balanced(local(80), 2);
    let told: Value = serde_json::from_str(&http::get(local(80))).unwrap();
    assert_eq!(told["uid"], NOBODY);
}

fn a_go_program_serves_and_is_reloaded(host: &Host) {
    let program = static_go_given().display().to_string();
    host.cluster(&["start", &program, "-n", "go", "-i", "2", "--listen", "tcp://0.0.0.0:8080"])
        .ok();
    let before = host.pids("go");
    let load = Load::start(local(8080), 2);
    host.cluster(&["reload", "go"]).ok();
    let score = load.stop();
    assert!(score.answered() > 0);
    match host.mode() {
        Mode::Kernel => assert_eq!(score.failed(), 0, "{score:?}"),
        // It ends when it is told to, and nothing moves what waits at it then.
        Mode::Plain => {}
    }
    assert!(host.pids("go").iter().all(|pid| !before.contains(pid)));
    host.assert_balanced(local(8080), 2);
}

fn a_unix_socket_is_shared_and_outlives_its_workers_and_the_daemon(host: &Host) {
    let path = host.work().join("app.sock");
    // One that was left behind.
    drop(UnixListener::bind(&path).unwrap());
    host.cluster(&[
        "start",
        &fixture("given.py"),
        "--listen",
        "unix:app.sock?mode=0600",
        "-i",
        "2",
    ])
    .ok();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let inode = fs::metadata(&path).unwrap().ino();
    let pids = host.pids("given");
    assert!(pids.contains(&asked(&path)));

    host.cluster(&["reload", "given"]).ok();
    let now = host.pids("given");
    assert!(now.contains(&asked(&path)));

    let daemon = host.ping().pid;
    signal(daemon, Signal::SIGKILL);
    wait::until_true("the daemon has gone", || !is_alive(daemon));
    assert!(now.contains(&asked(&path)), "its workers serve on");
    wait::until_true("there is another", || host.cluster(&["ping"]).code == 0);
    host.cluster(&["restart", "given"]).ok();
    assert!(host.pids("given").contains(&asked(&path)));
    assert_eq!(fs::metadata(&path).unwrap().ino(), inode, "it is the same one all the time");

    host.cluster(&["stop", "given"]).ok();
    wait::until_true("the path is gone", || !path.exists());
    host.cluster(&["start", "given"]).ok();
    assert!(host.pids("given").contains(&asked(&path)));
    host.cluster(&["delete", "given"]).ok();
    wait::until_true("the path is gone", || !path.exists());
}

fn a_port_that_is_held_names_its_holder(host: &Host) {
    let _held = TcpListener::bind("0.0.0.0:8080").unwrap();
    let failed = host
        .cluster(&["start", &fixture("given.py"), "--listen", "tcp://0.0.0.0:8080"])
        .fails()
        .complains("0.0.0.0:8080");
    failed.complains(&format!("is held by pid {}", std::process::id()));
    host.cluster(&["delete", "given"]).ok();

    let path = host.work().join("held.sock");
    let _held = UnixListener::bind(&path).unwrap();
    host.cluster(&["start", &fixture("given.py"), "--listen", "unix:held.sock"])
        .fails()
        .complains(&format!("is held by pid {}", std::process::id()));
    host.cluster(&["delete", "given"]).ok();
    assert!(UnixStream::connect(&path).is_ok(), "it is left alone");
}

fn a_path_that_is_something_else_is_kept(host: &Host) {
    let path = host.write("precious", "precious");
    host.cluster(&["start", &fixture("given.py"), "--listen", "unix:precious"])
        .fails()
        .complains("is no socket");
    host.cluster(&["delete", "given"]).ok();
    assert_eq!(fs::read_to_string(path).unwrap(), "precious");
}

fn a_program_that_binds_for_itself_is_told_so(host: &Host) {
    host.cluster(&["start", "app", "--listen", "tcp://0.0.0.0:8080"])
        .fails()
        .complains("without --listen");
}

#[test]
fn what_is_no_socket_is_refused_before_anything_is_done() {
    let host = Host::plain();
    let long = format!("unix:/{}", "x".repeat(107));
    for (sockets, said) in [
        (&["8080"][..], "tcp://ADDRESS:PORT"),
        (&["tcp://localhost:80"], "tcp://0.0.0.0:80"),
        (&["tcp://0.0.0.0:0"], "port 0"),
        (&[&long], "more than the 107"),
        (&["unix:a", "unix:./a?mode=0600", "unix:a"], "twice"),
        (&["tcp://0.0.0.0:80", "tcp://0.0.0.0:80"], "twice"),
        (&["unix:x?user=no-such-user"], "no-such-user"),
    ] {
        let mut args = vec!["start", "app"];
        for socket in sockets {
            args.extend(["--listen", socket]);
        }
        host.cluster(&args).fails().complains(said);
    }
    host.cluster(&["start", "app", "--no-port", "--listen", "tcp://0.0.0.0:80"]).code(2);
    assert!(!host.home().join("daemon.log").exists(), "no daemon was started for it");
}

#[test]
fn one_without_privileges_is_told_what_the_port_needs() {
    let host = Host::unprivileged();
    let script = host.write("given.py", &fs::read_to_string(fixture("given.py")).unwrap());
    host.cluster(&["start", &script, "--listen", "tcp://0.0.0.0:80"])
        .fails()
        .complains("CAP_NET_BIND_SERVICE");
    host.cluster(&["delete", "given"]).ok();
    host.cluster(&["start", &script, "--listen", "tcp://0.0.0.0:8080", "--listen", "unix:x.sock"])
        .ok();
    http::get(local(8080));
    let path = host.work().join("x.sock");
    assert!(fs::metadata(&path).unwrap().file_type().is_socket());
    asked(&path);
}

/// Who answers on a Unix socket.
#[track_caller]
fn asked(path: &Path) -> u32 {
    let mut stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (_, body) = answer.split_once("\r\n\r\n").unwrap();
    let told: Value = serde_json::from_str(body).unwrap();
    told["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap()
}
