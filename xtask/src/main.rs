//! Developer tasks: `cargo xtask <task>`.

mod ebpf;

use clap::Parser;

/// Developer tasks of cluster.
#[derive(Parser)]
enum Task {
    /// Compile the kernel programs into the objects that are checked in.
    Ebpf {
        /// Compile a copy elsewhere and compare, instead of replacing the objects.
        #[arg(long)]
        check: bool,
    },
}

fn main() -> anyhow::Result<()> {
    match Task::parse() {
        Task::Ebpf { check } => ebpf::run(check),
    }
}
