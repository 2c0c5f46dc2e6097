//! Daemons of a world come and go; workers and kernel stay.

use std::{
    fs,
    future::poll_fn,
    io::Read as _,
    mem::ManuallyDrop,
    ops::{Deref, DerefMut},
    os::{fd::AsFd as _, unix::fs::MetadataExt as _},
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use nix::sys::signal::{Signal, kill};
use serde::{Serialize, de::DeserializeOwned};
use tokio::runtime::Builder;

use super::world::{Reported, World, number_of};
use crate::{
    datapath::{DataPath as _, Place, Report, kernel::Kernel, socket::pidfd_open},
    id::{AppId, WorkerId},
};

/// Depth of a worker's cgroup in a world.
const WORKER_LEVEL: u32 = 3;

/// The one daemon there is, unless it is dead.
#[derive(Default)]
pub(super) struct Daemon(Option<Kernel>);

impl Deref for Daemon {
    type Target = Kernel;

    fn deref(&self) -> &Kernel {
        self.0.as_ref().expect("there is a daemon")
    }
}

impl DerefMut for Daemon {
    fn deref_mut(&mut self) -> &mut Kernel {
        self.0.as_mut().expect("there is a daemon")
    }
}

impl World {
    /// Starts a daemon, when there is none.
    pub(super) fn start(&mut self) {
        self.start_at(WORKER_LEVEL);
    }

    /// Starts a daemon whose workers' cgroups are at some other depth.
    pub(super) fn start_at(&mut self, level: u32) {
        let _inside = self.runtime.enter();
        let kernel = Kernel::new(self.root(), level, &std::env::temp_dir());
        let kernel = kernel.unwrap_or_else(|missing| {
            panic!("kernel mode is needed: {missing} {:#}", missing.error)
        });
        assert!(self.kernel.0.replace(kernel).is_none(), "one daemon at a time");
    }

    /// Ends the daemon as the kernel does when it is killed: its descriptors are closed and its memory unmapped, which is
    /// all that dropping does. What it was doing at that moment is over.
    pub(super) fn die(&mut self) {
        drop(self.kernel.0.take().expect("there is a daemon"));
    }

    /// Lets a daemon in a process of its own do `part`, kills that process, and returns what `part` came to.
    pub(super) fn killed_after<T: Serialize + DeserializeOwned>(
        &mut self,
        part: impl FnOnce(&mut Self) -> T,
    ) -> T {
        self.die();
        let (mut reader, mut writer) = std::io::pipe().unwrap();
        // SAFETY: the child goes on as this thread alone; it takes no lock that other threads may hold but the
        // allocator's, which the C library sees to.
        let child = unsafe { nix::unistd::fork() }.unwrap();
        let nix::unistd::ForkResult::Parent { child } = child else {
            let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                // A runtime cannot be used on both sides of a fork.
                let runtime = Builder::new_current_thread().enable_all().build().unwrap();
                let _kept = ManuallyDrop::new(std::mem::replace(&mut self.runtime, runtime));
                self.start();
                serde_json::to_writer(&mut writer, &part(self)).unwrap();
            }));
            if done.is_err() {
                // SAFETY: ends the process, and nothing else.
                unsafe { libc::_exit(1) }
            }
            drop(writer);
            loop {
                thread::park();
            }
        };
        drop(writer);
        let mut said = String::new();
        reader.read_to_string(&mut said).unwrap();
        kill(child, Signal::SIGKILL).unwrap();
        nix::sys::wait::waitpid(child, None).unwrap();
        serde_json::from_str(&said).expect("the part was played to its end")
    }

    /// Starts a daemon and tells it of all workers that live, as one does that reads of them in its journal.
    pub(super) fn succeed(&mut self) {
        self.start();
        self.admit_all();
    }

    /// Admits every worker that has a cgroup and processes in it.
    pub(super) fn admit_all(&mut self) {
        for (id, app, cgroup) in self.cgroups() {
            let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap();
            let Some(pid) = pids.lines().next().map(|pid| pid.parse().unwrap()) else { continue };
            let inode = fs::metadata(&cgroup).unwrap().ino();
            let place = Place {
                app,
                cgroup: Some(inode),
                cgroup_path: Some(&cgroup),
                ports: &[],
                number: number_of(id),
            };
            self.kernel.admit(id, &place).unwrap();
            self.kernel.started(id, pid, pidfd_open(pid).unwrap().as_fd(), None);
            self.next_worker = self.next_worker.max(id.0 + 1);
        }
    }

    fn cgroups(&self) -> Vec<(WorkerId, AppId, PathBuf)> {
        let below = |path: &Path| -> Vec<PathBuf> {
            let entries = fs::read_dir(path).unwrap().flatten();
            entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
        };
        let number = |path: &Path, prefix: &str| -> u64 {
            let name = path.file_name().unwrap().to_str().unwrap();
            name.strip_prefix(prefix).unwrap().parse().unwrap()
        };
        let mut cgroups = Vec::new();
        for app in below(self.root()) {
            let id = AppId(u32::try_from(number(&app, "app-")).unwrap());
            let workers = below(&app).into_iter();
            cgroups.extend(workers.map(|path| (WorkerId(number(&path, "w")), id, path)));
        }
        cgroups.sort();
        cgroups
    }

    /// Every socket that is reported from now on, for a little while.
    pub(super) fn all_listening(&mut self) -> Vec<Reported> {
        let kernel: &mut Kernel = &mut self.kernel;
        let mut all = Vec::new();
        let never: Result<(), _> = self.runtime.block_on(async {
            tokio::time::timeout(Duration::from_millis(150), async {
                loop {
                    if let Report::Listening { worker, ticket, key } =
                        poll_fn(|context| kernel.poll_report(context)).await
                    {
                        all.push(Reported { worker, ticket, key });
                    }
                }
            })
            .await
        });
        assert!(never.is_err());
        all
    }
}
