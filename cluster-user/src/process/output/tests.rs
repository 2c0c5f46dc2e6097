//! Output captured from real processes.

use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::*;
use crate::{
    config::spec::logs::{Logs, Place, Rotation, Service, Shape},
    id::Instance,
};

const A: WorkerId = WorkerId(1);
const B: WorkerId = WorkerId(2);

#[test]
fn both_streams_arrive_in_files_of_their_own() {
    let mut test = Test::new();
    test.run(A, "echo to out; echo to error >&2");
    test.output().detach(A);
    test.end();
    assert_eq!(test.read("app-out-0.log"), "to out\n");
    assert_eq!(test.read("app-error-0.log"), "to error\n");
    assert_eq!(fs::metadata(&test.folder).unwrap().permissions().mode() & 0o777, 0o700);
    let mode = fs::metadata(test.folder.join("app-out-0.log")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777 & !0o640, 0);
}

#[test]
fn a_dead_worker_has_last_words() {
    let mut test = Test::new();
    test.run(A, "seq 1 1000; echo 'panic: at line 7' >&2; kill -9 $$");
    let tail = wait(test.output().tail(A, 2));
    assert_eq!(
        (tail.out, tail.error),
        (vec!["999".into(), "1000".into()], vec!["panic: at line 7".into()])
    );
    assert_eq!(wait(test.output().tail(B, 2)), Tail::default());
}

#[test]
fn workers_with_the_same_number_share_a_file_line_by_line() {
    let mut test = Test::new();
    let script = |word: &str| {
        format!("i=0; while [ $i -lt 2000 ]; do printf {word}; echo {word}; i=$((i+1)); done")
    };
    // Both are attached before either writes: a line begun before that ends where the other's begins.
    let old = test.output().attach(A, &origin(&Logs::default())).unwrap();
    let mut new = test.spawn(B, &script("new"));
    let mut old = shell(old, &script("old"));
    old.wait().unwrap();
    new.wait().unwrap();
    test.end();
    let text = test.read("app-out-0.log");
    let count = |line: &str| text.lines().filter(|found| *found == line).count();
    assert_eq!((count("oldold"), count("newnew"), text.lines().count()), (2000, 2000, 4000));
}

#[test]
fn a_flood_loses_nothing_and_rotates() {
    let mut test = Test::with(rotated(1_000_000, 100));
    test.run(A, "seq 1 1000000");
    assert_eq!(test.output().dropped(A), 0);
    test.output().detach(A);
    test.end();
    let mut all = String::new();
    for number in (1..20).rev() {
        all.push_str(&test.read(&format!("app-out-0.log.{number}")));
    }
    all.push_str(&test.read("app-out-0.log"));
    assert!(all.lines().zip(1..).all(|(line, number)| line.parse() == Ok(number)));
    assert_eq!(all.lines().count(), 1_000_000);
}

#[test]
fn flushing_empties_and_removes_only_what_it_should() {
    let mut test = Test::with(rotated(100, 5));
    let mut worker =
        test.spawn(A, "seq 1 100; echo ready >&2; read line < /tmp/nowhere-$$; exec sleep 1000");
    let begin = Instant::now();
    while wait(test.output().tail(A, 1)).error.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    fs::write(test.path("app-out-7.log"), "of a worker that has stopped\n").unwrap();
    fs::write(test.path("other-out-0.log"), "of another app\n").unwrap();
    assert!(test.path("app-out-0.log.1").exists());
    let files = ["app-out-0.log", "app-out-7.log", "app-out-9.log"].map(|name| test.path(name));
    wait(test.output().flush(files.to_vec())).unwrap();
    assert_eq!(test.read("app-out-0.log"), "");
    assert_eq!(test.read("app-out-7.log"), "");
    assert_eq!(test.read("other-out-0.log"), "of another app\n");
    assert!(!test.path("app-out-0.log.1").exists());
    assert!(!test.path("app-out-9.log").exists(), "what is not there is not made");
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn a_worker_of_another_user_can_open_its_own_stdout() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let mut test = Test::new();
    let ends = test.output().attach(A, &origin(&Logs::default())).unwrap();
    let mut command = Command::new("/bin/sh");
    std::os::unix::process::CommandExt::uid(&mut command, 65534);
    let mut child = command
        .args(["-c", "echo hello > /dev/stdout"])
        .stdout(ends.stdout)
        .stderr(ends.stderr)
        .spawn()
        .unwrap();
    drop(command);
    child.wait().unwrap();
    assert_eq!(wait(test.output().tail(A, 1)), Tail { out: vec!["hello".into()], error: vec![] });
}

