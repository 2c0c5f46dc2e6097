//! Round robin is exact, whatever else arrives and whoever comes and goes.

use std::{collections::BTreeMap, thread};

use cluster_tests::{
    built::fixture,
    host::{Host, signal},
    http::{self, local, spread},
    load::{Load, Score},
    namespace::sysctl,
    segments::{ACK, FIN, Flood, RST, Strays},
};
use cluster_user::api::message::WorkerView;
use nix::sys::signal::Signal;

/// The guard leaves out a worker that does not accept for some milliseconds, as happens to a process on a busy host.
const UNGUARDED: &str = "--guard=off";

#[test]
fn eighty_requests_over_eight_workers_are_ten_each() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "8"]).ok();

    let answers = http::tally(local(8080), 80);

    assert_eq!(answers.values().copied().collect::<Vec<_>>(), [10; 8], "{answers:#?}");
}

#[test]
fn the_first_connection_counts_already() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4"]).ok();

    assert_eq!(http::tally(local(8080), 4).len(), 4);
}

#[test]
fn it_is_exact_without_syn_cookies() {
    assert_exact_with_cookies("0");
}

#[test]
fn it_is_exact_with_syn_cookies_when_needed() {
    assert_exact_with_cookies("1");
}

#[test]
fn it_is_exact_with_nothing_but_syn_cookies() {
    assert_exact_with_cookies("2");
    assert!(cookies_sent() > 0, "this test is about syn cookies, and none was sent");
}

#[test]
fn it_is_exact_for_clients_at_the_same_time() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3", UNGUARDED]).ok();

    let counts = parallel_requests(4, 500);

    assert_eq!(counts.len(), 3, "{counts:#?}");
    assert!(spread(&counts) <= 1, "{counts:#?}");
}

#[test]
fn segments_of_no_connection_move_nothing() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4"]).ok();

    let answers = thread::scope(|scope| {
        scope.spawn(|| {
            let strays = Strays::to(8080);
            for number in 0..20_000_u16 {
                for flags in [RST, FIN | ACK, ACK] {
                    strays.send(10_000 + number % 5_000, flags);
                }
            }
        });
        http::tally(local(8080), 401)
    });

    assert_eq!(answers.len(), 4, "{answers:#?}");
    assert!(spread(&answers) <= 1, "{answers:#?}");
}

#[test]
fn workers_that_stay_share_exactly_while_others_come_and_go() {
    assert_no_one_fails(&assert_stayers_share_exactly("1", come_and_go));
}

#[test]
fn workers_that_stay_share_exactly_without_syn_cookies() {
    assert_no_one_fails(&assert_stayers_share_exactly("0", come_and_go));
}

#[test]
fn workers_that_stay_share_exactly_with_nothing_but_syn_cookies() {
    assert_no_one_fails(&assert_stayers_share_exactly("2", come_and_go));
}

#[test]
fn workers_that_stay_share_exactly_while_others_are_killed() {
    // A request that a killed worker had accepted is lost with it.
    let _score = assert_stayers_share_exactly("1", |host| {
        host.cluster(&["scale", "app", "5"]).ok();
        for victim in [3, 4, 3, 4] {
            let pid = host.pids("app")[victim];
            signal(pid, Signal::SIGKILL);
            host.until("app", "has a replacement online", |app| {
                app.online == 5 && app.workers[victim].pid != Some(pid)
            });
        }
    });
}

#[test]
fn it_is_exact_again_as_soon_as_a_killed_worker_is_replaced() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4"]).ok();
    for _ in 0..3 {
        let victim = host.pids("app")[2];
        signal(victim, Signal::SIGKILL);
        host.until("app", "has a replacement online", |app| {
            app.online == 4 && app.workers[2].pid != Some(victim)
        });
        http::assert_exact(local(8080), 43, 4);
    }
}

#[test]
fn what_the_kernel_counts_is_what_clients_see() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3"]).ok();
    http::tally(local(8080), 31);

    let app = host.app("app");
    let mut counts: Vec<_> = app.workers.iter().map(|worker| worker.selected.unwrap()).collect();
    counts.sort_unstable();
    assert_eq!(counts, [10, 10, 11]);
    assert_eq!(app.policy, "round-robin");
}

