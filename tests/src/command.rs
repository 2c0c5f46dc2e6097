//! Command: one run of a program, and what came out of it.

use std::{
    fs::File,
    io,
    os::unix::{fs::FileExt as _, process::ExitStatusExt as _},
    process::{Child, Command, Stdio},
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
    Begun::begin(command).end()
}

/// The same, for where a panic would hide another. The exit code is -1 when it had to be killed.
///
/// # Errors
/// Whatever kept it from being run.
pub fn try_run(command: &mut Command) -> io::Result<Output> {
    Begun::try_begin(command)?.try_end()
}

/// A run of a program that the test goes on beside; it is killed when dropped before its end.
#[derive(Debug)]
pub struct Begun {
    command: String,
    child: Child,
    stdout: File,
    stderr: File,
}

impl Begun {
    /// Begins to run.
    pub fn begin(command: &mut Command) -> Self {
        Self::try_begin(command)
            .unwrap_or_else(|error| panic!("failed to run `{}`: {error}", show(command)))
    }

    fn try_begin(command: &mut Command) -> io::Result<Self> {
        let (stdout, stderr) = (tempfile::tempfile()?, tempfile::tempfile()?);
        let child = command
            .stdin(Stdio::null())
            .stdout(stdout.try_clone()?)
            .stderr(stderr.try_clone()?)
            .spawn()?;
        Ok(Self { command: show(command), child, stdout, stderr })
    }

    /// Waits until it has written a text to standard output. Panics when it ends without that.
    #[track_caller]
    pub fn until_says(&mut self, text: &str) {
        wait::until_true(&format!("`{}` says `{text}`", self.command), || {
            // In this order: what it writes last comes before its end.
            let has_ended = self.has_ended();
            let said = contents(&self.stdout).expect("a file can be read");
            let is_said = said.contains(text);
            assert!(
                is_said || !has_ended,
                "`{}` ended and never said `{text}`: {said}\n{}",
                self.command,
                contents(&self.stderr).expect("a file can be read")
            );
            is_said
        });
    }

    /// Whether it has written a text to standard output by now.
    pub fn has_said(&self, text: &str) -> bool {
        contents(&self.stdout).expect("a file can be read").contains(text)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until it has written a text to standard error.
    #[track_caller]
    pub fn until_complains(&mut self, text: &str) {
        wait::until_true(&format!("`{}` complains of `{text}`", self.command), || {
            contents(&self.stderr).expect("a file can be read").contains(text)
        });
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child can be waited for").is_some()
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(self) -> Output {
        let output = self.try_end().expect("a child can be waited for");
        assert!(output.code >= 0, "still running after {} s{}", LIMIT.as_secs(), output.told());
        output
    }

    fn try_end(mut self) -> io::Result<Output> {
        let status = wait::within(LIMIT, || self.child.try_wait().transpose()).transpose()?;
        if status.is_none() {
            self.child.kill()?;
            self.child.wait()?;
        }
        Ok(Output {
            command: self.command.clone(),
            code: status.map_or(-1, |status| {
                status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
            }),
            stdout: contents(&self.stdout)?,
            stderr: contents(&self.stderr)?,
        })
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        // Both succeed for a child, whatever has become of it.
        self.child.kill().unwrap_or_default();
        drop(self.child.wait());
    }
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

/// All of a file, whose position is that of whoever writes it.
fn contents(file: &File) -> io::Result<String> {
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    let mut bytes = vec![0; length];
    file.read_exact_at(&mut bytes, 0)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
