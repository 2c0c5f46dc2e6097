//! Daemons that die: their workers serve on, and the next daemon goes on where they were.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use cluster_tests::{
    built::fixture,
    clients::{Clients, assert_served_by},
    command,
    host::{Host, freeze, is_alive, parent, signal},
    http::{self, local},
    in_both_modes, wait,
};
use cluster_user::{
    api::message::{AppView, Status},
    config::home::Home,
    datapath::Mode,
};
use nix::sys::signal::Signal;

/// Exit code when there is no daemon.
const NO_DAEMON: i32 = 3;

in_both_modes!(
    nobody_notices_that_the_daemon_dies,
    the_next_daemon_knows_what_the_one_before_it_knew,
    what_workers_used_before_is_no_part_of_what_they_use_now,
    workers_write_on_and_no_line_is_lost,
    everything_works_with_the_next_daemon,
    the_next_command_starts_a_daemon,
    killing_what_has_no_daemon_leaves_nothing,
    who_dies_while_there_is_no_daemon_is_replaced,
    what_was_stopped_stays_stopped,
);

fn nobody_notices_that_the_daemon_dies(host: &Host) {
    host.cluster(&["start", &fixture("pages.js"), "-i", "3"]).ok();
    let before = host.pids("pages");
    let clients = Clients::both(8080);

    for _ in 0..2 {
        clients.until_answered(20);
        host.kill_daemon();
        clients.until_answered(20);
        assert_eq!(host.pids("pages"), before);
    }

    clients.nothing_fails();
    host.until_online("pages", 3);
    assert_served_by(8080, &before);
}

fn what_workers_used_before_is_no_part_of_what_they_use_now(host: &Host) {
    let server = fixture("server.py");
    let folder = Path::new(&server).parent().unwrap().display();
    let script = format!(
        "import runpy, sys, time\nwhile time.process_time() < 2: pass\n\
         sys.path.insert(0, '{folder}')\nrunpy.run_path('{server}', run_name='__main__')\n"
    );
    host.write("busy.py", &script);
    host.cluster(&["start", "busy.py"]).ok();
    host.kill_daemon();

    // At least one look is so long after the daemon's start that it is a rate.
    let since = Instant::now();
    let mut looks = Vec::new();
    while since.elapsed() < Duration::from_secs(1) {
        looks.push(host.app("busy").cpu_percent);
    }
    assert!(looks.iter().all(|percent| *percent < 60.0), "it has nothing to do: {looks:?}");
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

    host.kill_daemon();

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
        host.kill_daemon();
        until_longer(&log, first);
    }
    signal(first, Signal::SIGKILL);
    let app = host.until("counts", "has a replacement", |app| {
        app.online == 1 && app.workers[0].pid != Some(first)
    });
    let second = app.workers[0].pid.unwrap();
    until_longer(&log, second);
    // Now without a guardian: nobody is there for a while.
    host.kill_daemon_and_guardian();
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
    let clients = matches!(host.mode(), Mode::Kernel).then(|| Clients::both(8080));
    host.kill_daemon();

    host.cluster(&["scale", "web", "4"]).ok();
    let app = host.until_online("web", 4);
    assert_eq!(host.pids("web")[..2], before);
    assert_eq!(app.ports[0].workers, 4);
    host.kill_daemon();
    host.cluster(&["scale", "web", "1"]).ok();
    assert_eq!(host.pids("web"), before[..1]);
    host.kill_daemon();
    host.cluster(&["reload", "web", "--env", "MODE=b"]).ok();
    assert!(!is_alive(before[0]));
    host.kill_daemon();
    host.cluster(&["rollback", "web"]).ok();
    host.cluster(&["restart", "web"]).ok();

    if let Some(clients) = clients {
        clients.nothing_fails();
    }
    host.until_online("web", 1);
    assert_served_by(8080, &host.pids("web"));
    host.cluster(&["stop", "web"]).ok();
    host.kill_daemon();
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
        let killed = host.kill_daemon_and_guardian();
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
    host.kill_daemon_and_guardian();

    host.cluster(&["kill"]).ok().says("stopped");

    assert!(before.iter().all(|pid| !is_alive(*pid)));
    assert!(host.processes().is_empty());
    host.cluster(&["list"]).ok().complains("no daemon is running");
    host.cluster(&["ping"]).fails().code(NO_DAEMON);
}

fn who_dies_while_there_is_no_daemon_is_replaced(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();
    let before = host.pids("app");
    host.kill_daemon_and_guardian();
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
    host.kill_daemon_and_guardian();
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
    host.kill_daemon_and_guardian();
    let app = host.app("app");
    assert_eq!((app.status, app.online), (Status::Stopped, 0));
    host.cluster(&["start", "app"]).ok();
    host.assert_balanced(local(8080), 2);
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
    host.kill_daemon();
    assert_eq!(selected(&host), before);
    host.kill_daemon_and_guardian();
    http::assert_exact(local(8080), 30, 3);
    let after: Vec<_> = before.iter().map(|count| count + 10).collect();
    assert_eq!(selected(&host), after, "what was counted while there was no daemon counts too");
}

#[test]
fn the_kernel_replaces_nobody_but_moves_what_has_waited() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("server.js"), "-i", "3"]).ok();
    let workers = host.pids("server");
    host.kill_daemon_and_guardian();
    freeze(workers[0]);
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

/// As when the first one was started in a shell that has `CLUSTER_MODE`, and the next by a command in one that has not.
#[test]
fn the_next_daemon_may_be_of_the_other_mode() {
    for (mode, other) in [(Mode::Kernel, "plain"), (Mode::Plain, "kernel")] {
        let host = Host::new(mode);
        host.cluster(&["start", "app", "-i", "2"]).ok();
        let before = host.pids("app");
        host.kill_daemon_and_guardian();

        command::run(host.command("cluster").env("CLUSTER_MODE", other).args(["list"])).ok();

        assert_ne!(host.app("app").mode, host.mode());
        host.until_online("app", 2);
        assert_eq!(host.pids("app"), before);
        assert_eq!(http::tally(local(8080), 20).values().sum::<u32>(), 20);
        host.cluster(&["reload", "app"]).ok();
        assert!(before.iter().all(|pid| !is_alive(*pid)));
        assert_eq!(http::tally(local(8080), 20).values().sum::<u32>(), 20);
    }
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

fn home(host: &Host) -> Home {
    Home::at(host.home()).unwrap()
}
