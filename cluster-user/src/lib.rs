//! cluster: a process manager for Linux whose load balancer is the kernel.
//!
//! Modules in reading order. `state` decides and does nothing else; `process`, `datapath`, `health`, `upkeep` and `api` do
//! and know nothing of each other; `dump` is what is kept over a reboot; `supervisor` is what joins them. `site` is an app.

pub mod id;
pub mod moment;
mod environ;
pub mod config;
pub mod state;
pub mod process;
pub mod datapath;
pub mod health;
pub mod site;
pub mod upkeep;
pub mod api;
pub mod dump;
pub mod supervisor;
pub mod cli;
