//! Reloads: every worker is replaced, and nobody who asks notices.

use cluster_proof::failure::Cause;
use cluster_tests::{
    built::{fixture, static_go_pages},
    clients::{Clients, assert_served_by},
    command,
    deploy::{self, assert_well_told, held, steps},
    host::{Host, is_alive},
    http::{self, local},
    in_both_modes,
};
use serde_json::Value;

/// Exit code for a command line that makes no sense.
const USAGE: i32 = 2;

in_both_modes!(
    nothing_changes_but_the_code,
    variables_and_arguments_can_be_changed,
    the_environment_of_the_command_can_be_taken_over,
    batches_follow_each_other,
    steps_are_lines_of_json,
    a_second_reload_is_refused_or_takes_over,
    what_cannot_be_reloaded_is_an_error,
    what_is_removed_meanwhile_is_removed,
);

fn nothing_changes_but_the_code(host: &Host) {
    let before = host.start_web(2, &["--env", "MODE=a", "--", "one"]);
    let spec = host.app("web").spec;
    host.deploy(&deploy::after("console.log('second version');"));

    host.cluster(&["gracefulReload", "web"]).ok().says("web");

    assert_eq!(host.app("web").spec, spec);
    host.cluster(&["logs", "web", "--nostream"]).ok().says("second version");
    let after = host.pids("web");
    assert!(after.iter().all(|pid| !before.contains(pid)));
    let history = host.history("web");
    assert_eq!(history.len(), 1);
    let last = &history[0];
    assert_eq!((last.kind.as_str(), last.outcome.as_str()), ("reload", "done"));
    assert_eq!((last.generation.0, last.from.unwrap().0), (2, 1));
    assert!(last.reason.is_none() && last.who.contains("pid") && last.took_ms > 0, "{last:?}");
    host.cluster(&["history", "web"]).ok().says("done");
}

fn variables_and_arguments_can_be_changed(host: &Host) {
    let script = fixture("environment.py");
    host.cluster(&["start", &script, "--env", "KEPT=1", "--env", "MODE=a", "--", "--first"]).ok();

    host.cluster(&["reload", "environment", "--env", "MODE=b", "--", "--second", "x y"]).ok();

    let seen = seen();
    assert_eq!(seen["arguments"], serde_json::json!(["--second", "x y"]));
    assert_eq!(
        (&seen["environment"]["MODE"], &seen["environment"]["KEPT"]),
        (&"b".into(), &"1".into())
    );
    host.cluster(&["env", "environment"]).ok().says("MODE=b");
    // What it was reloaded with is what it is from now on.
    host.cluster(&["reload", "environment"]).ok();
    assert_eq!(self::seen()["arguments"], seen["arguments"]);
    host.cluster(&["restart", "environment"]).ok();
    assert_eq!(self::seen()["environment"]["MODE"], "b");
}

fn the_environment_of_the_command_can_be_taken_over(host: &Host) {
    let script = fixture("environment.py");
    host.cluster(&["start", &script, "--env", "MODE=a"]).ok();
    let mut reload = host.command("cluster");
    let reload = reload.env("COLOUR", "blue").env("MODE", "from here");

    command::run(reload.args(["reload", "environment"])).ok();
    assert_eq!(seen()["environment"].get("COLOUR"), None, "nobody asked for it");
    command::run(reload.args(["--update-env", "--env", "SIZE=9"])).ok();

    let environment = &seen()["environment"];
    assert_eq!((&environment["COLOUR"], &environment["SIZE"]), (&"blue".into(), &"9".into()));
    assert_eq!(environment["MODE"], "from here");
    assert_eq!(environment["CLUSTER_APP"], "environment", "what is the daemon's to say stays");
    assert_eq!(environment["NODE_APP_INSTANCE"], "0");
}

/// What a worker of `environment.py` was given.
fn seen() -> Value {
    serde_json::from_str(&http::get(local(8080))).unwrap()
}

fn batches_follow_each_other(host: &Host) {
    host.start_web(4, &[]);
    for batch in ["2", "50%"] {
        let reloaded = host.cluster(&["reload", "web", "--batch", batch, "--json"]).ok();
        let steps = steps(&reloaded, "done");
        let at = |step: &str, instance: u64| {
            let is = |line: &Value| line["step"] == step && line["instance"] == instance;
            steps.iter().position(is).unwrap_or_else(|| panic!("{instance} {step}: {steps:#?}"))
        };
        let both = |step: &str, first| [at(step, first), at(step, first + 1)];
        assert!(both("starting", 0).iter().max() < both("serving", 0).iter().min(), "{steps:#?}");
        assert!(both("gone", 0).iter().max() < both("starting", 2).iter().min(), "{steps:#?}");
        assert!(both("starting", 2).iter().max() < both("serving", 2).iter().min(), "{steps:#?}");
    }
}

