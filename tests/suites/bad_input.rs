//! What makes no sense is refused: with a clear error, a non-zero exit, and nothing half done.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use cluster_tests::{built::fixture, command, host::Host, http::local, in_both_modes, leftover};
use cluster_user::{config::home::Home, datapath::Mode};

/// Exit code for a command line that makes no sense.
const USAGE: i32 = 2;
/// Exit code for a kernel that lacks what was asked for.
const UNSUPPORTED: i32 = 5;

in_both_modes!(
    a_missing_script_is_an_error,
    a_missing_interpreter_is_an_error,
    a_name_in_use_is_an_error,
    an_unknown_target_is_an_error,
    a_scale_below_zero_is_an_error,
    a_megabyte_of_arguments_and_environment_is_taken,
    names_may_have_spaces_and_any_script,
);

fn a_missing_script_is_an_error(host: &Host) {
    host.cluster(&["start", "no-such.js"]).fails().complains("no-such.js");
    host.cluster(&["start", "./no-such"]).fails().complains("no-such");
    assert_nothing_started(host);
}

fn a_missing_interpreter_is_an_error(host: &Host) {
    let script = fixture("server.py");
    host.cluster(&["start", &script, "--interpreter", "no-such-python"])
        .fails()
        .complains("no-such-python");
    let typescript = host.write("app.ts", "");
    host.cluster(&["start", &typescript, "--interpreter", "no-such-runner"]).fails();
    let shebang = host.write("odd", "#!/no/such/interpreter\n");
    fs::set_permissions(&shebang, Permissions::from_mode(0o755)).unwrap();
    host.cluster(&["start", &shebang, "--max-restarts", "1"]).fails();
    assert!(!host.apps().iter().any(|app| app.online > 0));
}

fn a_name_in_use_is_an_error(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");

    let script = fixture("server.py");
    host.cluster(&["start", &script, "--name", "app", "--env", "PORT=8081"])
        .fails()
        .code(1)
        .complains("app");

    assert_eq!(host.pids("app"), before);
    assert_eq!(host.apps().len(), 1);
}

fn an_unknown_target_is_an_error(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");
    for command in ["stop", "restart", "delete", "describe", "pid", "env", "flush", "id"] {
        host.cluster(&[command, "nobody"]).fails().code(1).complains("nobody");
    }
    host.cluster(&["scale", "nobody", "2"]).fails().complains("nobody");
    host.cluster(&["logs", "nobody", "--nostream"]).fails().complains("nobody");
    host.cluster(&["stop", "app:7"]).fails().complains("7");
    host.cluster(&["stop", "42"]).fails().complains("42");
    host.cluster(&["stop", "/(/"]).fails().complains("/(/");
    host.cluster(&["stop", "app", "nobody"]).fails().complains("nobody");
    assert_eq!(host.pids("app"), before, "a half-known list of targets changes nothing");
}

fn a_scale_below_zero_is_an_error(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let before = host.pids("app");
    for number in ["-5", "99999999", "+99999999", "abc", "1.5", ""] {
        host.cluster(&["scale", "app", number]).fails();
    }
    assert_eq!(host.pids("app"), before);
    host.assert_balanced(local(8080), 2);
}

fn a_megabyte_of_arguments_and_environment_is_taken(host: &Host) {
    let long = "x".repeat(100_000);
    let mut start = host.command("cluster");
    start.args(["start", "app", "-i", "2"]);
    for number in 0..5 {
        start.env(format!("LONG_{number}"), &long);
    }
    start.arg("--").args([&long; 5]);
    command::run(&mut start).ok();
    host.assert_balanced(local(8080), 2);
    host.cluster(&["list"]).ok().never_mentions(&long);
}

fn names_may_have_spaces_and_any_script(host: &Host) {
    for (name, port) in [("my app", "8081"), ("приложение", "8082"), ("日本.js", "8083")]
    {
        let port_variable = format!("PORT={port}");
        host.cluster(&["start", "app", "-i", "2", "--name", name, "--env", &port_variable]).ok();
        host.assert_balanced(local(port.parse().unwrap()), 2);
        assert_eq!(host.app(name).online, 2);
        host.cluster(&["list"]).ok().says(name);
        host.cluster(&["restart", name]).ok();
        host.cluster(&["logs", name, "--nostream"]).ok();
        host.cluster(&["delete", name]).ok();
    }
}

