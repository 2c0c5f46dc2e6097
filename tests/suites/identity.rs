//! Who each worker is: its variables, and the file with its process id.

use std::fs;

use cluster_tests::{
    built::fixture,
    command,
    deploy::good,
    host::{Host, signal},
    http::{self, local},
    in_both_modes, wait,
};
use nix::sys::signal::Signal;

in_both_modes!(
    a_number_is_the_same_after_a_crash_and_a_reload,
    every_worker_may_have_a_port_of_its_own,
    a_pid_file_names_its_worker_as_long_as_there_is_one,
);

fn a_number_is_the_same_after_a_crash_and_a_reload(host: &Host) {
    host.cluster(&["start", "app", "-n", "first", "--env", "PORT=8081"]).ok();
    host.cluster(&["start", "app", "-i", "3", "--instance-var", "NUMBER"]).ok();
    let check = || {
        for (instance, pid) in host.pids("app").into_iter().enumerate() {
            let env = environment(pid);
            assert_eq!(env["NUMBER"], instance.to_string());
            assert_eq!(env["pm_id"], (1024 + instance).to_string());
            assert_eq!(env["name"], "app");
            assert!(!env.contains_key("NODE_APP_INSTANCE"));
        }
    };
    check();
    signal(host.pids("app")[1], Signal::SIGKILL);
    host.until_online("app", 3);
    check();
    host.cluster(&["scale", "app", "2"]).ok();
    host.cluster(&["scale", "app", "4"]).ok();
    host.cluster(&["reload", "app"]).ok();
    check();
    assert_eq!(host.pids("app").len(), 4);
}

fn every_worker_may_have_a_port_of_its_own(host: &Host) {
    let start = ["start", &fixture("health.js"), "-i", "2", "--port", "9000"];
    host.cluster(&[&start[..], &["--increment-var", "PORT"]].concat()).ok();
    let pids: Vec<String> = host.pids("health").iter().map(u32::to_string).collect();
    assert_eq!([http::get(local(9000)), http::get(local(9001))], [&*pids[0], &*pids[1]]);
    host.cluster(&["delete", "health"]).ok();

    // One port: it is balanced, and told.
    host.cluster(&start).ok();
    host.assert_balanced(local(9000), 2);
}

fn a_pid_file_names_its_worker_as_long_as_there_is_one(host: &Host) {
    host.start_web(2, &["--pid-file", "web.pid"]);
    let path = |name: &str| host.work().join(name);
    let read = |name: &str| fs::read_to_string(path(name)).ok()?.trim().parse::<u32>().ok();
    let both = || [read("web.pid"), read("web-1.pid")];
    let check = || {
        let pids: Vec<_> = host.pids("web").into_iter().map(Some).collect();
        wait::until_true("the files name the workers", || both()[..] == pids);
    };
    check();
    host.cluster(&["reload", "web"]).ok();
    check();
    // A new one that fails gives the file back.
    host.deploy("throw new Error('broken')");
    host.cluster(&["reload", "web"]).fails();
    host.deploy(&good());
    check();
    signal(host.pids("web")[0], Signal::SIGKILL);
    host.until_online("web", 2);
    check();
    host.cluster(&["scale", "web", "1"]).ok();
    wait::until_true("one file is gone", || !path("web-1.pid").exists());
    host.cluster(&["stop", "web"]).ok();
    wait::until_true("both files are gone", || !path("web.pid").exists());
}

#[test]
fn a_pid_file_that_cannot_be_written_stops_no_app() {
    let host = Host::plain();
    host.cluster(&["start", "app", "--pid-file", "/no/where/app.pid"]).ok();
    let trouble = host.until_happened("app", cluster_user::api::message::What::Trouble);
    assert!(trouble.detail.unwrap().contains("/no/where/app.pid"));
}

#[test]
fn the_shell_of_a_pm2_user_says_what_is_usual() {
    let host = Host::plain();
    let start = |name: &str, value: &str, more: &[&str]| {
        let mut command = host.command("cluster");
        command.args(["start", "app"]).args(more).env(name, value);
        command::run(&mut command)
    };
    start("PM2_KILL_SIGNAL", "SIGINT", &[]).ok();
    assert_eq!(host.app("app").spec.stop.signal, 2);
    start("PM2_KILL_TIMEOUT", "5000", &["-n", "b", "--env", "PORT=8081"]).ok();
    assert_eq!(host.app("b").spec.stop.kill_timeout.as_secs(), 5);
    let refused = start("PM2_KILL_TIMEOUT", "soon", &["-n", "c"]);
    refused.code(2).complains("PM2_KILL_TIMEOUT is `soon`");
    let given = start(
        "PM2_KILL_TIMEOUT",
        "soon",
        &["-n", "d", "--kill-timeout", "1s", "--env", "PORT=8082"],
    );
    given.ok();
}

#[test]
fn a_variable_that_cannot_be_counted_up_is_refused() {
    let host = Host::plain();
    let start = ["start", "app", "--increment-var"];
    host.cluster(&[&start[..], &["NOWHERE"]].concat()).code(2).complains("--env NOWHERE=3000");
    host.cluster(&[&start[..], &["X", "--env", "X=a"]].concat()).code(2).complains("no number");
    host.cluster(&["start", "app", "--instance-var", "A=B"]).code(2).complains("A=B");
}

fn environment(pid: u32) -> std::collections::BTreeMap<String, String> {
    let text = fs::read(format!("/proc/{pid}/environ")).unwrap();
    let text = String::from_utf8(text).unwrap();
    let pairs = text.split('\0').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}
