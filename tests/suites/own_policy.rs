//! Policies of the user's own: programs that decide, and that neither they nor their files can do harm.
//!
//! Where it matters who answers there is no guard: on a busy host it may think that a worker does not accept.

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use cluster_common::{abi, names};
use cluster_proof::assembler::{
    Assembly, LOOK_UP, R0, R1, R2, R3, R4, R6, RANDOM, SELECT,
    Step::{self, Add, Copy, Exit, Go, Helper, Keep, Kept, Long, Map, Set, SkipIfZero},
};
use cluster_tests::{
    built::fixture,
    clients::Clients,
    host::{Host, signal},
    http::{self, local},
};
use cluster_user::api::message::What;
use nix::sys::signal::Signal;

/// `BPF_MAP_TYPE_REUSEPORT_SOCKARRAY`
const SOCKETS: u32 = 20;
/// `BPF_MAP_TYPE_ARRAY`
const ARRAY: u32 = 2;

#[test]
fn a_program_of_ones_own_decides_who_answers() {
    let host = Host::kernel();
    write(&host, "mine.bpf.o", &always(0));
    host.cluster(&["start", "app", "-i", "3", "--policy", "./mine.bpf.o", "--guard", "off"]).ok();
    let mut seen = BTreeSet::from([only(8080)]);
    let path = host.work().join("mine.bpf.o");
    host.cluster(&["describe", "app"])
        .ok()
        .says(path.to_str().unwrap())
        .never_mentions("not to be");
    host.cluster(&["policy", "app"]).ok().says("mine.bpf.o");
    assert_eq!(host.app("app").policy, "custom");

    // Built anew, it is read anew when it is asked for.
    for index in [1, 2] {
        write(&host, "mine.bpf.o", &always(index));
        host.cluster(&["policy", "app", "./mine.bpf.o"]).ok();
        seen.insert(only(8080));
    }
    assert_eq!(seen.len(), 3, "each index of the route is another worker: {seen:#?}");
    host.cluster(&["policy", "app", "round-robin"]).ok();
    http::assert_exact(local(8080), 31, 3);
}

#[test]
fn no_switch_of_programs_under_load_fails_a_request() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("pages.js"), "-i", "3"]).ok();
    let before = host.pids("pages");
    let clients = Clients::both(8080);
    for (name, object) in [
        ("one.bpf.o", always(0)),
        ("other.bpf.o", always(2)),
        ("one.bpf.o", program(&[Helper(RANDOM), Exit])),
        ("other.bpf.o", always(7)),
    ] {
        write(&host, name, &object);
        host.cluster(&["policy", "pages", &format!("./{name}")]).ok();
        clients.until_answered(40);
        host.cluster(&["policy", "pages", "least-conn"]).ok();
        clients.until_answered(20);
        host.cluster(&["policy", "pages", &format!("./{name}"), "guard=off"]).ok();
        clients.until_answered(20);
    }
    clients.nothing_fails();
    assert_eq!(host.pids("pages"), before);
}

/// The kernel may take seconds to look at a program.
#[test]
fn while_a_program_is_verified_the_daemon_answers_and_what_comes_after_it_stays() {
    let host = Host::kernel();
    // The kernel gives up at a million instructions.
    write(&host, "endless.bpf.o", &counting(1_000_000));
    host.cluster(&["start", "app", "-i", "2"]).ok();

    let (of, began) = (&host, Instant::now());
    let (took, longest) = thread::scope(|scope| {
        let switching = scope.spawn(move || {
            let refused = of.cluster(&["policy", "app", "./endless.bpf.o"]).fails().code(1);
            (began.elapsed(), refused)
        });
        let mut longest = Duration::ZERO;
        while !switching.is_finished() {
            let asked = Instant::now();
            host.cluster(&["ping"]).ok();
            longest = longest.max(asked.elapsed());
        }
        let (took, refused) = switching.join().unwrap();
        refused.complains("BPF program is too large");
        (took, longest)
    });

    assert!(longest < took / 2, "a ping took {longest:?}, and the switch {took:?}");
    assert_eq!(host.app("app").policy, "round-robin");
    // A group that is opened waits for it, and what is asked for meanwhile comes afterwards.
    write(&host, "long.bpf.o", &counting(20_000));
    host.cluster(&[
        "start",
        "app",
        "--name",
        "late",
        "--env",
        "PORT=8081",
        "--policy",
        "./long.bpf.o",
    ])
    .ok();
    assert_eq!(http::tally(local(8081), 3).len(), 1);
    host.cluster(&["policy", "late", "./long.bpf.o", "shed=1000"]).ok();
    host.cluster(&["policy", "late", "round-robin"]).ok();
    assert_eq!(host.app("late").policy, "round-robin");
    http::assert_exact(local(8081), 3, 1);
}

