//! The daemon: events in, decisions by `state`, effects out.
//!
//! [`run()`] waits for whatever happens next, translates it into an event ([`source`]), lets `state`
//! decide, and carries out what it asks for ([`perform`]). Only these two files know both worlds.

pub mod guardian;
pub mod options;
mod run;
pub mod journal;
mod adopt;
pub mod succession;
mod upgrade;
mod host;
mod environment;
mod health;
mod said;
mod announce;
mod sockets;
mod hooks;
mod worker_log;
mod upkeep;
mod manager;
mod memory;
mod makeshift;
mod source;
mod scheduling;
mod verify;
mod perform;
mod signal;
mod answer;
mod view;
mod telemetry;
mod ledger;

pub use self::run::run;
