//! Daemons that die: their workers serve on, and the next daemon goes on where they were.

use std::{collections::BTreeMap, fs, path::Path};

use cluster_tests::{
    built::fixture,
    clients::{Clients, assert_served_by},
    command::Output,
    deploy::{self, held},
    host::{Host, is_alive, parent, signal},
    http::{self, local},
    in_both_modes, leftover, wait,
};
use cluster_user::{
    api::message::{AppView, Status},
    config::home::Home,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Exit code when there is no daemon.
const NO_DAEMON: i32 = 3;

in_both_modes!(
    nobody_notices_that_the_daemon_dies,
    the_next_daemon_knows_what_the_one_before_it_knew,
    workers_write_on_and_no_line_is_lost,
    everything_works_with_the_next_daemon,
    the_next_command_starts_a_daemon,
    killing_what_has_no_daemon_leaves_nothing,
    who_dies_while_there_is_no_daemon_is_replaced,
    what_was_stopped_stays_stopped,
    a_journal_that_is_cut_off_is_set_aside,
    a_journal_of_nonsense_is_set_aside,
    a_journal_from_the_future_is_set_aside,
    a_journal_that_is_gone_is_not_missed,
    a_journal_of_an_earlier_boot_is_nothing,
    a_reload_goes_on_without_the_daemon_that_began_it,
    a_bad_version_goes_back_without_the_daemon_that_began_it,
    a_canary_stays_one,
);

fn nobody_notices_that_the_daemon_dies(host: &Host) {
    host.cluster(&["start", &fixture("pages.js"), "-i", "3"]).ok();
    let before = host.pids("pages");
    let clients = Clients::both(8080);

    for _ in 0..2 {
        clients.until_answered(20);
        kill_daemon(host);
        clients.until_answered(20);
        assert_eq!(host.pids("pages"), before);
    }

    clients.nothing_fails();
    host.until_online("pages", 3);
    assert_served_by(8080, &before);
}

fn the_next_daemon_knows_what_the_one_before_it_knew(host: &Host) {
    for (name, port) in [("zero", "PORT=8081"), ("one", "PORT=8082"), ("two", "PORT=8083")] {
        host.cluster(&["start", "app", "--name", name, "-i", "2", "--env", port]).ok();
    }
    host.cluster(&["delete", "zero"]).ok();
    let killed = host.pids("one")[1];
    signal(killed, Signal::SIGKILL);
    host.until("one", "has a replacement", |app| {
        app.online == 2 && app.workers[1].pid != Some(killed)
    });
    host.cluster(&["reload", "two", "--env", "MODE=b"]).ok();
    let before = host.apps();
    let history = host.history("two");

    kill_daemon(host);

    let after = host.apps();
    assert_eq!(after.len(), 2);
    for (before, after) in before.iter().zip(&after) {
        assert_eq!(known(before), known(after));
        assert_eq!(before.spec, after.spec);
        assert_eq!(before.created_ms / 1_000, after.created_ms / 1_000);
    }
    assert_eq!(host.app("one").workers[1].restarts, 1);
    let same = host.history("two");
    assert_eq!(
        (same.len(), &same[0].outcome, &same[0].who),
        (1, &history[0].outcome, &history[0].who)
    );
    // Numbers that were given are not given again.
    host.cluster(&["start", "app", "--name", "three", "--env", "PORT=8084"]).ok();
    assert_eq!(host.app("three").id.0, 3);
    for port in [8082, 8083] {
        host.assert_balanced(local(port), 2);
    }
}

/// What must not change when a daemon takes an app over.
fn known(app: &AppView) -> impl PartialEq + std::fmt::Debug + use<> {
    let workers: Vec<_> = app
        .workers
        .iter()
        .map(|worker| {
            (worker.instance, worker.generation, worker.pid, worker.status, worker.restarts)
        })
        .collect();
    (app.id, app.name.clone(), app.generation, app.status, app.online, app.ports.clone(), workers)
}

fn workers_write_on_and_no_line_is_lost(host: &Host) {
    host.cluster(&["start", &fixture("counts.py")]).ok();
    let log = host.app("counts").workers.remove(0).logs.out;
    let first = host.pids("counts")[0];
    for _ in 0..3 {
        until_longer(&log, first);
        kill_daemon(host);
        until_longer(&log, first);
    }
    signal(first, Signal::SIGKILL);
    let app = host.until("counts", "has a replacement", |app| {
        app.online == 1 && app.workers[0].pid != Some(first)
    });
    let second = app.workers[0].pid.unwrap();
    until_longer(&log, second);
    // Now without a guardian: nobody is there for a while.
    kill_both(host);
    let before = written_by(second);
    wait::until_true("it writes while nobody reads", || written_by(second) > before + 500);
    assert_eq!(host.pids("counts"), [second]);
    until_longer(&log, second);
    assert_eq!(host.app("counts").workers[0].logs.out, log);
    host.cluster(&["stop", "counts"]).ok();

    let written = numbers(&log);
    assert_eq!(written.keys().copied().collect::<Vec<_>>().len(), 2);
    for (pid, numbers) in written {
        let all: Vec<_> = (0..u64::try_from(numbers.len()).unwrap()).collect();
        assert_eq!(numbers, all, "every line of {pid} once");
    }
}

/// The numbers that each process wrote, in order.
fn numbers(log: &Path) -> BTreeMap<u32, Vec<u64>> {
    let mut written: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    let text = fs::read_to_string(log).unwrap();
    // The last line may not be complete.
    for line in text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n')) {
        let (pid, number) = line.split_once(" line ").unwrap_or_else(|| panic!("`{line}`"));
        written.entry(pid.parse().unwrap()).or_default().push(number.parse().unwrap());
    }
    written
}

