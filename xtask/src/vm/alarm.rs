//! Alarm: what a kernel says when something is wrong with it.

/// How such a line begins, behind its time. Each is followed by how it came to that.
const WORDS: [&str; 9] = [
    "BUG: ",
    "WARNING: ",
    "Oops",
    "Kernel panic",
    "general protection fault",
    "refcount_t: ",
    "INFO: task ",
    "unregister_netdevice: waiting for",
    "kernel BUG at ",
];
/// Lines that are shown after such a line: most of a call trace.
const BEHIND: usize = 25;

/// Such lines, with those behind them, in what the kernel has logged.
pub(super) fn find(log: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut more = 0;
    for line in log.lines() {
        if WORDS.iter().any(|word| line.contains(word)) {
            more = BEHIND + 1;
        }
        if more > 0 {
            found.push(line.trim_end().to_owned());
            more -= 1;
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_shown_with_what_caused_it() {
        let log = "[ 0.1] Linux version\n[ 3.2] WARNING: CPU: 0 PID: 9 at net/core/sock.c:1\n[ 3.2] Call Trace:\n";
        assert_eq!(find(log).len(), 2);
        assert!(find("[ 0.1] RETBleed: Vulnerable\n[ 0.2] debug: off\n").is_empty());
    }
}
