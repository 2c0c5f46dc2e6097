//! Arena: a private network and folder, and the guarantee that nothing started there outlives it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{process, run, step};

/// Where everything is measured.
pub(crate) struct Arena {
    folder: TempDir,
    namespace: PathBuf,
}

impl Arena {
    /// Moves this process, and so all it starts, into a network with nothing in it but `lo`.
    /// Mounts that are made in it are its own, too.
    pub(crate) fn enter() -> anyhow::Result<Self> {
        let hint = "failed to make a namespace\nhint: sudo env \"PATH=$PATH\" cargo xtask …";
        unshare(CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWNS).context(hint)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)
            .context("failed to make mounts private")?;
        process::run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
        // Every connection of a run has a port of its own.
        fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65535")
            .context("failed to widen the range of ports")?;
        // But none that somebody is to listen on: a connection that was closed keeps its port for a minute.
        fs::write("/proc/sys/net/ipv4/ip_local_reserved_ports", "8000-9999")
            .context("failed to reserve ports")?;
        let folder = tempfile::Builder::new().prefix("cluster-arena-").tempdir()?;
        Ok(Self { folder, namespace: fs::read_link("/proc/self/ns/net")? })
    }

    /// A program with the environment of this arena.
    pub(crate) fn command(&self, program: impl AsRef<Path>) -> anyhow::Result<Command> {
        let mut command = Command::new(program.as_ref());
        command
            .env("PATH", run::path_with(&step::target().join("release"))?)
            .env("CLUSTER_HOME", self.path("cluster"))
            .env("PM2_HOME", self.path("pm2"))
            .env("PM2_DISABLE_VERSION_CHECK", "true")
            .env("NO_COLOR", "1")
            .env_remove("CLUSTER_MODE")
            .current_dir(self.folder.path());
        Ok(command)
    }

    /// A path in the arena's folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends everything that runs in the arena and waits until it is gone.
    pub(crate) fn clear(&self) {
        process::until(Duration::from_secs(10), || {
            let left = self.processes();
            for pid in &left {
                // One that has ended in the meantime is what was wanted.
                kill(Pid::from_raw(pid.cast_signed()), Signal::SIGKILL).unwrap_or_default();
            }
            left.is_empty().then_some(())
        });
    }

    /// Everything that runs in it, but for this process.
    pub(crate) fn processes(&self) -> Vec<u32> {
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
