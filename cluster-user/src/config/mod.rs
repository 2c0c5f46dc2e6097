//! From what was typed to a specification that cannot be invalid.
#![forbid(unsafe_code)]

pub mod change;
pub mod cpus;
pub mod cron;
pub mod date_format;
pub mod definition;
pub mod duration;
pub mod environment;
pub mod file;
pub mod home;
mod identity;
pub mod instances;
pub mod interpreter;
pub mod limits;
pub mod listen;
pub mod logging;
pub mod metrics;
pub mod name;
mod nearest;
pub mod pace;
pub mod pattern;
pub mod probe;
pub mod readiness;
pub mod refusal;
pub mod resolve;
pub mod rlimit;
pub mod scheduling;
pub mod script;
pub mod secret;
pub mod shell;
pub mod signal;
pub mod size;
pub mod spec;
pub mod target;
pub mod typed;
pub mod upkeep;
pub mod user;
