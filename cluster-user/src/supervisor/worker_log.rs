//! A worker's log, as the daemon writes to it: what hooks write, and messages of apps.

use std::os::fd::{AsFd as _, OwnedFd};

use rustix::io::{ioctl_fionbio, write};

/// A pipe takes a line whole or not at all as long as it has up to so many bytes (`PIPE_BUF`, `pipe(7)`).
const WHOLE: usize = 4096;

/// Writes lines into the pipe that the capture of output reads.
#[derive(Debug)]
pub(super) struct Log {
    /// Who writes, at the beginning of each line.
    who: String,
    pipe: OwnedFd,
    /// Lines that were written faster than they could be taken.
    dropped: usize,
}

impl Log {
    pub(super) fn new(who: impl Into<String>, pipe: OwnedFd) -> Self {
        // It is a file description of its own. Nobody waits for a log: what does not fit is dropped and counted.
        if let Err(error) = ioctl_fionbio(&pipe, true) {
            log::error!("failed to prepare a log: {error}");
        }
        Self { who: who.into(), pipe, dropped: 0 }
    }

    /// Adds a line; the end of a very long one is left out.
    pub(super) fn say(&mut self, line: &str) {
        let mut text = format!("[{}] {line}", self.who);
        if text.len() >= WHOLE {
            let cut = WHOLE - "…\n".len();
            text.truncate((0..=cut).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0));
            text.push('…');
        }
        text.push('\n');
        if write(self.pipe.as_fd(), text.as_bytes()).is_err() {
            self.dropped += 1;
        }
    }

    /// Says what is missing, when nothing more comes.
    pub(super) fn end(&mut self) {
        if self.dropped > 0 {
            let dropped = std::mem::take(&mut self.dropped);
            self.say(&format!("{dropped} lines came too fast and are not in this log"));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use super::*;

    #[test]
    fn a_line_is_whole_and_what_does_not_fit_is_counted() {
        let (read, write) = rustix::pipe::pipe().unwrap();
        let mut log = Log::new("message", write);
        log.say("{}");
        log.say(&"ä".repeat(5_000));
        for _ in 0..100 {
            log.say(&"x".repeat(4_000));
        }
        assert!(log.dropped > 0);
        let mut file = File::from(read);
        let mut chunk = vec![0; 1 << 20];
        let count = file.read(&mut chunk).unwrap();
        log.end();
        let mut text = String::from_utf8(chunk[..count].to_vec()).unwrap();
        let rest = file.read(&mut chunk).unwrap();
        text.push_str(std::str::from_utf8(&chunk[..rest]).unwrap());
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "[message] {}");
        assert!(lines[1].ends_with("ä…") && lines[1].len() < WHOLE, "{}", lines[1].len());
        assert!(lines.last().unwrap().ends_with("lines came too fast and are not in this log"));
    }
}
