//! What workers write: captured without a gap, shown as asked for, and never more than the disk can hold.

use std::{
    collections::BTreeSet,
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use cluster_tests::{
    built::fixture,
    host::Host,
    http::{get, local},
    in_both_modes, namespace, wait,
};
use serde_json::Value;

in_both_modes!(
    both_streams_are_kept_apart,
    the_last_lines_are_shown,
    lines_can_be_searched,
    lines_can_be_json,
    flush_empties_the_files,
    a_flood_is_captured_without_a_gap,
    a_full_disk_stops_no_worker,
);

fn both_streams_are_kept_apart(host: &Host) {
    start_talking(host);
    logs_until(host, &["--out"], "out: hello").never_mentions("err: hello");
    logs_until(host, &["--err"], "err: hello").never_mentions("out: hello");
    let app = host.app("talks");
    let read = |path| fs::read_to_string(path).unwrap();
    assert!(read(&app.workers[0].logs.out).contains("out: hello"));
    assert!(read(&app.workers[0].logs.err).contains("err: hello"));
}

fn the_last_lines_are_shown(host: &Host) {
    start_talking(host);
    for _ in 0..20 {
        get(local(8080));
    }
    wait::until_true("twenty requests are logged", || {
        host.cluster(&["logs", "talks", "--nostream", "--out", "--lines", "100"]).lines().len()
            >= 22
    });
    let shown = host.cluster(&["logs", "talks", "--nostream", "--out", "--lines", "3"]).ok();
    assert_eq!(shown.lines().iter().filter(|line| line.contains("out: asked")).count(), 3);
}

fn lines_can_be_searched(host: &Host) {
    start_talking(host);
    get(local(8080));
    logs_until(host, &["--grep", "asked"], "asked").never_mentions("hello");
    host.cluster(&["logs", "talks", "--nostream", "--grep", "("]).fails();
}

fn lines_can_be_json(host: &Host) {
    start_talking(host);
    let shown = logs_until(host, &["--json"], "out: hello");
    for line in shown.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(line.to_string().contains("talks"), "{line}");
    }
}

fn flush_empties_the_files(host: &Host) {
    start_talking(host);
    logs_until(host, &[], "out: hello");
    host.cluster(&["flush", "talks"]).ok();
    host.cluster(&["logs", "talks", "--nostream"]).ok().never_mentions("hello");

    get(local(8080));
    logs_until(host, &[], "out: asked").never_mentions("hello");
}

fn a_flood_is_captured_without_a_gap(host: &Host) {
    let lines = 300_000;
    let variable = format!("LINES={lines}");
    host.cluster(&["start", &fixture("flood.py"), "--env", &variable]).ok();

    let last = format!("line {:09} ", lines - 1);
    let written = host.app("flood").workers.remove(0).logs.out;
    wait::until_true("the last line is in the file", || {
        fs::read_to_string(&written).is_ok_and(|text| text.contains(&last))
    });
    let captured = numbers(&written);
    let first = *captured.first().unwrap();
    assert_eq!(captured.last(), Some(&(lines - 1)));
    assert_eq!(
        captured.len() as u64,
        lines - first,
        "no line between {first} and the last is missing"
    );
}

fn a_full_disk_stops_no_worker(host: &Host) {
    let logs = host.home().join("logs");
    fs::create_dir(host.home()).unwrap();
    fs::set_permissions(host.home(), Permissions::from_mode(0o700)).unwrap();
    namespace::mount_small_disk(&logs, 64 << 10);
    host.cluster(&["start", &fixture("flood.py"), "--env", "LINES=20000", "-i", "2"]).ok();

    host.assert_balanced(local(8080), 2);
    let dropped: u64 = host.app("flood").workers.iter().map(|worker| worker.dropped_bytes).sum();
    // Each worker writes 1.92 MB: what is not on the disk is counted.
    assert!(dropped >= (2 * 1_920_000) - (64 << 10), "{dropped} bytes are said to be dropped");
    host.cluster(&["describe", "flood"]).ok().says("not written");
    host.cluster(&["list"]).ok();
    host.cluster(&["restart", "flood"]).ok();
    host.assert_balanced(local(8080), 2);
}

#[test]
fn files_do_not_grow_without_end() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("flood.py"), "--env", "LINES=1500000"]).ok();
    let written = host.app("flood").workers.remove(0).logs.out;
    let last = "line 001499999 ";
    wait::until_true("the last line is in the file", || {
        fs::read_to_string(&written).is_ok_and(|text| text.contains(last))
    });
    let folder = written.parent().unwrap();
    let sizes = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len());
    let total: u64 = sizes.sum();
    assert!(total < 100 << 20, "{total} bytes of 144 MB are kept");
}

#[test]
fn workers_are_told_apart() {
    let host = Host::kernel();
    host.cluster(&["start", &fixture("talks.py"), "-i", "2"]).ok();
    logs_until(&host, &[], "out: hello");
    let app = host.app("talks");
    assert_ne!(app.workers[0].logs.out, app.workers[1].logs.out);
    let one = host.cluster(&["logs", "talks:1", "--nostream", "--out"]).ok();
    assert_eq!(one.lines().iter().filter(|line| line.contains("out: hello")).count(), 1);
}

#[test]
fn a_last_line_without_an_end_is_kept() {
    let host = Host::kernel();
    let script = host.write("half.sh", "printf 'no end'\nexec app\n");
    host.cluster(&["start", &script]).ok();
    host.cluster(&["stop", "half"]).ok();
    host.cluster(&["logs", "half", "--nostream"]).ok().says("no end");
}

fn start_talking(host: &Host) {
    host.cluster(&["start", &fixture("talks.py")]).ok();
    get(local(8080));
}

/// Output is captured a moment after it was written.
#[track_caller]
fn logs_until(host: &Host, options: &[&str], text: &str) -> cluster_tests::command::Output {
    let args = [&["logs", "talks", "--nostream"], options].concat();
    wait::until(&format!("`{args:?}` shows `{text}`"), || {
        let shown = host.cluster(&args).ok();
        shown.stdout.contains(text).then_some(shown)
    })
}

/// Numbers of the lines in a log file and in those it was rotated to.
fn numbers(written: &std::path::Path) -> BTreeSet<u64> {
    let name = written.file_name().unwrap().to_str().unwrap();
    let stem = name.strip_suffix(".log").unwrap_or(name);
    let files = fs::read_dir(written.parent().unwrap()).unwrap().map(|entry| entry.unwrap().path());
    let rotated =
        files.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with(stem));
    rotated
        .flat_map(|path| {
            let text = fs::read_to_string(path).unwrap();
            let numbers = text.lines().filter_map(|line| {
                let (_, after) = line.split_once("line ")?;
                after.split(' ').next()?.parse().ok()
            });
            numbers.collect::<Vec<u64>>()
        })
        .collect()
}