fn steps_are_lines_of_json(host: &Host) {
    host.start_web(1, &["--listen-timeout", "10s"]);
    let reloaded = host.cluster(&["reload", "web", "--json", "--soak", "100ms"]).ok();
    let told = steps(&reloaded, "done");
    let of = |generation: u64| -> Vec<_> {
        let lines = told.iter().filter(|line| line["generation"] == generation);
        lines.map(|line| line["step"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(of(2)[..3], ["starting", "soaking", "serving"], "{told:#?}");
    assert_eq!(of(1).last().unwrap(), "gone", "{told:#?}");
    assert!(told.iter().all(|line| line["app"] == "web" && line["instance"] == 0), "{told:#?}");
    let done: Value = serde_json::from_str(reloaded.stdout.lines().last().unwrap()).unwrap();
    assert_eq!(
        (&done["apps"][0]["name"], &done["apps"][0]["generation"]),
        (&"web".into(), &2.into())
    );
    assert!(done["apps"][0]["spec"]["env"].as_object().unwrap().is_empty(), "secrets stay here");

    host.deploy("console.error('no settings'); process.exit(1);");
    let failed = host.cluster(&["reload", "web", "--json"]).fails().code(1);
    steps(&failed, "failed");
    let end: Value = serde_json::from_str(failed.stdout.lines().last().unwrap()).unwrap();
    assert!(end["message"].as_str().unwrap().contains("exited with code 1"), "{end}");
    assert!(end["output"].as_array().unwrap().contains(&"no settings".into()), "{end}");
}

fn a_second_reload_is_refused_or_takes_over(host: &Host) {
    host.start_web(2, &[]);
    host.deploy(&held());
    let mut first = host.begin(&["reload", "web", "--json"]);
    first.until_says("starting");

    let second = host.cluster(&["reload", "web"]).fails().code(1);
    assert_well_told(&second);
    second.complains("`web` is being reloaded, by").complains("(pid ").complains("--force");
    assert!(!first.has_ended());

    let forced = host.begin(&["reload", "web", "--force", "--env", "MODE=forced"]);
    let ended = first.end().fails().code(1);
    steps(&ended, "failed");
    host.let_go();
    forced.end().ok();

    let app = host.until_online("web", 2);
    assert_eq!(app.reload, None);
    assert_eq!(app.generation.0, 3);
    let outcomes: Vec<_> = host.history("web").into_iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, ["superseded", "done"]);
    host.cluster(&["env", "web"]).ok().says("MODE=forced");
    assert_served_by(8080, &host.pids("web"));
}

fn what_cannot_be_reloaded_is_an_error(host: &Host) {
    let before = host.start_web(2, &[]);
    for (words, text) in [
        (&["reload", "nobody"][..], "`nobody`"),
        (&["reload", "web", "nobody"], "`nobody`"),
        (&["promote", "web"], "no canary to promote"),
        (&["promote", "nobody"], "`nobody`"),
        (&["rollback", "web"], "nothing to go back to"),
        (&["rollback", "nobody"], "`nobody`"),
        (&["history", "nobody"], "`nobody`"),
    ] {
        let refused = host.cluster(words).fails().code(1).complains(text);
        assert_well_told(&refused);
    }
    for words in [
        &["reload"][..],
        &["reload", "web", "--batch", "0"],
        &["reload", "web", "--batch", "101%"],
        &["reload", "web", "--batch", "-1"],
        &["reload", "web", "--soak", "soon"],
        &["reload", "web", "--soak", "-1"],
        &["reload", "web", "--canary", "0%"],
        &["reload", "web", "--canary", "100%"],
        &["reload", "web", "--canary", "-5%"],
        &["reload", "web", "--canary", "abc"],
        &["reload", "web", "--canary", "0"],
        &["reload", "web", "--canary", "1/0"],
        &["reload", "web", "--canary", ""],
        &["reload", "web", "--env", "NO_VALUE"],
        &["promote"],
        &["rollback"],
    ] {
        let refused = host.cluster(words).fails();
        assert_eq!(refused.code, USAGE, "{refused:?}");
    }
    host.cluster(&["stop", "web"]).ok();
    for verb in ["reload", "rollback"] {
        let refused = host.cluster(&[verb, "web"]).fails().code(1).complains("is not running");
        assert_well_told(&refused);
    }
    assert!(host.history("web").is_empty(), "nothing of all that was a deployment");
    host.cluster(&["start", "web"]).ok();
    assert!(host.pids("web").iter().all(|pid| !before.contains(pid)));
}

fn what_is_removed_meanwhile_is_removed(host: &Host) {
    for (verb, left) in [("stop", 1), ("delete", 0)] {
        let before = host.start_web(2, &["--kill-timeout", "2s"]);
        host.deploy(&held());
        let mut reload = host.begin(&["reload", "web", "--json"]);
        reload.until_says("starting");

        host.cluster(&[verb, "web"]).ok();

        steps(&reload.end().fails().code(1), "failed");
        assert!(before.iter().all(|pid| !is_alive(*pid)));
        assert_eq!(host.apps().len(), left);
        let workers = host.apps().into_iter().flat_map(|app| app.workers);
        let mut workers = workers;
        assert!(workers.find_map(|worker| worker.pid).is_none());
        host.cluster(&["delete", "all"]).ok();
    }
}

#[test]
fn node_loses_nothing() {
    assert_nothing_is_lost(&fixture("pages.js"), 3);
}

#[test]
fn python_loses_nothing() {
    assert_nothing_is_lost(&fixture("pages.py"), 3);
}

#[test]
fn go_loses_nothing() {
    assert_nothing_is_lost(static_go_pages().to_str().unwrap(), 3);
}

#[test]
fn one_worker_is_replaced_without_a_loss() {
    assert_nothing_is_lost(&fixture("pages.js"), 1);
}

fn assert_nothing_is_lost(program: &str, workers: u32) {
    let host = Host::kernel();
    let instances = workers.to_string();
    host.cluster(&["start", program, "--name", "pages", "-i", &instances]).ok();
    let before = host.pids("pages");
    for clients in [Clients::kept(8080), Clients::fresh(8080)] {
        let earlier = host.pids("pages");

        host.cluster(&["reload", "pages"]).ok();

        clients.nothing_fails();
        let now = host.pids("pages");
        assert_eq!(now.len(), earlier.len());
        assert!(earlier.iter().all(|pid| !now.contains(pid) && !is_alive(*pid)));
        assert_served_by(8080, &now);
    }
    let app = host.until_online("pages", workers);
    assert_eq!((app.generation.0, app.reload), (3, None));
    assert!(app.workers.iter().all(|worker| worker.restarts == 2 && worker.others.is_empty()));
    assert!(before.iter().all(|pid| !is_alive(*pid)));
}

/// Without the kernel program an old worker cannot be left out, nor its clients told to go elsewhere.
#[test]
fn without_the_kernel_program_it_is_as_gentle_as_can_be() {
    let host = Host::plain();
    let options = ["start", &fixture("pages.js"), "-i", "2", "--drain-timeout", "300ms"];
    host.cluster(&options).ok();
    let before = host.pids("pages");
    let clients = Clients::fresh(8080);

    host.cluster(&["reload", "pages"]).ok();

    clients.until_answered(20);
    let account = clients.stop();
    let refused = account.failures.iter().filter(|failure| failure.cause == Cause::Refused);
    assert_eq!(refused.count(), 0, "somebody listens all along: {account}");
    assert!(account.answered() > 10 * u64::try_from(account.failed()).unwrap(), "{account}");
    assert!(before.iter().all(|pid| !is_alive(*pid)));
    assert_served_by(8080, &host.pids("pages"));
}

#[test]
fn the_waiting_room_bridges_where_two_cannot_run_at_once() {
    let host = Host::kernel();
    let script = fixture("alone.py");
    host.cluster(&["start", &script, "--overlap", "off"]).ok();
    let before = host.pids("alone");
    let clients = Clients::fresh(8080);

    for _ in 0..3 {
        host.cluster(&["reload", "alone"]).ok();
    }

    clients.nothing_fails();
    assert_ne!(host.pids("alone"), before);
    assert_served_by(8080, &host.pids("alone"));
}

#[test]
fn kept_connections_survive_where_two_cannot_run_at_once() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("alone.py"), "--overlap", "off"]).ok();
    let clients = Clients::kept(8080);
    host.cluster(&["reload", "alone"]).ok();
    clients.nothing_fails();
}

