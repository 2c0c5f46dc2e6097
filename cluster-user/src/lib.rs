//! cluster: a process manager for Linux whose load balancer is the kernel.
//!
//! Modules in reading order. `state` decides and does nothing else; `process`, `datapath`, `health` and `api` do
//! and know nothing of each other; `supervisor` is what joins them. `site` is an app, and stands alone.

pub mod id;
pub mod moment;
pub mod config;
pub mod state;
pub mod process;
pub mod datapath;
pub mod health;
pub mod site;
pub mod api;
pub mod supervisor;
pub mod cli;
