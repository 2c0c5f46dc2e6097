//! Where output goes: files that were named, files of several, log services; and places that cannot take it.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
};

use cluster_tests::{built::fixture, host::Host, http::local, namespace, wait};
use cluster_user::id::Generation;
use serde_json::Value;

/// Writes two lines and serves.
const SPEAKER: &str = "echo hello\necho trouble >&2\nexec app\n";

#[test]
fn files_are_where_they_were_named_and_folders_are_made() {
    let host = Host::plain();
    let script = host.write("speaker.sh", SPEAKER);
    let (out, all) = (host.work().join("logs/deep/out.log"), host.work().join("all.log"));
    let named = ["--out-file", "logs/deep/out.log", "-e", "NULL", "--log-file", "all.log"];
    host.cluster(&[&["start", &script][..], &named].concat()).ok();
    until_in(&out, "hello");
    until_in(&all, "trouble");
    assert_eq!(read(&out), "hello\n");
    let logs = host.app("speaker").workers.remove(0).logs;
    assert_eq!((logs.out, logs.err), (canonical(&out), PathBuf::from("/dev/null")));
    assert_eq!(logs.combined, Some(canonical(&all)));
    host.cluster(&["logs", "speaker", "--nostream"]).ok().says("hello").never_mentions("trouble");
    // Several workers get a file each.
    host.cluster(&["scale", "speaker", "2"]).ok();
    until_in(&host.work().join("logs/deep/out-1.log"), "hello");
}

#[test]
fn workers_that_share_a_file_write_whole_lines() {
    let host = Host::plain();
    let lines = 20_000;
    let variable = format!("LINES={lines}");
    let options = ["-i", "3", "--merge-logs", "--env", &variable];
    host.cluster(&[&["start", &fixture("flood.py")][..], &options].concat()).ok();
    let app = host.app("flood");
    let file = &app.workers[0].logs.out;
    assert!(app.workers.iter().all(|worker| worker.logs.out == *file));
    assert!(file.ends_with("flood-out.log"));
    wait::until_true("every line is there", || read(file).lines().count() == 3 * lines);
    let mut counted: BTreeMap<String, u32> = BTreeMap::new();
    for line in read(file).lines() {
        *counted.entry(line.to_owned()).or_default() += 1;
    }
    assert_eq!(counted.len(), lines);
    assert!(counted.values().all(|count| *count == 3));
    let shown = host.cluster(&["logs", "flood", "--nostream", "--out", "-n", "2"]).ok();
    assert_eq!(shown.lines().len(), 2, "a file that is shared is shown once");
}

#[test]
fn two_apps_that_name_one_file_do_not_break_into_lines() {
    let host = Host::plain();
    let file = host.work().join("both.log");
    let folder = host.work().join("link");
    std::os::unix::fs::symlink(host.work(), &folder).unwrap();
    let lines = 20_000;
    let variable = format!("LINES={lines}");
    let places = [file.clone(), folder.join("both.log")];
    for (name, place) in ["one", "two"].into_iter().zip(&places) {
        let place = place.to_str().unwrap();
        let options = ["--name", name, "--out-file", place, "--env", &variable, "--no-wait"];
        host.cluster(&[&["start", &fixture("flood.py")][..], &options].concat()).ok();
    }
    wait::until_true("every line is there", || read(&file).lines().count() >= 2 * lines);
    assert!(read(&file).lines().all(|line| line.starts_with("line ") && line.len() == 95));
    assert_eq!(read(&file).lines().count(), 2 * lines);
}

#[test]
fn lines_get_a_time_or_become_json() {
    let host = Host::plain();
    let script = host.write("speaker.sh", SPEAKER);
    let format = "YYYY-MM-DD HH:mm:ss.SSS Z";
    host.cluster(&["start", &script, "--name", "dated", "--log-date-format", format]).ok();
    host.cluster(&["start", &script, "--name", "timed", "--time", "--no-wait"]).ok();
    host.cluster(&["start", &script, "--name", "json", "--log-type", "json", "--no-wait"]).ok();
    let out = |name: &str| host.app(name).workers.remove(0).logs.out;

    until_in(&out("dated"), "hello");
    let first = |name: &str| read(&out(name)).lines().next().unwrap().to_owned();
    let line = first("dated");
    let (time, text) = line.rsplit_once(": ").unwrap();
    assert_eq!((text, time.len()), ("hello", "2026-11-21 14:10:17.000 +00:00".len()));
    until_in(&out("timed"), "hello");
    assert_eq!(first("timed").len(), "2026-11-21T14:10:17: hello".len());

    until_in(&out("json"), "hello");
    let line: Value = serde_json::from_str(&first("json")).unwrap();
    let keys: Vec<_> = line.as_object().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["app_name", "message", "process_id", "timestamp", "type"]);
    assert_eq!((&line["message"], &line["type"]), (&"hello".into(), &"out".into()));
}

