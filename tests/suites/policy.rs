//! Policies: how an app is scheduled, from options, files and commands to the kernel.

use cluster_tests::{
    built::fixture,
    host::{Host, is_alive, signal},
    http::{Connection, local},
    in_both_modes, wait,
};
use cluster_user::config::scheduling::{Guard, Scheduling};
use nix::sys::signal::Signal;

/// Exit code for a command line that makes no sense.
const USAGE: i32 = 2;
/// Exit code for a kernel that lacks what was asked for.
const UNSUPPORTED: i32 = 5;

in_both_modes!(
    settings_are_taken_shown_and_kept_by_the_next_daemon,
    what_contradicts_itself_is_refused_and_nothing_is_started,
    a_switch_that_makes_no_sense_changes_nothing,
    a_file_is_applied_without_replacing_a_worker,
);

fn settings_are_taken_shown_and_kept_by_the_next_daemon(host: &Host) {
    let weighted =
        ["start", "app", "-i", "3", "--weights", "3,1,1", "--guard", "queue=100", "--shed", "5000"];
    host.cluster(&weighted).ok();
    let before = host.pids("app");

    let shown = host.cluster(&["policy", "app", "--json"]).ok().json();
    assert_eq!(shown[0]["policy"], "round-robin");
    assert_eq!(shown[0]["weights"], serde_json::json!([3, 1, 1]));
    assert_eq!((&shown[0]["guard"], &shown[0]["shed"]), (&"queue=100".into(), &5000.into()));
    host.cluster(&["policy", "app"]).ok().says("3,1,1").says("queue=100").says("least-conn");
    host.cluster(&["describe", "app"]).ok().says("3,1,1").says("queue=100").says("5000");

    host.cluster(&["policy", "app", "guard=off", "shed=off", "weights=1,2,1"]).ok();
    host.kill_daemon();

    let scheduling = scheduling(host);
    assert_eq!(scheduling.to_string(), "round-robin weights=1,2,1 guard=off");
    assert_eq!(scheduling.guard, Guard::OFF);
    assert_eq!(host.pids("app"), before);
    host.cluster(&["policy", "app", "weights=off", "guard=on"]).ok();
    assert_eq!(self::scheduling(host), Scheduling::default());
    host.assert_balanced(local(8080), 3);
}

fn what_contradicts_itself_is_refused_and_nothing_is_started(host: &Host) {
    for (options, complaint) in [
        (&["--weights", "3,1"][..], "weights has 2 numbers, and there are 3 workers"),
        (&["--weights", "3,1,0"], "weights has 0, not 1 to 1000"),
        (&["--weights", "3,1,x"], "x"),
        (&["--weights", "1,1,1", "--policy", "least-conn"], "and the policy is least-conn"),
        (&["--policy", "leastconn"], "is `least-conn` meant?"),
        (&["--policy", "sticky,prefx=24"], "is `prefix` meant?"),
        (&["--policy", "sticky,prefix=33"], "prefix is `33`, not 1 to 32"),
        (&["--policy", "class 10.0.0.0/8=3"], "names worker 3, and the last one is 2"),
        (&["--policy", "class 10.0.0.0/8="], "has no workers"),
        (&["--guard", "queu=1"], "is `queue` meant?"),
        (&["--shed", "0"], "shed is 0"),
        (&["--policy", "none", "--shed", "5"], "shed is 5, and the policy is none"),
        (&["--policy", "none", "--guard", "queue=9"], "guard is queue=9, and the policy is none"),
    ] {
        let line: Vec<_> = ["start", "app", "-i", "3"].iter().chain(options).copied().collect();
        host.cluster(&line).fails().code(USAGE).complains(complaint);
    }
    host.cluster(&["start", "app", "--policy", "./no-such.bpf.o"])
        .fails()
        .code(1)
        .complains("there is no compiled program")
        .complains("no-such.bpf.o");
    let listed = host.cluster(&["list", "--json"]).ok();
    assert_eq!(listed.json(), serde_json::json!([]), "nothing was started");
}

