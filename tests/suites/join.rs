//! Unmodified programs of many languages share a port, because nothing is asked of them.

use std::collections::BTreeMap;

use cluster_tests::{
    built::{fixture, static_go_server},
    host::Host,
    http::{self, local},
    in_both_modes,
};

in_both_modes!(
    a_rust_server_shares_its_port,
    a_node_server_shares_its_port,
    a_python_server_shares_its_port,
    a_ruby_server_shares_its_port,
    a_php_server_shares_its_port,
    a_static_go_server_shares_its_port,
    an_nginx_shares_its_port,
    a_server_that_shares_its_port_by_its_own_will_just_joins,
    a_worker_that_forks_is_one_worker,
);

fn a_rust_server_shares_its_port(host: &Host) {
    shares(host, &["app"]);
}

fn a_node_server_shares_its_port(host: &Host) {
    shares(host, &[&fixture("server.js")]);
}

fn a_python_server_shares_its_port(host: &Host) {
    shares(host, &[&fixture("server.py")]);
}

fn a_ruby_server_shares_its_port(host: &Host) {
    shares(host, &[&fixture("server.rb")]);
}

fn a_php_server_shares_its_port(host: &Host) {
    shares(host, &[&fixture("server.php")]);
}

fn a_static_go_server_shares_its_port(host: &Host) {
    shares(host, &[&static_go_server().to_string_lossy()]);
}

fn an_nginx_shares_its_port(host: &Host) {
    let work = host.work();
    shares(host, &["nginx", "--", "-p", &work.to_string_lossy(), "-c", &fixture("nginx.conf")]);
}

fn a_server_that_shares_its_port_by_its_own_will_just_joins(host: &Host) {
    shares(host, &[&fixture("reuseport.py")]);
}

fn a_worker_that_forks_is_one_worker(host: &Host) {
    host.cluster(&["start", &fixture("forks.py"), "-i", "2"]).ok();

    let answers = http::tally(local(8080), 40);
    let mut workers = BTreeMap::<&str, u32>::new();
    for (answer, count) in &answers {
        let (worker, _child) = answer.split_once(" child ").unwrap();
        *workers.entry(worker).or_default() += count;
    }
    assert_eq!(workers.len(), 2, "{answers:#?}");

    let app = host.app("forks");
    assert_eq!((app.online, app.workers.len()), (2, 2));
    assert_eq!(app.ports[0].workers, 2);
}

#[test]
fn the_servers_that_come_with_python_share_a_port() {
    let host = Host::kernel();
    let args =
        ["start", "python3", "-i", "3", "--name", "files", "--", "-m", "http.server", "8080"];
    host.cluster(&args).ok();

    for _ in 0..30 {
        http::get(local(8080));
    }
    let app = host.app("files");
    let chosen: Vec<_> = app.workers.iter().map(|worker| worker.selected).collect();
    assert_eq!(chosen, [Some(10); 3]);
}

#[test]
fn workers_of_different_languages_do_not_meet() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["start", &fixture("server.py"), "-i", "3", "--env", "PORT=8081"]).ok();
    host.cluster(&[
        "start",
        &fixture("server.js"),
        "-i",
        "2",
        "--name",
        "node",
        "--env",
        "PORT=8082",
    ])
    .ok();

    host.assert_balanced(local(8080), 2);
    host.assert_balanced(local(8081), 3);
    host.assert_balanced(local(8082), 2);
}

/// Starts four workers and finds all four behind port 8080.
#[track_caller]
fn shares(host: &Host, what: &[&str]) {
    host.cluster(&[&["start", "-i", "4"], what].concat()).ok();
    host.assert_balanced(local(8080), 4);

    let app = host.apps().remove(0);
    assert_eq!((app.mode, app.online, app.restarts), (host.mode(), 4, 0), "{app:#?}");
}