#[test]
fn a_stream_ends_although_its_worker_could_read_it() {
    let mut test = Test::new();
    test.run(A, "echo one");
    test.run(B, "echo two");
    // Both ends of both workers are closed: what is left of them is in memory.
    assert_eq!(wait(test.output().tail(A, 1)).out, ["one"]);
    // Asking takes in what was written until then, so the file is read after it.
    assert_eq!(wait(test.output().tail(B, 1)).out, ["two"]);
    assert_eq!(test.read("app-out-0.log").lines().count(), 2);
}

#[test]
fn not_a_line_is_lost_or_doubled_however_often_the_daemon_is_killed() {
    const LINES: usize = 6_000_000;
    let logs = rotated(4_000_000, 1000);
    let mut test = Test::with(logs.clone());
    let script = format!("echo begun >&2; seq 1 {LINES}; echo done >&2; exec sleep 1000");
    let mut worker = test.spawn(A, &script);
    let pipes = test.output().pipes(A).unwrap();
    test.end();
    let pids = [worker.id()];
    let mut kills = 0;
    while test.read("app-error-0.log") != "begun\ndone\n" && kills < 60 {
        let life = Duration::from_micros(2_000 + kills * 977 % 9_000);
        killed_after(life, || {
            let mut next = Output::start(&test.folder).unwrap();
            assert_eq!(next.readopt(A, &origin(&logs), &pids, pipes), [true; 2]);
            next
        });
        kills += 1;
    }
    test.output = Some(Output::start(&test.folder).unwrap());
    test.output().readopt(A, &origin(&logs), &pids, pipes);
    let begin = Instant::now();
    while test.read("app-error-0.log") != "begun\ndone\n" {
        assert!(begin.elapsed() < Duration::from_mins(1));
        thread::sleep(Duration::from_millis(5));
    }
    test.end();
    // The shell has standard output elsewhere for a moment when it writes to standard error.
    while pipes_of(worker.id()) != pipes {
        assert!(begin.elapsed() < Duration::from_mins(1));
    }
    worker.kill().unwrap();
    worker.wait().unwrap();

    println!("killed {kills} times");
    assert!(kills > 5, "{kills}");
    let files = (1..1000).rev().map(|number| format!("app-out-0.log.{number}"));
    let mut next = 1;
    for file in files.chain(["app-out-0.log".to_owned()]) {
        for line in test.read(&file).lines() {
            assert_eq!(line.parse(), Ok(next), "in {file}");
            next += 1;
        }
    }
    assert_eq!(next, LINES + 1);
}

#[test]
fn a_worker_that_has_closed_its_output_is_captured_as_far_as_it_is_there() {
    let mut test = Test::new();
    let mut worker = test.spawn(A, "exec >&-; echo ready >&2; exec sleep 1000");
    let begin = Instant::now();
    while wait(test.output().tail(A, 1)).error.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    let pipes = test.output().pipes(A).unwrap();
    test.end();
    test.output = Some(Output::start(&test.folder).unwrap());
    let there = test.output().readopt(A, &origin(&Logs::default()), &[worker.id()], pipes);
    assert_eq!(there, [false, true]);
    assert_eq!(pipes_of(std::process::id()), [0, 0], "none of ours");
    worker.kill().unwrap();
    worker.wait().unwrap();
}

#[test]
fn lines_get_times_and_a_file_for_both() {
    let mut test = Test::new();
    test.logs.date_format = Some("[at] YYYY".parse().unwrap());
    test.logs.combined = Some(test.path("all.log"));
    test.run(A, "echo out; echo error >&2; printf 'no end'");
    test.output().detach(A);
    test.end();
    let year = test.read("app-out-0.log").get(3..7).unwrap().to_owned();
    assert_eq!(test.read("app-out-0.log"), format!("at {year}: out\nat {year}: no end\n"));
    assert_eq!(test.read("app-error-0.log"), format!("at {year}: error\n"));
    let mut all: Vec<_> = test.read("all.log").lines().map(str::to_owned).collect();
    all.sort();
    assert_eq!(all, ["error", "no end", "out"].map(|line| format!("at {year}: {line}")));
}

#[test]
fn many_lines_become_json_and_none_is_lost() {
    let mut test = Test::with(rotated(4_000_000, 1000));
    test.logs.shape = Shape::Json;
    test.run(A, "seq 1 200000");
    test.output().detach(A);
    test.end();
    let files = (1..1000).rev().map(|number| format!("app-out-0.log.{number}"));
    let mut next = 1;
    for file in files.chain(["app-out-0.log".to_owned()]) {
        for line in test.read(&file).lines() {
            let value: serde_json::Value = serde_json::from_str(line).unwrap();
            assert_eq!(value["message"], next.to_string());
            next += 1;
        }
    }
    assert_eq!(next, 200_001);
}