#[test]
fn what_is_no_policy_is_refused_and_traffic_goes_on() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("pages.js"), "-i", "3"]).ok();
    let before = host.pids("pages");
    let clients = Clients::both(8080);
    for (object, complaint, is_verified) in faulty() {
        write(&host, "bad.bpf.o", &object);
        let refused = host.cluster(&["policy", "pages", "./bad.bpf.o"]).fails().code(1);
        let refused = refused.complains("bad.bpf.o").complains(&complaint);
        if is_verified {
            let log = host.home().join("logs/pages-policy.log");
            let refused =
                refused.complains("begins at instruction").complains(log.to_str().unwrap());
            refused.never_mentions(": (");
            let log = fs::read_to_string(log).unwrap();
            assert!(log.contains(&complaint) && log.contains("callee:"), "{log}");
        }
        // An app that is to be started with it is not.
        let start = ["start", "app", "--env", "PORT=8081", "--policy", "./bad.bpf.o"];
        host.cluster(&start).fails().code(1).complains("bad.bpf.o").complains(&complaint);
        clients.until_answered(5);
    }
    assert_eq!(host.apps().len(), 1, "no other was started");
    assert_eq!((host.app("pages").policy.as_str(), host.pids("pages")), ("round-robin", before));
    let account = clients.nothing_fails();
    assert_eq!(account.workers.len(), 3, "{account}");
}

#[test]
fn an_answer_without_a_worker_is_the_next_turn() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3", "--guard", "off"]).ok();
    for garbage in [3, 4095, 4096, i32::MAX, i32::MIN, -1] {
        write(&host, "mine.bpf.o", &always(garbage));
        host.cluster(&["policy", "app", "./mine.bpf.o"]).ok();
        http::assert_exact(local(8080), 31, 3);
    }
    // An address, and something else each time.
    for steps in [&[Copy(R0, R1), Exit], &[Helper(RANDOM), Exit]] {
        write(&host, "mine.bpf.o", &program(steps));
        host.cluster(&["policy", "app", "./mine.bpf.o"]).ok();
        http::tally(local(8080), 30);
    }
}

#[test]
fn no_program_reaches_workers_of_another_app() {
    let host = Host::kernel();
    // Selects by itself what is in a slot, and then wants no worker. It has the sockets of its own app, or none.
    let selecting = |map: &'static str, slot| {
        let steps = [
            Set(R3, slot),
            Keep(R3),
            Map(R2, map),
            Kept(R3),
            Set(R4, 0),
            Helper(SELECT),
            Set(R0, -1),
            Exit,
        ];
        Assembly::current().map(map, SOCKETS, 4, 8).program("selects", &steps).finish()
    };
    for (name, port) in [("one", "PORT=8081"), ("two", "PORT=8082")] {
        host.cluster(&["start", "app", "--name", name, "-i", "2", "--env", port, "--guard", "off"])
            .ok();
    }
    for map in [names::SOCKETS, "OTHERS"] {
        for slot in 0..4 {
            write(&host, "mine.bpf.o", &selecting(map, slot));
            host.cluster(&["policy", "all", "./mine.bpf.o"]).ok();
            for (app, port) in [("one", 8081), ("two", 8082)] {
                let own = host.pids(app);
                let of_own =
                    |answer: &str| own.iter().any(|pid| answer.contains(&format!("pid {pid} ")));
                let answers = http::tally(local(port), 20);
                assert!(answers.keys().all(|answer| of_own(answer)), "{own:?}: {answers:#?}");
                assert_eq!(answers.into_values().collect::<Vec<_>>(), [10, 10]);
            }
        }
    }
}

