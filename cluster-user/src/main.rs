//! The `cluster` command: parse, run, exit code.

use std::process::ExitCode;

use cluster_user::cli;

fn main() -> ExitCode {
    match cli::parse(std::env::args_os()) {
        Ok(command) => cli::run(command),
        Err(exit) => exit.into(),
    }
}
