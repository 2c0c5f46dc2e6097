//! Reloads when files change.

use std::{fs, os::unix::fs::symlink, time::Duration};

use cluster_tests::{
    built::fixture,
    host::Host,
    http::{self, local},
    in_both_modes,
    load::Load,
    wait,
};
use cluster_user::{api::message::DeploymentView, datapath::Mode};

in_both_modes!(
    a_change_reloads_once_with_the_files_that_changed,
    a_change_during_a_reload_is_not_forgotten,
);

fn a_change_reloads_once_with_the_files_that_changed(host: &Host) {
    let script = code(host);
    host.cluster(&["start", &script, "-i", "2", "--watch", "--ignore-watch", "tmp"]).ok();
    let load = Load::start(local(8080), 2);
    fs::create_dir(host.work().join("tmp")).unwrap();
    // Until the watch is there: a change before it is none.
    until_watched(host, "seen.txt");

    for name in ["b.txt", "tmp/c.txt", ".env", "a.txt"] {
        host.write(name, "x");
    }

    // What was written to find out whether it is watched may bring another reload of its own.
    let of_these = || {
        let all = reloads(host).into_iter();
        all.filter(|deploy| deploy.who.contains("a.txt") || deploy.who.contains("b.txt")).collect()
    };
    wait::until_true("it is reloaded", || {
        let found: Vec<DeploymentView> = of_these();
        !found.is_empty()
    });
    settle(host);
    let found: Vec<DeploymentView> = of_these();
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].who.contains("a.txt, b.txt"), "{found:?}");
    assert!(!found[0].who.contains("c.txt") && !found[0].who.contains(".env"), "{found:?}");
    let score = load.stop();
    if host.mode() == Mode::Kernel {
        assert!(score.failures.is_empty(), "{:?}", score.failures);
    }
}

fn a_change_during_a_reload_is_not_forgotten(host: &Host) {
    let script = code(host);
    host.cluster(&["start", &script, "--watch=conf"]).ok();
    fs::create_dir(host.work().join("conf")).unwrap();
    until_watched(host, "conf/a");
    host.cluster(&["reload", "pages", "--env", "A=1", "--no-wait"]).ok();
    host.write("conf/b", "x");
    wait::until_true("both are done", || {
        let reloads = reloads(host);
        reloads.iter().any(|deploy| deploy.who == "watch: conf/b")
    });
    settle(host);
}

#[test]
fn a_folder_that_vanishes_and_comes_back_goes_on_being_watched() {
    let host = Host::plain();
    let script = code(&host);
    let folder = host.work().join("src");
    fs::create_dir(&folder).unwrap();
    host.cluster(&["start", &script, "--watch=src", "--watch-delay", "50ms"]).ok();
    until_watched(&host, "src/a");
    fs::remove_dir_all(&folder).unwrap();
    wait::until_true("that is noticed", || {
        fs::read_to_string(host.home().join("daemon.log"))
            .unwrap()
            .contains("is not there, and is waited for")
    });
    settle(&host);
    let before = reloads(&host).len();
    fs::create_dir(&folder).unwrap();
    wait::until_true("it is back", || {
        reloads(&host).iter().skip(before).any(|deploy| deploy.who.contains("src"))
    });
    host.write("src/new", "x");
    wait::until_true("and watched", || {
        reloads(&host).iter().any(|deploy| deploy.who.contains("src/new"))
    });
    assert_eq!(host.cluster(&["ping"]).code, 0);
}

#[test]
fn a_release_that_is_switched_by_a_link_is_a_change() {
    let host = Host::plain();
    let script = code(&host);
    for release in ["v1", "v2"] {
        fs::create_dir(host.work().join(release)).unwrap();
    }
    symlink("v1", host.work().join("current")).unwrap();
    host.cluster(&["start", &script, "--watch=current"]).ok();
    until_watched(&host, "v1/a");
    symlink("v2", host.work().join("next")).unwrap();
    fs::rename(host.work().join("next"), host.work().join("current")).unwrap();
    wait::until_true("it is reloaded", || {
        reloads(&host).iter().any(|deploy| deploy.who == "watch: current")
    });
}

