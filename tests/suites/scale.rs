//! More workers and fewer: highest numbers leave first, and finish what they have.

use std::thread;

use cluster_tests::{
    built::fixture,
    host::{Host, is_alive, signal},
    http::{self, Connection, local},
    in_both_modes,
    load::Load,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;

in_both_modes!(
    scale_takes_a_number_more_and_fewer,
    the_highest_numbers_leave_first,
    the_lowest_free_numbers_are_used_first,
    a_number_that_is_given_again_has_no_restarts,
    a_worker_that_leaves_finishes_its_request,
);

fn scale_takes_a_number_more_and_fewer(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    for (typed, workers) in [("4", 4), ("+2", 6), ("-3", 3), ("1", 1), ("max", cpus())] {
        host.cluster(&["scale", "app", typed]).ok();
        host.until_online("app", workers);
        host.assert_balanced(local(8080), workers);
    }
}

fn the_highest_numbers_leave_first(host: &Host) {
    host.cluster(&["start", "app", "-i", "5"]).ok();
    let before = host.pids("app");

    host.cluster(&["scale", "app", "2"]).ok();

    assert_eq!(host.pids("app"), before[..2]);
    assert!(before[2..].iter().all(|pid| !is_alive(*pid)));
    let app = host.until_online("app", 2);
    assert_eq!((app.instances, app.ports[0].workers), (2, 2));
}

fn the_lowest_free_numbers_are_used_first(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    host.cluster(&["scale", "app", "1"]).ok();
    host.cluster(&["scale", "app", "3"]).ok();

    let app = host.until_online("app", 3);
    let instances: Vec<_> = app.workers.iter().map(|worker| worker.instance.0).collect();
    assert_eq!(instances, [0, 1, 2]);
    assert_eq!(app.restarts, 0, "new workers replace nobody");
}

fn a_number_that_is_given_again_has_no_restarts(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let metric = |worker: &str| {
        let series = format!("cluster_worker_restarts_total{{app=\"app\",worker=\"{worker}\"}} ");
        let text = host.cluster(&["metrics"]).ok().stdout;
        text.lines().find_map(|line| line.strip_prefix(&series).map(str::to_owned))
    };
    for pid in host.pids("app") {
        signal(pid, Signal::SIGKILL);
    }
    host.until("app", "has replacements", |app| app.online == 2 && app.restarts == 2);
    assert_eq!(metric("1").as_deref(), Some("1"));

    host.cluster(&["scale", "app", "1"]).ok();
    assert_eq!(metric("1"), None, "there is no such worker");
    host.cluster(&["scale", "app", "2"]).ok();

    let app = host.until_online("app", 2);
    let restarts: Vec<_> = app.workers.iter().map(|worker| worker.restarts).collect();
    assert_eq!((restarts, app.restarts), (vec![1, 0], 1));
    assert_eq!([metric("0").as_deref(), metric("1").as_deref()], [Some("1"), Some("0")]);
}

fn a_worker_that_leaves_finishes_its_request(host: &Host) {
    host.cluster(&["start", &fixture("slow.py"), "-i", "2"]).ok();

    let answers: Vec<_> = thread::scope(|scope| {
        let asked: Vec<_> = (0..8)
            .map(|_| {
                let mut connection = Connection::open(local(8080)).unwrap();
                connection.send("close").unwrap();
                connection
            })
            .collect();
        let scaling = scope.spawn(|| host.cluster(&["scale", "slow", "1"]));
        let answers = asked.into_iter().map(|mut connection| connection.receive()).collect();
        scaling.join().unwrap().ok();
        answers
    });

    assert!(answers.iter().all(Result::is_ok), "{answers:#?}");
    host.until_online("slow", 1);
}

#[test]
fn scaling_under_load_fails_no_request() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("server.js"), "-i", "2"]).ok();
    let load = Load::start(local(8080), 4);
    for wanted in ["4", "1", "3"] {
        host.cluster(&["scale", "server", wanted]).ok();
    }
    let score = load.stop();
    assert_eq!(score.failed(), 0, "{score:#?}");
    assert!(score.answered() > 100);
}

#[test]
fn a_worker_that_drains_is_chosen_no_more() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3", "--drain-timeout", "20s"]).ok();
    let leaving = host.pids("app")[2];
    let mut held = hold_connections(3);

    host.cluster(&["scale", "app", "2", "--no-wait"]).ok();
    host.until("app", "is draining one worker", |app| {
        app.workers.iter().any(|worker| worker.status == Status::Draining)
    });

    host.assert_balanced(local(8080), 2);
    assert!(is_alive(leaving), "it has a connection still");
    for connection in &mut held {
        connection.get().unwrap();
    }
    drop(held);
    host.until_online("app", 2);
    assert!(!is_alive(leaving));
}

/// One open connection to each of `workers` workers.
fn hold_connections(workers: usize) -> Vec<Connection> {
    let mut held: Vec<_> = (0..workers).map(|_| Connection::open(local(8080)).unwrap()).collect();
    for connection in &mut held {
        connection.get().unwrap();
    }
    held
}

#[test]
fn an_app_of_many_workers_is_balanced_too() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "64"]).ok();
    http::assert_exact(local(8080), 129, 64);
}

fn cpus() -> u32 {
    u32::try_from(thread::available_parallelism().unwrap().get()).unwrap()
}
