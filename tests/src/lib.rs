//! The harness: a host of its own for each test, and the words tests are written in.
//!
//! A test gets a [`Host`](host::Host): a private network namespace with nothing in it but `lo`, a
//! `CLUSTER_HOME` in a temporary folder, and a `PATH` with the built programs. It runs `cluster` there
//! as a user would, talks to workers as a client would, waits for conditions and never for a time, and
//! when it is dropped it ends the daemon and proves that nothing is left behind.

pub mod api;
pub mod built;
pub mod clients;
pub mod command;
pub mod container;
pub mod deploy;
pub mod host;
pub mod http;
pub mod load;
pub mod look;
pub mod machine;
pub mod mishap;
pub mod modes;
pub mod namespace;
pub mod pm2;
pub mod segments;

pub use cluster_proof::{leftover, wait};
