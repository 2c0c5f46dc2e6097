//! Journals that tell nothing: workers are found by what the kernel knows, and it is said loudly.

use std::fs;

use cluster_tests::{
    command::Output,
    host::{Host, signal},
    http::local,
    in_both_modes, wait,
};
use cluster_user::{api::message::AppView, config::home::Home};
use nix::sys::signal::Signal;
use serde_json::Value;

/// Exit code when there is no daemon.
const NO_DAEMON: i32 = 3;

in_both_modes!(
    a_journal_that_is_cut_off_is_set_aside,
    a_journal_of_nonsense_is_set_aside,
    a_journal_from_the_future_is_set_aside,
    a_journal_that_is_gone_is_not_missed,
    a_journal_of_an_earlier_boot_is_nothing,
    a_journal_that_cannot_be_written_is_said_to_who_wants_something,
);

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

fn a_journal_that_cannot_be_written_is_said_to_who_wants_something(host: &Host) {
    // Where it is made before it takes its place.
    let new = home(host).journal().with_extension("new");
    fs::create_dir_all(&new).unwrap();
    host.cluster(&["start", "app"])
        .ok()
        .complains("cannot be written")
        .complains("hint: make room");
    fs::remove_dir(&new).unwrap();

    host.cluster(&["scale", "app", "2"]).ok().never_mentions("cannot be written");

    fs::create_dir_all(&new).unwrap();
    host.cluster(&["scale", "app", "3"]).ok().complains("cannot be written");
    fs::remove_dir(&new).unwrap();
}

/// Checks that workers are found without the journal, and that it is said loudly.
fn assert_set_aside(host: &Host, damage: impl Fn(&str) -> String) -> Output {
    let port = "PORT=8081";
    host.cluster(&["start", "app", "-i", "3", "--env", port, "--env", "MODE=a", "--", "--one"])
        .ok();
    let before = host.app("app");
    host.kill_daemon_and_guardian();
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
    host.kill_daemon();
    wait::until_true("the next one answers", || host.cluster(&["ping"]).code == 0);
    assert_eq!(host.pids("app"), before);
    host.assert_balanced(local(8080), 2);
}

fn a_journal_of_an_earlier_boot_is_nothing(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let workers = host.pids("app");
    host.kill_daemon_and_guardian();
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

/// The guardian started the next daemon, so no command was there to tell of what that found.
#[test]
fn the_first_who_wants_something_hears_of_a_broken_journal() {
    let host = Host::kernel();
    host.cluster(&["start", "app"]).ok();
    // It is written at the next change, and not before.
    fs::write(home(&host).journal(), "garbage").unwrap();
    let killed = host.kill_daemon();
    wait::until_true("there is another", || {
        let holder = fs::read_to_string(home(&host).lock()).unwrap_or_default();
        holder.trim() != killed.to_string()
    });

    host.cluster(&["scale", "app", "2"]).ok().complains("it was set aside as");

    host.cluster(&["scale", "app", "1"]).ok().never_mentions("set aside");
    host.cluster(&["ping"]).ok().complains("it was set aside as");
}

fn home(host: &Host) -> Home {
    Home::at(host.home()).unwrap()
}
