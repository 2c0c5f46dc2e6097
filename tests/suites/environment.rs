//! What a worker is given, and what it is not: descriptors, signals, variables, folder, user.

use std::{fs, path::Path};

use cluster_tests::{
    built::fixture,
    command,
    host::{Host, NOBODY},
    http::{get, local},
    in_both_modes,
};
use cluster_user::datapath::Mode;
use serde_json::{Value, json};

in_both_modes!(
    a_worker_has_three_descriptors,
    a_worker_has_the_signals_of_a_shell,
    a_worker_has_the_variables_of_the_command_that_started_it,
    a_worker_knows_its_number,
    a_worker_runs_where_it_was_started,
);

fn a_worker_has_three_descriptors(host: &Host) {
    let given = given(host, &[]);
    let mut descriptors = given["descriptors"].as_object().unwrap().clone();
    // Where its calls are watched it keeps what the next daemon needs for that, out of the way.
    let kept = descriptors.remove("1000");
    let expected = (host.mode() == Mode::Plain).then(|| json!("anon_inode:seccomp notify"));
    assert_eq!(kept, expected);
    assert_eq!(descriptors.len(), 3, "{descriptors:#?}");
    assert_eq!(descriptors["0"], "/dev/null");
}

fn a_worker_has_the_signals_of_a_shell(host: &Host) {
    let signals = &given(host, &[])["signals"];
    // Python itself ignores SIGPIPE (13) and SIGXFSZ (25).
    let expected = json!({ "SigBlk": "0000000000000000", "SigIgn": "0000000001001000" });
    assert_eq!(signals, &expected);
}

fn a_worker_has_the_variables_of_the_command_that_started_it(host: &Host) {
    let mut first = host.command("cluster");
    first.args(["start", "app", "--env", "PORT=8081"]).env("ONLY_THE_DAEMONS", "1");
    command::run(&mut first).ok();
    let mut start = host.command("cluster");
    start.args(["start", &fixture("environment.py"), "--env", "GIVEN=a=b c"]);
    command::run(start.env("INHERITED", "yes").env("GIVEN", "no")).ok();

    let environment = &answer()["environment"];
    assert_eq!(environment["INHERITED"], "yes");
    assert_eq!(environment["GIVEN"], "a=b c");
    assert_eq!(environment["ONLY_THE_DAEMONS"], Value::Null);
}

fn a_worker_knows_its_number(host: &Host) {
    let environment = &given(host, &[])["environment"];
    assert_eq!(environment["NODE_APP_INSTANCE"], "0");
    assert_eq!(environment["CLUSTER_INSTANCE"], "0");
    assert_eq!(environment["CLUSTER_APP"], "environment");
}

fn a_worker_runs_where_it_was_started(host: &Host) {
    let given = given(host, &[]);
    assert_eq!(Path::new(given["folder"].as_str().unwrap()), host.work());
    assert_eq!(given["umask"], "0022");
    assert_eq!((&given["uid"], &given["gid"]), (&json!(0), &json!(0)));
}

#[test]
fn a_folder_can_be_chosen() {
    let host = Host::kernel();
    fs::create_dir(host.work().join("below")).unwrap();
    let given = given(&host, &["--cwd", "below"]);
    assert_eq!(Path::new(given["folder"].as_str().unwrap()), host.work().join("below"));
}

#[test]
fn a_worker_can_be_another_user_and_still_share_its_port() {
    let host = Host::kernel();
    host.open_to_all();
    for script in ["environment.py", "answer.py"] {
        host.write(script, &fs::read_to_string(fixture(script)).unwrap());
    }
    let start = ["start", "environment.py", "-i", "2", "--uid", "nobody", "--gid", "nogroup"];
    host.cluster(&start).ok();

    let given = answer();
    assert_eq!((&given["uid"], &given["gid"]), (&json!(NOBODY), &json!(NOBODY)));
    assert_eq!(given["groups"], json!([NOBODY]));
    for _ in 0..20 {
        answer();
    }
    let chosen: Vec<_> = host.app("environment").workers.iter().map(|w| w.selected).collect();
    assert!(chosen == [Some(10), Some(11)] || chosen == [Some(11), Some(10)], "{chosen:?}");
}

#[test]
fn a_stopped_app_takes_what_is_said_when_it_starts_again() {
    let host = Host::kernel();
    let script = fixture("environment.py");
    host.cluster(&["start", &script, "--env", "MODE=a", "--env", "KEPT=k"]).ok();
    let mut start = host.command("cluster");
    let start = start.args(["start", "environment", "-i", "2", "--env", "MODE=b"]);
    let start = start.args(["--update-env", "--kill-timeout", "1s"]).env("COLOUR", "blue");

    host.cluster(&["stop", "environment"]).ok();
    command::run(start).ok().complains("keeps the options");

    assert_eq!(host.app("environment").online, 2);
    let environment: Value = serde_json::from_str(&get(local(8080))).unwrap();
    let environment = &environment["environment"];
    assert_eq!(
        [&environment["MODE"], &environment["COLOUR"], &environment["KEPT"]],
        ["b", "blue", "k"]
    );

    // A script is no file of apps, and is not run to see whether it is one.
    host.write("touches.js", "require('node:fs').writeFileSync('touched', '')");
    let file = host.write("cluster.toml", "[apps.a]\nscript = 'touches.js'\n");
    host.cluster(&["start", &file, "touches.js"]).code(2).complains("no file of apps");
    assert!(!host.work().join("touched").exists());
}

/// Starts one worker that tells what it was given.
fn given(host: &Host, options: &[&str]) -> Value {
    host.cluster(&[&["start", &fixture("environment.py")], options].concat()).ok();
    answer()
}

fn answer() -> Value {
    serde_json::from_str(&get(local(8080))).unwrap()
}
