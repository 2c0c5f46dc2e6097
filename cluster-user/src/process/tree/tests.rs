//! Trees of real processes, with a cgroup and without.

use std::{
    path::Path,
    thread,
    time::{Duration, Instant},
};

use super::*;
use crate::{
    id::{AppId, WorkerId},
    process::{
        cgroup::tests::hierarchy,
        spawn::{Bounds, Launch, spawn},
        usage,
        watch::{ExitStatus, reap},
    },
};

/// A child, a grandchild in a session of its own, and one that has cut all ties but its environment.
const FAMILY: &str = "sleep 1000 & setsid sleep 1000 & (setsid sh -c 'sleep 1000 & exit' &) ; wait";

#[test]
fn a_tree_without_a_cgroup_is_found_and_killed_to_the_last() {
    let worker = start(FAMILY, None);
    wait_for(&worker, 4);
    worker.kill().unwrap();
    finish(&worker);
    assert!(worker.pids().is_empty());
}

#[test]
fn a_tree_in_a_cgroup_is_found_and_killed_to_the_last() {
    let hierarchy = hierarchy("tree");
    let cgroup = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let worker = start(FAMILY, Some(cgroup));
    wait_for(&worker, 4);
    worker.kill().unwrap();
    finish(&worker);
    worker.remove().unwrap();
    hierarchy.remove().unwrap();
}

#[test]
fn a_tree_that_has_left_its_cgroup_is_found_and_killed_to_the_last() {
    let hierarchy = hierarchy("stray");
    let cgroup = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let elsewhere = hierarchy.top().join("cgroup.procs");
    // One stays, and those who come after that are elsewhere.
    let left = format!(
        "sleep 1000 & echo $$ > {}; sleep 1000 & setsid sleep 1000 & wait",
        elsewhere.display()
    );
    let worker = start(&left, Some(cgroup));
    wait_for(&worker, 4);
    assert_eq!(worker.cgroup().unwrap().pids().unwrap().len(), 1);
    worker.kill().unwrap();
    finish(&worker);
    assert!(worker.pids().is_empty());
    worker.remove().unwrap();

    let cgroup = hierarchy.create_worker(AppId(0), WorkerId(1)).unwrap();
    let worker = start(&format!("echo $$ > {}; sleep 1000", elsewhere.display()), Some(cgroup));
    wait_for(&worker, 2);
    let again = hierarchy.reopen_worker(AppId(0), WorkerId(1)).unwrap();
    let (pid, started) = (worker.pid(), worker.started());
    let adopted = Tree::adopt_in_cgroup(pid, started, again, worker.marker.clone()).unwrap();
    adopted.kill().unwrap();
    finish(&worker);
    worker.remove().unwrap();
    hierarchy.remove().unwrap();
}

/// By its session, by its parents, and by nothing but its environment.
#[test]
fn what_a_worker_left_elsewhere_is_found_when_it_has_ended_by_itself() {
    let hierarchy = hierarchy("gone");
    let elsewhere = hierarchy.top().join("cgroup.procs");
    let cgroup = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    // It ends by what it is told, and then has left three: one without a parent, in a session of its own.
    let script = format!(
        "echo $$ > {}; sleep 1000 & (setsid sh -c 'sleep 1000 & exec sleep 1000' &); exec sleep 1000",
        elsewhere.display()
    );
    let worker = start(&script, Some(cgroup));
    let begin = Instant::now();
    // Nobody looks at the tree while it lives.
    while all_of(&worker).len() != 4 {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", all_of(&worker));
        thread::sleep(Duration::from_millis(2));
    }
    worker.signal(libc::SIGSEGV).unwrap();
    let watcher = || crate::process::watch::ExitWatcher::new(worker.process()).unwrap();
    runtime().block_on(async { watcher().end().await.unwrap() });
    worker.look_back();
    assert!(matches!(
        runtime().block_on(async { watcher().exit().await.unwrap() }),
        ExitStatus::Signal { signal: libc::SIGSEGV, .. }
    ));
    assert_eq!(worker.pids().len(), 3);

    worker.kill().unwrap();
    runtime().block_on(worker.end()).unwrap();

    assert_eq!(all_of(&worker), Vec::<u32>::new());
    worker.remove().unwrap();
    hierarchy.remove().unwrap();
}

#[test]
fn a_worker_that_ends_in_its_cgroup_has_nothing_looked_for_elsewhere() {
    let hierarchy = hierarchy("home");
    let cgroup = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let worker = start("exit 3", Some(cgroup));
    let watcher = || crate::process::watch::ExitWatcher::new(worker.process()).unwrap();
    runtime().block_on(async { watcher().end().await.unwrap() });
    worker.look_back();
    assert!(!worker.strayed.load(Ordering::Relaxed));
    assert_eq!(reap(worker.process()).unwrap(), Some(ExitStatus::Code(3)));
    // Where it ended is not to be seen any more.
    worker.look_back();
    assert!(worker.strayed.load(Ordering::Relaxed));
    worker.remove().unwrap();
    hierarchy.remove().unwrap();
}

#[test]
fn who_is_forked_while_a_tree_is_killed_is_killed_too() {
    let worker = start("sleep 1000 & wait", None);
    wait_for(&worker, 2);
    // As if all the others had been forked after the last look.
    worker.signal(libc::SIGKILL).unwrap();
    runtime()
        .block_on(async { tokio::time::timeout(Duration::from_secs(20), worker.end()).await })
        .expect("all end")
        .unwrap();
    assert!(worker.pids().is_empty());
    reap(worker.process()).unwrap().unwrap();
}

