//! Signals, reports, manual pages and what else makes life easier.

use std::fs;

use cluster_tests::{command, host::Host, in_both_modes, wait};

in_both_modes!(
    a_signal_reaches_the_main_process_and_only_with_tree_its_children,
    a_report_tells_everything_but_secrets,
);

/// Tells of SIGUSR1, and has a child that does so.
const LISTENER: &str = r#"
import os, signal, time
who = "child" if os.fork() == 0 else "parent"
signal.signal(signal.SIGUSR1, lambda *_: print(who, "heard", flush=True))
print(who, "listens", flush=True)
while True:
    time.sleep(1)
"#;

fn a_signal_reaches_the_main_process_and_only_with_tree_its_children(host: &Host) {
    let script = host.write("listener.py", LISTENER);
    host.cluster(&["start", &script, "-i", "2", "--no-port", "--min-uptime", "100ms"]).ok();
    let heard = |instance: u32, who: &str| {
        let file = host.home().join(format!("logs/listener-out-{instance}.log"));
        let text = fs::read_to_string(file).unwrap_or_default();
        text.lines().filter(|line| *line == format!("{who} heard")).count()
    };
    for instance in [0, 1] {
        let file = host.home().join(format!("logs/listener-out-{instance}.log"));
        wait::until_true("both of a worker listen", || {
            fs::read_to_string(&file).is_ok_and(|text| text.matches("listens").count() == 2)
        });
    }
    let before = host.pids("listener");
    host.cluster(&["sendSignal", "SIGUSR1", "listener:0"]).ok().says("sent SIGUSR1 to listener");
    wait::until_true("one worker hears it", || heard(0, "parent") == 1);
    host.cluster(&["signal", "listener", "usr1"]).ok();
    wait::until_true("all workers hear it", || heard(0, "parent") == 2 && heard(1, "parent") == 1);
    assert_eq!((heard(0, "child"), heard(1, "child")), (0, 0));
    host.cluster(&["signal", "--tree", "10", "0:1"]).ok();
    wait::until_true("the child hears it too", || heard(1, "child") == 1);
    assert_eq!(host.pids("listener"), before, "a signal that is handled ends nobody");

    host.cluster(&["signal", "NOPE", "listener"]).fails().code(2).complains("`NOPE` is no signal");
    host.cluster(&["signal", "HUP"]).fails().code(2);
    host.cluster(&["signal", "HUP", "nobody"]).fails().code(1).complains("nobody");
    host.cluster(&["stop", "listener"]).ok();
    host.cluster(&["signal", "HUP", "listener"]).fails().code(1).complains("no worker");
}

fn a_report_tells_everything_but_secrets(host: &Host) {
    let typed = ["--env", "TOKEN=hunter2", "--", "--password=hunter3"];
    host.cluster(&[&["start", "app", "--name", "web"][..], &typed].concat()).ok();
    let release = env!("CARGO_PKG_VERSION");
    let report = host.cluster(&["report"]).ok();
    for text in [release, "kernel", "distribution", "App web", "1/1 online", "Log of the daemon"] {
        assert!(report.stdout.contains(text), "no `{text}` in {}", report.stdout);
    }
    let json = host.cluster(&["report", "--json"]).ok();
    assert_eq!(json.json()["apps"][0]["name"], "web");
    for told in [report, json] {
        told.never_mentions("hunter");
    }
}

#[test]
fn a_report_needs_no_daemon() {
    let host = Host::kernel();
    host.cluster(&["report"]).ok().says("no daemon is running").says("kernel");
    host.cluster(&["version"]).ok().says(env!("CARGO_PKG_VERSION")).says("none is running");
    assert!(host.processes().is_empty(), "no daemon was started");
}

#[test]
fn manual_pages_are_without_fault() {
    let host = Host::kernel();
    host.cluster(&["man", "--dir", "pages"]).ok().says("pages");
    let pages: Vec<_> = fs::read_dir(host.work().join("pages")).unwrap().flatten().collect();
    assert!(pages.len() > 20, "{pages:?}");
    for page in &pages {
        let path = page.path();
        let path = path.to_str().unwrap();
        // Errors and warnings; style would have every name in capitals.
        let lint = command::run(host.command("mandoc").args(["-T", "lint", "-W", "warning", path]));
        // An empty line too many, where possible values are listed, is no fault that a reader sees.
        let faults = lint.stdout.lines().filter(|line| !line.contains("skipping paragraph macro"));
        assert_eq!(faults.collect::<Vec<_>>(), Vec::<&str>::new(), "{path}");
        let text = fs::read_to_string(path).unwrap();
        assert!(text.contains("EXAMPLES"), "{path}: {text}");
    }
    host.cluster(&["man", "reload"]).ok().says(".TH").says("CLUSTER-RELOAD");
    host.cluster(&["man", "ls"]).ok().says("CLUSTER-LIST");
    host.cluster(&["man", "nope"]).fails().code(2);
}

#[test]
fn lists_are_sorted_small_silent_and_without_colour() {
    let host = Host::kernel();
    for (name, port) in [("b", "8081"), ("a", "8082"), ("c", "8083")] {
        let env = format!("PORT={port}");
        let start = ["start", "app", "--name", name, "--env", &env, "--silent"];
        let said = host.cluster(&start).ok();
        assert_eq!(said.stderr, "", "silent");
    }
    let order = |sort: &str| {
        let list = host.cluster(&["list", "--json", "--sort", sort]).ok().json();
        let apps = list.as_array().unwrap().iter();
        apps.map(|app| app["name"].as_str().unwrap().to_owned()).collect::<String>()
    };
    assert_eq!(order("name"), "abc");
    assert_eq!(order("name:desc"), "cba");
    assert_eq!(order("id"), "bac");
    host.cluster(&["list", "--sort", "size"]).fails().code(2).complains("memory");
    host.cluster(&["ls", "-a", "-m", "--no-color"]).ok().says("memory").never_mentions("uptime");
    assert!(host.cluster(&["prettylist"]).ok().json().is_array());
}

#[test]
fn words_of_other_tools_are_answered() {
    let host = Host::kernel();
    for (word, answer) in [
        ("rm", "cluster delete"),
        ("up", "cluster start"),
        ("down", "cluster kill"),
        ("update", "cluster upgrade"),
        ("monit", "cluster list -v"),
        ("slist", "cluster report"),
        ("is-active", "cluster list"),
    ] {
        host.cluster(&[word]).fails().code(2).complains(answer);
    }
    assert!(host.processes().is_empty(), "no daemon was started");
}

#[test]
fn counters_of_restarts_begin_anew() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["restart", "app"]).ok();
    assert_eq!(host.app("app").restarts, 1);
    let pids = host.pids("app");
    host.cluster(&["reset", "app"]).ok();
    assert_eq!((host.app("app").restarts, host.pids("app")), (0, pids));
    host.cluster(&["reset", "nobody"]).fails().code(1);
}