fn until_longer(log: &Path, pid: u32) {
    let lines = || numbers(log).get(&pid).map_or(0, Vec::len);
    let before = lines();
    wait::until_true("more lines are in the log", || lines() > before + 20);
}

/// Bytes that a process has written to anything so far (`proc_pid_io(5)`).
fn written_by(pid: u32) -> u64 {
    let counts = fs::read_to_string(format!("/proc/{pid}/io")).unwrap();
    counts.lines().find_map(|line| line.strip_prefix("wchar: ")).unwrap().parse().unwrap()
}

fn everything_works_with_the_next_daemon(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    let clients =
        matches!(host.mode(), cluster_user::datapath::Mode::Kernel).then(|| Clients::both(8080));
    kill_daemon(host);

    host.cluster(&["scale", "web", "4"]).ok();
    let app = host.until_online("web", 4);
    assert_eq!(host.pids("web")[..2], before);
    assert_eq!(app.ports[0].workers, 4);
    kill_daemon(host);
    host.cluster(&["scale", "web", "1"]).ok();
    assert_eq!(host.pids("web"), before[..1]);
    kill_daemon(host);
    host.cluster(&["reload", "web", "--env", "MODE=b"]).ok();
    assert!(!is_alive(before[0]));
    kill_daemon(host);
    host.cluster(&["rollback", "web"]).ok();
    host.cluster(&["restart", "web"]).ok();

    if let Some(clients) = clients {
        clients.nothing_fails();
    }
    host.until_online("web", 1);
    assert_served_by(8080, &host.pids("web"));
    host.cluster(&["stop", "web"]).ok();
    kill_daemon(host);
    host.cluster(&["start", "web"]).ok();
    host.cluster(&["delete", "web"]).ok();
    assert!(http::try_get(local(8080)).is_err());
}

