//! Prints how long measuring 500 workers takes: `cargo run --release --example usage`.

#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::{os::fd::AsFd as _, path::Path, process, time::Instant};

use cluster_user::{
    id::{AppId, WorkerId},
    process::{
        cgroup::Hierarchy,
        limits,
        spawn::{Bounds, Launch, spawn},
        tree::{Marker, Tree},
        usage::measure,
        watch::reap,
    },
};

const WORKERS: u64 = 500;

fn main() -> anyhow::Result<()> {
    limits::raise_descriptors()?;
    let hierarchy = Hierarchy::open(&format!("usage-{}", process::id()))?;
    for in_cgroup in [true, false] {
        let begin = Instant::now();
        let trees = (0..WORKERS)
            .map(|number| start(&hierarchy, in_cgroup, WorkerId(number)))
            .collect::<anyhow::Result<Vec<_>>>()?;
        println!("{WORKERS} workers started in {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
        for _ in 0..3 {
            let begin = Instant::now();
            let used = measure(&trees);
            let memory: u64 = used.iter().map(|used| used.memory).sum();
            let took = begin.elapsed().as_secs_f64() * 1e3;
            println!("measured in {took:.1} ms (cgroups: {in_cgroup}): {} MB", memory / 1_000_000);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let begin = Instant::now();
        for tree in &trees {
            rustix::process::pidfd_send_signal(tree.process(), rustix::process::Signal::KILL)?;
        }
        for tree in &trees {
            if in_cgroup {
                runtime.block_on(tree.empty())?;
            }
            while reap(tree.process())?.is_none() {}
            tree.remove()?;
        }
        println!("ended in {:.0} ms", begin.elapsed().as_secs_f64() * 1e3);
    }
    hierarchy.remove()?;
    Ok(())
}

fn start(hierarchy: &Hierarchy, in_cgroup: bool, worker: WorkerId) -> anyhow::Result<Tree> {
    let cgroup = if in_cgroup { Some(hierarchy.create_worker(AppId(0), worker)?) } else { None };
    let null = std::fs::File::options().write(true).open("/dev/null")?;
    let marker = Marker::new("usage", worker);
    let spawned = spawn(&Launch {
        program: Path::new("/bin/sleep"),
        args: &["sleep".to_owned(), "1000".to_owned()],
        env: &[marker.variable()],
        cwd: Path::new("/"),
        user: None,
        cgroup: cgroup.as_ref().map(|cgroup| cgroup.folder()),
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        inherited: &[],
        sockets: &[],
        filter: None,
        bounds: &Bounds::default(),
    })?;
    Ok(Tree::new(spawned.pid, spawned.process, cgroup, marker))
}
