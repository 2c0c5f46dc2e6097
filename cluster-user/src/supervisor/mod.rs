//! The daemon: events in, decisions by `state`, effects out.

pub mod options;
