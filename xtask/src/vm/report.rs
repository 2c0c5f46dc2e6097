//! Report: what was found out inside of a machine, as it travels to the host in one line of JSON.

use serde::{Deserialize, Serialize};

use super::complexity::Program;

/// What was found out inside of a machine.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(super) struct Report {
    /// As `uname -r` says.
    pub(super) release: String,
    /// From the kernel's first moment to that of the first process, in milliseconds.
    pub(super) boot_ms: u64,
    /// The tests of the library that ran.
    pub(super) tests: Vec<Test>,
    /// What the failed ones said.
    pub(super) said: String,
    /// What was tried with the real program.
    pub(super) checks: Vec<Check>,
    /// What `cluster doctor --json` says.
    pub(super) features: Vec<Feature>,
    /// The kernel programs, as the verifier took them.
    pub(super) programs: Vec<Program>,
    /// What the kernel said that it must not say.
    pub(super) alarms: Vec<String>,
}

/// A test of the library.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Test {
    pub(super) name: String,
    pub(super) outcome: Outcome,
}

/// What became of a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Outcome {
    Passed,
    Failed,
    /// It did not end in time, or was under way when another one ended all.
    Unfinished,
}

/// Something that was tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Check {
    /// A sentence.
    pub(super) name: String,
    /// What it found that is worth knowing.
    pub(super) found: String,
    /// Why it does not hold.
    pub(super) error: Option<String>,
    pub(super) took_ms: u64,
}

/// A thing that a host can do or lacks; `doctor` has more words for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Feature {
    pub(super) name: String,
    pub(super) ok: bool,
    pub(super) detail: Option<String>,
    pub(super) hint: Option<String>,
    pub(super) needed_for: String,
}

impl Report {
    /// Reads what a machine wrote to its second serial port.
    pub(super) fn read(text: &str) -> anyhow::Result<Self> {
        let line = text.lines().map(str::trim).find(|line| !line.is_empty());
        Ok(serde_json::from_str(line.unwrap_or_default())?)
    }

    /// How many tests ended like this.
    pub(super) fn count(&self, outcome: Outcome) -> usize {
        self.tests.iter().filter(|test| test.outcome == outcome).count()
    }
}
