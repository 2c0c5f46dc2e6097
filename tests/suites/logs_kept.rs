//! What is kept of output, and found again: rotated, compressed, searched by time, and never lost with a daemon.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use cluster_tests::{
    built::fixture,
    host::Host,
    http::{get, local},
    wait,
};
use serde_json::Value;

/// Writes numbered lines for a few seconds beside a server.
const COUNTER: &str = "(i=0
while [ $i -lt 20000 ]; do
    echo \"n $i\"
    i=$((i+1))
    [ $((i % 100)) = 0 ] && sleep 0.01
done
echo finished) &
exec app
";

#[test]
fn files_are_rotated_by_size_compressed_and_read_all_the_same() {
    let host = Host::plain();
    let lines = 20_000;
    let variable = format!("LINES={lines}");
    let options = ["--log-max-size", "256K", "--log-keep", "9", "--env", &variable];
    host.cluster(&[&["start", &fixture("flood.py")][..], &options].concat()).ok();
    let out = host.app("flood").workers.remove(0).logs.out;
    let last = format!("line {:09} ", lines - 1);
    wait::until_true("the last line is in the file", || {
        fs::read_to_string(&out).is_ok_and(|text| text.contains(&last))
    });
    // The tests' user is patient enough: a file is compressed ten seconds after it was written last.
    wait::until_true("all rotated ones are compressed", || {
        let compressed = rotated(&out).iter().filter(|name| is_compressed(name)).count();
        compressed == 7 && rotated(&out).len() == 7
    });
    for name in rotated(&out) {
        let size = fs::metadata(out.with_file_name(name)).unwrap().len();
        assert!(size < 100 << 10, "{size}");
    }
    let all = ["logs", "flood", "--nostream", "--out", "--raw", "-n"];
    let shown = host.cluster(&[&all[..], &["all"]].concat()).ok();
    assert!(
        shown
            .lines()
            .into_iter()
            .zip(0..)
            .all(|(line, number)| { line.starts_with(&format!("line {number:09} ")) })
    );
    assert_eq!(shown.lines().len(), lines);
    let some = host.cluster(&[&all[..], &["5", "--grep", "line 00000[0-9]{3}7 "]].concat()).ok();
    assert_eq!(some.lines().len(), 5);
    some.says("line 000009997 ");

    host.cluster(&["flush"]).ok().says("flood");
    assert_eq!(rotated(&out), [""; 0]);
    assert_eq!(fs::metadata(&out).unwrap().len(), 0);
}

#[test]
fn a_file_is_rotated_when_it_is_old() {
    let host = Host::plain();
    host.cluster(&["start", &fixture("talks.py"), "--log-max-age", "2s", "--log-compress", "off"])
        .ok();
    let out = host.app("talks").workers.remove(0).logs.out;
    wait::until_true("a line after two seconds begins a new file", || {
        get(local(8080));
        !rotated(&out).is_empty()
    });
    let old = fs::read_to_string(out.with_extension("log.1")).unwrap();
    assert!(old.starts_with("out: hello\n") && old.ends_with('\n'), "{old}");
    wait::until_true("and no more than five are kept", || {
        get(local(8080));
        out.with_extension("log.5").exists()
    });
    assert!(rotated(&out).len() <= 5);
}

#[test]
fn lines_are_found_by_when_they_came() {
    let host = Host::plain();
    host.cluster(&["start", &fixture("talks.py")]).ok();
    let logs = |options: &[&str]| {
        host.cluster(&[&["logs", "talks", "--nostream", "--out"][..], options].concat()).ok()
    };
    wait::until_true("it has said hello", || logs(&[]).stdout.contains("hello"));
    // Time itself is what is tested: marks are five seconds apart.
    thread::sleep(Duration::from_secs(7));
    get(local(8080));
    wait::until_true("the request is logged", || logs(&[]).stdout.contains("asked"));
    logs(&["--since", "1s"]).says("asked").never_mentions("hello");
    logs(&["--since", "1h"]).says("asked").says("hello");
    logs(&["--until", "4s"]).says("hello").never_mentions("asked");
}

