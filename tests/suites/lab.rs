//! The laboratory: an experiment ends with a report, can be interrupted, and leaves nothing behind.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use cluster_tests::{
    command::Begun,
    container::children,
    host::{Host, is_alive, signal},
    leftover, wait,
};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Exit code for a command line that makes no sense.
const USAGE: i32 = 2;

/// Two policies and one short point for each. The machine may be busy with other tests: that is none of their business.
const SHORT: &str = r#"
name = "short"
policies = ["none", "default"]
load = [0.3]
service = ["fixed 1ms"]
seeds = [1]
duration = "1s"
warmup = "200ms"
max_lag = "10s"
"#;

#[test]
fn an_experiment_ends_with_a_table_and_files_of_its_results() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let before = traces();

    let ran = host.cluster(&["lab", "run", "short.toml"]).ok();

    for text in ["none", "default", "fixed 1ms", "p99.9"] {
        assert!(ran.stdout.contains(text), "{text}: {ran:?}");
    }
    let results = results(&host, "lab-short");
    assert_eq!(results["records"].as_array().unwrap().len(), 2);
    for record in results["records"].as_array().unwrap() {
        let outcome = &record["verdict"]["measured"];
        assert_eq!(outcome["failures"]["refused"], 0, "{outcome}");
        assert!(outcome["answered"].as_u64().unwrap() > 1_000, "{outcome}");
        assert_eq!(outcome["connections"].as_array().unwrap().len(), 4, "{outcome}");
        assert!(!record["machine"]["kernel"].as_str().unwrap().is_empty());
    }
    // The kernel's hash is uneven, and round robin is not.
    assert!(jain(&results, "default") > 0.99);
    let report = fs::read_to_string(host.work().join("lab-short/report.html")).unwrap();
    for text in ["<svg", "@media print", "default", "overrun"] {
        assert!(report.contains(text), "{text}");
    }
    for outside in ["src=", "href=", "@import", "url("] {
        assert!(!report.contains(outside), "the report needs `{outside}` from elsewhere");
    }
    let csv = fs::read_to_string(host.work().join("lab-short/results.csv")).unwrap();
    assert_eq!(csv.lines().count(), 3, "{csv}");
    assert_nothing_new(&before);
}

#[test]
fn policies_see_the_same_requests_at_the_same_times() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    host.cluster(&["lab", "run", "short.toml", "--policy", "none,shared"]).ok();

    let results = results(&host, "lab-short");
    let due = |policy: &str| -> Vec<u64> {
        let moments = measured(&results, policy)["timeline"].as_array().unwrap();
        moments.iter().map(|moment| moment["due"].as_u64().unwrap()).collect()
    };
    assert_eq!(due("none"), due("shared"));
}

#[test]
fn a_frozen_worker_keeps_the_hash_waiting_and_not_the_ideal_queue() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let fault = "freeze worker=0 at=200ms for=700ms";
    host.cluster(&["lab", "run", "short.toml", "--policy", "none,shared", "--fault", fault]).ok();

    let results = results(&host, "lab-short");
    let slow = |policy: &str| measured(&results, policy)["latency"]["p90"].as_f64().unwrap();
    // A quarter of those who come while it is frozen wait for it: more than a tenth of all.
    assert!(slow("none") > 100.0, "{results}");
    assert!(slow("shared") < slow("none"), "{results}");
}

#[test]
fn an_interrupted_experiment_goes_on_where_it_was() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let before = traces();
    let run = ["lab", "run", "short.toml", "--policy", "none", "--seed", "1,2,3"];
    let raw = host.work().join("lab-short/raw");

    let begun = host.begin(&run);
    wait::until_true("a point is there", || count(&raw) > 0);
    signal(begun.pid(), Signal::SIGINT);
    begun.end().code(130).complains("--resume");
    let there = count(&raw);
    assert!(there < 3, "it was not interrupted");
    assert_nothing_new(&before);

    host.cluster(&run).fails().code(USAGE).complains("--resume");
    let first = first_dates(&raw);
    host.cluster(&[&run[..], &["--resume"]].concat()).ok().complains("are there already");
    assert_eq!(count(&raw), 3);
    assert!(first.iter().all(|it| first_dates(&raw).contains(it)), "what was there was run again");
}