fn the_next_command_starts_a_daemon(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");
    for words in [
        &["list"][..],
        &["ping"],
        &["jlist"],
        &["pid", "app"],
        &["describe", "app"],
        &["logs", "app", "--nostream"],
        &["scale", "app", "2"],
        &["history", "app"],
        &["start", "app", "--name", "other", "--env", "PORT=8081"],
    ] {
        let killed = kill_both(host);
        assert!(before.iter().all(|pid| is_alive(*pid)));
        assert_eq!(http::tally(local(8080), 10).values().sum::<u32>(), 10, "they serve on");

        let said = host.cluster(words).ok();

        let pid = host.ping().pid;
        assert_ne!(pid, killed);
        let notice = format!("the daemon had been killed; started another (pid {pid})");
        let said = said.complains(&notice);
        assert_eq!(said.stderr.matches("started another").count(), 1, "{said:?}");
        assert_eq!(host.pids("app"), before, "{words:?}");
        host.cluster(&["list"]).ok().never_mentions("started another");
    }
    host.assert_balanced(local(8080), 2);
    host.assert_balanced(local(8081), 1);
}

fn killing_what_has_no_daemon_leaves_nothing(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");
    kill_both(host);

    host.cluster(&["kill"]).ok().says("stopped");

    assert!(before.iter().all(|pid| !is_alive(*pid)));
    assert!(host.processes().is_empty());
    host.cluster(&["list"]).ok().complains("no daemon is running");
    host.cluster(&["ping"]).fails().code(NO_DAEMON);
}

fn who_dies_while_there_is_no_daemon_is_replaced(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let before = host.pids("app");
    kill_both(host);
    signal(before[1], Signal::SIGKILL);
    wait::until_true("it has ended", || !is_alive(before[1]));

    let app = host.until_online("app", 3);

    let now: Vec<_> = app.workers.iter().map(|worker| worker.pid.unwrap()).collect();
    assert!(
        now[0] == before[0] && now[1] != before[1] && now[2] == before[2],
        "{before:?} {now:?}"
    );
    assert_eq!(app.workers[1].restarts, 1);
    host.assert_balanced(local(8080), 3);
    // And when nobody is left at all.
    kill_both(host);
    for pid in &now {
        signal(*pid, Signal::SIGKILL);
        wait::until_true("it has ended", || !is_alive(*pid));
    }
    host.until_online("app", 3);
    host.assert_balanced(local(8080), 3);
}

fn what_was_stopped_stays_stopped(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["stop", "app"]).ok();
    kill_both(host);
    let app = host.app("app");
    assert_eq!((app.status, app.online), (Status::Stopped, 0));
    host.cluster(&["start", "app"]).ok();
    host.assert_balanced(local(8080), 2);
}

fn a_journal_that_is_cut_off_is_set_aside(host: &Host) {
    assert_set_aside(host, |text| text[..text.len() / 2].to_owned());
}

fn a_journal_of_nonsense_is_set_aside(host: &Host) {
    assert_set_aside(host, |_| "\0garbage\u{fffd}{\"format\":1".to_owned());
}

fn a_journal_from_the_future_is_set_aside(host: &Host) {
    let said = assert_set_aside(host, |text| text.replacen("\"format\":1", "\"format\":99", 1));
    said.complains("has format 99");
}

/// Checks that workers are found without the journal, and that it is said loudly.
fn assert_set_aside(host: &Host, damage: impl Fn(&str) -> String) -> Output {
    let port = "PORT=8081";
    host.cluster(&["start", "app", "-i", "3", "--env", port, "--env", "MODE=a", "--", "--one"])
        .ok();
    let before = host.app("app");
    kill_both(host);
    let journal = home(host).journal();
    let damaged = damage(&fs::read_to_string(&journal).unwrap());
    fs::write(&journal, &damaged).unwrap();

    let said = host.cluster(&["list"]).ok().complains("it was set aside as");

    let aside = fs::read_dir(host.home()).unwrap().flatten().map(|entry| entry.path());
    let aside: Vec<_> = aside.filter(|path| path.to_string_lossy().contains(".broken-")).collect();
    assert_eq!(aside.len(), 1, "{aside:?}");
    assert_eq!(fs::read_to_string(&aside[0]).unwrap(), damaged);
    let log = fs::read_to_string(home(host).daemon_log()).unwrap();
    assert!(log.contains("it was set aside as"), "{log}");
    let app = host.until_online("app", 3);
    let pids = |app: &AppView| app.workers.iter().map(|worker| worker.pid).collect::<Vec<_>>();
    assert_eq!((pids(&app), app.id), (pids(&before), before.id));
    assert_eq!((&app.spec.program, &app.spec.args), (&before.spec.program, &before.spec.args));
    assert_eq!((&app.spec.cwd, app.instances), (&before.spec.cwd, 3));
    host.cluster(&["env", "app"]).ok().says("MODE=a").says(port);
    host.assert_balanced(local(8081), 3);
    // It is an app like any other.
    let killed = before.workers[1].pid.unwrap();
    signal(killed, Signal::SIGKILL);
    host.until("app", "has a replacement", |app| {
        app.online == 3 && app.workers[1].pid != Some(killed)
    });
    host.cluster(&["reload", "app"]).ok();
    host.cluster(&["scale", "app", "2"]).ok();
    host.until_online("app", 2);
    host.assert_balanced(local(8081), 2);
    said
}