#[test]
fn one_file_of_three_workers_has_whole_lines_only() {
    let mut test = Test::new();
    test.logs.merge = true;
    let script = |word: &str| {
        format!("i=0; while [ $i -lt 1000 ]; do printf {word}; echo {word}; i=$((i+1)); done")
    };
    let mut workers: Vec<_> = [(1, "one"), (2, "two"), (3, "six")]
        .map(|(number, word)| (WorkerId(number), word))
        .map(|(worker, word)| {
            // All are attached before one writes.
            let logs = test.logs.clone();
            (test.output().attach(worker, &origin(&logs)).unwrap(), word)
        })
        .into_iter()
        .map(|(ends, word)| shell(ends, &script(word)))
        .collect();
    for worker in &mut workers {
        worker.wait().unwrap();
    }
    test.end();
    let text = test.read("app-out.log");
    for word in ["oneone", "twotwo", "sixsix"] {
        assert_eq!(text.lines().filter(|line| *line == word).count(), 1000, "{word}");
    }
    assert_eq!(text.lines().count(), 3000);
}

#[test]
fn the_beginning_of_a_line_survives_in_the_pipe() {
    for shape in [Shape::Raw, Shape::Json] {
        let mut test = Test::new();
        (test.logs.merge, test.logs.shape) = (true, shape);
        let logs = test.logs.clone();
        let other = test.output().attach(B, &origin(&logs)).unwrap();
        let mut worker = test.spawn(A, "printf 'one\\nbegun'; exec sleep 1000");
        until("the first line is there", || test.read("app-out.log").contains("one"));
        assert_eq!(wait(test.output().tail(A, 2)).out, ["one", "begun"]);
        let pipes = test.output().pipes(A).unwrap();
        // Killed: nothing is told to it.
        let _killed = std::mem::ManuallyDrop::new(test.output.take());
        drop(other);
        assert!(!test.read("app-out.log").contains("begun"), "it is in the pipe, and there only");
        test.output = Some(Output::start(&test.folder).unwrap());
        test.output().readopt(A, &origin(&logs), &[worker.id()], pipes);
        test.output().detach(A);
        test.end();
        let text = test.read("app-out.log");
        assert_eq!(text.matches("begun").count(), 1, "{text}");
        worker.kill().unwrap();
        worker.wait().unwrap();
    }
}

#[test]
fn rotated_files_are_compressed_when_they_have_settled() {
    let mut test = Test::with(rotated(10_000, 3));
    test.logs.rotation.compress = true;
    test.run(A, "seq 1 10000");
    assert_eq!(wait(test.output().tail(A, 1)).out, ["10000"]);
    let folder = test.folder.clone();
    let path = |number: u32| folder.join(format!("app-out-0.log.{number}.gz"));
    until("three are compressed", || (1..=3).all(|number| path(number).exists()));
    until("and nothing else is there", || fs::read_dir(&test.folder).unwrap().count() == 5);
    let mut text = String::new();
    for number in [3, 2, 1] {
        let file = fs::File::open(path(number)).unwrap();
        let mut gzip = flate2::read::GzDecoder::new(file);
        io::Read::read_to_string(&mut gzip, &mut text).unwrap();
    }
    text.push_str(&test.read("app-out-0.log"));
    let numbers: Vec<u32> = text.lines().map(|line| line.parse().unwrap()).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] == pair[0] + 1));
    assert_eq!(numbers.last(), Some(&10_000));

    // The next ones push them up.
    let last = fs::metadata(path(1)).unwrap().len();
    test.run(B, "seq 1 500");
    until("they moved up", || fs::metadata(path(2)).is_ok_and(|it| it.len() == last));
    assert!(!path(4).exists());
    test.end();
}

#[test]
fn a_file_that_is_old_is_rotated_before_the_next_line() {
    let mut test = Test::new();
    test.logs.rotation.compress = false;
    test.logs.rotation.max_age = Some(Duration::from_millis(1500));
    let mut worker = test.spawn(A, "for i in 1 2 3 4 5 6 7 8; do echo $i; sleep 0.5; done");
    worker.wait().unwrap();
    test.output().detach(A);
    test.end();
    let (old, new) = (test.read("app-out-0.log.1"), test.read("app-out-0.log"));
    assert!(old.ends_with('\n') && new.ends_with("8\n"), "{old:?} {new:?}");
}