#[test]
fn an_app_that_writes_what_it_watches_does_not_reload_for_ever() {
    let host = Host::plain();
    let script = host.write(
        "writes.py",
        "import os, sys\nopen('pid.txt', 'w').write(str(os.getpid()))\n\
         from http.server import *\nThreadingHTTPServer(('0.0.0.0', 8080), BaseHTTPRequestHandler).serve_forever()\n",
    );
    host.cluster(&["start", &script, "--watch"]).ok();
    host.write("begin.txt", "x");
    let log = host.home().join("daemon.log");
    wait::until_true("it is said", || {
        fs::read_to_string(&log).unwrap().contains("each reload seems to change pid.txt")
    });
    host.cluster(&["stop", "writes"]).complains("ignore_watch");
}

#[test]
fn a_daemon_that_is_killed_goes_on_watching_afterwards() {
    let host = Host::plain();
    let script = code(&host);
    host.cluster(&["start", &script, "--watch"]).ok();
    let daemon = host.ping().pid;
    cluster_tests::host::signal(daemon, nix::sys::signal::Signal::SIGKILL);
    wait::until_true("there is another", || {
        host.cluster(&["ping"]).code == 0 && host.ping().pid != daemon
    });
    until_watched(&host, "a.txt");
}

#[test]
fn what_apps_log_in_a_folder_that_is_watched_is_no_change() {
    let host = Host::plain();
    let script = code(&host);
    let talks = host.write(
        "talks.js",
        "require('http').createServer((q, r) => r.end(`pid ${process.pid}`)).listen(8081);\n\
         setInterval(() => console.log('a line'), 5);\n",
    );
    host.cluster(&["start", &script, "--watch"]).ok();
    let files = ["--out-file", "mine/out.log", "--pid-file", "mine/pid", "--log-max-size", "4K"];
    host.cluster(&[&["start", &talks, "--watch"], &files[..]].concat()).ok();
    until_watched(&host, "begin.txt");
    wait::until_true("the other app watches too", || {
        host.write("again.txt", "x");
        let noticed = || (!host.history("talks").is_empty()).then_some(());
        wait::within(Duration::from_secs(2), noticed).is_some()
    });
    host.write("last.txt", "x");
    let apps = ["talks", "pages"];
    wait::until_true("both are reloaded for the last change", || {
        apps.iter().all(|app| {
            let deploys = host.history(app);
            let last = |deploy: &DeploymentView| deploy.who.contains("last.txt");
            deploys.iter().any(last) && deploys.iter().all(|deploy| deploy.outcome == "done")
        })
    });
    let before = apps.map(|app| host.history(app).len());

    let rotated = host.work().join("mine/out.log.2");
    wait::until_true("it is rotated twice", || {
        rotated.exists() || rotated.with_extension("2.gz").exists()
    });

    assert_eq!(
        apps.map(|app| host.history(app).len()),
        before,
        "logs are nobody's change: {:?}",
        apps.map(|app| host.history(app))
    );
    host.cluster(&["delete", "all"]).ok();
}

#[test]
fn a_pattern_that_cannot_be_read_is_refused() {
    let host = Host::plain();
    let start = ["start", "app", "--watch", "--ignore-watch", "(a"];
    host.cluster(&start).fails().complains("unclosed group");
    host.cluster(&["start", "app"]).ok();
    assert_eq!(http::get(local(8080)), http::get(local(8080)));
}

/// A script in the working folder, which is watched.
fn code(host: &Host) -> String {
    fs::copy(fixture("answer.py"), host.work().join("answer.py")).unwrap();
    fs::copy(fixture("server.py"), host.work().join("pages.py")).unwrap();
    host.work().join("pages.py").into_os_string().into_string().unwrap()
}

fn reloads(host: &Host) -> Vec<DeploymentView> {
    host.history("pages")
}

/// Changes a file until that is noticed: what changes before it is watched is not. Waits for the reload.
fn until_watched(host: &Host, name: &str) {
    let noticed = || (!reloads(host).is_empty()).then_some(());
    wait::until_true(&format!("{name} is watched"), || {
        host.write(name, "x");
        wait::within(Duration::from_secs(2), noticed).is_some()
    });
    settle(host);
}

/// Waits until no reload is under way.
fn settle(host: &Host) {
    wait::until_true("nothing is under way", || {
        let done = |deploy: &DeploymentView| deploy.outcome == "done";
        reloads(host).iter().all(done)
    });
    let app = host.app("pages");
    host.until_online("pages", app.instances);
}
