//! What `/proc` says of processes, read without more allocation than it takes: hundreds are read at once.

use std::{fs, io::Read as _};

/// The fields of `/proc/PID/stat` that are used here (`proc_pid_stat(5)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stat {
    pub(super) pid: u32,
    /// `R`, `S`, `Z`, …
    pub(super) state: char,
    pub(super) parent: u32,
    pub(super) session: u32,
    /// User and system time of all its threads, in clock ticks.
    pub(super) ticks: u64,
    /// Since boot, in clock ticks: with the pid, it names a process for good.
    pub(super) started: u64,
    /// Resident memory, in pages.
    pub(super) resident: u64,
}

impl Stat {
    /// Reads one process; `None` when there is none of that pid.
    pub(super) fn of(pid: u32) -> Option<Self> {
        let mut line = [0; 1024];
        let read = read_file(&format!("/proc/{pid}/stat"), &mut line)?;
        Self::parse(pid, read)
    }

    fn parse(pid: u32, line: &[u8]) -> Option<Self> {
        // The command, in parentheses, may hold anything, even parentheses: the last one ends it.
        let after = line.iter().rposition(|byte| *byte == b')')? + 2;
        let mut fields = str::from_utf8(line.get(after..)?).ok()?.split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let user: u64 = fields.nth(7)?.parse().ok()?;
        let system: u64 = fields.next()?.parse().ok()?;
        let started = fields.nth(6)?.parse().ok()?;
        let resident = fields.nth(1)?.parse().ok()?;
        Some(Self { pid, state, parent, session, ticks: user + system, started, resident })
    }
}

/// The wait status (`wait(2)`) that the zombie of process `pid` keeps for its parent; `None` when it is no zombie.
pub(super) fn status_of_zombie(pid: u32) -> Option<i32> {
    let mut line = [0; 1024];
    let line = read_file(&format!("/proc/{pid}/stat"), &mut line)?;
    if Stat::parse(pid, line)?.state != 'Z' {
        return None;
    }
    // The last field (`proc_pid_stat(5)`, since Linux 3.5).
    str::from_utf8(line).ok()?.split_ascii_whitespace().next_back()?.parse().ok()
}

/// All processes, by pid.
pub(super) fn pids() -> Vec<u32> {
    let Ok(entries) = fs::read_dir("/proc") else { return Vec::new() };
    let mut pids: Vec<u32> =
        entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable();
    pids
}

/// Resident memory of process `pid` in pages; 0 when there is none.
pub(super) fn resident(pid: u32) -> u64 {
    let mut line = [0; 128];
    read_file(&format!("/proc/{pid}/statm"), &mut line)
        .and_then(|line| str::from_utf8(line).ok()?.split(' ').nth(1)?.parse().ok())
        .unwrap_or(0)
}

/// Memory of process `pid` in bytes, of pages that it shares its share only (`PSS`, Linux 4.14); `None` when there is no
/// such process, or it may not be read.
pub(super) fn proportional(pid: u32) -> Option<u64> {
    let mut text = [0; 2048];
    let text = str::from_utf8(read_file(&format!("/proc/{pid}/smaps_rollup"), &mut text)?).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kibibytes: u64 = line.split_ascii_whitespace().next()?.parse().ok()?;
    Some(kibibytes * 1024)
}

/// Reads the beginning of a file of `/proc`, which one call returns whole.
fn read_file<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    let length = fs::File::open(path).ok()?.read(buffer).ok()?;
    buffer.get(..length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_contain_anything() {
        let line =
            b"7 (a) S 1) R 12 34 56 0 -1 4194304 1 2 3 4 100 20 5 6 20 0 1 0 777 4096 88 0\n";
        let stat = Stat::parse(7, line).unwrap();
        assert_eq!((stat.state, stat.parent, stat.session), ('R', 12, 56));
        assert_eq!((stat.ticks, stat.started, stat.resident), (120, 777, 88));
    }

    #[test]
    fn this_process_is_among_all() {
        let me = std::process::id();
        assert!(pids().contains(&me));
        assert_ne!(Stat::of(me).unwrap().resident, 0);
        assert_ne!(resident(me), 0);
    }
}
