//! Policies against the real kernel program: what each of them picks, and that a switch loses nothing.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::UdpSocket,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use cluster_tests::{
    built::fixture,
    clients::Clients,
    host::{Host, freeze, signal},
    http::{self, Connection, local},
    wait,
};
use nix::sys::signal::Signal;

#[test]
fn least_conn_fills_the_worker_with_the_fewest_connections() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4", "--policy", "least-conn"]).ok();
    let mut held = hold(16);
    let by_worker = who(&mut held);
    assert_eq!(by_worker.values().copied().collect::<Vec<_>>(), [4; 4], "{by_worker:#?}");

    // The connections of one worker end: the next ones are its.
    let free = by_worker.into_keys().next().unwrap();
    held.retain_mut(|connection| connection.get().unwrap() != free);
    wait::until_true("they are closed", || connections(&host) == 12);
    let mut more = hold(4);
    assert_eq!(who(&mut more), BTreeMap::from([(free, 4)]));
}

#[test]
fn sticky_clients_keep_their_worker_when_others_come_and_go() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3", "--policy", "sticky"]).ok();
    let before = homes(8080);
    assert_eq!(
        before.values().collect::<BTreeSet<_>>().len(),
        3,
        "every worker has clients: {before:#?}"
    );
    assert_eq!(homes(8080), before, "each comes back to the same one");

    host.cluster(&["scale", "app", "4"]).ok();
    host.until_online("app", 4);
    let after = homes(8080);
    let moved = before.iter().filter(|(client, home)| after[*client] != **home).count();
    // About a quarter of them; none for another reason than that the new worker has them now.
    assert!(moved > 0 && moved < before.len() / 2, "{moved} of {} moved", before.len());
    let homes_before: BTreeSet<_> = before.values().collect();
    let astray = before.iter().filter(|(client, home)| {
        after[*client] != **home && homes_before.contains(&after[*client])
    });
    assert_eq!(astray.count(), 0, "whoever moved went to the new worker");

    host.cluster(&["scale", "app", "3"]).ok();
    host.until_online("app", 3);
    assert_eq!(homes(8080), before, "and comes back when that has gone");
}

#[test]
fn clients_of_one_network_have_one_home_with_a_prefix() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4", "--policy", "sticky prefix=24"]).ok();
    let near: BTreeSet<_> = (1..40).map(|last| get_from([127, 0, 5, last], 8080)).collect();
    assert_eq!(near.len(), 1, "{near:#?}");
    let far: BTreeSet<_> = (0..40).map(|net| get_from([127, 0, net, 1], 8080)).collect();
    assert_eq!(far.len(), 4, "{far:#?}");
}

#[test]
fn sticky_keeps_the_datagrams_of_a_flow_together() {
    let host = Host::kernel();
    let script = fixture("udp.py");
    host.cluster(&["start", &script, "-i", "4", "--policy", "sticky"])
        .ok()
        .never_mentions("per datagram");
    let flows: Vec<_> = (0..20).map(|_| Flow::new(8080)).collect();
    let first: Vec<_> = flows.iter().map(Flow::ask).collect();
    for _ in 0..3 {
        assert_eq!(flows.iter().map(Flow::ask).collect::<Vec<_>>(), first);
    }
}

#[test]
fn a_reload_waits_for_the_flows_of_datagrams_to_end() {
    let host = Host::kernel();
    let script = fixture("udp.py");
    let start = ["start", &script, "-i", "2", "--policy", "sticky", "--drain-timeout", "20s"];
    host.cluster(&start).ok();
    let flow = Flow::new(8080);
    let home = flow.ask();
    let mut reload = host.begin(&["reload", "udp"]);
    wait::until_true("a new worker has its seat, and the old one drains", || {
        assert_eq!(flow.ask(), home, "it stays where it is");
        host.app("udp").workers.iter().any(|worker| {
            let mut pids = worker.others.iter().filter_map(|other| other.pid);
            pids.any(|pid| home.contains(&format!("pid {pid} ")))
        })
    });
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(4) {
        assert_eq!(flow.ask(), home);
        thread::sleep(Duration::from_millis(50));
    }
    assert!(!reload.has_ended(), "the flow goes on");

    wait::until_true("the reload is done when nothing comes any more", || reload.has_ended());
    reload.end().ok();
    assert_ne!(flow.ask(), home, "and the next one serves it");
}

#[test]
fn a_flow_that_never_ends_holds_up_a_reload_for_as_long_as_is_allowed() {
    let host = Host::kernel();
    let script = fixture("udp.py");
    let start = ["start", &script, "-i", "2", "--policy", "sticky", "--drain-timeout", "3s"];
    host.cluster(&start).ok();
    let flow = Flow::new(8080);
    let home = flow.ask();
    let began = Instant::now();
    let mut reload = host.begin(&["reload", "udp"]);
    wait::until_true("the reload is done", || {
        // What waits at a worker when it is ended is lost, as always with datagrams.
        flow.0.send(b"x").unwrap();
        reload.has_ended()
    });
    reload.end().ok();
    assert!(began.elapsed() >= Duration::from_secs(3), "{:?}", began.elapsed());
    assert_ne!(Flow::new(8080).ask(), home);
}

