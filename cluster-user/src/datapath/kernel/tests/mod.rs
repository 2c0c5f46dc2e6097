//! The kernel's data path at work, on real workers, each test in a network namespace and a cgroup of its own.
//!
//! Needs root, Linux 5.14 and a writable cgroup v2 hierarchy, and fails without them.

mod adopting;
mod balance;
mod classes;
mod custom;
mod draining;
mod flows;
mod joining;
mod metering;
mod owners;
mod puppet;
mod scheduling;
mod steering;
mod succession;
mod trust;
mod waiting;
mod world;
