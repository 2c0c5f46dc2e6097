//! Mishaps: what daemons are killed by in tests.

use nix::sys::signal::Signal;

use crate::{
    host::{Host, is_alive, parent, signal},
    wait,
};

impl Host {
    /// Kills the daemon, and says its pid; its guardian starts another.
    #[track_caller]
    pub fn kill_daemon(&self) -> u32 {
        let daemon = self.ping().pid;
        end(daemon);
        daemon
    }

    /// Kills the daemon and whoever would start another, and says the daemon's pid.
    #[track_caller]
    pub fn kill_daemon_and_guardian(&self) -> u32 {
        let daemon = self.ping().pid;
        end(parent(daemon));
        end(daemon);
        daemon
    }
}

#[track_caller]
fn end(pid: u32) {
    signal(pid, Signal::SIGKILL);
    wait::until_true(&format!("process {pid} has ended"), || !is_alive(pid));
}
