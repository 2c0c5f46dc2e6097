//! Node's IPC channel, as `child_process.fork` makes it and PM2's users know it: `process.send`, `process.on('message')`.
//!
//! It is a stream socket whose number is in `NODE_CHANNEL_FD`, and carries JSON, one value a line. A worker whose peer
//! closes is told to disconnect, and one that speaks then fails. So that it does not notice the death of a daemon, it
//! inherits the daemon's end as well, under a number it knows nothing of; there the next daemon finds it.

mod lines;
mod outbox;

use std::{
    io,
    os::fd::{AsFd as _, BorrowedFd, OwnedFd, RawFd},
    sync::Arc,
    time::{Duration, Instant},
};

use rustix::{
    io::{Errno, read},
    net::{AddressFamily, SocketFlags, SocketType, socketpair, sockopt},
    process::{ForeignRawFd, PidfdGetfdFlags, pidfd_getfd},
};
use serde_json::Value;
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    sync::mpsc,
    task::AbortHandle,
    time::{sleep, sleep_until},
};

use self::{
    lines::{Heard, Lines},
    outbox::Outbox,
};
use super::{News, Spoken};
use crate::id::WorkerId;

/// Number of the worker's end in the worker. Beyond what programs give numbers to by themselves, and among those that
/// Node keeps from the programs it starts (libuv: `uv_disable_stdio_inheritance` looks at the first 16).
pub const THEIRS: RawFd = 14;
/// Number of the daemon's end in the worker, which keeps it open.
pub const KEPT: RawFd = 15;
/// What that was before release 0.2, in workers that run still.
const KEPT_BEFORE: RawFd = 99;

/// What tells Node of its channel.
pub const VARIABLES: [(&str, &str); 2] =
    [("NODE_CHANNEL_FD", "14"), ("NODE_CHANNEL_SERIALIZATION_MODE", "json")];

/// Longest message that is sent.
pub const LONGEST: usize = 1 << 20;

/// Bytes read at a time.
const CHUNK: usize = 64 << 10;
/// After this many chunks without a rest there is a [`PAUSE`]: 25 MB/s are read at most, so that a flood costs the daemon
/// a few per cent of a CPU. What the worker cannot write meanwhile waits in the worker.
const CHUNKS: u32 = 4;
const PAUSE: Duration = Duration::from_millis(10);

/// What Node waits for after it has sent a handle.
const HANDLE_TAKEN: &[u8] = b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n";

/// The daemon's end of a worker's channel.
#[derive(Debug)]
pub struct Channel {
    outbox: Arc<Outbox>,
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
        for number in [KEPT, KEPT_BEFORE] {
            let kept: ForeignRawFd = number;
            let end = match pidfd_getfd(process, kept, PidfdGetfdFlags::empty()) {
                Err(Errno::BADF) => continue,
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
            if is_ours {
                return Self::over(end);
            }
        }
        Err(Errno::NOENT.into())
    }

    fn over(end: OwnedFd) -> io::Result<Self> {
        // Of the description, which the duplicate shares; nobody reads from that one.
        rustix::io::ioctl_fionbio(&end, true)?;
        let both = Interest::READABLE | Interest::WRITABLE;
        // SAFETY: an owned descriptor is open, and stays the same one until the `AsyncFd` gives it up.
        let end = unsafe { AsyncFd::register_with_interest(end, both) }?;
        Ok(Self { outbox: Arc::new(Outbox::over(end)), listening: None })
    }

