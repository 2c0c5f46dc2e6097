//! Command: one run of a program, and what came out of it.

use std::{
    fs::File,
    io::{self, Read as _, Seek as _},
    os::unix::process::ExitStatusExt as _,
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::wait;

/// Longest run of a command; it is killed then, and the test fails.
const LIMIT: Duration = Duration::from_mins(1);

/// What came out of a command. Every check prints all of it when it fails.
#[derive(Clone, Debug)]
pub struct Output {
    /// As typed.
    pub command: String,
    /// Exit code; 128 and more for a signal, as in a shell.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs to the end. Output goes to files, so a daemon that kept a descriptor could not hold it up.
pub fn run(command: &mut Command) -> Output {
    let output = try_run(command)
        .unwrap_or_else(|error| panic!("failed to run `{}`: {error}", show(command)));
    assert!(output.code >= 0, "still running after {} s{}", LIMIT.as_secs(), output.told());
    output
}

/// The same, for where a panic would hide another. The exit code is -1 when it had to be killed.
///
/// # Errors
/// Whatever kept it from being run.
pub fn try_run(command: &mut Command) -> io::Result<Output> {
    let shown = show(command);
    let (mut stdout, mut stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone()?)
        .stderr(stderr.try_clone()?)
        .spawn()?;
    let status = wait::within(LIMIT, || child.try_wait().transpose()).transpose()?;
    if status.is_none() {
        child.kill()?;
        child.wait()?;
    }
    Ok(Output {
        command: shown,
        code: status.map_or(-1, |status| {
            status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
        }),
        stdout: contents(&mut stdout)?,
        stderr: contents(&mut stderr)?,
    })
}

#[expect(clippy::return_self_not_must_use, reason = "a check may be the last thing asked")]
impl Output {
    /// Checks that it succeeded.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.code, 0, "should have succeeded{}", self.told());
        self
    }

    /// Checks that it failed, said why and did not crash.
    #[track_caller]
    pub fn fails(self) -> Self {
        assert!((1..128).contains(&self.code), "should have failed{}", self.told());
        assert!(!self.stderr.trim().is_empty(), "should have said why{}", self.told());
        assert!(!self.stderr.contains("panicked"), "should not have crashed{}", self.told());
        self
    }

    /// Checks the exit code.
    #[track_caller]
    pub fn code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "should have exited with {code}{}", self.told());
        self
    }

    /// Checks that standard output has a text.
    #[track_caller]
    pub fn says(self, text: &str) -> Self {
        assert!(self.stdout.contains(text), "should have said `{text}`{}", self.told());
        self
    }

    /// Checks that standard error has a text.
    #[track_caller]
    pub fn complains(self, text: &str) -> Self {
        assert!(self.stderr.contains(text), "should have complained of `{text}`{}", self.told());
        self
    }

    /// Checks that neither stream has a text.
    #[track_caller]
    pub fn never_mentions(self, text: &str) -> Self {
        let mentioned = self.stdout.contains(text) || self.stderr.contains(text);
        assert!(!mentioned, "should not have mentioned `{text}`{}", self.told());
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("should have printed JSON: {error}{}", self.told()))
    }

    /// Standard output, line by line.
    pub fn lines(&self) -> Vec<&str> {
        self.stdout.lines().collect()
    }

    fn told(&self) -> String {
        let Self { command, code, stdout, stderr } = self;
        format!(
            "\n\n$ {command}\nexit code: {code}\n--- stdout\n{stdout}\n--- stderr\n{stderr}\n---"
        )
    }
}

fn show(command: &Command) -> String {
    let program = std::path::Path::new(command.get_program()).file_name().unwrap_or_default();
    let words = std::iter::once(program).chain(command.get_args());
    words
        .map(|word| {
            let word = word.to_string_lossy();
            if word.len() > 200 { "…".into() } else { word }
        })
        .collect::<Vec<_>>()
        .join(" ")
}

fn contents(file: &mut File) -> io::Result<String> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
