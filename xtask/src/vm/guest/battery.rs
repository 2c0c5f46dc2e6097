//! Battery: the tests of the library, run to their end or to that of their time.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    sync::mpsc::{self, RecvTimeoutError},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::super::{
    plan::{DEFAULT_FILTER, Plan},
    report::{Outcome, Report, Test},
};
use crate::process;

/// Where the tests are in the image.
pub(in crate::vm) const PROGRAM: &str = "/opt/tests";

/// Longest run: emulation takes many times as long as the host would, and several times longer when that is busy.
pub(in crate::vm) const LIMIT: Duration = Duration::from_mins(20);
/// More would wait for each other on two emulated CPUs, and for longer than tests are patient.
const THREADS: &str = "--test-threads=2";

/// Runs them; what came of it is in the report.
pub(super) fn run(plan: &Plan, report: &mut Report) {
    match try_run(plan) {
        Ok((tests, said)) => (report.tests, report.said) = (tests, said),
        Err(error) => {
            let failed = Test { name: format!("{error:#}"), outcome: Outcome::Failed };
            report.tests.push(failed);
        }
    }
}

fn try_run(plan: &Plan) -> anyhow::Result<(Vec<Test>, String)> {
    let command = || {
        let mut command = Command::new(PROGRAM);
        command.args(&plan.filters).current_dir("/tmp");
        if plan.filters.is_empty() {
            command.arg(DEFAULT_FILTER);
        }
        for name in &plan.left_out {
            command.args(["--skip", name]);
        }
        command
    };
    let listed = process::run(command().args(["--list", "--format=terse"]))?;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix(": test")).collect();
    anyhow::ensure!(!names.is_empty(), "no test has a name like {}", plan.filters.join(", "));

    let mut running = command()
        .arg(THREADS)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("failed to run {PROGRAM}"))?;
    let lines = BufReader::new(running.stdout.take().context("it has an output")?).lines();
    let (send, receive) = mpsc::channel();
    // What a test left behind may hold the output open for ever: nobody waits for this thread.
    thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let (began, mut said) = (Instant::now(), String::new());
    let deadline = began + LIMIT;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match receive.recv_timeout(left.min(Duration::from_millis(100))) {
            Ok(line) => {
                println!("{:4} s  {line}", began.elapsed().as_secs());
                said += &line;
                said.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) if left.is_zero() => {
                running.kill()?;
                break;
            }
            Err(RecvTimeoutError::Timeout) if running.try_wait()?.is_some() => break,
            Err(RecvTimeoutError::Timeout) => {}
        }
    }
    running.wait()?;
    Ok(read(&names, &said))
}

/// What became of each test, and what the failed ones said.
fn read(names: &[&str], said: &str) -> (Vec<Test>, String) {
    let outcome = |name: &str| {
        let ended = |word: &str| said.lines().any(|line| line == format!("test {name} ... {word}"));
        if ended("ok") {
            Outcome::Passed
        } else if ended("FAILED") {
            Outcome::Failed
        } else {
            Outcome::Unfinished
        }
    };
    let tests = names.iter().map(|name| Test { name: (*name).to_owned(), outcome: outcome(name) });
    let tests: Vec<Test> = tests.collect();
    let is_whole = !tests.iter().any(|test| test.outcome == Outcome::Unfinished);
    let said = match said.split_once("\nfailures:\n") {
        Some((_, failures)) => failures.to_owned(),
        None if is_whole => String::new(),
        // Whatever it was that ended the others.
        None => {
            said.lines().filter(|line| !line.ends_with(" ... ok")).collect::<Vec<_>>().join("\n")
        }
    };
    (tests, said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_test_that_said_nothing_did_not_end() {
        let said = "running 3 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nno\n";
        let (tests, said) = read(&["a", "b"], said);
        let outcomes: Vec<_> = tests.iter().map(|test| test.outcome).collect();
        assert_eq!(outcomes, [Outcome::Passed, Outcome::Failed]);
        assert!(said.contains("---- b stdout"), "{said}");

        let (tests, said) = read(&["a", "c"], "test a ... ok\nkilled\n");
        assert_eq!(tests[1].outcome, Outcome::Unfinished);
        assert_eq!(said, "killed");
    }
}
