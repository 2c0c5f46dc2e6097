//! The descriptor on which calls of a worker wait to be answered (`seccomp_unotify(2)`).

use std::{
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
    ptr,
};

use nix::errno::Errno;

/// A call that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// Names it until it is answered or its thread dies.
    pub(super) id: u64,
    /// The calling thread, as this process' pid namespace numbers it.
    pub(super) thread: u32,
    /// Number of the system call.
    pub(super) number: i64,
    /// Its arguments.
    pub(super) args: [u64; 6],
}

/// What a call gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It is carried out as if nothing had been.
    Continue,
    /// It has been carried out, with this result.
    Done(Result<(), Errno>),
}

/// Where the calls of one worker, descendants included, arrive.
#[derive(Debug)]
pub(super) struct Notifier(OwnedFd);

impl Notifier {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Takes the next call. `None` when its thread has died meanwhile. To be called once for each time
    /// that the descriptor is readable, or it waits.
    pub(super) fn receive(&self) -> Option<Call> {
        // SAFETY: zero is a valid value, and what the kernel insists on.
        let mut notice: libc::seccomp_notif = unsafe { MaybeUninit::zeroed().assume_init() };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_RECV, &mut notice).ok()?;
        Some(Call {
            id: notice.id,
            thread: notice.pid,
            number: notice.data.nr.into(),
            args: notice.data.args,
        })
    }

    /// Whether the call still waits: what was read from its thread's process meanwhile is of that process,
    /// and not of another that got its pid.
    pub(super) fn waits(&self, call: &Call) -> bool {
        let mut id = call.id;
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_ID_VALID, &mut id).is_ok()
    }

    /// Answers a call. One whose thread has died needs no answer.
    pub(super) fn answer(&self, call: &Call, answer: Answer) {
        let (flags, error) = match answer {
            Answer::Continue => (libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE, 0),
            Answer::Done(Ok(())) => (0, 0),
            Answer::Done(Err(errno)) => (0, -(errno as i32)),
        };
        let flags = u32::try_from(flags).unwrap_or(0);
        let mut response = libc::seccomp_notif_resp { id: call.id, val: 0, error, flags };
        self.ioctl(libc::SECCOMP_IOCTL_NOTIF_SEND, &mut response).unwrap_or_default();
    }

    fn ioctl<T>(&self, request: libc::Ioctl, argument: &mut T) -> Result<(), Errno> {
        // SAFETY: each request is used with the type that its number was made from.
        let status = unsafe { libc::ioctl(self.0.as_raw_fd(), request, ptr::from_mut(argument)) };
        Errno::result(status).map(drop)
    }
}

impl AsFd for Notifier {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
