//! The command: what it asks, prints and exits with.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    os::unix::net::UnixListener,
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use cluster_user::{
    api::message::{AppView, Failure, Line, Notice, Reason, Request, Status, VERSION},
    config::instances::Scale,
};
use serde_json::Value;

use super::fake::{Daemon, Ran, app, done, pong, run};

#[test]
fn without_a_daemon_nouns_say_so_and_list_is_empty() {
    let folder = tempfile::tempdir().unwrap();
    let list = run(folder.path(), &["list", "--json"]);
    assert_eq!((list.code, list.out.trim()), (0, "[]"));
    assert_eq!(list.err, "no daemon is running\n");
    assert_eq!(run(folder.path(), &["jlist"]).out.trim(), "[]");
    assert!(run(folder.path(), &["ls"]).out.contains("│ id │ name │"));
    for args in [
        &["ping"][..],
        &["pid", "web"],
        &["stop", "web"],
        &["scale", "web", "2"],
        &["logs"],
        &["describe", "web"],
    ] {
        let ran = run(folder.path(), args);
        assert_eq!(ran.code, 3, "{args:?}: {ran:?}");
        assert_eq!(ran.err, "error: no daemon is running\nhint: cluster start app.js starts one\n");
    }
    assert_eq!(run(folder.path(), &["kill"]).code, 0, "it is as wanted");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "nothing was left behind");
}