#[test]
fn a_signal_goes_to_the_main_process_or_to_all() {
    let worker = start("trap 'exit 7' TERM; sleep 1000 & while :; do wait; done", None);
    wait_for(&worker, 2);
    // The trap may not be set yet: a shell that got the signal before ends by it.
    thread::sleep(Duration::from_millis(50));
    assert!(worker.signal(1000).is_err());
    worker.signal(libc::SIGTERM).unwrap();
    while reap(worker.process()).unwrap().is_none() {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(worker.pids().len(), 1);
    worker.signal(libc::SIGTERM).unwrap();
    assert_eq!(worker.pids().len(), 1);
    worker.signal_all(libc::SIGTERM).unwrap();
    runtime().block_on(worker.empty()).unwrap();
}

#[test]
fn usage_counts_the_whole_tree() {
    let busy = "sh -c 'i=0; while [ $i -lt 100000 ]; do i=$((i+1)); done; sleep 1000' & wait";
    let worker = start(busy, None);
    let begin = Instant::now();
    let used = loop {
        let used = usage::measure([&worker])[0];
        if used.cpu >= Duration::from_millis(20) && used.memory > 100_000 {
            break used;
        }
        assert!(begin.elapsed() < Duration::from_secs(20), "{used:?}");
        thread::sleep(Duration::from_millis(5));
    };
    assert!(used.memory < 100_000_000);
    worker.kill().unwrap();
    finish(&worker);
    assert_eq!(usage::measure([&worker])[0], usage::Usage::default());
}

#[test]
fn a_tree_is_adopted_by_pid_start_and_marker_together() {
    let worker = start("sleep 1000 & wait", None);
    wait_for(&worker, 2);
    let marker = &worker.marker;
    let adopt = |pid, started, marker: &Marker| Tree::adopt_marked(pid, started, marker.clone());
    let (pid, started) = (worker.pid(), worker.started());
    assert_ne!(started, 0);

    assert!(adopt(pid, started + 1, marker).is_none(), "it is another process with this number");
    assert!(adopt(pid, started, &Marker::new("test", WorkerId(1))).is_none(), "it is not ours");
    let me = std::process::id();
    assert!(adopt(me, Stat::of(me).unwrap().started, marker).is_none());
    let adopted = adopt(pid, started, marker).unwrap();
    assert_eq!(adopted.pids(), worker.pids());

    adopted.kill().unwrap();
    finish(&worker);
    assert!(adopt(pid, started, marker).is_none(), "it is gone");
}

#[test]
fn a_tree_is_adopted_by_pid_start_and_cgroup_together() {
    let hierarchy = hierarchy("adopt");
    let make = |id| {
        let cgroup = hierarchy.create_worker(AppId(0), WorkerId(id)).unwrap();
        let worker = start("sleep 1000 & wait", Some(cgroup));
        wait_for(&worker, 2);
        worker
    };
    let reopen = |id| hierarchy.reopen_worker(AppId(0), WorkerId(id)).unwrap();
    let (one, other) = (make(1), make(2));
    let (pid, started) = (one.pid(), one.started());
    assert_ne!(started, 0);
    let adopt = |started, id| {
        Tree::adopt_in_cgroup(pid, started, reopen(id), Marker::new("test", WorkerId(id)))
    };

    assert!(adopt(started, 2).is_none(), "it is in another cgroup");
    assert!(adopt(started + 1, 1).is_none());
    let adopted = adopt(started, 1).unwrap();

    adopted.kill().unwrap();
    // A zombie until its parent reaps it, and in its cgroup all the while.
    while Stat::of(pid).is_some_and(|stat| stat.state != 'Z') {
        thread::sleep(Duration::from_millis(1));
    }
    assert!(adopt(started, 1).is_none(), "it has ended");
    finish(&one);
    other.kill().unwrap();
    finish(&other);
    hierarchy.remove().unwrap();
}

fn start(script: &str, cgroup: Option<WorkerCgroup>) -> Tree {
    let id = WorkerId(u64::from(std::process::id()) * 1000 + u64::from(unique()));
    let marker = Marker::new("test", id);
    let null = std::fs::File::options().write(true).open("/dev/null").unwrap();
    let path = ("PATH".to_owned(), std::env::var("PATH").unwrap());
    let spawned = spawn(&Launch {
        program: Path::new("/bin/sh"),
        args: &["sh", "-c", script].map(str::to_owned),
        env: &[path, marker.variable()],
        cwd: Path::new("/"),
        user: None,
        cgroup: cgroup.as_ref().map(WorkerCgroup::folder),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        inherited: &[],
        sockets: &[],
        filter: None,
        bounds: &Bounds::default(),
    })
    .unwrap();
    Tree::new(spawned.pid, spawned.process, cgroup, marker)
}

fn all_of(worker: &Tree) -> Vec<u32> {
    let members = Snapshot::take().members(worker.pid(), worker.started(), Some(&worker.marker));
    members.into_iter().map(|stat| stat.pid).collect()
}

fn unique() -> u32 {
    use std::sync::atomic::AtomicU32;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

fn wait_for(worker: &Tree, count: usize) {
    let begin = Instant::now();
    while worker.pids().len() != count {
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", worker.pids());
        thread::sleep(Duration::from_millis(2));
    }
}

fn finish(worker: &Tree) {
    runtime().block_on(worker.empty()).unwrap();
    assert_eq!(
        reap(worker.process()).unwrap(),
        Some(ExitStatus::Signal { signal: libc::SIGKILL, core: false })
    );
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}
