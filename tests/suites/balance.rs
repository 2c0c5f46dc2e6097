//! Round robin is exact, whatever else arrives and whoever comes and goes.

use std::{collections::BTreeMap, thread};

use cluster_tests::{
    host::{Host, signal},
    http::{self, local, spread},
    load::Load,
    namespace::sysctl,
    segments::{ACK, FIN, RST, Strays},
};
use nix::sys::signal::Signal;

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
    host.cluster(&["start", "app", "-i", "3"]).ok();

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
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let staying = host.pids("app");

    let load = Load::start(local(8080), 4);
    for wanted in ["5", "4", "6", "3"] {
        host.cluster(&["scale", "app", wanted]).ok();
        host.until_online("app", wanted.parse().unwrap());
    }
    let score = load.stop();

    assert_eq!(score.failed(), 0, "{:#?}", score.failures);
    let counts: BTreeMap<_, _> = score
        .answers
        .into_iter()
        .filter(|(answer, _)| staying.iter().any(|pid| answer.starts_with(&format!("pid {pid} "))))
        .collect();
    assert_eq!(counts.len(), 3, "{counts:#?}");
    // A change of the route may cut a round short once: 2 + 1 + 2 + 3 workers came or went.
    assert!(spread(&counts) <= 1 + 8, "{counts:#?}");
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

fn assert_exact_with_cookies(setting: &str) {
    let host = Host::kernel();
    sysctl("net/ipv4/tcp_syncookies", setting);
    host.cluster(&["start", "app", "-i", "4"]).ok();

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
