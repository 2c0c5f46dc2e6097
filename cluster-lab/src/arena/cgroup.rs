//! Cgroups that a run has left behind.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Removes a cgroup of this name, and all below it, wherever one is. One with living processes stays.
pub(super) fn remove(name: &str) {
    for top in places() {
        remove_tree(&top.join(name));
    }
}

/// Tops of all cgroup v2 mounts, and this process' own cgroup in each.
fn places() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap_or_default();
    let tops = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let path = fields.nth(1)?;
        (fields.next()? == "cgroup2").then(|| PathBuf::from(path))
    });
    tops.flat_map(|top| [top.join(own), top]).collect()
}

fn remove_tree(path: &Path) {
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    // It is not there, or somebody lives in it.
    fs::remove_dir(path).unwrap_or_default();
}