#[test]
fn a_place_that_cannot_be_written_starts_nothing_and_is_named() {
    let host = Host::plain();
    let script = host.write("speaker.sh", SPEAKER);
    fs::write(host.work().join("file"), "").unwrap();
    for (place, why) in [(".", "is a folder"), ("file/out.log", "file/out.log"), ("", "no name")] {
        let refused = host.cluster(&["start", &script, "--out-file", place]).fails();
        refused.complains(why);
    }
    host.cluster(&["start", &script, "--log-to", "journald,syslog"])
        .fails()
        .complains("one too many");
    host.cluster(&["start", &script, "--log-date-format", "%Y"]).fails().complains("strftime");
    host.cluster(&["start", &script, "--log-max-size", "1"]).fails().complains("too few");
    assert!(host.apps().is_empty());
}

#[test]
fn a_changed_definition_that_cannot_be_kept_changes_nothing() {
    let host = Host::plain();
    let script = host.write("speaker.sh", SPEAKER);
    host.write("users", "root:x:0:0:root:/root:/bin/sh\n");
    let define = |more: &str| {
        let text = format!("[apps.speaker]\nscript = {script:?}\nno_port = true\n{more}\n");
        host.write("cluster.toml", &text)
    };
    host.cluster(&["start", &define("")]).ok();
    let before = host.pids("speaker");
    for (more, why) in [
        ("out_file = \".\"", "is a folder"),
        ("pid_file = \"users\"", "something else in it than a process id"),
    ] {
        host.cluster(&["reload", &define(more)]).fails().complains(why);
    }
    assert_eq!((host.app("speaker").generation, host.pids("speaker")), (Generation(1), before));
    // Nor is anything started over such a file.
    let start = ["start", &script, "-n", "other", "--no-port", "--pid-file", "users"];
    host.cluster(&start).fails().complains("name another file");
    assert!(fs::read_to_string(host.work().join("users")).unwrap().starts_with("root:x"));
}

#[test]
fn a_pipe_without_a_reader_and_a_full_device_hold_up_nobody() {
    let host = Host::plain();
    let fifo = host.work().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let options = ["--out-file", "fifo", "--error-file", "/dev/full", "--env", "LINES=20000"];
    host.cluster(&[&["start", &fixture("flood.py")][..], &options].concat()).ok();
    host.assert_balanced(local(8080), 1);
    host.until("flood", "has dropped what nobody reads", |app| {
        app.workers[0].dropped_bytes >= 1_900_000
    });
    // Nobody waits at the pipe.
    let shown = host.cluster(&["logs", "flood", "--nostream"]).ok();
    shown.complains("keeps nothing that could be shown").complains("were dropped");
    host.cluster(&["describe", "flood"]).ok().says("not written");
}

#[test]
fn logs_that_are_switched_off_are_kept_nowhere() {
    let host = Host::plain();
    let script = host.write("speaker.sh", SPEAKER);
    host.cluster(&["start", &script, "--disable-logs"]).ok();
    host.cluster(&["logs", "speaker", "--nostream"]).ok().complains("keeps no logs");
    assert_eq!(fs::read_dir(host.home().join("logs")).unwrap().count(), 0);
    // What one that failed said last is known all the same.
    let failing = host.write("failing.sh", "echo 'it is broken' >&2\nexit 1\n");
    host.cluster(&["start", &failing, "--disable-logs"]).fails().complains("it is broken");
}

