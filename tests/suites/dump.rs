//! What is saved, and what comes back from it.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use cluster_tests::{host::Host, http::local, in_both_modes, namespace};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::Value;

in_both_modes!(
    what_was_saved_comes_back_as_it_was,
    what_runs_already_is_left_alone,
    what_was_stopped_stays_so_and_is_there_to_be_started,
    one_that_cannot_be_started_does_not_keep_the_others_down,
    what_an_earlier_release_saved_and_this_one_refuses_is_left_out_and_said,
    what_an_earlier_daemon_accepted_and_this_one_refuses_is_left_out_and_said,
);

fn what_was_saved_comes_back_as_it_was(host: &Host) {
    host.cluster(&["start", "app", "-i", "3", "--env", "API_KEY=abc", "--kill-timeout", "7s"]).ok();
    host.cluster(&["scale", "app", "2"]).ok();
    host.cluster(&["start", "app", "--name", "other", "--env", "PORT=8081"]).ok();
    let before = host.apps();
    host.cluster(&["save"]).ok().says("app, other").never_mentions("abc");
    let mode = fs::metadata(dump(host)).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600, "secrets are in it");
    host.cluster(&["kill"]).ok();

    host.cluster(&["resurrect"]).ok().never_mentions("abc");

    let specs = |apps: &[cluster_user::api::message::AppView]| {
        apps.iter().map(|app| (app.name.clone(), app.instances)).collect::<Vec<_>>()
    };
    let mut after = host.apps();
    after.sort_by(|one, other| one.name.cmp(&other.name));
    assert_eq!(specs(&after), specs(&before));
    assert_eq!(after[0].spec.stop, before[0].spec.stop);
    host.cluster(&["env", "app", "--show-secrets"]).ok().says("API_KEY=abc");
    host.cluster(&["env", "app"]).ok().says("API_KEY=********").never_mentions("abc");
    host.until_online("app", 2);
    host.until_online("other", 1);
}

fn what_runs_already_is_left_alone(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["start", "app", "--name", "stopped", "--env", "PORT=8081"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["stop", "stopped"]).ok();
    let pids = host.pids("app");

    host.cluster(&["resurrect"]).ok().complains("app: runs already").complains("stopped: started");

    assert_eq!(host.pids("app"), pids);
    host.until_online("stopped", 1);
}

fn what_was_stopped_stays_so_and_is_there_to_be_started(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["stop", "app"]).ok();
    let manual = ["start", "app", "--name", "manual", "--env", "PORT=8081", "--no-autostart"];
    host.cluster(&manual).ok();
    host.cluster(&["restart", "manual"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();

    host.cluster(&["resurrect"]).ok().complains("app: was stopped").complains("manual: started");

    host.until_online("manual", 1);
    assert!(!host.app("manual").spec.autostart, "its definition is as it was");
    assert_eq!(host.pids("app"), Vec::<u32>::new());
    host.cluster(&["save"]).ok();
    host.cluster(&["start", "app"]).ok();
    host.until_online("app", 1);
}

fn one_that_cannot_be_started_does_not_keep_the_others_down(host: &Host) {
    let gone = host.work().join("gone");
    // Not by this process, in which another thread may fork meanwhile: a file that is written cannot be run.
    let app = cluster_tests::built::programs().join("examples/app");
    assert!(Command::new("cp").arg(app).arg(&gone).status().unwrap().success());
    let typed = gone.to_str().unwrap();
    host.cluster(&["start", typed, "--env", "PORT=8081"]).ok();
    let late = host.write("late.sh", "#!/bin/sh\n[ -e mark ] && exit 3\nexec app\n");
    fs::set_permissions(&late, Permissions::from_mode(0o755)).unwrap();
    host.cluster(&["start", &late, "--env", "PORT=8082", "--max-restarts", "1"]).ok();
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();
    fs::remove_file(&gone).unwrap();
    host.write("mark", "");

    let output = host.cluster(&["resurrect"]).code(1);

    let output = output.complains("app `gone`: program").complains("is not there any more");
    output.complains("app `late`").complains("2 of 3 saved apps").complains("cluster resurrect");
    host.assert_balanced(local(8080), 1);
}

fn what_an_earlier_release_saved_and_this_one_refuses_is_left_out_and_said(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--policy", "none"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();
    edit(&dump(host), |saved| with_vain_settings(&mut saved["apps"][0]["spec"]));

    let said = host.cluster(&["resurrect"]).ok().complains("app: started");

    said.complains("guard is queue=100, and the policy is none").complains("shed is 5");
    host.until_online("app", 2);
    host.cluster(&["policy", "app"]).ok().says("none").never_mentions("queue=100");
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();
    host.cluster(&["resurrect"]).ok().never_mentions("queue=100");
}

fn what_an_earlier_daemon_accepted_and_this_one_refuses_is_left_out_and_said(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--policy", "none"]).ok();
    let before = host.pids("app");
    host.kill_daemon_and_guardian();
    let journal = host.home().join("journal.json");
    edit(&journal, |journal| {
        for app in journal["state"]["apps"].as_object_mut().unwrap().values_mut() {
            let definitions = app["definitions"].as_object_mut().unwrap();
            definitions.values_mut().for_each(with_vain_settings);
        }
    });

    let said = host.cluster(&["list"]).ok().complains("guard is queue=100, and the policy is none");

    said.complains("shed is 5");
    assert_eq!(host.pids("app"), before);
    host.cluster(&["policy", "app", "round-robin"]).ok().never_mentions("queue=100");
    host.until_online("app", 2);
}

#[test]
fn an_empty_list_is_saved_only_when_that_is_meant() {
    let host = Host::plain();
    host.cluster(&["save"]).code(3).complains("no daemon");
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["delete", "all"]).ok();
    host.cluster(&["save"]).code(1).complains("no app to save").complains("--force");
    host.cluster(&["resurrect"]).ok().complains("app: started");
    host.cluster(&["delete", "all"]).ok();
    host.cluster(&["save", "--force"]).ok();
    host.cluster(&["resurrect"]).ok().complains("no app was saved");
    assert!(host.apps().is_empty());
}

