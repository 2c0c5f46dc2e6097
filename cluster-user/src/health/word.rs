//! The words of `sd_notify(3)` that mean something here.

use std::time::Duration;

/// Longest status that is kept, in characters.
const LONGEST: usize = 200;

/// Something that a worker says of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    /// `READY=1`: it serves.
    Ready,
    /// `RELOADING=1`: it reads its settings anew, and says `READY=1` when it has.
    Reloading,
    /// `STOPPING=1`: it is about to end.
    Stopping,
    /// `STATUS=…`: for people, one line without control characters.
    Status(String),
    /// `WATCHDOG=1`: it is alive.
    Alive,
    /// `WATCHDOG=trigger`: it wants to be treated as if it were not.
    Trigger,
    /// `MAINPID=…`: its main process is another one. Only a claim.
    MainPid(u32),
    /// `ERRNO=…`: why it fails.
    Errno(i32),
    /// `EXTEND_TIMEOUT_USEC=…`: what it is doing, starting or ending, takes so much longer from now on.
    Extend(Duration),
}

/// Reads a datagram: assignments, one a line. What is unknown or makes no sense is left out, as systemd does.
pub fn read(datagram: &[u8]) -> Vec<Word> {
    let lines = datagram.split(|byte| *byte == b'\n').filter_map(|line| str::from_utf8(line).ok());
    lines
        .filter_map(|line| line.split_once('='))
        .filter_map(|(key, value)| word(key, value))
        .collect()
}

fn word(key: &str, value: &str) -> Option<Word> {
    match (key, value) {
        ("READY", "1") => Some(Word::Ready),
        ("RELOADING", "1") => Some(Word::Reloading),
        ("STOPPING", "1") => Some(Word::Stopping),
        ("WATCHDOG", "1") => Some(Word::Alive),
        ("WATCHDOG", "trigger") => Some(Word::Trigger),
        ("STATUS", text) => {
            let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
            Some(Word::Status(plain.take(LONGEST).collect()))
        }
        ("MAINPID", pid) => pid.parse().ok().filter(|pid| *pid > 0).map(Word::MainPid),
        ("EXTEND_TIMEOUT_USEC", time) => {
            time.parse().ok().map(Duration::from_micros).map(Word::Extend)
        }
        ("ERRNO", number) => number.parse().ok().map(Word::Errno),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn every_word_is_understood_in_its_order() {
        let said = b"STATUS=Loading\x1b[2J\nWATCHDOG=1\nMAINPID=42\nERRNO=2\nRELOADING=1\nREADY=1\nSTOPPING=1\nWATCHDOG=trigger\nEXTEND_TIMEOUT_USEC=1500000\n";

        assert_eq!(
            read(said),
            [
                Word::Status("Loading [2J".to_owned()),
                Word::Alive,
                Word::MainPid(42),
                Word::Errno(2),
                Word::Reloading,
                Word::Ready,
                Word::Stopping,
                Word::Trigger,
                Word::Extend(Duration::from_millis(1500)),
            ]
        );
    }

    #[test]
    fn what_makes_no_sense_is_left_out() {
        for said in [
            &b""[..],
            b"\n\n=\n",
            b"READY",
            b"READY=0",
            b"READY=11",
            b"ready=1",
            b" READY=1",
            b"WATCHDOG=2",
            b"MAINPID=-1",
            b"MAINPID=0",
            b"MAINPID=99999999999",
            b"BARRIER=1",
            b"FDSTORE=1\nFDNAME=x",
            b"STATUS=\xff\xfe",
        ] {
            assert_eq!(read(said), [], "{said:?}");
        }
        let long = format!("STATUS={}", "ü".repeat(4000));
        assert_eq!(read(long.as_bytes()), [Word::Status("ü".repeat(LONGEST))]);
    }

    proptest! {
        #[test]
        fn no_datagram_panics(said in prop::collection::vec(any::<u8>(), 0..300)) {
            drop(read(&said));
        }
    }
}
