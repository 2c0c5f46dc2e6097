//! What the kernel takes seconds to look at, and what is asked for meanwhile: the last wish counts, and nothing is left over.

use std::{fs, net::TcpStream, time::Duration};

use cluster_tests::{built::fixture, command::Begun, host::Host, wait};
use cluster_user::api::message::Status;

use super::own_policy::{always, counting, write};

/// So many rounds take the kernel a good part of a second: it follows them wherever the program is called from.
const LONG: i32 = 40_000;
/// So many are too many, which it finds out after even more.
const ENDLESS: i32 = 1_000_000;

#[test]
fn an_app_deleted_while_its_group_waits_for_a_program_leaves_its_port() {
    let host = Host::kernel();
    let file = write(&host, "mine.bpf.o", &always(0));
    host.cluster(&["start", "app", "--policy", "./mine.bpf.o"]).ok();
    host.cluster(&["stop", "app"]).ok();
    fs::write(file, counting(ENDLESS)).unwrap();
    let restart = host.begin(&["restart", "app"]);
    wait::until_true("its waiting room listens", || {
        TcpStream::connect_timeout(&([127, 0, 0, 1], 8080).into(), Duration::from_secs(1)).is_ok()
    });
    host.cluster(&["delete", "app"]).ok();
    host.cluster(&["start", "app", "--name", "next"]).ok();
    host.until_online("next", 1);
    restart.end().fails();
}

#[test]
fn a_policy_that_is_verified_gives_way_to_what_is_asked_for_meanwhile() {
    let host = Host::kernel();
    write(&host, "long.bpf.o", &counting(LONG));
    host.cluster(&["start", "app"]).ok();
    let switching = begin_switch(&host);
    host.cluster(&["policy", "app", "hash", "guard=off"]).ok();
    switching.end().fails().code(1).complains("another command changed app `app`");
    assert_eq!(host.app("app").policy, "hash");

    let switching = begin_switch(&host);
    host.cluster(&["delete", "app"]).ok();
    host.cluster(&["start", "app"]).ok();
    switching.end().fails().code(1).complains("another command changed app `app`");
    assert_eq!(host.app("app").policy, "round-robin");
}

#[test]
fn few_programs_are_verified_at_a_time_and_none_is_forgotten() {
    let host = Host::kernel();
    for (name, port) in [("a", 8081), ("b", 8082), ("c", 8083), ("d", 8084)] {
        write(&host, &format!("{name}.bpf.o"), &counting(LONG));
        host.cluster(&["start", "app", "--name", name, "--env", &format!("PORT={port}")]).ok();
    }
    let begin = |name| host.begin(&["policy", name, &format!("./{name}.bpf.o")]);
    let mut switching = ["a", "b", "c", "d"].map(begin);
    let mut most = 0;
    while !switching.iter_mut().all(Begun::has_ended) {
        most = most.max(verifying(&host));
    }
    // One that has given its verdict may be ending.
    assert!((2..=3).contains(&most), "{most} of four");
    for switching in switching {
        switching.end().ok();
    }
}

#[test]
fn whoever_waits_for_a_verdict_hears_of_an_upgrade() {
    let host = Host::kernel();
    write(&host, "long.bpf.o", &counting(LONG));
    host.cluster(&["start", "app"]).ok();
    let switching = begin_switch(&host);
    host.cluster(&["upgrade"]).ok();
    switching.end().fails().complains("the daemon ended before");
    assert_eq!(host.app("app").policy, "round-robin");
}

#[test]
fn whoever_waits_for_workers_hears_of_an_upgrade_and_it_goes_on() {
    let host = Host::kernel();
    let slow = ["start", &fixture("exits.py"), "--env", "AFTER=600", "--listen-timeout", "600s"];
    let starting = host.begin(&slow);
    wait::until_true("it starts", || host.apps().iter().any(|app| app.name == "exits"));
    host.cluster(&["upgrade"]).ok();
    starting.end().fails().complains("which goes on with what was asked for");
    assert_eq!(host.app("exits").status, Status::Starting);
}

/// Asks for a program that is being looked at when this returns.
fn begin_switch(host: &Host) -> Begun {
    wait::until_true("nothing is verified", || verifying(host) == 0);
    let switching = host.begin(&["policy", "app", "./long.bpf.o"]);
    wait::until_true("it is verified", || verifying(host) > 0);
    switching
}

/// Threads of the daemon that have the kernel look at programs.
fn verifying(host: &Host) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", host.ping().pid)).unwrap();
    let names =
        threads.filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "verify").count()
}