#[test]
fn a_canary_takes_its_share_of_sticky_clients_and_moves_no_others() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4", "--policy", "sticky"]).ok();
    // Its workers are in other slots then than the first ones were.
    host.cluster(&["reload", "app"]).ok();
    let before = homes(8080);
    host.cluster(&["reload", "app", "--canary", "10%"]).ok();
    let after = homes(8080);
    let moved = before.iter().filter(|(last, home)| after[last] != **home);
    let whereto: BTreeSet<_> = moved.map(|(last, _)| &after[last]).collect();
    let known: BTreeSet<_> = before.values().collect();
    assert!(whereto.is_disjoint(&known), "between the old ones nobody moves: {whereto:?}");
    assert_eq!(whereto.len(), 1, "some come to the canary");
}

#[test]
fn baselines_reach_every_worker() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3"]).ok();
    for policy in
        ["random", "hash", "none", "p2c", "queue", "cpu-local", "least-conn", "round-robin"]
    {
        host.cluster(&["policy", "app", policy]).ok();
        assert_eq!(host.app("app").policy, policy);
        if policy == "cpu-local" {
            http::get(local(8080));
        } else {
            let mut seen = BTreeSet::new();
            wait::until_true(&format!("every worker answers under {policy}"), || {
                seen.insert(http::get(local(8080)));
                seen.len() == 3
            });
        }
    }
    http::assert_exact(local(8080), 31, 3);
}

#[test]
fn a_worker_that_was_slow_once_gets_to_show_that_it_no_longer_is() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2", "--policy", "p2c", "--guard", "off"]).ok();
    let mut connection = Connection::open(local(8080)).unwrap();
    let slow = connection.get().unwrap();
    // So long that no average of the other's comes near it.
    thread::sleep(Duration::from_secs(2));
    drop(connection);
    wait::until_true("the other has an average", || http::get(local(8080)) != slow);
    for _ in 0..20 {
        http::get(local(8080));
    }

    wait::until_true("the one that was slow is picked among the idle", || {
        http::get(local(8080)) == slow
    });
}

#[test]
fn a_frozen_worker_gets_no_more_connections_and_answers_those_it_has_later() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4"]).ok();
    let frozen = host.pids("app")[1];
    freeze(frozen);

    // Some of these wait at it: that is the sign.
    let waiting: Vec<_> = (0..8).map(|_| thread::spawn(|| http::try_get(local(8080)))).collect();
    wait::until_true("the others answer everybody", || answered_soon(40));

    signal(frozen, Signal::SIGCONT);
    for asked in waiting {
        asked.join().unwrap().unwrap();
    }
    wait::until_true("it is chosen again", || {
        http::get(local(8080)).contains(&format!("pid {frozen} "))
    });
}

#[test]
fn no_switch_under_load_fails_a_request() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("pages.js"), "-i", "3"]).ok();
    let before = host.pids("pages");
    let clients = Clients::both(8080);
    for words in [
        &["least-conn"][..],
        &["sticky", "prefix=24"],
        &["p2c", "guard=off"],
        &["none"],
        &["queue", "guard=queue=100"],
        &["hash"],
        &["random", "shed=100000"],
        &["round-robin", "weights=3,1,1"],
    ] {
        let line: Vec<_> = ["policy", "pages"].iter().chain(words).copied().collect();
        host.cluster(&line).ok();
        clients.until_answered(40);
    }
    host.kill_daemon();
    clients.until_answered(40);
    clients.nothing_fails();
    assert_eq!(host.pids("pages"), before);
    assert_eq!(
        host.app("pages").spec.scheduling.to_string(),
        "round-robin weights=3,1,1 guard=queue=100 shed=100000"
    );
}

#[test]
fn a_policy_outlives_the_daemon() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4", "--policy", "sticky"]).ok();
    let before = homes(8080);
    host.kill_daemon();
    assert_eq!(homes(8080), before);
    assert_eq!(host.app("app").policy, "sticky");
    assert_eq!(homes(8080), before);
}

/// So many connections, each of which a worker has answered.
fn hold(count: usize) -> Vec<Connection> {
    (0..count)
        .map(|_| {
            let mut connection = Connection::open(local(8080)).unwrap();
            connection.get().unwrap();
            connection
        })
        .collect()
}

/// How many of them each worker has.
fn who(held: &mut [Connection]) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for connection in held {
        *counts.entry(connection.get().unwrap()).or_default() += 1;
    }
    counts
}

/// Which worker answers each of many clients, by the last numbers of their addresses.
fn homes(port: u16) -> BTreeMap<u8, String> {
    (1..=60).map(|last| (last, get_from([127, 0, 0, last], port))).collect()
}

/// One request from that address.
fn get_from(source: [u8; 4], port: u16) -> String {
    Connection::open_from(source.into(), local(port)).unwrap().get().unwrap()
}

/// Connections that workers have.
fn connections(host: &Host) -> u64 {
    let apps = host.cluster(&["list", "-v", "--json"]).ok().json();
    let workers = apps[0]["workers"].as_array().unwrap();
    workers.iter().filter_map(|worker| worker["connections"].as_u64()).sum()
}

/// Whether so many requests in a row are answered without waiting for anybody.
fn answered_soon(requests: usize) -> bool {
    (0..requests).all(|_| {
        let (answered, answer) = mpsc::channel();
        thread::spawn(move || answered.send(http::try_get(local(8080))));
        matches!(answer.recv_timeout(Duration::from_secs(3)), Ok(Ok(_)))
    })
}

/// Datagrams of one client.
struct Flow(UdpSocket);

impl Flow {
    fn new(port: u16) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.connect(local(port)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(socket)
    }

    /// Who answers.
    fn ask(&self) -> String {
        self.0.send(b"x").unwrap();
        let mut answer = [0; 200];
        let length = self.0.recv(&mut answer).unwrap();
        String::from_utf8_lossy(&answer[..length]).into_owned()
    }
}
