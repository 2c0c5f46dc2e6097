//! How much memory a worker uses, all its processes together: for a limit that is kept by replacing it.

use super::{
    cgroup::WorkerCgroup,
    proc,
    tree::Tree,
    usage::{self, Usage},
};

/// Which of these use more than they may, at a first look that costs little. It counts what processes share for each of
/// them, so it names too many rather than too few; [`of`] tells. A worker whose cgroup has the memory controller is only
/// named when it does use more.
pub fn suspects<'a>(workers: impl IntoIterator<Item = (&'a Tree, u64)>) -> Vec<bool> {
    let (trees, limits): (Vec<_>, Vec<_>) = workers.into_iter().unzip();
    // Where there are no cgroups all of `/proc` is read, once.
    let counted: Vec<_> =
        trees.iter().map(|tree| tree.cgroup().and_then(WorkerCgroup::memory)).collect();
    let rest = trees.iter().zip(&counted).filter(|(_, counted)| counted.is_none());
    let mut resident = usage::measure(rest.map(|(tree, _)| *tree)).into_iter();
    let mut used = |counted: Option<u64>| {
        counted.unwrap_or_else(|| resident.next().unwrap_or(Usage::default()).memory)
    };
    counted.into_iter().zip(limits).map(|(counted, limit)| used(counted) > limit).collect()
}

/// Bytes of memory that a worker uses: what its cgroup counts, less what is kept of files only to be read faster; else
/// the memory of its processes, in which what several share has its share in each (`PSS`), or counts for each where that
/// may not be read.
///
/// It takes the kernel a while for large processes (some milliseconds for each gigabyte): not for the daemon's loop.
pub fn of(tree: &Tree) -> u64 {
    if let Some(memory) = tree.cgroup().and_then(WorkerCgroup::memory) {
        return memory;
    }
    let one = |pid| proc::proportional(pid).unwrap_or_else(|| proc::resident(pid) * usage::page());
    tree.pids().into_iter().map(one).sum()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::{id::WorkerId, process::tree::Marker};

    #[test]
    fn what_processes_share_counts_once() {
        let fill = "import os; data = bytearray(os.urandom(1 << 20)) * 48; pid = os.fork(); \
                    print('full', flush=True) if pid else None; import time; time.sleep(1000)";
        let mut command = Command::new("python3");
        let command = command.args(["-c", fill]).stdout(std::process::Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(
            &mut std::io::BufReader::new(child.stdout.as_mut().unwrap()),
            &mut line,
        )
        .unwrap();
        let pid = rustix::process::Pid::from_raw(child.id().cast_signed()).unwrap();
        let process =
            rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).unwrap();
        let tree = Tree::new(child.id(), process, None, Marker::new("test-memory", WorkerId(1)));

        // Parent and child together: 48 MiB in fact, 96 when what is shared counts for each.
        let (least, most) = (48 << 20, 90 << 20);
        let used = of(&tree);
        assert!((least..most).contains(&used), "{used}");
        assert_eq!(suspects([(&tree, least), (&tree, 1 << 40)]), [true, false]);

        tree.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(of(&tree), 0);
    }
}
