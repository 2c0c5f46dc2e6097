//! Tests of the whole: real programs, real daemon, real kernel. Run them with `cargo xtask test`.

#[cfg(test)]
mod addresses;
#[cfg(test)]
mod adopt;
#[cfg(test)]
mod api;
#[cfg(test)]
mod bad_input;
#[cfg(test)]
mod balance;
#[cfg(test)]
mod boot;
#[cfg(test)]
mod canary;
#[cfg(test)]
mod comfort;
#[cfg(test)]
mod completion;
#[cfg(test)]
mod config_files;
#[cfg(test)]
mod crash;
#[cfg(test)]
mod cron;
#[cfg(test)]
mod daemon;
#[cfg(test)]
mod drain;
#[cfg(test)]
mod dump;
#[cfg(test)]
mod environment;
#[cfg(test)]
mod events;
#[cfg(test)]
mod example;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod harness;
#[cfg(test)]
mod health;
#[cfg(test)]
mod heartbeat;
#[cfg(test)]
mod hooks;
#[cfg(test)]
mod import;
#[cfg(test)]
mod identity;
#[cfg(test)]
mod ipc;
#[cfg(test)]
mod join;
#[cfg(test)]
mod journal;
#[cfg(test)]
mod lab;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod listen_fds;
#[cfg(test)]
mod logs;
#[cfg(test)]
mod logs_kept;
#[cfg(test)]
mod logs_places;
#[cfg(test)]
mod metrics;
#[cfg(test)]
mod midway;
#[cfg(test)]
mod overtaken;
#[cfg(test)]
mod own_policy;
#[cfg(test)]
mod policies;
#[cfg(test)]
mod policy;
#[cfg(test)]
mod ports;
#[cfg(test)]
mod recycle;
#[cfg(test)]
mod reload;
#[cfg(test)]
mod resources;
#[cfg(test)]
mod rollback;
#[cfg(test)]
mod runtime;
#[cfg(test)]
mod scale;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod setups;
#[cfg(test)]
mod show;
#[cfg(test)]
mod watch;
