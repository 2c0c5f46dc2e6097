//! Output captured from real processes.

use std::{
    os::unix::fs::PermissionsExt as _,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::*;

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
    let old = test.output().attach(A, "app", Instance(0)).unwrap();
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
    let mut test = Test::with(RotateOptions { max_size: 1_000_000, keep: 100 });
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
    let mut test = Test::with(RotateOptions { max_size: 100, keep: 5 });
    let mut worker =
        test.spawn(A, "seq 1 100; echo ready >&2; read line < /tmp/nowhere-$$; sleep 1000");
    let begin = Instant::now();
    while wait(test.output().tail(A, 1)).error.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    fs::write(test.folder.join("app-out-7.log"), "of a worker that has stopped\n").unwrap();
    fs::write(test.folder.join("other-out-0.log"), "of another app\n").unwrap();
    wait(test.output().flush("app", None)).unwrap();
    assert_eq!(test.read("app-out-0.log"), "");
    assert_eq!(test.read("app-out-7.log"), "");
    assert_eq!(test.read("other-out-0.log"), "of another app\n");
    assert!(!test.folder.join("app-out-0.log.1").exists());
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
    let ends = test.output().attach(A, "app", Instance(0)).unwrap();
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
    let options = RotateOptions { max_size: 4_000_000, keep: 1000 };
    let mut test = Test::with(options);
    let script = format!("echo begun >&2; seq 1 {LINES}; echo done >&2; exec sleep 1000");
    let mut worker = test.spawn(A, &script);
    let pipes = test.output().pipes(A).unwrap();
    test.end();
    let pids = [worker.id()];
    let mut kills = 0;
    while test.read("app-error-0.log") != "begun\ndone\n" && kills < 60 {
        let life = Duration::from_micros(2_000 + kills * 977 % 9_000);
        killed_after(life, || {
            let mut next = Output::start(&test.folder, options).unwrap();
            assert_eq!(next.readopt(A, "app", Instance(0), &pids, pipes), [true; 2]);
            next
        });
        kills += 1;
    }
    test.output = Some(Output::start(&test.folder, options).unwrap());
    test.output().readopt(A, "app", Instance(0), &pids, pipes);
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
    let mut worker = test.spawn(A, "exec >&-; echo ready >&2; sleep 1000");
    let begin = Instant::now();
    while wait(test.output().tail(A, 1)).error.is_empty() {
        assert!(begin.elapsed() < Duration::from_secs(10));
    }
    let pipes = test.output().pipes(A).unwrap();
    test.end();
    test.output = Some(Output::start(&test.folder, RotateOptions::default()).unwrap());
    let there = test.output().readopt(A, "app", Instance(0), &[worker.id()], pipes);
    assert_eq!(there, [false, true]);
    assert_eq!(pipes_of(std::process::id()), [0, 0], "none of ours");
    worker.kill().unwrap();
    worker.wait().unwrap();
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
    output: Option<Output>,
}

impl Test {
    fn new() -> Self {
        Self::with(RotateOptions::default())
    }

    fn with(options: RotateOptions) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("cluster-output-{}-{number}", std::process::id());
        let folder = std::env::temp_dir().join(name);
        let output = Some(Output::start(&folder, options).unwrap());
        Self { folder, output }
    }

    fn output(&mut self) -> &mut Output {
        self.output.as_mut().unwrap()
    }

    /// Ends the capture; all that was written is in the files then.
    fn end(&mut self) {
        self.output = None;
    }

    fn spawn(&mut self, worker: WorkerId, script: &str) -> Child {
        let ends = self.output().attach(worker, "app", Instance(0)).unwrap();
        shell(ends, script)
    }

    fn run(&mut self, worker: WorkerId, script: &str) {
        self.spawn(worker, script).wait().unwrap();
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }
}

impl Drop for Test {
    fn drop(&mut self) {
        self.end();
        fs::remove_dir_all(&self.folder).unwrap();
    }
}

fn shell(ends: Ends, script: &str) -> Child {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", script]).stdin(Stdio::null()).stdout(ends.stdout).stderr(ends.stderr);
    command.spawn().unwrap()
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
}