#[test]
fn journald_gets_lines_with_their_origin() {
    let host = Host::plain();
    let listener = listen(Path::new("/run/systemd/journal"), "socket");
    let script = host.write("speaker.sh", SPEAKER);
    host.cluster(&["start", &script, "--log-to", "file,journald"]).ok();
    let (mut out, mut error) = (receive(&listener), receive(&listener));
    if out.contains("CLUSTER_STREAM=err") {
        (out, error) = (error, out);
    }
    for field in
        ["MESSAGE=hello\n", "PRIORITY=6\n", "CLUSTER_APP=speaker\n", "CLUSTER_INSTANCE=0\n"]
    {
        assert!(out.contains(field), "{out}");
    }
    for field in ["MESSAGE=trouble\n", "PRIORITY=3\n", "SYSLOG_IDENTIFIER=speaker\n"] {
        assert!(error.contains(field), "{error}");
    }
    until_in(&host.app("speaker").workers[0].logs.out, "hello");

    // The next daemon goes on.
    host.kill_daemon();
    host.cluster(&["restart", "speaker"]).ok();
    assert!(receive(&listener).contains("CLUSTER_APP=speaker\n"));
}

#[test]
fn a_log_service_that_is_slow_or_gone_holds_up_nobody() {
    let host = Host::plain();
    let refused = host.cluster(&["start", "app", "--log-to", "syslog"]);
    // The host may have one.
    if refused.code != 0 {
        refused.complains("no log service listens at `/dev/log`");
        assert!(host.apps().is_empty());
    }
    let listener = listen(Path::new("/run/systemd/journal"), "socket");
    let options = ["--log-to", "journald", "--env", "LINES=200000"];
    host.cluster(&[&["start", &fixture("flood.py")][..], &options].concat()).ok();
    host.assert_balanced(local(8080), 1);
    host.until("flood", "has dropped what was not read", |app| {
        app.workers[0].dropped_bytes > 1_000_000
    });
    host.cluster(&["logs", "flood", "--nostream"]).ok().complains("writes to journald");
    // It is said when there is room again.
    wait::until_true("it is said what was lost", || {
        receive(&listener).contains("bytes of output dropped: the log service is too slow")
    });
    drop(listener);
    host.cluster(&["restart", "flood"]).ok();
    host.assert_balanced(local(8080), 1);
}

#[test]
fn syslog_gets_lines_as_every_program_sends_them() {
    let host = Host::plain();
    namespace::own_devices(&host.work().join("dev"));
    let listener = UnixDatagram::bind("/dev/log").unwrap();
    listener.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    let script = host.write("speaker.sh", SPEAKER);
    host.cluster(&["start", &script, "--log-to", "syslog"]).ok();
    let mut lines = [receive(&listener), receive(&listener)];
    lines.sort();
    assert!(
        lines[0].starts_with("<27>") && lines[0].ends_with(" speaker[0]: trouble"),
        "{lines:?}"
    );
    assert!(lines[1].starts_with("<30>") && lines[1].ends_with(" speaker[0]: hello"), "{lines:?}");
}

#[test]
fn the_real_journald_keeps_what_it_gets() {
    let host = Host::plain();
    let run = Path::new("/run/systemd");
    namespace::mount_small_disk(run, 1 << 20);
    namespace::mount_small_disk(Path::new("/run/log"), 64 << 20);
    fs::create_dir_all(run.join("journal")).unwrap();
    let _journald = host.stranger("/usr/lib/systemd/systemd-journald", &[]);
    wait::until_true("journald listens", || run.join("journal/socket").exists());
    let script = host.write("speaker.sh", SPEAKER);
    host.cluster(&["start", &script, "--log-to", "journald"]).ok();
    wait::until_true("journalctl finds both lines", || {
        let query = ["--directory=/run/log/journal", "--output=json", "CLUSTER_APP=speaker"];
        let shown = host.command("journalctl").args(query).output().unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        let entries: Vec<Value> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let has = |message: &str, priority: &str| {
            entries.iter().any(|it| it["MESSAGE"] == message && it["PRIORITY"] == priority)
        };
        has("hello", "6") && has("trouble", "3")
    });
}

fn listen(folder: &Path, name: &str) -> UnixDatagram {
    namespace::mount_small_disk(folder, 1 << 20);
    let listener = UnixDatagram::bind(folder.join(name)).unwrap();
    listener.set_read_timeout(Some(wait::PATIENCE)).unwrap();
    listener
}

#[track_caller]
fn receive(listener: &UnixDatagram) -> String {
    let mut buffer = vec![0; 256 << 10];
    let length = listener.recv(&mut buffer).expect("a datagram comes");
    String::from_utf8_lossy(&buffer[..length]).into_owned()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn canonical(path: &Path) -> PathBuf {
    fs::canonicalize(path).unwrap()
}

#[track_caller]
fn until_in(path: &Path, text: &str) {
    let what = format!("`{text}` is in {}", path.display());
    wait::until_true(&what, || read(path).contains(text));
}