/// Scales up and down around three workers that stay.
fn come_and_go(host: &Host) {
    for wanted in ["5", "4", "6", "3"] {
        host.cluster(&["scale", "app", wanted]).ok();
        host.until_online("app", wanted.parse().unwrap());
    }
}

fn assert_no_one_fails(score: &Score) {
    assert_eq!(score.failed(), 0, "{:#?}", score.failures);
}

/// Three workers stay, others do not, under load and a flood of stray segments: over all that time no two of the three
/// get numbers of connections that differ by more than one.
fn assert_stayers_share_exactly(cookies: &str, meanwhile: impl Fn(&Host)) -> Score {
    let host = Host::kernel();
    sysctl("net/ipv4/tcp_syncookies", cookies);
    host.cluster(&["start", "app", "-i", "3", UNGUARDED]).ok();
    let staying = host.pids("app");

    let (load, flood) = (Load::start(local(8080), 4), Flood::start(8080));
    meanwhile(&host);
    let score = load.stop();
    flood.stop();

    let app = host.app("app");
    assert_eq!(host.pids("app")[..3], staying);
    // A connection that waited at a killed worker takes a turn of the one it moves to.
    let turns = |worker: &WorkerView| worker.selected.unwrap() + worker.migrated.unwrap();
    let chosen: Vec<_> = app.workers[..3].iter().map(turns).collect();
    let difference = chosen.iter().max().unwrap() - chosen.iter().min().unwrap();
    assert!(difference <= 1 && chosen[0] > 100, "{chosen:?}");
    if cookies == "2" {
        // The last ACK of a handshake during which the route changed has a turn of its own, which counts apart.
        assert!(cookies_sent() > 0, "this test is about syn cookies, and none was sent");
        return score;
    }
    let answers: BTreeMap<_, _> = score
        .answers
        .iter()
        .filter(|(answer, _)| staying.iter().any(|pid| answer.starts_with(&format!("pid {pid} "))))
        .map(|(answer, count)| (answer.clone(), *count))
        .collect();
    assert!(answers.len() == 3 && spread(&answers) <= 1, "{answers:#?}");
    score
}

fn assert_exact_with_cookies(setting: &str) {
    let host = Host::kernel();
    sysctl("net/ipv4/tcp_syncookies", setting);
    host.cluster(&["start", "app", "-i", "4", UNGUARDED]).ok();

    http::assert_exact(local(8080), 103, 4);
    let counts = parallel_requests(4, 100);
    assert!(counts.len() == 4 && spread(&counts) <= 1, "{counts:#?}");
}

/// `clients` clients ask `requests` times each; how often each answer was given.
fn parallel_requests(clients: usize, requests: u32) -> BTreeMap<String, u32> {
    thread::scope(|scope| {
        let clients: Vec<_> =
            (0..clients).map(|_| scope.spawn(move || http::tally(local(8080), requests))).collect();
        let mut total = BTreeMap::new();
        for client in clients {
            for (answer, count) in client.join().unwrap() {
                *total.entry(answer).or_default() += count;
            }
        }
        total
    })
}

/// `SyncookiesSent` of this thread's network.
fn cookies_sent() -> u64 {
    let table = std::fs::read_to_string("/proc/thread-self/net/netstat").unwrap();
    let mut lines = table.lines().filter(|line| line.starts_with("TcpExt:"));
    let (names, values) = (lines.next().unwrap(), lines.next().unwrap());
    let at = names.split(' ').position(|name| name == "SyncookiesSent").unwrap();
    values.split(' ').nth(at).unwrap().parse().unwrap()
}

#[test]
fn a_worker_that_listens_several_times_on_a_port_gets_no_more_than_the_others() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("crew.py"), "-i", "3"]).ok();
    http::assert_exact(local(8080), 31, 3);
    let app = host.until_online("crew", 3);
    assert_eq!(app.ports[0].workers, 3);
}
