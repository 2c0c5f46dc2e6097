//! What the child says to the parent before its program runs.

use std::{io, mem::MaybeUninit, os::fd::OwnedFd};

use nix::errno::Errno;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::IoSliceMut,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SocketFlags,
        SocketType, recvmsg, socketpair,
    },
};

use super::child::{MESSAGE, NOTIFIER, Step};

/// How long a child may take to get to its program. Only a dead network file system takes that long, and
/// the supervisor must not hang with it.
const PATIENCE: Timespec = Timespec { tv_sec: 5, tv_nsec: 0 };

/// Messages arrive whole, and their end says that the program runs.
pub(super) fn channel() -> io::Result<(OwnedFd, OwnedFd)> {
    let flags = SocketFlags::CLOEXEC;
    Ok(socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?)
}

/// Hears the child until it runs its program: the descriptor it sent, or the step that failed.
pub(super) fn listen(channel: &OwnedFd) -> Result<Option<OwnedFd>, (Step, Errno, usize)> {
    let failed = |error: rustix::io::Errno| (Step::Clone, Errno::from_raw(error.raw_os_error()), 0);
    let mut notifier = None;
    loop {
        match poll(&mut [PollFd::new(channel, PollFlags::IN)], Some(&PATIENCE)) {
            Ok(0) => return Err((Step::Execute, Errno::ETIMEDOUT, 0)),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error)),
        }
        let mut bytes = [0; MESSAGE];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut bytes)];
        let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
        let received = match recvmsg(channel, parts, &mut control, flags) {
            Err(rustix::io::Errno::INTR | rustix::io::Errno::AGAIN) => continue,
            other => other.map_err(failed)?,
        };
        let (step, errno) = (word(bytes, 0), word(bytes, 4).cast_signed());
        match (received.bytes, Step::from_wire(step)) {
            (0, _) => return Ok(notifier),
            (MESSAGE, Some(step)) => {
                let which = usize::try_from(word(bytes, 8)).unwrap_or(usize::MAX);
                return Err((step, Errno::from_raw(errno), which));
            }
            (MESSAGE, None) if step == NOTIFIER => {
                for message in control.drain() {
                    if let RecvAncillaryMessage::ScmRights(mut sent) = message {
                        notifier = sent.next();
                    }
                }
            }
            _ => return Err((Step::Clone, Errno::EPROTO, 0)),
        }
    }
}

fn word(bytes: [u8; MESSAGE], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_ne_bytes(word)
}
