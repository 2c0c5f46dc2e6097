//! Cgroups with real processes in them.

use std::process::{Child, Command, Stdio};

use super::*;

#[test]
fn a_worker_lives_three_levels_below_the_top() {
    let hierarchy = hierarchy("level");
    let worker = hierarchy.create_worker(AppId(3), WorkerId(9)).unwrap();
    assert!(worker.path().ends_with("app-3/worker-9"));
    let top = candidates()[0].path.clone();
    let below = worker.path().strip_prefix(top).unwrap().components().count();
    assert_eq!(hierarchy.level(), u32::try_from(below).unwrap());
    assert_eq!(
        worker.id(),
        std::os::unix::fs::MetadataExt::ino(&fs::metadata(worker.path()).unwrap())
    );
    hierarchy.remove().unwrap();
}

#[test]
fn all_of_a_tree_is_killed_and_its_end_is_an_event() {
    let hierarchy = hierarchy("kill");
    let worker = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    assert!(!worker.populated().unwrap());
    let mut child = sleepers(&worker);
    assert!(worker.populated().unwrap());
    assert_eq!(worker.pids().unwrap().len(), 3);
    worker.kill().unwrap();
    runtime().block_on(worker.empty()).unwrap();
    assert!(worker.pids().unwrap().is_empty());
    assert!(!child.wait().unwrap().success());
    worker.remove().unwrap();
    worker.remove().unwrap();
    runtime().block_on(worker.empty()).unwrap_or_default();
    hierarchy.remove().unwrap();
}

#[test]
fn without_cgroup_kill_processes_are_killed_one_by_one() {
    let hierarchy = hierarchy("each");
    let worker = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let mut child = sleepers(&worker);
    worker.kill_each().unwrap();
    child.wait().unwrap();
    runtime().block_on(worker.empty()).unwrap();
    hierarchy.remove().unwrap();
}

#[test]
fn sub_cgroups_of_a_worker_count_as_the_worker() {
    let hierarchy = hierarchy("sub");
    let worker = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let below = worker.path().join("own/deeper");
    fs::create_dir_all(&below).unwrap();
    let below = WorkerCgroup::adopt(below).unwrap();
    let mut child = sleepers(&below);
    assert_eq!(worker.pids().unwrap().len(), 3);
    worker.kill().unwrap();
    child.wait().unwrap();
    runtime().block_on(worker.empty()).unwrap();
    worker.remove().unwrap();
    hierarchy.remove().unwrap();
}

#[test]
fn what_an_earlier_daemon_left_is_ended_and_named_unless_somebody_claims_it() {
    let earlier = hierarchy("left");
    let lost = earlier.create_worker(AppId(1), WorkerId(7)).unwrap();
    let claimed = earlier.create_worker(AppId(2), WorkerId(8)).unwrap();
    let empty = earlier.create_worker(AppId(3), WorkerId(9)).unwrap();
    let (mut ended, mut kept) = (sleepers(&lost), sleepers(&claimed));
    // Whoever made these, they are no workers of ours.
    let foreign = [earlier.path().join("other"), earlier.path().join("app-1/worker-07")];
    for path in &foreign {
        fs::create_dir(path).unwrap();
    }

    let next = hierarchy("left");
    let found = next.found().unwrap();
    let seen: Vec<_> = found.iter().map(|one| (one.worker.0, one.pids.len(), one.id)).collect();
    assert_eq!(seen, [(7, 3, lost.id()), (8, 3, claimed.id()), (9, 0, empty.id())]);
    let reopened = next.reopen_worker(AppId(2), WorkerId(8)).unwrap();
    assert_eq!((reopened.id(), reopened.path()), (claimed.id(), claimed.path()));
    assert!(next.reopen_worker(AppId(2), WorkerId(7)).is_err());

    let claims = BTreeSet::from([WorkerId(8)]);
    let leftovers = next.end_unclaimed(&claims).unwrap();
    ended.wait().unwrap();
    assert_eq!(leftovers.len(), 1);
    assert_eq!((leftovers[0].name.as_str(), leftovers[0].pids.len()), ("worker-7", 3));
    assert_eq!(next.end_unclaimed(&claims).unwrap(), []);
    let left: Vec<_> = next.found().unwrap().into_iter().map(|one| one.worker).collect();
    assert_eq!(left, [WorkerId(8)]);
    assert_eq!(reopened.pids().unwrap().len(), 3, "it was not touched");
    assert!(foreign.iter().all(|path| path.exists()), "neither were these");

    reopened.kill().unwrap();
    kept.wait().unwrap();
    runtime().block_on(reopened.empty()).unwrap();
    next.remove().unwrap();
}

#[test]
fn cpu_time_is_counted() {
    let hierarchy = hierarchy("cpu");
    let worker = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let before = worker.cpu_usec().unwrap();
    let script = format!(
        "echo $$ > {}/cgroup.procs; i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done",
        worker.path().display()
    );
    assert!(Command::new("/bin/sh").args(["-c", &script]).status().unwrap().success());
    assert!(worker.cpu_usec().unwrap() > before);
    hierarchy.remove().unwrap();
}

/// One of this test's own.
pub(in crate::process) fn hierarchy(name: &str) -> Hierarchy {
    Hierarchy::open(&format!("test-{name}-{}", std::process::id()))
        .expect("this test needs a cgroup v2 that it may write to")
}

/// A shell and two sleeping children of it, all in `cgroup` when this returns.
fn sleepers(cgroup: &WorkerCgroup) -> Child {
    let script = format!(
        "echo $$ > {}/cgroup.procs; sleep 1000 & sleep 1000 & wait",
        cgroup.path().display()
    );
    let child = Command::new("/bin/sh").args(["-c", &script]).stdin(Stdio::null()).spawn().unwrap();
    while cgroup.pids().unwrap().len() < 3 {
        std::thread::sleep(Duration::from_millis(1));
    }
    child
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

#[test]
fn hooks_of_a_daemon_that_is_gone_are_ended_and_workers_that_are_claimed_are_not() {
    let hierarchy = hierarchy("hooks");
    let worker = hierarchy.create_worker(AppId(0), WorkerId(0)).unwrap();
    let hook = hierarchy.create_hook(AppId(0), 5).unwrap();
    let (mut served, mut hooked) = (sleepers(&worker), sleepers(&hook));
    assert_eq!(hierarchy.found().unwrap().len(), 1, "a hook is no worker");
    let pids = hook.pids().unwrap();

    let left = hierarchy.end_unclaimed(&BTreeSet::from([WorkerId(0)])).unwrap();

    assert_eq!(left, [Leftover { name: "hook-5".to_owned(), pids }]);
    assert!(!hooked.wait().unwrap().success());
    assert!(!hook.path().exists());
    assert_eq!(worker.pids().unwrap().len(), 3);
    worker.kill().unwrap();
    served.wait().unwrap();
    runtime().block_on(worker.empty()).unwrap();
    hierarchy.remove().unwrap();
}