#[test]
fn a_killed_experiment_leaves_nothing_behind() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let before = traces();

    let begun =
        host.begin(&["lab", "run", "short.toml", "--policy", "default", "--duration", "30s"]);
    let arena = wait::until("workers serve", || {
        let new: Vec<_> = traces().difference(&before).cloned().collect();
        new.iter().any(|it| it.contains("cgroup")).then_some(new)
    });
    assert!(arena.iter().any(|it| it.contains("cluster-lab-")), "{arena:?}");
    signal(begun.pid(), Signal::SIGKILL);
    drop(begun);

    assert_nothing_new(&before);
}

#[test]
fn a_killed_keeper_leaves_nothing_behind() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let before = traces();

    let begun = host.begin(&LONG);
    await_arena(&before);
    signal(keeper(&begun), Signal::SIGKILL);

    begun.end().fails().code(1).complains("its keeper ended with signal: 9");
    assert_nothing_new(&before);
}

#[test]
fn what_is_left_when_everybody_is_killed_goes_with_the_next() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    for next in [&["lab", "clean"][..], &["lab", "run", "short.toml", "--out", "next"]] {
        let before = traces();
        let begun = host.begin(&LONG);
        await_arena(&before);
        let keeper = keeper(&begun);
        // So that it cannot clean up.
        signal(begun.pid(), Signal::SIGSTOP);
        signal(keeper, Signal::SIGKILL);
        signal(begun.pid(), Signal::SIGKILL);
        drop(begun);
        wait::until_true("the keeper is gone", || !is_alive(keeper));

        host.cluster(next).ok();

        assert_nothing_new(&before);
        fs::remove_dir_all(host.work().join("lab-short")).unwrap();
    }
}

#[test]
fn a_killed_keeper_without_privileges_leaves_nothing_behind() {
    let host = Host::unprivileged();
    host.write("short.toml", SHORT);
    for policy in ["none", "plain"] {
        let run = ["lab", "run", "short.toml", "--policy", policy, "--duration", "30s"];
        let begun = host.begin(&[&run[..], &["--out", policy]].concat());
        // The two of the keeper and the driver, and the four workers.
        wait::until_true("workers serve", || host.processes().len() >= 6);
        signal(keeper(&begun), Signal::SIGKILL);

        begun.end().fails().code(1).complains("its keeper ended with signal: 9");
        wait::until_true("nothing is left running", || host.processes().is_empty());
    }
}

#[test]
fn an_app_of_ones_own_can_be_the_server() {
    let host = Host::kernel();
    let args =
        ["lab", "run", "--app", "app", "--path", "/", "--rate", "200", "--policy", "plain,default"];
    let short = ["--seed", "1", "--duration", "1s", "--warmup", "200ms", "--out", "own"];
    host.cluster(&[&args[..], &short].concat()).ok();

    let results = results(&host, "own");
    for policy in ["plain", "default"] {
        assert!(measured(&results, policy)["answered"].as_u64().unwrap() > 100, "{results}");
    }
}

#[test]
fn an_app_that_serves_another_port_ends_the_run_at_its_first_point() {
    let host = Host::kernel();
    let args =
        ["lab", "run", "--app", "app", "--path", "/", "--rate", "200", "--policy", "plain,default"];
    let wrong = ["--seed", "1,2", "--duration", "1s", "--out", "wrong", "--port", "8099"];
    // `app` takes its port from the environment, and this one does not let it.
    let script = host.write("elsewhere.sh", "#!/bin/sh\nPORT=8080 exec app\n");
    let mut line = [&args[..], &wrong].concat();
    line[3] = &script;

    let ran = host.cluster(&line).fails().code(1);

    ran.complains("nobody serves port 8099")
        .complains("the app serves 0.0.0.0:8080")
        .complains("--port");
    assert!(
        !host.work().join("wrong").exists(),
        "no point is recorded, and none was tried after it"
    );
}

#[test]
fn results_of_an_experiment_that_was_changed_are_not_dropped() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let run = ["lab", "run", "short.toml", "--policy", "none", "--seed", "1"];
    host.cluster(&run).ok();
    let before = results(&host, "lab-short");

    host.cluster(&[&run[..], &["--resume", "--duration", "700ms"]].concat())
        .fails()
        .code(USAGE)
        .complains("`duration` was")
        .complains("--out");
    assert_eq!(results(&host, "lab-short"), before);

    host.cluster(&[&run[..6], &["1,2", "--resume"]].concat()).ok();
    assert_eq!(results(&host, "lab-short")["records"].as_array().unwrap().len(), 2);
}

#[test]
fn without_an_experiment_it_is_said_which_is_run() {
    let host = Host::kernel();
    let ran = host.cluster(&["lab", "run", "--quick", "--policy", "none,shared"]).ok();
    ran.complains("the default experiment: policies none, shared; 4 workers; load 0.7");

    let refused = host.cluster(&["lab", "run", "--load", "1.5"]).fails().code(USAGE);
    refused.complains("--overload when it is meant");
}

