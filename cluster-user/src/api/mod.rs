//! The daemon's API: HTTP/1.1 with JSON over a Unix socket, the same for the command, `curl`, and probes.
#![forbid(unsafe_code)]

mod answer;
mod desk;
mod door;
pub mod board;
pub mod client;
pub mod message;
mod telemetry;
pub mod metrics;
mod look;
mod guest;
pub mod exporter;
mod route;
pub mod server;
pub mod socket;
pub mod validate;

/// Header that carries [`message::VERSION`] in both directions.
pub const VERSION_HEADER: &str = "cluster-version";
