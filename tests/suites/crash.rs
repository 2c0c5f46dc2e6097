//! Workers that are killed: what was queued is answered, and somebody else answers it.

use std::time::Duration;

use cluster_tests::{
    built::fixture,
    host::{Host, freeze, is_alive, signal},
    http::{self, Connection, local},
    in_both_modes,
    load::Load,
    wait,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;

in_both_modes!(
    a_killed_worker_is_replaced,
    every_process_of_a_killed_worker_ends,
    every_process_of_a_stopped_worker_ends,
    all_workers_killed_at_once_are_all_replaced,
);

fn a_killed_worker_is_replaced(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");

    signal(before[0], Signal::SIGKILL);

    let app = host.until("app", "has a replacement online", |app| {
        app.online == 2 && app.workers[0].pid != Some(before[0])
    });
    assert_eq!(app.workers[0].restarts, 1);
    assert_eq!(host.pids("app")[1], before[1]);
    host.assert_balanced(local(8080), 2);
}

fn every_process_of_a_killed_worker_ends(host: &Host) {
    host.cluster(&["start", &fixture("family.py")]).ok();
    let family = family();

    signal(host.pids("family")[0], Signal::SIGKILL);

    wait::until_true("the whole family has ended", || family.iter().all(|pid| !is_alive(*pid)));
    host.until_online("family", 1);
}

fn every_process_of_a_stopped_worker_ends(host: &Host) {
    host.cluster(&["start", &fixture("family.py")]).ok();
    let family = family();

    host.cluster(&["stop", "family"]).ok();

    assert!(family.iter().all(|pid| !is_alive(*pid)), "stopped means gone, all of it");
}

fn all_workers_killed_at_once_are_all_replaced(host: &Host) {
    host.cluster(&["start", "app", "-i", "4"]).ok();
    let before = host.pids("app");
    for pid in &before {
        signal(*pid, Signal::SIGKILL);
    }
    host.until("app", "has four replacements online", |app| {
        app.online == 4 && app.workers.iter().all(|worker| worker.restarts == 1)
    });
    host.assert_balanced(local(8080), 4);
}

#[test]
fn what_a_killed_worker_had_queued_is_answered_by_others() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4"]).ok();
    let victim = host.pids("app")[1];
    freeze(victim);

    let mut asked: Vec<_> = (0..40).map(|_| ask()).collect();
    signal(victim, Signal::SIGKILL);

    let answers: Vec<_> =
        asked.iter_mut().map(|connection| connection.receive().unwrap()).collect();
    assert!(!answers.iter().any(|answer| answer.starts_with(&format!("pid {victim} "))));
}

#[test]
fn connections_wait_while_there_is_no_worker() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("late.py"), "-i", "2"]).ok();
    for pid in host.pids("late") {
        signal(pid, Signal::SIGKILL);
    }
    // Its replacements listen after a second; until then these are held, with what they have sent.
    let mut asked: Vec<_> = (0..20).map(|_| ask()).collect();
    for connection in &mut asked {
        connection.receive().unwrap();
    }
    host.until_online("late", 2);
    host.assert_balanced(local(8080), 2);
}

/// To the kernel they are the waiting room's still; nobody may take that for a worker without a request.
#[test]
fn what_has_waited_is_answered_before_its_worker_is_stopped() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("slow.py"), "--restart-delay", "300ms"]).ok();
    signal(host.pids("slow")[0], Signal::SIGKILL);
    host.until("slow", "has no worker", |app| app.online == 0);
    let mut asked: Vec<_> = (0..4).map(|_| ask()).collect();
    host.until_online("slow", 1);

    host.cluster(&["stop", "slow"]).ok();

    let answers: Vec<_> = asked.iter_mut().map(Connection::receive).collect();
    assert!(answers.iter().all(Result::is_ok), "{answers:#?}");
}

#[test]
fn connections_wait_for_a_limited_time() {
    let host = Host::kernel();
    let args = ["start", "app", "--wait-timeout", "300ms", "--restart-delay", "10s"];
    host.cluster(&args).ok();
    signal(host.pids("app")[0], Signal::SIGKILL);
    host.until("app", "has no worker", |app| app.online == 0);

    assert!(ask().receive().is_err(), "given up when the time is over");
    wait::until_true("new ones are refused then", || Connection::open(local(8080)).is_err());
}

#[test]
fn killing_workers_under_load_loses_only_what_they_were_executing() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("server.js"), "-i", "4"]).ok();
    let load = Load::start(local(8080), 8);
    let kills = 5;
    for _ in 0..kills {
        let victim = host.pids("server")[0];
        signal(victim, Signal::SIGKILL);
        host.until("server", "has a replacement online", |app| {
            app.online == 4 && app.workers[0].pid != Some(victim)
        });
    }
    let score = load.stop();
    // Each of the eight clients has one request under way at most, and a quarter of them hit the victim.
    assert!(score.failed() <= kills * 8, "{:#?}", score.failures);
    assert!(!score.failures.keys().any(|why| why.contains("refused")), "{:#?}", score.failures);
    assert!(score.answered() > 1_000, "{}", score.answered());
}

#[test]
fn a_hung_and_killed_worker_does_not_stay_in_the_route() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3", "--restart-delay", "20s"]).ok();
    signal(host.pids("app")[0], Signal::SIGKILL);
    host.until("app", "is one worker less", |app| app.workers[0].status == Status::Backoff);
    http::assert_exact(local(8080), 31, 2);
}

#[test]
fn a_worker_is_replaced_faster_than_anyone_notices() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "1"]).ok();
    let before = host.pids("app")[0];
    signal(before, Signal::SIGKILL);
    let answered = wait::within(Duration::from_secs(5), || http::try_get(local(8080)).ok());
    assert!(answered.is_some_and(|answer| !answer.starts_with(&format!("pid {before} "))));
}

/// A request that was sent, with its answer outstanding.
fn ask() -> Connection {
    let mut connection = Connection::open(local(8080)).unwrap();
    connection.send("close").unwrap();
    connection
}

/// Child and grandchild of the worker.
fn family() -> Vec<u32> {
    let answer = http::get(local(8080));
    let family: Vec<u32> = answer.split(' ').take(2).map(|pid| pid.parse().unwrap()).collect();
    assert!(family.iter().all(|pid| is_alive(*pid)));
    family
}