#[test]
fn a_home_that_cannot_be_is_explained() {
    let ran = run(Path::new("not/absolute"), &["list"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("not an absolute path\nhint: "), "{}", ran.err);
    let file = tempfile::NamedTempFile::new().unwrap();
    let ran = run(file.path(), &["start", "/bin/true"]);
    assert!(ran.err.contains("is not a folder\nhint: "), "{}", ran.err);
}

#[test]
fn list_is_plain_when_nobody_watches() {
    let daemon = serving(vec![app(0, "web\u{1b}[31m", &[10, 11]), app(1, "приложение", &[12])]);
    let list = daemon.run(&["list", "-v"]);
    assert!(!list.out.contains('\u{1b}'), "{}", list.out);
    assert!(list.out.contains("web\\u{1b}[31m:1"), "{}", list.out);
    assert!(list.out.contains("приложение"));
    let json: Value = serde_json::from_str(&daemon.run(&["list", "--json"]).out).unwrap();
    assert_eq!(json[0]["workers"][1]["pid"], 11);
    assert!(json[0]["spec"]["env"].as_object().unwrap().is_empty());
    let jlist: Value = serde_json::from_str(&daemon.run(&["jlist"]).out).unwrap();
    assert_eq!(jlist[1]["pm_id"], 1);
    assert_eq!(jlist[2]["pm_id"], 1024, "what the worker finds in its environment");
    assert_eq!(jlist[2]["pm2_env"]["status"], "online");
}

#[test]
fn colours_can_be_forced_and_forbidden() {
    let daemon = serving(vec![app(0, "web", &[10])]);
    let with = |key: &str, value: &str| {
        let output = daemon.command(&["list"]).env(key, value).output().unwrap();
        String::from_utf8(output.stdout).unwrap().contains('\u{1b}')
    };
    assert!(with("CLICOLOR_FORCE", "1"));
    assert!(!with("NO_COLOR", "1"));
    assert!(!with("CLICOLOR", "1"));
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let apps: Vec<AppView> = (0..2000).map(|id| app(id, "web", &[1, 2, 3, 4])).collect();
    let daemon = serving(apps);
    for args in [&["list", "-v"][..], &["list", "--json"], &["jlist"], &["pid"]] {
        let mut child = spawn(daemon.command(args));
        let mut line = [0; 1];
        child.stdout.take().unwrap().read_exact(&mut line).unwrap();
        let ran = Ran::from(child.wait_with_output().unwrap());
        assert_eq!((ran.code, ran.err.as_str()), (0, ""), "{args:?}");
    }
}

#[test]
fn pids_ids_and_environments_are_one_a_line() {
    let daemon = serving(vec![app(0, "web", &[10, 11])]);
    assert_eq!(daemon.run(&["pid", "web"]).out, "10\n11\n");
    assert_eq!(daemon.run(&["pid", "web:1"]).out, "11\n");
    assert_eq!(daemon.run(&["id", "web"]).out, "0\n");
    assert_eq!(daemon.run(&["env", "0:1"]).out, "NODE_APP_INSTANCE=1\nTOKEN=********\n");
    let shown = daemon.run(&["env", "0:1", "--show-secrets"]).out;
    assert_eq!(shown, "NODE_APP_INSTANCE=1\nTOKEN=secret\n");
    let daemon = serving(vec![app(0, "web", &[10]), app(1, "api", &[11])]);
    let ran = daemon.run(&["env", "all"]);
    assert_eq!(ran.code, 2);
    assert!(ran.err.contains("means more than one app: `web` and `api`"), "{}", ran.err);
}

#[test]
fn ping_tells_about_the_daemon() {
    let daemon = Daemon::new(|_| vec![pong()]);
    let ping = daemon.run(&["ping"]);
    assert_eq!(ping.code, 0);
    assert!(ping.out.starts_with("pong\npid      77\n"), "{}", ping.out);
    let json: Value = serde_json::from_str(&daemon.run(&["ping", "--json"]).out).unwrap();
    assert_eq!(json["mode"], "plain");
}

#[test]
fn a_failed_start_shows_what_the_worker_wrote_and_the_next_step() {
    let daemon = Daemon::new(|_| {
        let mut failure = Failure::new(Reason::Failed, "web: worker 0 exited with code 1");
        failure.output = vec!["Error: no\u{1b}[31m".to_owned(), "  at x.js:1".to_owned()];
        vec![Line::Failed(failure.hint("cluster logs web"))]
    });
    let ran = daemon.run(&["start", "/bin/true"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out, "");
    let expected = "error: web: worker 0 exited with code 1\n  | Error: no[31m\n  |   at x.js:1\nhint: cluster logs web\n";
    assert_eq!(ran.err, expected);
}

#[test]
fn every_reason_has_its_exit_code() {
    for (reason, code) in [
        (Reason::BadRequest, 2),
        (Reason::NotFound, 1),
        (Reason::Conflict, 1),
        (Reason::Failed, 1),
        (Reason::NotPermitted, 4),
        (Reason::Unsupported, 5),
        (Reason::Unavailable, 1),
    ] {
        let daemon = Daemon::new(move |_| vec![Line::Failed(Failure::new(reason, "no"))]);
        assert_eq!(daemon.run(&["stop", "web"]).code, code);
    }
}

#[test]
fn a_start_asks_for_what_was_typed_and_shows_the_app() {
    let daemon = Daemon::new(|request| {
        if !matches!(request, Request::Start(_)) {
            return Vec::new();
        }
        let notice = Notice { message: "plain mode".to_owned(), hint: Some("be root".to_owned()) };
        vec![Line::Notice(notice.clone()), Line::Notice(notice), done(vec![app(0, "t", &[1])])]
    });
    let ran =
        daemon.run(&["start", "/bin/true", "-i", "-99", "--name", "t", "--env", "A=1", "--", "-x"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("│ 0  │ t "), "{}", ran.out);
    assert!(
        ran.err.starts_with("note: plain mode\nhint: be root\nnext: cluster list"),
        "{}",
        ran.err
    );
    let requests = daemon.requests();
    let [Request::Start(start)] = &requests[..] else { panic!("one start") };
    assert!(start.wait);
    assert_eq!(start.spec.instances, 1);
    assert_eq!(start.spec.args, ["-x"]);
    assert_eq!(start.spec.env["A"], "1");
    assert!(!start.spec.env.contains_key("CLUSTER_HOME"));
}

#[test]
fn the_name_of_a_stopped_app_starts_it_again() {
    let daemon = Daemon::new(|request| {
        let mut known = app(3, "web", &[1]);
        known.status = Status::Stopped;
        if let Request::Apps(asked) = request
            && asked.targets != ["web"]
        {
            return vec![Line::Failed(Failure::new(Reason::NotFound, "no"))];
        }
        vec![done(vec![known])]
    });
    assert_eq!(daemon.run(&["start", "web"]).code, 0);
    let requests = daemon.requests();
    assert!(matches!(&requests[1], Request::Restart(targets) if targets.targets == ["3"]));
    let ran = daemon.run(&["start", "wbe"]);
    assert_eq!(ran.code, 1);
    assert!(ran.err.contains("no script, program or app `wbe`"), "{}", ran.err);
    let ran = daemon.run(&["start", "--name", "other", "web"]);
    assert!(ran.err.contains("no script, program or app `web`"), "{}", ran.err);
}

#[test]
fn a_dry_run_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let ran = run(&home, &["start", "/bin/true", "--dry-run", "-i", "3", "-k", "1600"]);
    assert_eq!(ran.code, 0, "{}", ran.err);
    assert!(ran.out.contains("1600ms") && ran.out.contains("/bin/true"), "{}", ran.out);
    let ran = run(&home, &["start", "/bin/true", "--dry-run", "--json"]);
    let json: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!(json[0]["program"], "/bin/true");
    assert!(!home.exists());
}

#[test]
fn bad_scripts_leave_no_daemon_behind() {
    let folder = tempfile::tempdir().unwrap();
    let home = folder.path().join("home");
    let script = folder.path().join("x.rb");
    fs::write(&script, "").unwrap();
    let script = script.to_str().unwrap();
    for (args, message) in [
        (&["start", "/no/such/script.js"][..], "there is no script"),
        (&["start", script, "--interpreter", "nope"], "interpreter `nope` is not installed"),
        (&["start", "/bin/true", "--cwd", "/no/such"], "there is no folder"),
        (&["start", "/bin/true", "--uid", "nobody-at-all"], "there is no user"),
    ] {
        let ran = run(&home, args);
        assert_eq!(ran.code, 1, "{ran:?}");
        assert!(ran.err.contains(message) && ran.err.contains("hint: "), "{ran:?}");
        assert!(!home.exists(), "{args:?}");
    }
}

#[test]
fn wrong_usage_is_exit_code_2_with_the_nearest_word() {
    let folder = tempfile::tempdir().unwrap();
    for (args, message) in [
        (&["lst"][..], "'list'"),
        (&["start", "--instnces", "2", "x"], "'--instances'"),
        (&["start", "/bin/true", "-i", "0.5"], "`0.5` is not a number of workers"),
        (&["start", "/bin/true", "-i", "99999999"], "is not a number of workers"),
        (&["scale", "web", "0"], "at least one worker"),
        (&["scale", "web", "--2"], "error"),
        (&["stop"], "<TARGET>"),
        (&["stop", "/(/"], "not a regular expression"),
        (&["logs", "--grep", "("], "regex parse error"),
        (&["reload"], "<TARGET>"),
        (&["reload", "web:1"], "whole apps\nhint: leave the number out: web"),
        (&["update"], "there is no command `update`\nhint: cluster upgrade"),
        (&["rollout", "undo", "web"], "there is no command `rollout`\nhint: cluster reload"),
        (&["start", "a.js", "--parallel", "2"], "there is no option `--parallel`\nhint: "),
    ] {
        let ran = run(folder.path(), args);
        assert_eq!(ran.code, 2, "{args:?}: {ran:?}");
        assert!(ran.err.contains(message), "{args:?}: {}", ran.err);
        assert_eq!(ran.out, "");
    }
    let ran = run(folder.path(), &["start", "x", "--name", &"y".repeat(100_000)]);
    assert!(ran.code == 2 && ran.err.len() < 2000, "a mistake is not repeated in full");
}

#[test]
fn scale_understands_what_pm2_does_not() {
    let daemon = Daemon::new(|_| vec![done(vec![app(0, "web", &[1])])]);
    for (typed, expected) in [("3", Scale::To(3)), ("+2", Scale::By(2)), ("-1", Scale::By(-1))] {
        assert_eq!(daemon.run(&["scale", "web", typed]).code, 0);
        let requests = daemon.requests();
        let Some(Request::Scale(scale)) = requests.last() else { panic!("a scale") };
        assert_eq!(scale.to, expected);
    }
}

#[test]
fn a_home_with_a_long_path_works() {
    let daemon = Daemon::named(&"x".repeat(200), |_| vec![pong()]);
    assert_eq!(daemon.run(&["ping"]).code, 0);
}

#[test]
fn kill_returns_when_the_daemon_is_gone() {
    let mut daemon = Some(Daemon::new(|_| vec![done(Vec::new())]));
    let running = daemon.as_ref().unwrap();
    let lock = running.home.lock();
    let child = spawn(running.command(&["kill"]));
    thread::sleep(Duration::from_millis(200));
    assert!(lock.exists());
    drop(daemon.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!(ran.out, "all apps are stopped, and the daemon has ended\n", "{ran:?}");
}

#[test]
fn a_daemon_of_another_release_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let listener = UnixListener::bind(folder.path().join("cluster.sock")).unwrap();
    thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(&stream);
        let mut line = String::new();
        while reader.read_line(&mut line).unwrap() > 2 {
            line.clear();
        }
        let answer = b"HTTP/1.1 200 OK\r\ncluster-version: 99\r\ncontent-length: 2\r\n\r\n{}";
        (&stream).write_all(answer).unwrap();
    });
    let ran = run(folder.path(), &["list"]);
    assert_eq!(ran.code, 1);
    let said = format!("the daemon speaks version 99, this command version {VERSION}\nhint: ");
    assert!(ran.err.contains(&said), "{}", ran.err);
}

