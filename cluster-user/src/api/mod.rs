//! The daemon's API: HTTP/1.1 with JSON over a Unix socket, the same for the command, `curl`, and probes.
#![forbid(unsafe_code)]

pub mod message;
