//! Why a command failed: what is printed, and what it exits with.

use std::io;

use super::exit::Exit;
use crate::{
    api::{client::ClientError, message::Failure},
    config::refusal::{Kind, Refusal},
};

/// Why a command failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Error {
    /// What the command exits with.
    pub(super) exit: Exit,
    /// What it exits with instead: the code of an app that ran in the foreground.
    pub(super) code: Option<u8>,
    /// A lowercase fragment; empty when there is nobody to read it.
    pub(super) message: String,
    /// The next step.
    pub(super) hint: Option<String>,
    /// The last lines a failed worker wrote.
    pub(super) output: Vec<String>,
}

impl Error {
    pub(super) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into(), hint: None, output: Vec::new() }
    }

    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub(super) fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    #[must_use]
    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let exit = match refusal.kind {
            Kind::Unfit => Exit::Failed,
            Kind::Usage => Exit::Usage,
            Kind::NotPermitted => Exit::NotPermitted,
        };
        Self { hint: refusal.hint, ..Self::new(exit, refusal.message) }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        let Failure { reason, message, hint, output } = failure;
        Self { hint, output, ..Self::new(reason.into(), message) }
    }
}

impl From<ClientError> for Error {
    fn from(error: ClientError) -> Self {
        let message = error.to_string();
        match error {
            ClientError::NoDaemon => {
                Self::new(Exit::NoDaemon, message).hint("cluster start app.js starts one")
            }
            ClientError::NotPermitted(failure) => {
                Self { exit: Exit::NotPermitted, ..Self::from(failure) }
            }
            ClientError::Failed(failure) => Self::from(failure),
            ClientError::Version { .. } => Self::failed(message)
                .hint("cluster upgrade makes the daemon the release of this command; its workers run on"),
            ClientError::Broken(_) => Self::failed(message).hint(
                "if it died, workers run on, and the next daemon goes on with what was under way: cluster list \
                 shows how far it is, cluster history NAME what came of a reload",
            ),
        }
    }
}

/// A failure to write an answer. Somebody who stops reading (`| head`) has got what they wanted.
impl From<io::Error> for Error {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            return Self::new(Exit::Done, "");
        }
        Self::failed(format!("failed to write the answer: {error}"))
    }
}
