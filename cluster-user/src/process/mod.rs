//! Processes: how a worker is spawned, watched, measured, ended, and what becomes of its output.

pub mod spawn;
