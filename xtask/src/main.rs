//! Developer tasks: `cargo xtask <task>`.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a task talks to its terminal")]

mod arena;
mod bench;
mod chaos;
mod ebpf;
mod figures;
mod lint;
mod policy;
mod process;
mod run;
mod step;
mod test;
mod tidy;
mod tools;
mod vm;

use std::{ffi::OsString, process::ExitCode};

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(bin_name = "cargo xtask", about = "Developer tasks of cluster")]
struct Args {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Builds `cluster` (some 4 minutes the first time) and runs a command of it: `cargo xtask run -- start app -i 8`
    Run {
        /// The command line of `cluster`; its help when there is none
        #[arg(last = true)]
        args: Vec<OsString>,
    },
    /// Runs all tests, those that need root and BPF included (some 15 minutes; packages and PM2 over the network)
    Test {
        /// Only tests whose names contain one of these
        filters: Vec<String>,
    },
    /// Checks formatting, lints, the repository's own rules, and documentation
    Lint,
    /// Checks the repository's own rules: what clippy cannot see
    Tidy,
    /// Compiles the kernel programs into the objects that are checked in beside them
    Ebpf {
        /// Compiles in another folder and compares with what is checked in
        #[arg(long)]
        check: bool,
    },
    /// Begins a policy of your own: a crate that works, in a folder of its name
    NewPolicy(policy::New),
    /// Compiles, verifies, tests or measures a policy of your own
    #[command(subcommand)]
    Policy(policy::Task),
    /// Measures `cluster` beside what people use today
    Bench(bench::Args),
    /// Measures what policies do for clients, and writes docs/scheduling.md with plots
    Figures(figures::Args),
    /// Does all that can happen to unmodified apps under load, and accounts for every request
    Chaos(chaos::Args),
    /// Boots the kernels people have in QEMU and runs the kernel tests in each
    Vm(vm::Args),
    /// The first process of such a machine
    #[command(hide = true)]
    VmGuest {
        /// What it starts to do the work
        #[arg(long)]
        work: bool,
    },
}

fn main() -> ExitCode {
    let outcome = match Args::parse().task {
        Task::Run { args } => run::run(&args),
        Task::Test { filters } => test::run(&filters),
        Task::Lint => lint::run(),
        Task::Tidy => tidy::run(),
        Task::Ebpf { check } => ebpf::run(check),
        Task::NewPolicy(args) => policy::new(&args),
        Task::Policy(task) => policy::run(&task),
        Task::Bench(args) => bench::run(&args),
        Task::Figures(args) => figures::run(&args),
        Task::Chaos(args) => chaos::run(&args),
        Task::Vm(args) => vm::run(&args),
        Task::VmGuest { work: false } => vm::guest(),
        Task::VmGuest { work: true } => vm::work(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