fn a_switch_that_makes_no_sense_changes_nothing(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--weights", "2,1"]).ok();
    for (words, complaint) in [
        (&["lest-conn"][..], "is `least-conn` meant?"),
        (&["least-conn", "gaurd=off"], "is `guard` meant?"),
        (&["shed=0"], "shed is 0"),
        (&["none", "shed=5"], "shed is 5, and the policy is none"),
        (&["shed=5", "hash", "shed=9"], "shed is given twice"),
        (&["weights=1,x"], "`x` is no number"),
        (&["guard=sometimes"], "guard has no key `sometimes`"),
        (&["./no-such.o"], "there is no compiled program"),
        (&["weights=1,2,3"], "weights has 3 numbers, and there are 2 workers"),
    ] {
        let line: Vec<_> = ["policy", "app"].iter().chain(words).copied().collect();
        host.cluster(&line).fails().complains(complaint);
    }
    host.cluster(&["policy", "nobody", "hash"]).fails().complains("nobody");
    host.cluster(&["policy", "nobody"]).fails().complains("nobody");
    assert_eq!(scheduling(host).to_string(), "round-robin weights=2,1");
}

fn a_file_is_applied_without_replacing_a_worker(host: &Host) {
    let define = |rest: &str| {
        let script = fixture("server.py");
        host.write(
            "cluster.toml",
            &format!("[apps.app]\nscript = '{script}'\ninstances = 3\n{rest}"),
        );
    };
    define("weights = [3, 1, 1]\n");
    host.cluster(&["start"]).ok();
    let before = host.pids("app");

    define("weights = [1, 1, 4]\nshed = 900\nguard = { queue = 50 }\n");
    host.cluster(&["diff"])
        .ok()
        .says("no worker is replaced")
        .complains(
            "cluster start with this file does that; cluster reload replaces all its workers, too",
        )
        .says("weights: 3,1,1 -> 1,1,4")
        .says("shed: off -> 900");
    assert_eq!(scheduling(host).weights, [3, 1, 1], "a look changes nothing");
    host.cluster(&["start"]).ok();
    assert_eq!(scheduling(host).to_string(), "round-robin weights=1,1,4 guard=queue=50 shed=900");
    host.cluster(&["diff"]).ok().says("runs as it is defined");

    define("weights = [2, 2, 1]\n");
    host.cluster(&["restart", "cluster.toml"]).ok();
    assert_eq!(scheduling(host).to_string(), "round-robin weights=2,2,1");
    assert_eq!(host.pids("app"), before);

    define("guard = false\n");
    host.cluster(&["reload", "cluster.toml"]).ok();
    assert_eq!(scheduling(host).to_string(), "round-robin guard=off");
    assert!(host.pids("app").iter().all(|pid| !before.contains(pid)), "as PM2's reload does");

    define("shed = 7\nweights = [1, 2]\n");
    let wrong = "app `app`: weights has 2 numbers, and there are 3 workers";
    for verb in ["start", "reload", "restart"] {
        host.cluster(&[verb, "cluster.toml"]).fails().complains("cluster.toml:5:").complains(wrong);
    }
    define("");
    host.cluster(&["start", "cluster.toml"]).ok();
    host.until_online("app", 3);
    host.assert_balanced(local(8080), 3);
}

#[test]
fn weights_are_exact_and_change_from_one_connection_to_the_next() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "3", "--weights", "3,1,1"]).ok();
    assert_eq!(turns(&host, 50), [30, 10, 10]);
    let before = host.pids("app");

    host.cluster(&["policy", "app", "weights=1,1,3"]).ok();
    assert_eq!(turns(&host, 50), [10, 10, 30]);

    host.kill_daemon();
    assert_eq!(turns(&host, 50), [10, 10, 30]);

    host.cluster(&["policy", "app", "weights=off"]).ok();
    assert_eq!(turns(&host, 30), [10, 10, 10]);
    assert_eq!(host.pids("app"), before);
}

#[test]
fn a_class_without_its_workers_is_refused_by_the_daemon_too() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["policy", "app", "class", "*=2"])
        .fails()
        .complains("names worker 2, and the last one is 1");
    assert_eq!(scheduling(&host), Scheduling::default());
}

