//! What workers say of themselves, and what they answer when they are asked.
//!
//! Programs written for systemd speak on `NOTIFY_SOCKET` ([`notify`]), programs written for PM2 on Node's IPC channel
//! ([`channel`]); any program can be asked over HTTP or TCP ([`question`]). Nothing is decided here: what was said becomes
//! [`News`].

pub mod word;
pub mod notify;
pub mod channel;
pub mod question;

mod http;

use self::{notify::Sender, word::Word};
use crate::id::WorkerId;

/// What was said, or answered.
#[derive(Debug)]
pub enum News {
    /// A process spoke on the notification socket. Whether it is a worker's is for the receiver to find out.
    Notified {
        /// Who it was, in the kernel's words.
        sender: Sender,
        /// What it said, in that order.
        words: Vec<Word>,
    },
    /// A worker spoke on its channel.
    Spoke {
        /// Which worker.
        worker: WorkerId,
        /// What it said.
        spoken: Spoken,
    },
    /// A question was answered, or was not.
    Answered {
        /// Which worker was asked.
        worker: WorkerId,
        /// Number of the question: one that was given up may be answered still.
        question: u64,
        /// Why not well; a lowercase fragment.
        result: Result<(), String>,
    },
}

/// What a worker said on its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Spoken {
    /// That it is ready.
    Ready,
    /// A message of its own, as one line of JSON.
    Message(String),
    /// Messages that nobody will see.
    Dropped {
        /// How many.
        messages: u64,
        /// Length in bytes of the longest that was too long; 0 for none.
        longest: usize,
        /// How many of them were no JSON.
        malformed: u64,
    },
}
