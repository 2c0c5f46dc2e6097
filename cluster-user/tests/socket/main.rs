//! The command and the daemon's socket, each with its real counterpart and a scripted supervisor.

#[cfg(test)]
mod api;
#[cfg(test)]
mod cli;
#[cfg(test)]
mod fake;
