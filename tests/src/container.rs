//! Container: a pid namespace of its own with `cluster runtime` as its process 1, as a container has it.

use std::{fs, process::Command};

use nix::sys::signal::Signal;

use crate::{
    command::{Begun, Output},
    host::{self, Host},
    wait,
};

/// A container that runs.
#[derive(Debug)]
pub struct Container {
    begun: Begun,
    first: u32,
}

impl Container {
    /// Begins one whose process 1 is this.
    pub fn begin(host: &Host, program: &[&str]) -> Self {
        Self::changed(host, program, |_| {})
    }

    /// The same with a command line that is changed before.
    pub fn changed(host: &Host, program: &[&str], change: impl FnOnce(&mut Command)) -> Self {
        let mut command = host.command("unshare");
        command.args(["--pid", "--fork", "--kill-child", "--mount", "--mount-proc", "--"]);
        command.args(program);
        change(&mut command);
        let begun = Begun::begin(&mut command);
        let first = wait::until("there is a process 1", || children(begun.pid()).first().copied());
        Self { begun, first }
    }

    /// Its process 1, as the host knows it.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// The run of it.
    pub fn begun(&mut self) -> &mut Begun {
        &mut self.begun
    }

    /// Sends a signal to its process 1.
    pub fn signal(&self, signal: Signal) {
        host::signal(self.first, signal);
    }

    /// A command that runs in it, as `docker exec` would have it.
    pub fn command(&self, host: &Host, program: &[&str]) -> Command {
        let mut command = host.command("nsenter");
        command.args(["--target", &self.first.to_string(), "--pid", "--mount", "--"]).args(program);
        command
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(self) -> Output {
        self.begun.end()
    }
}

/// Living children of a process, and those nobody has waited for.
pub fn children(of: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{of}/task/{of}/children"));
    let children = children.unwrap_or_default();
    children.split_whitespace().filter_map(|child| child.parse().ok()).collect()
}