/// Starts three workers that are picked by `mine.bpf.o`, whatever the guard would say.
fn start_three(host: &Host) {
    host.cluster(&[
        "start",
        &fixture("pages.js"),
        "-i",
        "3",
        "--policy",
        "./mine.bpf.o",
        "--guard",
        "off",
    ])
    .ok();
}

#[test]
fn reloads_and_daemons_that_die_leave_it_at_work() {
    let host = Host::kernel();
    write(&host, "mine.bpf.o", &always(1));
    start_three(&host);
    let clients = Clients::fresh(8080);
    let before = only_pid();

    host.cluster(&["reload", "pages"]).ok();
    let after = only_pid();
    assert_ne!(after, before, "the same place in the route, and another worker");

    for _ in 0..2 {
        host.kill_daemon();
        assert_eq!(only_pid(), after, "with nobody there");
        assert_eq!(host.app("pages").policy, "custom");
        assert_eq!(only_pid(), after, "with the next one there");
    }
    host.cluster(&["describe", "pages"]).ok().never_mentions("not to be had");
    clients.nothing_fails();
}

#[test]
fn the_next_daemon_leaves_a_program_at_work_whose_file_has_gone_and_says_so() {
    let host = Host::kernel();
    let file = write(&host, "mine.bpf.o", &always(1));
    host.cluster(&["start", "app", "-i", "3", "--policy", "./mine.bpf.o", "--guard", "off"]).ok();
    let answer = only(8080);
    fs::remove_file(&file).unwrap();
    host.kill_daemon();

    host.until_online("app", 3);
    assert_eq!(only(8080), answer, "it goes on");
    let said = host.until_happened("app", What::Trouble);
    let said = format!("{said:?}");
    assert!(said.contains("mine.bpf.o: No such file"), "{said}");
    host.cluster(&["describe", "app"]).ok().says("not to be had").says("goes on");
    host.cluster(&["policy", "app", "./mine.bpf.o"])
        .fails()
        .complains("there is no compiled program");
    assert_eq!(only(8080), answer);

    write(&host, "mine.bpf.o", &always(0));
    host.cluster(&["policy", "app", "./mine.bpf.o"]).ok();
    assert_ne!(only(8080), answer);
    host.cluster(&["describe", "app"]).ok().says("mine.bpf.o").never_mentions("not to be had");
}

#[test]
fn an_app_whose_program_has_become_useless_serves_in_turns() {
    let host = Host::kernel();
    let file = write(&host, "mine.bpf.o", &always(1));
    host.cluster(&["start", "app", "-i", "3", "--policy", "./mine.bpf.o", "--guard", "off"]).ok();
    only(8080);
    host.cluster(&["stop", "app"]).ok();
    fs::write(&file, "no program").unwrap();
    host.cluster(&["restart", "app"]).ok().complains("not to be had").complains("take turns");
    http::assert_exact(local(8080), 31, 3);
    host.cluster(&["describe", "app"])
        .ok()
        .says("not to be had")
        .says("workers take turns instead");

    write(&host, "mine.bpf.o", &always(1));
    host.cluster(&["policy", "app", "./mine.bpf.o"]).ok();
    only(8080);
}