#[test]
fn what_goes_nowhere_takes_no_room_and_its_end_is_known() {
    let mut test = Test::new();
    (test.logs.out, test.logs.error) = (Place::Nowhere, Place::File("/dev/full".into()));
    test.run(A, "seq 1 1000000; echo 'panic: at line 7' >&2");
    let tail = wait(test.output().tail(A, 1));
    assert_eq!((tail.out, tail.error), (vec!["1000000".into()], vec!["panic: at line 7".into()]));
    assert_eq!(test.output().dropped(A), 17, "/dev/full is full");
    assert_eq!(fs::read_dir(&test.folder).unwrap().count(), 0);
}

#[test]
fn a_pipe_that_nobody_reads_holds_up_nobody() {
    let mut test = Test::new();
    let fifo = test.path("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
    test.logs.out = Place::File(fifo.clone());
    test.run(A, "seq 1 100000");
    assert_eq!(wait(test.output().tail(A, 1)).out, ["100000"]);
    assert_eq!(test.output().dropped(A), 588_895);
    // Somebody who reads nothing.
    let _reader = fs::OpenOptions::new().read(true).write(true).open(&fifo).unwrap();
    test.run(B, "sleep 0.2; seq 1 100000");
    assert_eq!(wait(test.output().tail(B, 1)).out, ["100000"]);
    assert!(test.output().dropped(B) > 400_000);
    assert!(!test.path("fifo.1").exists(), "a pipe is not rotated");
}

#[test]
fn a_missing_log_service_is_counted_and_holds_up_nobody() {
    let place = Path::new("/run/systemd/journal/socket");
    if place.exists() {
        eprintln!(
            "skipped: there is a journald on this host, which would get what this test writes"
        );
        return;
    }
    let mut test = Test::new();
    (test.logs.to_file, test.logs.service) = (false, Some(Service::Journald));
    test.run(A, "seq 1 1000000");
    // What is left in the pipe goes with the worker.
    test.output().dropped(A);
    assert!(test.output().dropped(A) > 5_000_000, "{}", test.output().dropped(A));
    test.end();
    assert_eq!(fs::read_dir(&test.folder).unwrap().count(), 0);
}

/// Has a process of its own capture for a while, and kills it.
fn killed_after(life: Duration, capture: impl FnOnce() -> Output) {
    // SAFETY: the child goes on as this thread alone; it takes no lock that other threads may hold but the allocator's,
    // which the C library sees to.
    match unsafe { nix::unistd::fork() }.unwrap() {
        nix::unistd::ForkResult::Parent { child } => {
            thread::sleep(life);
            nix::sys::signal::kill(child, nix::sys::signal::Signal::SIGKILL).unwrap();
            let ended = nix::sys::wait::waitpid(child, None).unwrap();
            assert!(matches!(ended, nix::sys::wait::WaitStatus::Signaled(..)), "{ended:?}");
        }
        nix::unistd::ForkResult::Child => {
            let captured = std::panic::catch_unwind(std::panic::AssertUnwindSafe(capture));
            while captured.is_ok() {
                thread::park();
            }
            // SAFETY: ends the process, and nothing else.
            unsafe { libc::_exit(1) }
        }
    }
}

/// A capture into a folder of its own, removed at the end.
struct Test {
    folder: PathBuf,
    logs: Logs,
    output: Option<Output>,
}

impl Test {
    fn new() -> Self {
        Self::with(Logs::default())
    }

    fn with(logs: Logs) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cluster-output-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let output = Some(Output::start_compressing(&folder, Duration::from_millis(50)).unwrap());
        Self { folder, logs, output }
    }

    fn output(&mut self) -> &mut Output {
        self.output.as_mut().unwrap()
    }

    /// Ends the capture; all that was written is in the files then.
    fn end(&mut self) {
        self.output = None;
    }

    fn spawn(&mut self, worker: WorkerId, script: &str) -> Child {
        let logs = self.logs.clone();
        let ends = self.output().attach(worker, &origin(&logs)).unwrap();
        shell(ends, script)
    }

    fn run(&mut self, worker: WorkerId, script: &str) {
        self.spawn(worker, script).wait().unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        self.end();
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn origin(logs: &Logs) -> Origin<'_> {
    Origin { app: "app", instance: Instance(0), instances: 1, logs }
}

/// Rotated by size only.
fn rotated(max_size: u64, keep: u32) -> Logs {
    let rotation = Rotation { max_size: Some(max_size), max_age: None, keep, compress: false };
    Logs { rotation, ..Logs::default() }
}

fn shell(ends: Ends, script: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(ends.stdout).stderr(ends.stderr);
    command.spawn().unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}

/// Waits until something is so.
#[track_caller]
fn until(what: &str, mut is: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !is() {
        assert!(begin.elapsed() < Duration::from_secs(20), "not so: {what}");
        thread::sleep(Duration::from_millis(5));
    }
}