fn a_journal_that_is_gone_is_not_missed(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");
    fs::remove_file(home(host).journal()).unwrap();
    kill_daemon(host);
    wait::until_true("the next one answers", || host.cluster(&["ping"]).code == 0);
    assert_eq!(host.pids("app"), before);
    host.assert_balanced(local(8080), 2);
}

fn a_journal_of_an_earlier_boot_is_nothing(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let workers = host.pids("app");
    kill_both(host);
    for pid in workers {
        signal(pid, Signal::SIGKILL);
    }
    wait::until_true("nobody is left", || host.processes().is_empty());
    let journal = home(host).journal();
    let mut text: Value = serde_json::from_str(&fs::read_to_string(&journal).unwrap()).unwrap();
    text["boot"] = "00000000-0000-0000-0000-000000000000".into();
    fs::write(&journal, text.to_string()).unwrap();

    host.cluster(&["list"]).ok().complains("no daemon is running");
    host.cluster(&["ping"]).fails().code(NO_DAEMON);
    let started = host.cluster(&["start", "app", "-i", "2"]).ok();

    started.never_mentions("set aside").never_mentions("killed");
    assert_eq!(host.apps().len(), 1);
    host.until_online("app", 2);
    host.assert_balanced(local(8080), 2);
}

fn a_reload_goes_on_without_the_daemon_that_began_it(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.deploy(&held());
    let mut reload = host.begin(&["reload", "web", "--json", "--env", "MODE=b"]);
    reload.until_says("starting");

    kill_daemon(host);

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
    kill_daemon(host);
    host.let_go();

    host.until("web", "is what it was", |app| app.reload.is_none());

    reload.end().fails().code(1);
    clients.nothing_fails();
    assert_eq!(host.pids("web"), before);
    let last = host.history("web").pop().unwrap();
    assert_eq!(last.outcome, "failed");
    // How it ended is known if the next daemon was there by then.
    let reason = last.reason.unwrap();
    assert!(reason.contains("exited with code 1") || reason.contains("no daemon"), "{reason}");
    host.cluster(&["env", "web"]).ok().never_mentions("MODE=b");
}

fn a_canary_stays_one(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.cluster(&["reload", "web", "--canary", "1/4"]).ok();
    let canary = host.app("web").workers[0].others[0].clone();

    kill_daemon(host);

    assert_eq!(host.pids("web"), before);
    assert_eq!(host.app("web").workers[0].others[0], canary);
    host.cluster(&["promote", "web"]).ok();
    assert!(host.pids("web").contains(&canary.pid.unwrap()));
    assert_served_by(8080, &host.pids("web"));
}

#[test]
fn counters_go_on_and_turns_stay_exact() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3"]).ok();
    http::assert_exact(local(8080), 31, 3);
    let selected = |host: &Host| -> Vec<u64> {
        host.app("app").workers.iter().map(|worker| worker.selected.unwrap()).collect()
    };
    let before = selected(&host);
    assert_eq!(before.iter().sum::<u64>(), 31);
    kill_daemon(&host);
    assert_eq!(selected(&host), before);
    kill_both(&host);
    http::assert_exact(local(8080), 30, 3);
    let after: Vec<_> = before.iter().map(|count| count + 10).collect();
    assert_eq!(selected(&host), after, "what was counted while there was no daemon counts too");
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
    kill_both(&host);
    assert_eq!(by_new(), 25, "while there is no daemon");
    host.cluster(&["list"]).ok();
    assert_eq!(by_new(), 25, "with the next one");
    host.cluster(&["rollback", "app"]).ok();
    assert_eq!(by_new(), 0);
    assert_eq!(host.pids("app"), old);
}

