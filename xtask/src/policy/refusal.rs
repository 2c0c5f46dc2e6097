//! Refusals: what the kernel says of a program that it does not take, in an order in which it can be read.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result};

use crate::step;

/// Where the log is that is kept, in the folder of what was built.
const LOG: &str = "verify.log";
/// As the program that asks the kernel calls it.
const LEFT: &str = "cluster-policy-verify.log";
/// Bytes of the log that are kept: those of its end, which is where the kernel gave up.
const KEPT: usize = 1 << 20;
/// Longest line that is shown. Registers of the verifier may have thousands of characters.
const WIDEST: usize = 160;

/// Where to keep the log of an object: with what else was built for it, or with what is built here.
pub(super) fn folder(object: &Path) -> PathBuf {
    match object.parent() {
        Some(policy) if policy.join("Cargo.toml").is_file() => policy.join("target"),
        _ => step::target().join("policy"),
    }
}

/// Keeps the end of the log that was left in a folder. Returns its path, or none when the kernel did not write any.
pub(super) fn keep(left_in: &Path, folder: &Path) -> Result<Option<PathBuf>> {
    let Ok(log) = fs::read(left_in.join(LEFT)) else { return Ok(None) };
    let kept = folder.join(LOG);
    let from = log.len().saturating_sub(KEPT);
    fs::write(&kept, &log[from..])
        .with_context(|| format!("failed to write {}", kept.display()))?;
    Ok(Some(kept))
}

/// What was said, for people: what it means, where, and where there is more.
pub(super) fn told(said: &str, log: &Path) -> String {
    let error = said.rfind("error: ").map_or("", |at| said[at + 7..].trim());
    let mut text = format!("{}\n", meaning(error));
    // `verify POLICY, which begins at instruction 1234: Argument list too long (os error 7): …`
    if let Some(place) = error.find("begins at instruction ") {
        let number: String = error[place + 22..].chars().take_while(char::is_ascii_digit).collect();
        text.push_str("instructions of the policy are those from ");
        text.push_str(&number);
        text.push_str(" on\n");
    }
    text.push_str("the last that the kernel looked at:\n");
    for line in said.lines().filter(|line| line.starts_with("    ")) {
        text.push_str(&shortened(line));
        text.push('\n');
    }
    text.push_str("more of its reasoning is in ");
    text.push_str(&log.display().to_string());
    text.push('\n');
    text
}

/// What the last words of the verifier mean, where that is known; else those.
fn meaning(error: &str) -> String {
    let count = error.split_once("Processed ").or_else(|| error.split_once("processed "));
    let count: String = count
        .map(|(_, rest)| rest.chars().take_while(char::is_ascii_digit).collect())
        .unwrap_or_default();
    if error.contains("BPF program is too large") {
        return format!("it does not end, or is too long for the verifier ({count} instructions)");
    }
    if error.contains("infinite loop detected") || error.contains("back-edge") {
        return "it does not end: there is a loop whose end the verifier does not see".to_owned();
    }
    // The number of the system's error says nothing of the program.
    let words = error.rsplit_once("(os error ").and_then(|(_, rest)| rest.split_once("): "));
    shortened(words.map_or(error, |(_, words)| words))
}

fn shortened(line: &str) -> String {
    match line.char_indices().nth(WIDEST) {
        Some((at, _)) => format!("{} …", &line[..at]),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_a_program_that_does_not_end_it_is_said_first() {
        let registers = "R0=scalar() ".repeat(150);
        let said = format!(
            "the whole of the verifier's log is in /tmp/x; its end is\n    12: {registers}\n    13: goto -1\nerror: policy \
             /x.bpf.o, which begins at instruction 1234: Argument list too long (os error 7): {registers}; BPF program is \
             too large. Processed 1000001 insn\n"
        );
        let told = told(&said, Path::new("/p/target/verify.log"));
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[0],
            "it does not end, or is too long for the verifier (1000001 instructions)"
        );
        assert_eq!(lines[1], "instructions of the policy are those from 1234 on");
        assert!(lines.iter().all(|line| line.chars().count() <= WIDEST + 2), "{told}");
        assert!(told.contains("    13: goto -1\n") && told.ends_with("/p/target/verify.log\n"));
    }

    #[test]
    fn of_another_mistake_the_kernels_words_are_said_and_not_the_systems() {
        let said =
            "error: policy x: Permission denied (os error 13): R3 invalid mem access 'scalar'\n";
        assert!(told(said, Path::new("log")).starts_with("R3 invalid mem access 'scalar'\n"));
    }

    #[test]
    fn the_end_of_a_log_is_kept_and_nothing_in_the_temporary_folder() {
        let folder = tempfile::tempdir().unwrap();
        assert!(keep(folder.path(), folder.path()).unwrap().is_none());
        let mut log = vec![b'a'; 2 * KEPT];
        log.extend(b"the end");
        fs::write(folder.path().join(LEFT), log).unwrap();
        let kept = keep(folder.path(), folder.path()).unwrap().unwrap();
        let text = fs::read(kept).unwrap();
        assert!(text.len() <= KEPT && text.ends_with(b"the end"));
    }
}
