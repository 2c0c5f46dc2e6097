//! The harness itself: it sees what it is there to see.

use std::{
    os::unix::net::UnixListener,
    panic::{AssertUnwindSafe, catch_unwind},
};

use cluster_tests::{
    host::{Host, is_alive},
    http::{self, local},
    leftover, wait,
};

#[test]
fn a_process_left_behind_is_a_failure_and_is_ended() {
    let host = Host::plain();
    let mut left = host.command("sleep").arg("1000").spawn().unwrap();
    let pid = left.id();

    let why = failure_of_dropping(host);

    assert!(why.contains(&format!("process {pid} (sleep 1000)")), "{why}");
    wait::until_true("it has been ended", || left.try_wait().unwrap().is_some());
    assert!(!is_alive(pid));
}

#[test]
fn a_socket_left_behind_is_a_failure() {
    let host = Host::plain();
    let folder = host.home();
    std::fs::create_dir(&folder).unwrap();
    let _listener = UnixListener::bind(folder.join("left.sock")).unwrap();

    assert!(failure_of_dropping(host).contains("left.sock"));
}

#[test]
fn a_kernel_program_left_behind_is_a_failure() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    let programs = leftover::held_programs(host.ping().pid);
    let number = programs.first().expect("the daemon holds its programs");
    let _held = leftover::program(*number).unwrap();

    assert!(failure_of_dropping(host).contains(&format!("kernel program {number}")));
}

#[test]
fn each_test_has_a_network_of_its_own() {
    let first = Host::plain();
    let app = first.stranger("app", &[]);
    wait::until_true("it listens", || http::try_get(local(8080)).is_ok());
    assert_eq!(first.processes(), [app.pid()]);

    let second = Host::plain();
    assert!(http::try_get(local(8080)).is_err());
    assert!(second.processes().is_empty());
}

fn failure_of_dropping(host: Host) -> String {
    let failure = catch_unwind(AssertUnwindSafe(|| drop(host))).unwrap_err();
    failure.downcast_ref::<String>().unwrap().clone()
}
