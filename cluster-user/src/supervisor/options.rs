//! What a daemon is started with.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::OwnedFd,
    path::PathBuf,
};

use super::succession::Inheritance;
use crate::datapath::Mode;

/// What a daemon is started with.
#[derive(Debug)]
pub struct DaemonOptions {
    /// Everything it keeps; exists and is fit.
    pub home: PathBuf,
    /// Where somebody waits to hear that the daemon answers.
    pub ready: Option<OwnedFd>,
    /// How connections are to be carried; found out when absent.
    pub mode: Option<Mode>,
    /// Whether the apps that were saved are to be started, unless there are those of a daemon before this one.
    pub resurrect: bool,
    /// What is handed over by the supervisor that this process was before.
    pub inheritance: Inheritance,
}

/// What is written to [`DaemonOptions::ready`] when the daemon answers on its socket.
pub const READY: &str = "ok\n";

impl DaemonOptions {
    /// Tells whoever waits that the daemon answers; once.
    ///
    /// # Errors
    /// When they have gone, which is no reason to end.
    pub fn announce(&mut self) -> io::Result<()> {
        self.ready.take().map_or(Ok(()), |ready| File::from(ready).write_all(READY.as_bytes()))
    }
}