#[test]
fn a_program_that_must_be_alone_says_so_and_its_old_copy_serves() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("alone.py")]).ok();
    let before = host.pids("alone");
    let clients = Clients::both(8080);

    let failed = host.cluster(&["reload", "alone"]).fails().code(1);

    failed.complains("another copy runs").complains("rolled back");
    clients.nothing_fails();
    assert_eq!(host.pids("alone"), before);
}

#[test]
fn a_reload_that_nobody_waits_for_goes_on() {
    let host = Host::kernel();
    let before = host.start_web(2, &[]);
    host.deploy(&held());
    host.cluster(&["reload", "web", "--no-wait"]).ok();
    let app = host.until("web", "is being reloaded", |app| app.reload.is_some());
    assert_eq!(app.generation.0, 1, "until it is done");
    host.let_go();
    host.until("web", "has been reloaded", |app| app.generation.0 == 2 && app.reload.is_none());
    assert!(before.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn a_command_that_is_interrupted_leaves_the_reload_to_itself() {
    let host = Host::kernel();
    host.start_web(2, &[]);
    host.deploy(&held());
    let mut reload = host.begin(&["reload", "web", "--json"]);
    reload.until_says("starting");
    drop(reload);
    host.let_go();
    host.until("web", "has been reloaded", |app| app.generation.0 == 2 && app.reload.is_none());
}

#[test]
fn a_worker_killed_in_the_middle_of_a_reload_is_no_failure_of_the_new_version() {
    let host = Host::kernel();
    let before = host.start_web(2, &[]);
    host.deploy(&held());
    let mut reload = host.begin(&["reload", "web", "--json"]);
    reload.until_says("starting");
    cluster_tests::host::signal(before[1], nix::sys::signal::Signal::SIGKILL);
    host.let_go();
    reload.end().ok();
    let app = host.until_online("web", 2);
    assert!(app.workers.iter().all(|worker| worker.generation.0 == 2));
}
