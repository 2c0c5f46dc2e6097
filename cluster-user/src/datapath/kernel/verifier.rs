//! What the kernel's verifier tells of a program: numbers when it takes it, its reasoning when it does not.

use std::{ffi::CStr, fmt, io};

/// Of the kernel's `bpf_verifier.h`: nothing, each instruction as it is verified, or numbers only.
pub(super) const NO_LOG: u32 = 0;
pub(super) const BPF_LOG_LEVEL1: u32 = 1;
pub(super) const BPF_LOG_STATS: u32 = 4;
/// Bytes of the verifier's numbers.
pub(super) const STATISTICS_BYTES: usize = 4096;
/// Bytes of a log, and of one that does not fit there.
pub(super) const LOG_BYTES: [usize; 2] = [1 << 20, 1 << 24];

/// A program that the verifier did not take.
#[derive(Debug)]
pub(super) struct Refused {
    error: io::Error,
    /// What the verifier wrote, as far as there was room for it.
    pub(super) log: String,
}

impl Refused {
    /// This error, and what is written in the log.
    pub(super) fn new(error: io::Error, log: &[u8]) -> Self {
        Self { error, log: text(log) }
    }

    /// The last lines of the log before its statistics, as one line.
    fn last_words(&self) -> String {
        let is_count =
            |line: &str| line.starts_with("processed ") || line.starts_with("verification time");
        let lines: Vec<&str> = self.log.lines().filter(|line| !is_count(line)).collect();
        lines[lines.len().saturating_sub(3)..].join("; ")
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.last_words())
    }
}

impl std::error::Error for Refused {}

/// What is written in a log.
pub(super) fn text(log: &[u8]) -> String {
    CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy().into_owned()
}