#[test]
fn clients_of_a_class_have_their_workers_through_deploys_deaths_and_daemons() {
    let host = Host::kernel();
    let rules = "class 127.1.0.0/16=0-1 127.2.0.0/16=2:least-conn *=3";
    host.cluster(&["start", "app", "-i", "4", "--policy", rules]).ok();
    let check = || {
        assert_eq!(turns_from(&host, [127, 1, 0, 1], 10), [5, 5, 0, 0]);
        assert_eq!(turns_from(&host, [127, 2, 0, 1], 6), [0, 0, 6, 0]);
        assert_eq!(turns_from(&host, [127, 0, 0, 1], 6), [0, 0, 0, 6]);
    };
    check();
    host.cluster(&["policy", "app"]).ok().says("127.1.0.0/16=0-1 127.2.0.0/16=2:least-conn *=3");

    host.cluster(&["reload", "app"]).ok();
    check();
    host.kill_daemon();
    host.cluster(&["list"]).ok();
    check();

    // The only worker of its class: whoever is there answers until it is back.
    let killed = host.pids("app")[2];
    signal(killed, Signal::SIGKILL);
    // A connection that it accepts while it dies dies with it.
    wait::until_true("the killed worker is gone", || !is_alive(killed));
    for _ in 0..20 {
        ask_from([127, 2, 0, 1]);
    }
    host.until("app", "has its third worker again", |app| {
        app.online == 4 && app.workers.iter().all(|worker| worker.pid != Some(killed))
    });
    check();

    host.cluster(&["policy", "app", "class", "127.1.0.0/16=3", "*=0-2"]).ok();
    assert_eq!(turns_from(&host, [127, 1, 0, 1], 6), [0, 0, 0, 6]);
    assert_eq!(turns_from(&host, [127, 2, 0, 1], 6), [2, 2, 2, 0]);

    host.cluster(&["stop", "app"]).ok();
    host.cluster(&["start", "app"]).ok();
    assert_eq!(turns_from(&host, [127, 1, 0, 1], 6), [0, 0, 0, 6]);
    host.cluster(&["policy", "app", "round-robin"]).ok();
    assert_eq!(turns_from(&host, [127, 1, 0, 1], 8), [2, 2, 2, 2]);
}

#[test]
fn more_classes_than_fit_are_refused_before_anything_happens() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let rules = "10.0.0.0/8=0 ".repeat(32);
    let words: Vec<_> =
        ["policy", "app", "class"].into_iter().chain(rules.split_whitespace()).collect();
    host.cluster(&words).fails().complains("policy class has 32 rules, and 31 are possible");
    assert_eq!(scheduling(&host), Scheduling::default());
}

#[test]
fn new_workers_have_weight_one_and_that_is_said() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2", "--weights", "4,2"]).ok();

    host.cluster(&["scale", "app", "4"]).ok().complains("weights 4,2,1,1 now");
    assert_eq!(turns(&host, 40), [20, 10, 5, 5]);

    host.cluster(&["scale", "app", "1"]).ok().complains("weights 4 now");
    assert_eq!(scheduling(&host).weights, [4]);
}

#[test]
fn weights_outlive_a_reload_and_a_rollback() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2", "--weights", "3,1"]).ok();
    host.cluster(&["reload", "app"]).ok();
    assert_eq!(turns(&host, 40), [30, 10]);

    host.cluster(&["policy", "app", "weights=1,3"]).ok();
    host.cluster(&["rollback", "app"]).ok();
    assert_eq!(turns(&host, 40), [10, 30], "it is no part of what is deployed");
}

#[test]
fn a_stopped_app_has_its_policy_when_it_starts() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["stop", "app"]).ok();
    host.cluster(&["policy", "app", "weights=1,4"]).ok();
    host.cluster(&["start", "app"]).ok();
    assert_eq!(turns(&host, 50), [10, 40]);
}

#[test]
fn the_options_of_start_are_options_of_policy_and_a_policy_without_an_app_is_recognized() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2", "--weights", "3,1"]).ok();
    host.cluster(&["policy", "app", "--weights", "1,4", "--shed", "100"]).ok();
    host.cluster(&["policy", "app", "weights=1,4", "--weights", "1,4"]).fails().code(USAGE);
    assert_eq!(turns(&host, 50), [10, 40]);
    host.cluster(&["policy", "app", "least-conn", "--guard", "queue=3"]).ok();
    assert_eq!(scheduling(&host).to_string(), "least-conn guard=queue=3 shed=100");

    host.cluster(&["policy", "least-conn"]).fails().complains("cluster policy APP least-conn");
    host.cluster(&["policy", "guard=off"]).fails().complains("cluster policy APP guard=off");
    host.cluster(&["policy", "--shed", "5"]).fails().code(USAGE);
}

#[test]
fn datagrams_are_spread_one_by_one_and_that_is_said() {
    let host = Host::kernel();
    let script = fixture("udp.py");
    host.cluster(&["start", &script, "-i", "2"])
        .ok()
        .complains("is balanced per datagram; --policy sticky");
    host.cluster(&["start", "app", "-i", "2", "--env", "PORT=8081"])
        .ok()
        .never_mentions("per datagram");
}

