//! Cgroups that a run has left behind.

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

/// Where a cgroup of this name can be: below the tops of all cgroup v2 mounts, and below this process' own in each.
pub(super) fn places(name: &str) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let tops = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    tops.flat_map(|top| [top.join(own).join(name), top.join(name)]).collect()
}

/// Removes a cgroup, if it is there, and all below it; who lives in it is ended. Whether it is gone by then.
pub(super) fn remove(path: &Path, patience: Duration) -> bool {
    let end = Instant::now() + patience;
    while path.is_dir() && Instant::now() < end {
        // Since Linux 5.14 (cgroup.kill); before that they have been ended with process 1 of the arena.
        fs::write(path.join("cgroup.kill"), "1").unwrap_or_default();
        remove_tree(path);
        if !path.is_dir() {
            return true;
        }
        thread::sleep(Duration::from_millis(5));
    }
    !path.is_dir()
}

fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // It is not there, or somebody lives in it still.
    fs::remove_dir(path).unwrap_or_default();
}
