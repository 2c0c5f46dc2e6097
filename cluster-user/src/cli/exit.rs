//! Exit codes.

use std::process::ExitCode;

use crate::api::message::Reason;

/// What the command exits with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    /// Carried out.
    Done = 0,
    /// Not carried out: no such app, a worker that does not come up, a name in use.
    Failed = 1,
    /// The command line, or a value in it, makes no sense.
    Usage = 2,
    /// No daemon is running, and the command needs one.
    NoDaemon = 3,
    /// Another user's daemon or folder, or something only root can do.
    NotPermitted = 4,
    /// The kernel lacks what was asked for.
    Unsupported = 5,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        #[expect(clippy::as_conversions, reason = "the discriminants are the exit codes")]
        Self::from(exit as u8)
    }
}

impl From<Reason> for Exit {
    fn from(reason: Reason) -> Self {
        match reason {
            Reason::BadRequest => Self::Usage,
            Reason::NotFound
            | Reason::Conflict
            | Reason::Failed
            | Reason::Unschedulable
            | Reason::Unavailable => Self::Failed,
            Reason::NotPermitted => Self::NotPermitted,
            Reason::Unsupported => Self::Unsupported,
        }
    }
}