#[test]
fn a_worker_that_it_always_picks_may_die() {
    let host = Host::kernel();
    write(&host, "mine.bpf.o", &always(0));
    start_three(&host);
    let picked = only_pid();
    let clients = Clients::fresh(8080);
    signal(picked, Signal::SIGKILL);
    host.until("pages", "has a replacement", |app| {
        app.online == 3 && app.workers.iter().all(|worker| worker.pid != Some(picked))
    });
    clients.until_answered(20);
    let account = clients.stop();
    // Nobody answers what a worker had accepted when it was killed; all else is answered by the next.
    let shown = host.cluster(&["list", "-v", "--json"]).ok().json();
    let accepted = shown[0]["telemetry"]["accepted"].as_u64().unwrap();
    let in_service = accepted.saturating_sub(account.answered());
    assert!(account.failed() as u64 <= in_service, "{account}{:#?}", account.failures);
}

/// Objects that cannot be policies, what is said of each, and whether it is the kernel that says so.
fn faulty() -> Vec<(Vec<u8>, String, bool)> {
    let pick: &[Step] = &[Set(R0, 0), Exit];
    let (now, next) = (abi::VERSION, abi::VERSION + 1);
    let look = [Set(R1, 0), Keep(R1), Map(R1, names::LOADS), Kept(R2), Helper(LOOK_UP)];
    let look = [&look[..], pick].concat();
    let text = str::to_owned;
    let made_for = format!("made for ABI {next}, and this version of cluster has ABI {now}");
    let otherwise = Assembly::current().map(names::LOADS, ARRAY, 4, 8).program("pick", &look);
    vec![
        (b"not an object".to_vec(), text("is not a compiled object"), false),
        (Vec::new(), text("is not a compiled object"), false),
        (fs::read("/bin/true").unwrap(), text("for another machine"), false),
        (always(0)[..200].to_vec(), text("cannot be used"), false),
        (
            Assembly::empty().program("pick", pick).finish(),
            text("does not say for which ABI"),
            false,
        ),
        (Assembly::empty().version(next).program("pick", pick).finish(), made_for, false),
        (otherwise.finish(), text("map LOADS has keys of 4 and values of 8 bytes"), false),
        (program(&[Go(-1)]), text("infinite loop"), true),
        (program(&[Helper(RANDOM), SkipIfZero(R0, -2), Exit]), text("infinite loop"), true),
        (program(&[Set(R1, 0), Long(R0, R1, 0), Exit]), text("invalid mem access"), true),
    ]
}

#[test]
fn a_saved_app_whose_program_has_gone_comes_back_and_takes_turns() {
    let host = Host::kernel();
    let path = write(&host, "mine.bpf.o", &always(0));
    host.cluster(&["start", "app", "-i", "3", "--policy", "./mine.bpf.o", "--guard", "off"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();
    fs::remove_file(path).unwrap();

    let output = host.cluster(&["resurrect"]).ok();

    output.complains("goes without what is refused").complains("no compiled program");
    host.until_online("app", 3);
    assert_eq!(host.app("app").policy, "round-robin");
    http::assert_exact(local(8080), 30, 3);
}

/// A program that the kernel follows through so many rounds; at a million instructions it gives up.
pub(crate) fn counting(from: i32) -> Vec<u8> {
    program(&[Set(R6, from), Add(R6, -1), SkipIfZero(R6, 1), Go(-3), Set(R0, 0), Exit])
}

pub(crate) fn always(index: i32) -> Vec<u8> {
    program(&[Set(R0, index), Exit])
}

fn program(steps: &[Step]) -> Vec<u8> {
    Assembly::current().program("pick", steps).finish()
}

/// Writes an object into the working folder and returns its path.
pub(crate) fn write(host: &Host, name: &str, object: &[u8]) -> PathBuf {
    let path = host.work().join(name);
    fs::write(&path, object).unwrap();
    path
}

/// The only answer to many requests.
#[track_caller]
fn only(port: u16) -> String {
    let answers = http::tally(local(port), 20);
    assert_eq!(answers.len(), 1, "{answers:#?}");
    answers.into_keys().next().unwrap()
}

/// The only worker that new connections go to.
#[track_caller]
fn only_pid() -> u32 {
    let account = Clients::fresh(8080).nothing_fails();
    let pids: Vec<u32> = account.workers.keys().copied().collect();
    assert_eq!(pids.len(), 1, "{pids:?}");
    pids[0]
}
