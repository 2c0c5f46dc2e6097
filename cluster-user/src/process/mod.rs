//! Processes: how a worker is spawned, watched, measured, ended, and what becomes of its output.
//!
//! A worker is a process *tree*. It is born in a cgroup of its own ([`cgroup`]) where the host has
//! cgroup v2, and is found by session, marker and parentage where it has not ([`tree`]).

pub mod cgroup;
pub mod errand;
pub mod limits;
pub mod memory;
pub mod output;
pub mod spawn;
pub mod tree;
pub mod usage;
pub mod watch;

mod proc;
mod ready;
mod stranger;