#[test]
fn the_kernel_replaces_nobody_but_moves_what_has_waited() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("server.js"), "-i", "3"]).ok();
    let workers = host.pids("server");
    kill_both(&host);
    cluster_tests::host::freeze(workers[0]);
    let mut asked: Vec<_> = (0..12)
        .map(|_| {
            let mut connection = http::Connection::open(local(8080)).unwrap();
            connection.send("close").unwrap();
            connection
        })
        .collect();
    signal(workers[0], Signal::SIGKILL);
    for connection in &mut asked {
        connection.receive().unwrap();
    }
    http::assert_exact(local(8080), 20, 2);
    host.until_online("server", 3);
    http::assert_exact(local(8080), 31, 3);
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
            kill_daemon(&host);
        } else {
            kill_both(&host);
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

/// The guardian started the next daemon, so no command was there to tell of what that found.
#[test]
fn the_first_who_wants_something_hears_of_a_broken_journal() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    // It is written at the next change, and not before.
    fs::write(home(&host).journal(), "garbage").unwrap();
    let killed = kill_daemon(&host);
    wait::until_true("there is another", || {
        let holder = fs::read_to_string(home(&host).lock()).unwrap_or_default();
        holder.trim() != killed.to_string()
    });

    host.cluster(&["scale", "app", "2"]).ok().complains("it was set aside as");

    host.cluster(&["scale", "app", "1"]).ok().never_mentions("set aside");
    host.cluster(&["ping"]).ok().complains("it was set aside as");
}

/// After a few bad beginnings a guardian takes its time; nobody need wait for it, and it need not come back then.
#[test]
fn a_guardian_that_pauses_is_not_waited_for_and_does_not_come_back() {
    let host = Host::plain();
    host.cluster(&["start", "app"]).ok();
    let worker = host.pids("app");
    let mut daemon = host.ping().pid;
    let guardian = parent(daemon);
    for _ in 0..5 {
        signal(daemon, Signal::SIGKILL);
        let before = daemon;
        wait::until_true("its guardian has started the next", || {
            // Asking with a command would start one.
            let holder = fs::read_to_string(home(&host).lock()).unwrap_or_default();
            daemon = holder.trim().parse().unwrap_or(before);
            daemon != before && is_alive(daemon)
        });
        assert_eq!(parent(daemon), guardian);
    }
    signal(daemon, Signal::SIGKILL);
    wait::until_true("the daemon has ended", || !is_alive(daemon));

    host.cluster(&["list"]).ok().complains("started another");

    assert_eq!(host.pids("app"), worker);
    host.cluster(&["kill"]).ok();
    wait::until_true("nobody is left", || host.processes().is_empty());
    assert!(!home(&host).journal().exists());
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

fn home(host: &Host) -> Home {
    Home::at(host.home()).unwrap()
}

/// Kills the daemon; its guardian starts another.
#[track_caller]
fn kill_daemon(host: &Host) -> u32 {
    let daemon = host.ping().pid;
    signal(daemon, Signal::SIGKILL);
    wait::until_true("the daemon has ended", || !is_alive(daemon));
    daemon
}

/// Kills the daemon and whoever would start another.
#[track_caller]
fn kill_both(host: &Host) -> u32 {
    let daemon = host.ping().pid;
    let guardian = parent(daemon);
    signal(guardian, Signal::SIGKILL);
    wait::until_true("the guardian has ended", || !is_alive(guardian));
    signal(daemon, Signal::SIGKILL);
    wait::until_true("the daemon has ended", || !is_alive(daemon));
    daemon
}