    /// The daemon's end, to be inherited by the worker as [`KEPT`].
    pub fn end(&self) -> BorrowedFd<'_> {
        self.outbox.end.get_ref().as_fd()
    }

    /// Names the channel for as long as the kernel runs (`SO_COOKIE`).
    ///
    /// # Errors
    /// Never, on Linux 4.12 and later.
    pub fn id(&self) -> io::Result<u64> {
        Ok(sockopt::socket_cookie(self.outbox.end.get_ref())?)
    }

    /// Hands on what `worker` says, and brings it what it is told, in a task of its own that ends with this value.
    pub fn listen(&mut self, worker: WorkerId, news: mpsc::Sender<News>) {
        let outbox = Arc::clone(&self.outbox);
        let task = tokio::spawn(async move {
            if let Err(error) = attend(&outbox, worker, &news).await {
                log::debug!("the channel of worker {worker} cannot be used: {error}");
            }
        });
        self.listening = Some(task.abort_handle());
    }

    /// Sends a message: `process.on('message')` is called with it.
    ///
    /// # Errors
    /// `EMSGSIZE` when it is longer than [`LONGEST`], `EAGAIN` when the worker has not read what was sent before, `EPIPE`
    /// when it has closed its end.
    pub fn send(&self, message: &Value) -> io::Result<()> {
        let line = format!("{message}\n");
        if line.len() > LONGEST {
            return Err(Errno::MSGSIZE.into());
        }
        self.outbox.send(line.as_bytes())
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        if let Some(listening) = &self.listening {
            listening.abort();
        }
    }
}

async fn attend(outbox: &Outbox, worker: WorkerId, news: &mpsc::Sender<News>) -> io::Result<()> {
    let mut lines = Lines::new(Instant::now());
    loop {
        let due = lines.due();
        let spoken = select! {
            () = outbox.filled.notified() => continue,
            writable = outbox.end.writable(), if outbox.is_filled() => {
                let mut writable = writable?;
                match writable.try_io(|_| outbox.flush()) {
                    Ok(flushed) => flushed?,
                    Err(_would_block) => {}
                }
                continue;
            }
            readable = outbox.end.readable() => {
                let mut readable = readable?;
                match hear(outbox, &mut lines) {
                    Hearing::Nothing => {
                        readable.clear_ready();
                        continue;
                    }
                    Hearing::Some(spoken) => {
                        drop(readable);
                        sleep(PAUSE).await;
                        spoken
                    }
                    Hearing::All(spoken) => {
                        readable.clear_ready();
                        spoken
                    }
                    Hearing::End(result) => {
                        if lines.due().is_some() {
                            let spoken = lines.tell(Instant::now());
                            // The loop has ended when nobody hears it.
                            drop(news.send(News::Spoke { worker, spoken }).await);
                        }
                        return result;
                    }
                }
            }
            () = sleep_until(due.unwrap_or_else(Instant::now).into()), if due.is_some() => {
                vec![lines.tell(Instant::now())]
            }
        };
        for spoken in spoken {
            if news.send(News::Spoke { worker, spoken }).await.is_err() {
                return Ok(());
            }
        }
    }
}

/// What there is to hear.
enum Hearing {
    Nothing,
    /// There may be more.
    Some(Vec<Spoken>),
    All(Vec<Spoken>),
    End(io::Result<()>),
}

/// Reads a turn's worth. The room for it is given back in between: most workers never say a word.
fn hear(outbox: &Outbox, lines: &mut Lines) -> Hearing {
    let mut chunk = vec![0; CHUNK];
    let mut all = Vec::new();
    let mut chunks = 0;
    while chunks < CHUNKS {
        match read(outbox.end.get_ref(), &mut *chunk) {
            // What was said before is told first; the end is there the next time, too.
            Ok(0) if all.is_empty() => return Hearing::End(Ok(())),
            Ok(0) => return Hearing::Some(all),
            Ok(count) => {
                // Sockets that came along were closed by the kernel: this call takes none.
                let Heard { spoken, handles } = lines.take(&chunk[..count], Instant::now());
                for _ in 0..handles {
                    // It waits then, as it would for a parent that is busy.
                    outbox.send(HANDLE_TAKEN).unwrap_or_default();
                }
                all.extend(spoken);
            }
            Err(Errno::AGAIN) if chunks == 0 => return Hearing::Nothing,
            Err(Errno::AGAIN) => return Hearing::All(all),
            Err(Errno::INTR) => continue,
            Err(error) => return Hearing::End(Err(error.into())),
        }
        chunks += 1;
    }
    Hearing::Some(all)
}

#[cfg(test)]
mod tests;