#[test]
fn lines_are_shown_in_the_way_that_is_asked_for() {
    let host = Host::plain();
    host.cluster(&["start", &fixture("talks.py")]).ok();
    let logs = |options: &[&str]| {
        host.cluster(&[&["logs", "talks", "--nostream"][..], options].concat()).ok()
    };
    wait::until_true("it has said hello", || logs(&["--err"]).stdout.contains("hello"));
    assert_eq!(logs(&["--out", "--raw"]).stdout, "out: hello\n");
    assert_eq!(
        logs(&["--tail", "1", "--out", "--timestamp=YYYY"]).stdout.len(),
        "2026 0|talks:0 | out: hello\n".len()
    );
    logs(&["--format"]).says("app=talks id=0 type=err message=err: hello");
    let line: Value = serde_json::from_str(logs(&["--json", "--err"]).lines()[0]).unwrap();
    assert_eq!((&line["message"], &line["process_id"]), (&"err: hello".into(), &0.into()));
    logs(&["--grep", "OUT", "-i"]).says("out: hello").never_mentions("err: hello");
    host.cluster(&["logs", "--json", "--raw"]).fails();
    host.cluster(&["logs", "--since", "soon"]).fails().complains("is no moment");
}

#[test]
fn files_that_were_renamed_are_opened_anew_when_that_is_said() {
    let host = Host::plain();
    host.cluster(&["start", &fixture("talks.py")]).ok();
    let out = host.app("talks").workers.remove(0).logs.out;
    wait::until_true("it has said hello", || out.exists());
    fs::rename(&out, out.with_extension("old")).unwrap();
    host.cluster(&["reloadLogs"]).ok().says("opened anew");
    get(local(8080));
    wait::until_true("the next line is in a new file", || {
        fs::read_to_string(&out).is_ok_and(|text| text == "out: asked /\n")
    });
}

#[test]
fn no_line_is_lost_when_the_daemon_is_killed_wherever_they_go() {
    for options in [
        &[][..],
        &["--merge-logs"],
        &["--log-type", "json"],
        &["--log-date-format", "HH:mm:ss"],
        &["--log-file", "all.log"],
    ] {
        let host = Host::plain();
        let script = host.write("counter.sh", COUNTER);
        host.cluster(&[&["start", &script][..], options].concat()).ok();
        let out = host.app("counter").workers.remove(0).logs.out;
        for seen in [1_000, 4_000, 8_000] {
            wait::until_true("it has counted on", || numbers(&out).last() >= Some(&seen));
            host.kill_daemon();
            // The next one is started by the next command.
            host.apps();
        }
        wait::until_true("it has finished", || {
            fs::read_to_string(&out).is_ok_and(|text| text.contains("finished"))
        });
        let counted = numbers(&out);
        let mut distinct = counted.clone();
        distinct.dedup();
        assert!(distinct.iter().copied().eq(0..20_000), "{options:?}: a line is missing");
        let doubled = counted.len() - distinct.len();
        // What is written as it came is moved in one step; the rest may be there twice, a piece of it.
        let is_moved = matches!(options, [] | ["--merge-logs"]);
        assert!(doubled == 0 || !is_moved, "{options:?}: {doubled} lines are there twice");
        host.cluster(&["delete", "counter"]).ok();
    }
}

/// Names of the files that `log` was rotated to.
fn rotated(log: &Path) -> Vec<String> {
    let name = format!("{}.", log.file_name().unwrap().to_str().unwrap());
    let all = fs::read_dir(log.parent().unwrap()).unwrap();
    let all = all.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut all: Vec<_> = all.filter(|other| other.starts_with(&name)).collect();
    all.retain(|other| !other.ends_with("part"));
    all.sort();
    all
}

fn is_compressed(name: &str) -> bool {
    Path::new(name).extension().is_some_and(|ending| ending == "gz")
}

/// The numbers that were counted, in the order in which they are in a file.
fn numbers(log: &PathBuf) -> Vec<u32> {
    let text = fs::read_to_string(log).unwrap_or_default();
    let number = |line: &str| {
        let (_, after) = line.split_once("n ")?;
        let digits = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        after[..digits].parse().ok()
    };
    text.lines().filter_map(number).collect()
}
