//! Daemons that die in the middle of something: it goes on or goes back, and comes to rest.

use cluster_tests::{
    clients::{Clients, assert_served_by},
    deploy::{self, held},
    host::{Host, is_alive, parent, signal},
    http::{self, local},
    in_both_modes, leftover, wait,
};
use nix::sys::signal::Signal;

in_both_modes!(
    a_reload_goes_on_without_the_daemon_that_began_it,
    a_bad_version_goes_back_without_the_daemon_that_began_it,
    a_canary_stays_one,
);

fn a_reload_goes_on_without_the_daemon_that_began_it(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.deploy(&held());
    let mut reload = host.begin(&["reload", "web", "--json", "--env", "MODE=b"]);
    reload.until_says("starting");

    host.kill_daemon();

    reload.end().fails().code(1);
    assert_eq!(host.pids("web"), before);
    let reload = host.app("web").reload.expect("it goes on");
    assert_eq!(reload.generation.0, 2);
    host.cluster(&["reload", "web"]).fails().code(1).complains("is being reloaded, by");
    host.let_go();
    host.until("web", "has been reloaded", |app| app.generation.0 == 2 && app.reload.is_none());
    assert!(before.iter().all(|pid| !is_alive(*pid)));
    host.cluster(&["env", "web"]).ok().says("MODE=b");
    assert_eq!(host.history("web")[0].outcome, "done");
    assert_served_by(8080, &host.pids("web"));
}

fn a_bad_version_goes_back_without_the_daemon_that_began_it(host: &Host) {
    let before = host.start_web(2, &["--listen-timeout", "3s"]);
    let clients = Clients::both(8080);
    host.deploy(&deploy::after(
        "while (!require('node:fs').existsSync('go')) {
          Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 10);
        }
        console.error('settings are missing');
        process.exit(1);",
    ));
    let mut reload = host.begin(&["reload", "web", "--json", "--env", "MODE=b"]);
    reload.until_says("starting");
    host.kill_daemon();
    // It is seen how it ends.
    assert_eq!(host.pids("web"), before);
    host.let_go();

    host.until("web", "is what it was", |app| app.reload.is_none());

    reload.end().fails().code(1);
    clients.nothing_fails();
    assert_eq!(host.pids("web"), before);
    let last = host.history("web").pop().unwrap();
    assert_eq!(last.outcome, "failed");
    assert!(last.reason.unwrap().contains("exited with code 1"));
    host.cluster(&["env", "web"]).ok().never_mentions("MODE=b");
}

fn a_canary_stays_one(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.cluster(&["reload", "web", "--canary", "1/4"]).ok();
    let canary = host.app("web").workers[0].others[0].clone();

    host.kill_daemon();

    assert_eq!(host.pids("web"), before);
    assert_eq!(host.app("web").workers[0].others[0], canary);
    host.cluster(&["promote", "web"]).ok();
    assert!(host.pids("web").contains(&canary.pid.unwrap()));
    assert_served_by(8080, &host.pids("web"));
}

#[test]
fn a_canary_keeps_its_exact_share() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let old = host.pids("app");
    host.cluster(&["reload", "app", "--canary", "1/4"]).ok();
    let by_new = || {
        let answers = http::tally(local(8080), 100);
        let is_old =
            |answer: &String| old.iter().any(|pid| answer.starts_with(&format!("pid {pid} ")));
        answers.iter().filter(|(answer, _)| !is_old(answer)).map(|(_, count)| count).sum::<u32>()
    };
    assert_eq!(by_new(), 25);
    host.kill_daemon_and_guardian();
    assert_eq!(by_new(), 25, "while there is no daemon");
    host.cluster(&["list"]).ok();
    assert_eq!(by_new(), 25, "with the next one");
    host.cluster(&["rollback", "app"]).ok();
    assert_eq!(by_new(), 0);
    assert_eq!(host.pids("app"), old);
}

/// Each word is a step of a reload; at each the daemon is killed, and the reload comes to its end all the same.
#[test]
fn a_reload_survives_its_daemon_at_every_step() {
    let host = Host::kernel();
    host.start_web(3, &["--drain-timeout", "3s"]);
    let clients = Clients::both(8080);
    for (count, step) in
        ["starting", "soaking", "serving", "draining", "stopping", "gone"].iter().enumerate()
    {
        let before = host.app("web").generation.0;
        let mut reload =
            host.begin(&["reload", "web", "--batch", "2", "--soak", "100ms", "--json"]);
        reload.until_says(&format!(r#""step":"{step}""#));
        if count % 2 == 0 {
            host.kill_daemon();
        } else {
            host.kill_daemon_and_guardian();
        }
        drop(reload);
        let app = host.until("web", "has come to rest", |app| {
            app.reload.is_none()
                && app.online == 3
                && app.workers.iter().all(|worker| worker.others.is_empty())
        });
        assert_eq!(app.generation.0, before + 1, "killed when one was {step}");
        assert!(app.workers.iter().all(|worker| worker.generation == app.generation), "{app:#?}");
        assert_served_by(8080, &host.pids("web"));
    }
    clients.nothing_fails();
    assert_only_workers_are_left(&host);
}

#[test]
fn killed_again_and_again_it_comes_to_rest() {
    let host = Host::kernel();
    host.start_web(2, &["--drain-timeout", "3s"]);
    let clients = Clients::both(8080);
    for round in 0..20 {
        let words: &[&str] = match round % 4 {
            0 => &["reload", "web", "--force"],
            1 => &["scale", "web", "4", "--no-wait"],
            2 => &["reload", "web", "--force", "--batch", "100%"],
            _ => &["scale", "web", "2", "--no-wait"],
        };
        let mut command = host.begin(words);
        // A little later each time; commands may find nobody, or be broken off.
        clients.until_answered(1 + 2 * round);
        let killed = host.ping().pid;
        signal(killed, Signal::SIGKILL);
        wait::until_true("the daemon has ended", || !is_alive(killed));
        wait::until_true("the command has ended", || command.has_ended());
    }
    host.until("web", "has come to rest", |app| app.reload.is_none());
    host.cluster(&["scale", "web", "3"]).ok();
    host.cluster(&["reload", "web"]).ok();
    clients.nothing_fails();
    let app = host.until_online("web", 3);
    assert!(app.workers.iter().all(|worker| worker.generation == app.generation), "{app:#?}");
    assert_served_by(8080, &host.pids("web"));
    assert_only_workers_are_left(&host);
    let programs = leftover::held_programs(host.ping().pid);
    assert!(programs.len() < 20, "the programs of its predecessors are gone: {programs:?}");
}

/// Checks that daemon, guardian and workers are all there is.
#[track_caller]
fn assert_only_workers_are_left(host: &Host) {
    let daemon = host.ping().pid;
    let mut expected = host.pids("web");
    expected.extend([daemon, parent(daemon)]);
    expected.sort_unstable();
    wait::until_true("nobody is left of those before", || {
        let mut processes = host.processes();
        processes.sort_unstable();
        processes == expected
    });
}
