//! The decisions of a traced group, one line each, appended to a file.

use std::{
    fmt,
    fs::{File, OpenOptions, create_dir_all},
    io::Write as _,
    os::fd::{AsFd, BorrowedFd},
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use aya_log::EbpfLogger;
use log::{Log, Metadata, Record};

/// What reads the records of one group's program.
pub(super) struct Trace(EbpfLogger<Lines>);

impl Trace {
    /// Reads the records of a loaded program into a file, which is made if there is none.
    ///
    /// # Errors
    /// When the file cannot be opened, or without `CAP_SYS_ADMIN`: the program's ring buffer is looked up by id.
    pub(super) fn new(program: u32, file: &Path) -> anyhow::Result<Self> {
        if let Some(folder) = file.parent() {
            create_dir_all(folder).with_context(|| format!("make {}", folder.display()))?;
        }
        let lines = OpenOptions::new().create(true).append(true).open(file);
        let lines = Lines(lines.with_context(|| format!("open {}", file.display()))?);
        let logger = EbpfLogger::init_from_id_with_logger(program, lines)
            .context("read the program's records")?;
        Ok(Self(logger))
    }

    /// Writes down what has been recorded since the last call.
    pub(super) fn flush(&mut self) {
        self.0.flush();
    }
}

impl AsFd for Trace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl fmt::Debug for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trace").finish_non_exhaustive()
    }
}

/// A file to which records are appended with the time at which they were read.
struct Lines(File);

impl Log for Lines {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let line = format!("{}.{:06} {}\n", now.as_secs(), now.subsec_micros(), record.args());
        // A full disk costs records, not connections.
        drop((&self.0).write_all(line.as_bytes()));
    }

    fn flush(&self) {}
}