#[test]
fn a_guard_and_a_limit_for_datagrams_are_said_to_be_in_vain() {
    let host = Host::kernel();
    let script = fixture("udp.py");
    let name = "--name=dns";
    host.cluster(&["start", &script, name, "--policy", "sticky", "--shed", "200"])
        .ok()
        .complains("app `dns` serves datagrams, which are neither guarded nor refused: shed 200 is for TCP")
        .complains("cluster policy dns shed=off");
    host.cluster(&["policy", "dns", "guard=queue=5"])
        .ok()
        .complains("guard queue=5 and shed 200 is for TCP");
    host.cluster(&["policy", "dns", "random"]).ok().never_mentions("for TCP");
    host.cluster(&["policy", "dns", "guard=on", "shed=off"]).ok().never_mentions("for TCP");
    host.cluster(&["start", "app", "--shed", "200", "--env", "PORT=8081"])
        .ok()
        .never_mentions("for TCP");
}

#[test]
fn without_a_policy_there_is_no_guard() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "--policy", "none"]).ok();
    assert_eq!(host.cluster(&["policy", "app", "--json"]).ok().json()[0]["guard"], "off");
    host.cluster(&["policy", "app", "guard=queue=3", "shed=5"])
        .fails()
        .complains("guard is queue=3 and shed is 5, and the policy is none");
    host.cluster(&["policy", "app", "least-conn"]).ok();
    assert_eq!(host.cluster(&["policy", "app", "--json"]).ok().json()[0]["guard"], "on");
}

#[test]
fn plain_mode_says_that_the_kernel_decides() {
    let host = Host::plain();
    host.cluster(&["start", "app", "-i", "2", "--policy", "least-conn"])
        .fails()
        .code(UNSUPPORTED)
        .complains("policy least-conn needs kernel mode");
    host.cluster(&["start", "app", "-i", "2", "--weights", "2,1"])
        .ok()
        .complains("in plain mode the kernel's hash decides, without weights");
    host.cluster(&["policy", "app"]).ok().says("plain mode: the kernel's hash decides");
    host.cluster(&["describe", "app"]).ok().says("plain mode: the kernel's hash decides");
    host.cluster(&["policy", "app", "least-conn"]).fails().code(UNSUPPORTED);
    assert_eq!(host.app("app").policy, "hash");
    host.cluster(&["list"]).ok().says("kernel's hash");
    assert_eq!(scheduling(&host).to_string(), "round-robin weights=2,1");
}

#[test]
fn every_policy_is_listed_with_and_without_a_daemon() {
    let host = Host::kernel();
    for _ in 0..2 {
        host.cluster(&["policy", "--list"])
            .ok()
            .says("least-conn")
            .says("cpu-local")
            .says("sticky");
        host.cluster(&["policy"]).ok().says("round-robin");
        let listed = host.cluster(&["policy", "--list", "--json"]).ok().json();
        assert_eq!(listed[0]["name"], "round-robin");
        host.cluster(&["start", "app"]).ok();
        host.cluster(&["delete", "app"]).ok();
    }
}

/// How the app is scheduled, as the daemon has it.
#[track_caller]
fn scheduling(host: &Host) -> Scheduling {
    host.app("app").spec.scheduling
}

/// How many of `requests` new connections each worker of the app gets, by instance.
#[track_caller]
fn turns(host: &Host, requests: u32) -> Vec<u64> {
    turns_from(host, [127, 0, 0, 1], requests)
}

/// The same, of connections from a certain address of this host.
#[track_caller]
fn turns_from(host: &Host, source: [u8; 4], requests: u32) -> Vec<u64> {
    let selected = || -> Vec<u64> {
        host.app("app").workers.iter().map(|worker| worker.selected.unwrap()).collect()
    };
    let before = selected();
    for _ in 0..requests {
        ask_from(source);
    }
    selected().iter().zip(before).map(|(now, before)| now - before).collect()
}

/// One request over a connection of its own, from a certain address of this host.
#[track_caller]
fn ask_from(source: [u8; 4]) {
    let asked = Connection::open_from(source.into(), local(8080)).and_then(|mut it| it.get());
    asked.unwrap_or_else(|error| panic!("from {source:?}: {error}"));
}