#[test]
fn clients_may_be_far_away_and_speak_ipv6() {
    let host = Host::kernel();
    let more = "link = ['veth']\nip = [4, 6]\nsyncookies = [2]\nclients = 3\n";
    host.write("far.toml", &format!("{SHORT}{more}"));
    host.cluster(&["lab", "run", "far.toml"]).ok();

    let results = results(&host, "lab-short");
    let records = results["records"].as_array().unwrap();
    assert_eq!(records.len(), 4);
    for record in records {
        let outcome = &record["verdict"]["measured"];
        assert!(outcome["answered"].as_u64().unwrap() > 1_000, "{record}");
    }
    assert!(jain(&results, "default") > 0.99, "with syn cookies, too");
}

#[test]
fn without_privileges_there_are_still_the_baselines() {
    let host = Host::unprivileged();
    host.write("short.toml", SHORT);
    host.cluster(&["lab", "run", "short.toml", "--policy", "none,shared,plain,default"])
        .ok()
        .complains("policies need kernel mode");

    let results = results(&host, "lab-short");
    for policy in ["none", "shared", "plain"] {
        assert!(measured(&results, policy)["answered"].as_u64().unwrap() > 1_000, "{policy}");
    }
    let left = || host.processes().is_empty().then_some(());
    wait::until("nothing is left running", left);
}

#[test]
fn a_load_that_the_machine_cannot_offer_is_no_result() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    // Nobody's generator sends within a nanosecond.
    let text = SHORT.replace("\"10s\"", "\"1ns\"").replace("[\"none\", \"default\"]", "[\"none\"]");
    host.write("late.toml", &text);
    host.cluster(&["lab", "run", "late.toml"])
        .fails()
        .code(1)
        .complains("the machine cannot offer this load")
        .complains("nothing could be measured");
    let busy = "kind = ['cpu']\nworkers = [64]\n";
    host.write("busy.toml", &format!("{text}{busy}").replace("[0.3]", "[0.9]"));
    host.cluster(&["lab", "run", "busy.toml", "--out", "busy"]).fails().complains("CPUs");
}

#[test]
fn an_experiment_that_makes_no_sense_is_refused_before_anything_runs() {
    let host = Host::kernel();
    for (text, wrong, hint) in [
        ("polices = []", "bad.toml:1: `polices` is unknown", "did you mean `policies`?"),
        ("policies = ['least-con']", "`least-con` is no policy", "did you mean `least-conn`?"),
        ("name = 'a'\nservice = ['gauss 1ms']", "bad.toml:2: `gauss`", ""),
        ("policies = ['none', 'hash --gaurd off']", "`hash --gaurd off`: ", "'--guard'"),
        ("policies = ['sticky prefx=24']", "no key `prefx`; is `prefix` meant?", ""),
        ("policies = ['hash --guard queu=1']", "is `queue` meant?", ""),
        ("policies = ['cluster:none --shed 5']", "shed is 5, and the policy is none", ""),
        ("workers = [2, 3]\npolicies = ['default --weights 3,1']", "there are 3 workers", ""),
        ("service = ['trace /dev/zero']", "/dev/zero: it is no regular file", ""),
        ("arrivals = 'trace /dev/zero'", "/dev/zero: it is no regular file", ""),
        ("workers = [0]", "`workers` has 0", ""),
        ("load = [1.5]", "nobody can serve", "overload"),
        ("fault = ['freeze worker=9']", "workers 0 to 3", ""),
        ("this is no toml", "bad.toml:1", ""),
    ] {
        host.write("bad.toml", text);
        let refused = host.cluster(&["lab", "run", "bad.toml"]).fails().code(USAGE);
        refused.complains(wrong).complains(hint);
    }
    host.cluster(&["lab", "run", "/dev/zero"]).fails().code(USAGE).complains("no regular file");
    host.cluster(&["lab", "run", "no-such.toml"]).fails().code(USAGE).complains("no-such.toml");
    host.cluster(&["lab", "run", "--preset", "frozn"]).fails().code(USAGE).complains("`frozen`");
    host.cluster(&["lab", "run", "--policy", "leastconn"]).fails().code(USAGE);
    host.cluster(&["lab", "compare", "nowhere"]).fails().code(USAGE).complains("nowhere");
    assert!(!host.work().join("lab-experiment").exists(), "nothing was begun");
}