#[test]
fn numbers_of_workers_that_are_none_are_wrong_usage() {
    let host = Host::kernel();
    for number in ["0.5", "99999999", "abc", "", "1e3", "--1"] {
        host.cluster(&["start", "app", "-i", number]).fails().code(USAGE);
        host.cluster(&["start", "app", "--instances", number]).fails().code(USAGE);
    }
    assert_nothing_started(&host);
}

#[test]
fn names_that_could_be_mistaken_are_wrong_usage() {
    let host = Host::kernel();
    for name in ["", "a/b", "../up", "a\nb", "\u{1b}[31mred", "all", "12", "a:1", "."] {
        host.cluster(&["start", "app", "--name", name])
            .fails()
            .code(USAGE)
            .never_mentions("\u{1b}");
        host.cluster(&["start", "app", "--namespace", name]).fails().code(USAGE);
    }
    let long = "x".repeat(100_000);
    let refused = host.cluster(&["start", "app", "--name", &long]).fails().code(USAGE);
    assert!(refused.stderr.len() < 2_000, "an error does not repeat a megabyte");
    assert_nothing_started(&host);
}

#[test]
fn options_that_make_no_sense_are_wrong_usage() {
    let host = Host::kernel();
    for options in [
        &["--env", "NO_VALUE"][..],
        &["--env", "=value"],
        &["--port", "0"],
        &["--port", "70000"],
        &["--kill-timeout", "soon"],
        &["--min-uptime", "-1"],
        &["--stop-exit-codes", "256"],
        &["--kill-signal", "SIGNOTHING"],
        &["--no-such-option"],
    ] {
        let refused = host.cluster(&[&["start", "app"], options].concat()).fails();
        assert_eq!(refused.code, USAGE, "{refused:?}");
    }
    host.cluster(&["start"]).fails().code(USAGE);
    host.cluster(&["no-such-command"]).fails().code(USAGE);
    host.cluster(&["start", "app", "--uid", "no-such-user"]).fails().complains("no-such-user");
    host.cluster(&["start", "app", "--cwd", "no-such-folder"]).fails().complains("no-such-folder");
    assert_nothing_started(&host);
}

#[test]
fn without_privileges_it_is_plain_mode_and_said_once() {
    let host = Host::unprivileged();

    let started = host.cluster(&["start", "app", "-i", "2"]).ok();
    assert!(started.stderr.contains("plain"), "what is missing is said: {started:?}");
    assert_eq!(host.app("app").mode, Mode::Plain);
    assert!(!host.ping().missing.is_empty());
    host.assert_balanced(local(8080), 2);

    let again = ["start", "app", "--name", "second", "--env", "PORT=8081"];
    let started = host.cluster(&again).ok();
    assert!(!started.stderr.contains("plain"), "once is enough: {started:?}");
}

#[test]
fn without_privileges_kernel_mode_can_be_insisted_on() {
    let host = Host::unprivileged();
    host.cluster(&["start", "app", "--require-kernel"]).fails().code(UNSUPPORTED);
    assert_nothing_started(&host);
    host.cluster(&["doctor"]).says("plain");
}

#[test]
fn nothing_is_left_of_a_worker_that_could_not_be_spawned() {
    let host = Host::kernel();
    let damaged = host.write("odd", "\x7fELF");
    fs::set_permissions(&damaged, Permissions::from_mode(0o755)).unwrap();
    host.cluster(&["start", &damaged]).fails().complains("odd");
    host.cluster(&["delete", "odd"]).ok();

    let daemons = format!("cluster-{}", Home::at(host.home()).unwrap().id());
    let daemons = leftover::cgroup_hierarchy().unwrap().join(daemons);
    let below = fs::read_dir(daemons).unwrap().map(|entry| entry.unwrap());
    let below: Vec<_> = below.filter(|entry| entry.file_type().unwrap().is_dir()).collect();
    assert!(below.is_empty(), "{below:?}");
}

#[test]
fn a_script_that_nobody_may_run_is_an_error() {
    let host = Host::unprivileged();
    let script = host.write("closed.sh", "exec sleep 1000\n");
    fs::set_permissions(&script, Permissions::from_mode(0o000)).unwrap();
    host.cluster(&["start", &script, "--max-restarts", "1"]).fails().complains("closed.sh");
}

fn assert_nothing_started(host: &Host) {
    assert!(host.apps().is_empty(), "{:#?}", host.apps());
}
