//! The daemon itself: started by who needs it, one for each home, and gone when told to.

use std::{collections::BTreeSet, fs, os::unix::fs::PermissionsExt as _, thread, time::Instant};

use cluster_tests::{
    api,
    built::fixture,
    host::{Host, is_alive, parent, signal},
    http::local,
    in_both_modes, wait,
};
use nix::sys::signal::Signal;

in_both_modes!(
    it_is_started_by_the_first_command_that_needs_it,
    it_ends_with_everything_it_started,
    commands_at_the_same_moment_share_one_daemon,
    a_socket_left_behind_by_a_killed_daemon_is_no_obstacle,
    it_ends_properly_when_asked_by_a_signal,
    a_killed_daemon_is_back_by_itself,
    a_signal_to_the_guardian_is_one_to_the_daemon,
    a_killed_guardian_is_not_missed,
);

fn it_is_started_by_the_first_command_that_needs_it(host: &Host) {
    assert!(host.processes().is_empty());
    host.cluster(&["start", "app"]).ok();
    let pong = host.ping();
    assert_eq!((pong.mode, pong.home), (host.mode(), host.home()));
    assert!(is_alive(pong.pid));
    let guardian = parent(pong.pid);
    assert_eq!(parent(guardian), 1, "it belongs to no terminal and no shell");
    assert_eq!(host.ping().pid, pong.pid);
}

fn it_ends_with_everything_it_started(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    host.cluster(&["start", &fixture("stubborn.py"), "--kill-timeout", "200ms", "--env", "X=1"])
        .fails(); // The same port.
    let mut pids = host.pids("app");
    pids.push(host.ping().pid);

    host.cluster(&["kill"]).ok();

    assert!(pids.iter().all(|pid| !is_alive(*pid)), "ended when the command returns");
    assert!(host.processes().is_empty());
    assert!(api::sockets(&host.home()).is_empty());
}

fn commands_at_the_same_moment_share_one_daemon(host: &Host) {
    let daemons: BTreeSet<u32> = thread::scope(|scope| {
        let commands: Vec<_> = (0..8)
            .map(|number| {
                scope.spawn(move || {
                    let (name, port) = (format!("app-{number}"), format!("PORT={}", 8080 + number));
                    host.cluster(&["start", "app", "--name", &name, "--env", &port]).ok();
                    host.ping().pid
                })
            })
            .collect();
        commands.into_iter().map(|command| command.join().unwrap()).collect()
    });
    assert_eq!(daemons.len(), 1, "{daemons:?}");
    assert_eq!(host.apps().len(), 8);
}

fn a_socket_left_behind_by_a_killed_daemon_is_no_obstacle(host: &Host) {
    let killed = {
        host.cluster(&["start", "app"]).ok();
        host.cluster(&["delete", "app"]).ok();
        host.ping().pid
    };
    signal(killed, Signal::SIGKILL);
    wait::until_true("the daemon has ended", || !is_alive(killed));

    host.cluster(&["start", "app", "-i", "2"]).ok();

    assert_ne!(host.ping().pid, killed);
    host.assert_balanced(local(8080), 2);
}

fn it_ends_properly_when_asked_by_a_signal(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    signal(host.ping().pid, Signal::SIGTERM);
    wait::until_true("everything has ended", || host.processes().is_empty());
    assert!(api::sockets(&host.home()).is_empty());
}

fn a_killed_daemon_is_back_by_itself(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    let killed = host.ping().pid;
    let guardian = parent(killed);
    let begun = Instant::now();

    signal(killed, Signal::SIGKILL);

    wait::until_true("another answers", || host.cluster(&["ping"]).code == 0);
    println!("it answers {:?} after it was killed", begun.elapsed());
    let next = host.ping().pid;
    assert_ne!(next, killed);
    assert_eq!(parent(next), guardian);
    let held = open_files(guardian);
    assert!(
        held.iter().all(|file| file == "/dev/null" || file.ends_with("daemon.log")),
        "{held:?}"
    );
    // Until what it has begun is a program of its own, it has that one's memory as well.
    wait::until_true("the guardian has little memory of its own", || own_memory(guardian) < 1024);
    host.cluster(&["kill"]).ok();
    assert!(!is_alive(next) && !is_alive(guardian), "both are gone when the command returns");
}

fn a_signal_to_the_guardian_is_one_to_the_daemon(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    signal(parent(host.ping().pid), Signal::SIGTERM);
    wait::until_true("everything has ended", || host.processes().is_empty());
    assert!(api::sockets(&host.home()).is_empty());
}

fn a_killed_guardian_is_not_missed(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    let daemon = host.ping().pid;
    signal(parent(daemon), Signal::SIGKILL);
    wait::until_true("it belongs to nobody", || parent(daemon) == 1);
    host.cluster(&["restart", "app"]).ok();
    assert_eq!(host.ping().pid, daemon);
    host.assert_balanced(local(8080), 1);
}

#[test]
fn two_daemons_at_the_same_moment_are_one() {
    let host = Host::kernel();
    let (one, other) =
        (host.stranger("cluster", &["daemon"]), host.stranger("cluster", &["daemon"]));
    wait::until_true("one has ended", || is_alive(one.pid()) != is_alive(other.pid()));
    let winner = if is_alive(one.pid()) { one.pid() } else { other.pid() };
    wait::until_true("the other answers", || host.cluster(&["ping"]).code == 0);
    assert_eq!(host.ping().pid, winner);
    // The guards kill what still runs, and a daemon that is killed leaves its socket behind.
    host.cluster(&["kill"]).ok();
    assert!(!is_alive(winner));
}

#[test]
fn its_folder_and_socket_are_its_users_alone() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(host.home()), 0o700);
    assert_eq!(mode(api::socket(&host.home())), 0o600);
}

#[test]
fn doctor_says_what_this_host_can_do() {
    let host = Host::kernel();
    let shown = host.cluster(&["doctor"]).ok();
    shown.says("kernel");
}

/// What a process has open.
fn open_files(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    entries.map(|entry| fs::read_link(entry.path()).unwrap().display().to_string()).collect()
}

/// What a process has written and shares with no other, in KiB.
fn own_memory(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let of = |name: &str| -> u64 {
        let line = rollup.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.split_ascii_whitespace().next().unwrap().parse().unwrap()
    };
    println!("guardian: RSS {} KiB, PSS {} KiB", of("Rss:"), of("Pss:"));
    // What is clean are pages of the program's file, and how many at once is the kernel's choice.
    of("Private_Dirty:")
}
