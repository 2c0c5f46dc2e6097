//! What `cargo xtask policy verify` and `bench` do with an object: `cargo run --example policy -- verify OBJECT`.

#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a developer is watching")]

use std::{env, fs, path::Path, process::ExitCode};

use anyhow::{Context as _, bail};
use cluster_user::datapath::kernel::{
    custom::{log_of, verify},
    trial::measure,
};

/// Lines of the verifier's log that are shown: the way to what it did not like.
const SHOWN: usize = 30;

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    match run(&arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            if let Some(log) = log_of(&error) {
                show(log);
            }
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: &[String]) -> anyhow::Result<()> {
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match *arguments {
        ["verify", object] => {
            let verified = verify(Path::new(object))?;
            println!(
                "program {}: {} instructions, {} with the program that calls it",
                verified.program, verified.instructions, verified.together
            );
            for line in verified.statistics.lines() {
                println!("{line}");
            }
            println!("the kernel takes it");
            Ok(())
        }
        ["bench", object, workers, decisions] => {
            let costs = measure(Path::new(object), workers.parse()?, decisions.parse()?)?;
            let nothing = costs[0].nanoseconds;
            println!("ns/decision  above nothing  decisions  with {workers} workers");
            for cost in costs {
                let above = cost.nanoseconds - nothing;
                println!(
                    "{:11.1}  {above:13.1}  {:9}  {}",
                    cost.nanoseconds, cost.decisions, cost.who
                );
            }
            Ok(())
        }
        _ => bail!("verify OBJECT, or bench OBJECT WORKERS DECISIONS"),
    }
}

/// Keeps the log and shows its end, from where the user's program was called the last time.
fn show(log: &str) {
    let file = env::temp_dir().join("cluster-policy-verify.log");
    match fs::write(&file, log).context("failed to keep the log") {
        Ok(()) => eprintln!("the whole of the verifier's log is in {}; its end is", file.display()),
        Err(error) => eprintln!("{error:#}; the end of the verifier's log is"),
    }
    let lines: Vec<&str> = log.lines().collect();
    let called = lines.iter().rposition(|line| line.starts_with("callee:")).unwrap_or(0);
    let from = called.max(lines.len().saturating_sub(SHOWN));
    for line in &lines[from..] {
        eprintln!("    {line}");
    }
}
