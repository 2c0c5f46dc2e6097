//! What the kernel's verifier tells of a program: numbers when it takes it, its reasoning when it does not.

use std::{ffi::CStr, fmt, io};

/// Of the kernel's `bpf_verifier.h`: nothing, each instruction as it is verified, or numbers only.
pub(super) const NO_LOG: u32 = 0;
pub(super) const BPF_LOG_LEVEL1: u32 = 1;
pub(super) const BPF_LOG_STATS: u32 = 4;
/// Bytes of the verifier's numbers, and of its reason.
pub(super) const STATISTICS_BYTES: usize = 4096;
/// Bytes of a log.
pub(super) const LOG_BYTES: usize = 1 << 24;
/// What the verifier says beside its reason, by how the lines begin: numbers, and registers as it found them.
const ASIDES: [&str; 6] =
    ["processed ", "verification time", "stack depth", "insns ", "cur state", "old state"];

/// A program that the verifier did not take.
#[derive(Debug)]
pub(super) struct Refused {
    error: io::Error,
    /// Why, as one line.
    reason: String,
    /// What the verifier wrote, as far as there was room for it.
    pub(super) log: String,
}

impl Refused {
    /// This error, what the verifier said without its reasoning, and that.
    pub(super) fn new(error: io::Error, reason: &[u8], log: &[u8]) -> Self {
        let log = text(log);
        let said = last_words(&text(reason));
        let reason = if said.is_empty() { last_words(&log) } else { said };
        Self { error, reason, log }
    }
}

/// The last lines of a log that are no asides, as one line.
fn last_words(log: &str) -> String {
    let is_aside = |line: &str| ASIDES.iter().any(|aside| line.starts_with(aside));
    let lines: Vec<&str> =
        log.lines().map(str::trim).filter(|line| !line.is_empty() && !is_aside(line)).collect();
    lines[lines.len().saturating_sub(3)..].join("; ")
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.error, self.reason)
    }
}

impl std::error::Error for Refused {}

/// What is written in a log.
pub(super) fn text(log: &[u8]) -> String {
    CStr::from_bytes_until_nul(log).unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reason_is_what_the_verifier_says_and_neither_an_instruction_nor_a_number() {
        let said = "infinite loop detected at insn 3\ncur state: R0=0 R10=fp0\nold state: R0=0\n\
                    processed 4 insns (limit 1000000)\nverification time 12 usec\nstack depth 0\n\0garbage";
        let log = "0: (b7) r0 = 0\n3: (05) goto pc-1\n\0";
        let error = || io::Error::from_raw_os_error(libc::EINVAL);

        let refused = Refused::new(error(), said.as_bytes(), log.as_bytes());

        assert!(refused.to_string().ends_with(": infinite loop detected at insn 3"), "{refused}");
        assert_eq!(refused.log, &log[..log.len() - 1]);
        let silent = Refused::new(error(), b"processed 4 insns\n\0", b"R1 !read_ok\n\0");
        assert!(silent.to_string().ends_with(": R1 !read_ok"), "what there is: {silent}");
    }
}