#[test]
fn what_cannot_be_started_is_said_and_the_rest_is_measured() {
    let host = Host::kernel();
    let script = host.write("broken.sh", "#!/bin/sh\necho no such thing >&2\nexit 3\n");
    let args = ["lab", "run", "--app", &script, "--rate", "100", "--policy", "default"];
    host.cluster(&[&args[..], &["--seed", "1", "--duration", "1s", "--out", "broken"]].concat())
        .fails()
        .code(1)
        .complains("no such thing");
}

#[test]
fn two_results_are_compared_and_chance_is_called_so() {
    let host = Host::kernel();
    host.write("short.toml", SHORT);
    let run = ["lab", "run", "short.toml", "--seed", "1,2,3", "--policy"];
    host.cluster(&[&run[..], &["none", "--out", "a"]].concat()).ok();
    host.cluster(&[&run[..], &["none", "--out", "b"]].concat()).ok();

    let compared = host.cluster(&["lab", "compare", "a", "b", "--json"]).ok();
    let differences = compared.json();
    let rate = differences.as_array().unwrap().iter().find(|it| it["metric"] == "throughput");
    assert_eq!(rate.unwrap()["paired"], true);
    host.cluster(&["lab", "compare", "a", "b/results.json"]).ok().says("throughput");
    host.cluster(&["lab", "compare", "a"]).fails().complains("two policies");
}

#[test]
fn every_preset_can_be_shown_and_taken_as_it_is_shown() {
    let host = Host::kernel();
    for name in ["tail", "frozen", "bimodal", "reload", "scale", "overload", "affinity"] {
        host.cluster(&["lab", "presets"]).ok().says(name);
        let shown = host.cluster(&["lab", "presets", name]).ok().stdout;
        let file = host.write("preset.toml", &shown);
        let printed = host.cluster(&["lab", "run", "--preset", name, "--print"]).ok().stdout;
        let again = host.cluster(&["lab", "run", &file, "--print"]).ok().stdout;
        assert_eq!(printed, again, "{name}");
    }
}

/// A run that is long enough to be killed.
const LONG: [&str; 7] = ["lab", "run", "short.toml", "--policy", "default", "--duration", "30s"];

/// Waits until an arena has a folder and a cgroup.
fn await_arena(before: &BTreeSet<String>) {
    wait::until_true("workers serve", || {
        let new: Vec<_> = traces().difference(before).cloned().collect();
        ["cgroup", "/cluster-lab-run-"].iter().all(|part| new.iter().any(|it| it.contains(part)))
    });
}

/// The keeper of a run.
fn keeper(begun: &Begun) -> u32 {
    *children(begun.pid()).first().expect("it has a keeper")
}

/// Folders and cgroups of experiments that are on this machine now.
fn traces() -> BTreeSet<String> {
    let folders = [std::env::temp_dir()].into_iter().chain(leftover::cgroup_hierarchy());
    folders
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path().display().to_string())
        .filter(|path| path.contains("/cluster-") && !path.contains("cluster-test-"))
        .collect()
}

/// Other tests come and go: what is there all the time and was not before is left behind.
#[track_caller]
fn assert_nothing_new(before: &BTreeSet<String>) {
    let mut left: BTreeSet<String> = traces().difference(before).cloned().collect();
    wait::until_true("nothing is left of the experiment", || {
        let now = traces();
        left.retain(|trace| now.contains(trace));
        thread::sleep(Duration::from_millis(20));
        left.is_empty()
    });
}

fn results(host: &Host, folder: &str) -> Value {
    let text = fs::read_to_string(host.work().join(folder).join("results.json"));
    serde_json::from_str(&text.expect("there are results")).expect("results are JSON")
}

fn measured<'a>(results: &'a Value, policy: &str) -> &'a Value {
    let records = results["records"].as_array().expect("there are records");
    let record = records.iter().find(|record| record["point"]["policy"] == policy);
    &record.expect("the policy was run")["verdict"]["measured"]
}

fn jain(results: &Value, policy: &str) -> f64 {
    measured(results, policy)["jain"].as_f64().expect("there is an index")
}

fn count(folder: &Path) -> usize {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter(|file| file.path().extension().is_some_and(|it| it == "json")).count()
}

/// When each point that is there was run.
fn first_dates(folder: &Path) -> BTreeSet<(PathBuf, std::time::SystemTime)> {
    let files = fs::read_dir(folder).into_iter().flatten().flatten();
    files.filter_map(|file| Some((file.path(), file.metadata().ok()?.modified().ok()?))).collect()
}
