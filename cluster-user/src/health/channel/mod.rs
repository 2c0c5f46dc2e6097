//! Node's IPC channel, as `child_process.fork` makes it and PM2's users know it: `process.send`, `process.on('message')`.
//!
//! It is a stream socket whose number is in `NODE_CHANNEL_FD`, and carries JSON, one value a line. A worker whose peer
//! closes is told to disconnect, and one that speaks then fails. So that it does not notice the death of a daemon, it
//! inherits the daemon's end as well, under a number it knows nothing of; there the next daemon finds it.

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::Duration,
};

use rustix::{
    io::{Errno, read},
    net::{AddressFamily, SendFlags, SocketFlags, SocketType, send, socketpair, sockopt},
    process::{ForeignRawFd, PidfdGetfdFlags, pidfd_getfd},
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    task::AbortHandle,
    time::sleep,
};

use super::News;
use crate::id::WorkerId;

/// Number of the worker's end in the worker. Beyond what programs give numbers to by themselves, below every limit.
pub const THEIRS: RawFd = 98;
/// Number of the daemon's end in the worker, which keeps it open.
pub const KEPT: RawFd = 99;

/// What tells Node of its channel.
pub const VARIABLES: [(&str, &str); 2] =
    [("NODE_CHANNEL_FD", "98"), ("NODE_CHANNEL_SERIALIZATION_MODE", "json")];

/// Longest line that is understood. PM2's own are shorter; others are none of ours, whatever their length.
const LONGEST: usize = 1024;
/// Bytes read at a time.
const CHUNK: usize = 16 << 10;
/// After this many chunks without a rest there is a [`PAUSE`]: 3 MB/s are read at most.
const CHUNKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(20);

/// The daemon's end of a worker's channel.
#[derive(Debug)]
pub struct Channel {
    end: Arc<AsyncFd<OwnedFd>>,
    listening: Option<AbortHandle>,
}

impl Channel {
    /// Makes a channel; the second is the worker's end. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn new() -> io::Result<(Self, OwnedFd)> {
        let flags = SocketFlags::CLOEXEC;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
        Ok((Self::over(ours)?, theirs))
    }

    /// Takes over the channel that an earlier daemon made: `process` is the worker's first one, `id` what
    /// [`Channel::id`] was, if that is known. To be called inside a tokio runtime.
    ///
    /// # Errors
    /// `ENOENT` when the worker has closed it, and what `pidfd_getfd(2)` says.
    pub fn reopen(process: BorrowedFd<'_>, id: Option<u64>) -> io::Result<Self> {
        let kept: ForeignRawFd = KEPT;
        let end = match pidfd_getfd(process, kept, PidfdGetfdFlags::empty()) {
            Err(Errno::BADF) => return Err(Errno::NOENT.into()),
            other => other?,
        };
        // The worker may have put something else there.
        let is_ours = match id {
            Some(id) => sockopt::socket_cookie(&end) == Ok(id),
            None => {
                sockopt::socket_domain(&end) == Ok(AddressFamily::UNIX)
                    && sockopt::socket_type(&end) == Ok(SocketType::STREAM)
            }
        };
        if is_ours { Self::over(end) } else { Err(Errno::NOENT.into()) }
    }

    fn over(end: OwnedFd) -> io::Result<Self> {
        // Of the description, which the duplicate shares; nobody reads from that one.
        rustix::io::ioctl_fionbio(&end, true)?;
        // SAFETY: an owned descriptor is open, and stays the same one until the `AsyncFd` gives it up.
        let end = unsafe { AsyncFd::register_with_interest(end, Interest::READABLE) }?;
        Ok(Self { end: Arc::new(end), listening: None })
    }

    /// The daemon's end, to be inherited by the worker as [`KEPT`].
    pub fn end(&self) -> BorrowedFd<'_> {
        self.end.get_ref().as_fd()
    }

    /// Names the channel for as long as the kernel runs (`SO_COOKIE`).
    ///
    /// # Errors
    /// Never, on Linux 4.12 and later.
    pub fn id(&self) -> io::Result<u64> {
        Ok(sockopt::socket_cookie(self.end.get_ref())?)
    }

    /// Hands on what `worker` says, in a task of its own that ends with this value.
    pub fn listen(&mut self, worker: WorkerId, news: mpsc::Sender<News>) {
        let end = Arc::clone(&self.end);
        let task = tokio::spawn(async move {
            if let Err(error) = hear(&end, worker, &news).await {
                log::debug!("the channel of worker {worker} cannot be read: {error}");
            }
        });
        self.listening = Some(task.abort_handle());
    }

    /// Sends a string as a message: `process.on('message')` is called with it.
    ///
    /// # Errors
    /// `EAGAIN` when the worker has not read what was sent before, `EPIPE` when it has closed its end.
    pub fn send(&self, message: &str) -> io::Result<()> {
        let line = format!("{}\n", serde_json::Value::from(message));
        let sent = send(self.end.get_ref(), line.as_bytes(), SendFlags::NOSIGNAL)?;
        if sent == line.len() { Ok(()) } else { Err(Errno::AGAIN.into()) }
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

async fn hear(
    end: &AsyncFd<OwnedFd>,
    worker: WorkerId,
    news: &mpsc::Sender<News>,
) -> io::Result<()> {
    let mut lines = Lines::default();
    let mut chunk = vec![0; CHUNK];
    let mut chunks = 0;
    loop {
        let mut ready = end.readable().await?;
        match read(end.get_ref(), &mut *chunk) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                // Saying it again changes nothing, so once for each chunk is enough.
                if lines.says_ready(&chunk[..count])
                    && news.send(News::Message { worker }).await.is_err()
                {
                    return Ok(());
                }
            }
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                chunks = 0;
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(error) => return Err(error.into()),
        }
        chunks += 1;
        if chunks == CHUNKS {
            chunks = 0;
            sleep(PAUSE).await;
        }
    }
}

/// Cuts what arrives into lines, and forgets those that are too long.
#[derive(Default)]
struct Lines {
    begun: Vec<u8>,
    too_long: bool,
}

impl Lines {
    /// Whether a line that ends in `bytes` says `ready`.
    fn says_ready(&mut self, bytes: &[u8]) -> bool {
        let mut ready = false;
        for piece in bytes.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match piece.split_last() {
                Some((b'\n', text)) => (text, true),
                _ => (piece, false),
            };
            self.too_long |= self.begun.len() + text.len() > LONGEST;
            if self.too_long {
                self.begun.clear();
            } else {
                self.begun.extend_from_slice(text);
            }
            if ends {
                ready |= !self.too_long && is_ready(&self.begun);
                self.begun.clear();
                self.too_long = false;
            }
        }
        ready
    }
}

/// PM2 understands the string; everything else is between the program and PM2's own modules.
fn is_ready(line: &[u8]) -> bool {
    serde_json::from_slice::<String>(line).is_ok_and(|text| text == "ready")
}

#[cfg(test)]
mod tests;
