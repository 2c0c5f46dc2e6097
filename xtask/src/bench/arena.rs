//! Arena: a private network and folder, and the guarantee that nothing started there outlives it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use super::process;
use crate::{run, step};

/// Where everything is measured.
pub(super) struct Arena {
    folder: TempDir,
    namespace: PathBuf,
}

impl Arena {
    /// Moves this process, and so all it starts, into a network with nothing in it but `lo`.
    pub(super) fn enter() -> anyhow::Result<Self> {
        let hint = "failed to make a network namespace\n\
                    hint: sudo env \"PATH=$PATH\" cargo xtask bench";
        unshare(CloneFlags::CLONE_NEWNET).context(hint)?;
        process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        // Every connection of a run has a port of its own.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
            .context("failed to widen the range of ports")?;
        let folder = tempfile::Builder::new().prefix("cluster-bench-").tempdir()?;
        Ok(Self { folder, namespace: fs::read_link("/proc/self/ns/net")? })
    }

    /// A program with the environment of this arena.
    pub(super) fn command(&self, program: impl AsRef<Path>) -> anyhow::Result<Command> {
        let mut command = Command::new(program.as_ref());
        command
            .env("PATH", run::path_with(&step::target().join("release"))?)
            .env("CLUSTER_HOME", self.path("cluster"))
            .env("PM2_HOME", self.path("pm2"))
            .env("PM2_DISABLE_VERSION_CHECK", "true")
            .env("WORKERS", super::WORKERS.to_string())
            .env("NO_COLOR", "1")
            .env_remove("CLUSTER_MODE")
            .current_dir(self.folder.path());
        Ok(command)
    }

    /// A path in the arena's folder.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A file that comes with the benchmark.
    pub(super) fn source(name: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("src/bench").join(name)
    }

    /// Ends everything that runs in the arena and waits until it is gone.
    pub(super) fn clear(&self) {
        process::until(Duration::from_secs(10), || {
            let left = self.processes();
            for pid in &left {
                // One that has ended in the meantime is what was wanted.
                kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap_or_default();
            }
            left.is_empty().then_some(())
        });
    }

    fn processes(&self) -> Vec<u32> {
        let own = std::process::id();
        process::all()
            .filter(|pid| *pid != own)
            .filter(|pid| {
                fs::read_link(format!("/proc/{pid}/ns/net"))
                    .is_ok_and(|name| name == self.namespace)
            })
            .collect()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        self.clear();
    }
}