#[test]
fn what_was_saved_can_be_forgotten_and_is_kept_aside() {
    let host = Host::plain();
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["dump"]).ok();
    let saved = fs::read(dump(&host)).unwrap();
    host.cluster(&["cleardump"]).ok().says("dump.json.bak");
    assert_eq!(fs::read(dump(&host).with_extension("json.bak")).unwrap(), saved);
    host.until_online("app", 1);
}

#[test]
fn a_broken_dump_starts_nothing_and_names_the_one_before_it() {
    let host = Host::plain();
    host.cluster(&["resurrect"]).code(1).complains("nothing was saved").complains("cluster save");
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["scale", "app", "2"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();
    let whole = fs::read_to_string(dump(&host)).unwrap();
    let half = &whole[..whole.len() / 2];
    let future = whole.replacen("\"format\": 1", "\"format\": 2", 1).replacen("0.", "9.", 1);
    for (text, why) in [(half, "dump.json"), ("", "is no dump"), (&future, "written by release 9.")]
    {
        fs::write(dump(&host), text).unwrap();
        host.cluster(&["resurrect"]).code(1).complains(why);
        assert!(host.processes().is_empty(), "not even a daemon is started for it");
    }
    fs::write(dump(&host), half).unwrap();
    host.cluster(&["resurrect"]).code(1).complains("dump.json.bak");
    fs::rename(dump(&host).with_extension("json.bak"), dump(&host)).unwrap();
    host.cluster(&["resurrect"]).ok();
    host.until_online("app", 1);
}

#[test]
fn an_app_whose_saved_definition_cannot_be_read_does_not_keep_the_others_down() {
    let host = Host::plain();
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["start", "app", "--name", "other", "--env", "PORT=8081"]).ok();
    host.cluster(&["save"]).ok();
    host.cluster(&["kill"]).ok();
    edit(&dump(&host), |saved| saved["apps"][0]["spec"]["colour"] = "red".into());

    let said = host.cluster(&["resurrect"]).code(1);
    said.complains("app `app`").complains("colour").complains("1 of 2 saved apps");

    host.until_online("other", 1);
    assert_eq!(host.apps().len(), 1);
    host.cluster(&["save"]).code(1).complains("app `app` was saved and is not there");
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["resurrect"]).ok().complains("app: runs already");
    host.cluster(&["save"]).ok();
    host.cluster(&["resurrect"]).ok();
}

#[test]
fn a_full_or_read_only_disk_leaves_the_dump_that_was_there() {
    let host = Host::plain();
    namespace::mount_small_disk(&host.home(), 256 << 10);
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["save"]).ok();
    let saved = fs::read(dump(&host)).unwrap();
    host.cluster(&["scale", "app", "2"]).ok();
    let ballast = host.home().join("ballast");
    // It writes as much as there is room for.
    assert!(fs::write(&ballast, vec![1; 1 << 20]).is_err(), "the disk is small");

    host.cluster(&["save"]).code(1).complains("failed to save").complains("make room");
    assert_eq!(fs::read(dump(&host)).unwrap(), saved);
    assert!(!dump(&host).with_extension("json.bak").exists());
    fs::remove_file(ballast).unwrap();

    // Seen through a second mount: the one that files are open in cannot become read-only.
    let home = host.home();
    mount(Some(&home), &home, None::<&str>, MsFlags::MS_BIND, None::<&str>).unwrap();
    let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(None::<&str>, &home, None::<&str>, flags, None::<&str>).unwrap();
    host.cluster(&["save"]).code(1).complains("Read-only").complains("mount its disk");
    umount2(&home, MntFlags::MNT_DETACH).unwrap();
    assert_eq!(fs::read(dump(&host)).unwrap(), saved);

    host.cluster(&["save"]).ok();
    assert_ne!(fs::read(dump(&host)).unwrap(), saved);
    host.cluster(&["kill"]).ok();
    umount2(&home, MntFlags::empty()).unwrap();
}

/// What releases accepted that did not know that it has no effect.
fn with_vain_settings(spec: &mut Value) {
    let scheduling = &mut spec["scheduling"];
    assert_eq!(scheduling["policy"], "none");
    scheduling["guard"]["queue"] = 100.into();
    scheduling["shed"] = 5.into();
}

fn edit(file: &Path, change: impl FnOnce(&mut Value)) {
    let mut json = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    change(&mut json);
    fs::write(file, json.to_string()).unwrap();
}

fn dump(host: &Host) -> PathBuf {
    host.home().join("dump.json")
}