#[test]
fn logs_show_the_last_lines_and_follow_through_rotation() {
    let logs = Arc::new(OnceLock::<PathBuf>::new());
    let daemon = Daemon::new({
        let logs = Arc::clone(&logs);
        move |_| {
            let mut web = app(0, "web", &[10]);
            let folder = logs.get().unwrap();
            web.workers[0].logs.out = folder.join("web-out-0.log");
            web.workers[0].logs.err = folder.join("web-err-0.log");
            vec![done(vec![web])]
        }
    });
    logs.set(daemon.home.logs()).unwrap();
    let path = daemon.home.logs().join("web-out-0.log");
    let write = |text: &str| {
        let mut file = fs::File::options().append(true).create(true).open(&path).unwrap();
        file.write_all(text.as_bytes()).unwrap();
    };
    write(&(0..100).fold(String::new(), |text, n| format!("{text}line {n}\n")));
    let ran = daemon.run(&["logs", "web", "--lines", "2", "--nostream"]);
    assert_eq!(ran.out, "0|web:0 | line 98\n0|web:0 | line 99\n");
    let ran = daemon.run(&["logs", "--grep", "7$", "-n", "2", "--nostream", "--json"]);
    let last: Value = serde_json::from_str(ran.out.lines().last().unwrap()).unwrap();
    assert_eq!(last["message"], "line 97");
    assert_eq!(daemon.run(&["logs", "web", "--err", "--nostream"]).out, "");

    let mut child = spawn(daemon.command(&["logs", "web", "--lines", "1", "--out"]));
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = || lines.next().unwrap().unwrap();
    assert_eq!(next(), "0|web:0 | line 99");
    write("more\n");
    assert_eq!(next(), "0|web:0 | more");
    write("last of the old\n");
    fs::rename(&path, daemon.home.logs().join("web-out-0.log.1")).unwrap();
    write("first of the new\n");
    assert_eq!(next(), "0|web:0 | last of the old");
    assert_eq!(next(), "0|web:0 | first of the new");
    drop(lines);
    let gone = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((gone.code, gone.err.as_str()), (0, ""), "it ends when nobody reads");
}

fn serving(apps: Vec<AppView>) -> Daemon {
    Daemon::new(move |_| vec![done(apps.clone())])
}

fn spawn(mut command: std::process::Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
}
