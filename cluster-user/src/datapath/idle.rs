//! Closing connections over which nothing happens, so that their clients see an orderly end between two messages.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    mem::MaybeUninit,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    rc::Rc,
    time::Duration,
};

use rustix::net::Shutdown;

use super::{
    activity::Activity,
    socket::{self, OpenSocket},
};

/// What a process has open, of which duplicates are made.
#[derive(Debug)]
pub struct Holder {
    process: Rc<OwnedFd>,
    fd: i32,
}

impl Holder {
    /// A duplicate of the socket. To be dropped at once: it keeps the connection open.
    ///
    /// # Errors
    /// As [`socket::pidfd_getfd`].
    pub fn duplicate(&self) -> io::Result<OwnedFd> {
        socket::pidfd_getfd(self.process.as_fd(), self.fd)
    }
}

/// Who has which sockets open, by inode number: one process for each, whichever came first.
pub fn holders(
    open: impl IntoIterator<Item = (u32, OpenSocket)>,
    wanted: impl Fn(u64) -> bool,
) -> BTreeMap<u64, Holder> {
    // None for a process that is gone.
    let mut processes: BTreeMap<u32, Option<Rc<OwnedFd>>> = BTreeMap::new();
    let mut holders = BTreeMap::new();
    for (pid, OpenSocket { fd, inode }) in open {
        if holders.contains_key(&inode) || !wanted(inode) {
            continue;
        }
        let process =
            processes.entry(pid).or_insert_with(|| socket::pidfd_open(pid).ok().map(Rc::new));
        if let Some(process) = process {
            holders.insert(inode, Holder { process: Rc::clone(process), fd });
        }
    }
    holders
}

/// Closes those of the connections `found`, by inode number, over which nothing happens; says how many.
///
/// `open` is what the worker's processes have open. `left_alone` says which are not to be touched.
pub fn hang_up(
    open: Vec<(u32, OpenSocket)>,
    found: &BTreeSet<u64>,
    idle: Duration,
    left_alone: impl Fn(BorrowedFd<'_>) -> bool,
) -> u32 {
    let mut closed = 0;
    for (inode, holder) in holders(open, |inode| found.contains(&inode)) {
        // One that is gone, or is another socket by now, needs nothing more.
        let Ok(socket) = holder.duplicate() else { continue };
        let same = socket::inode(socket.as_fd()).is_ok_and(|this| this == inode);
        if same && !left_alone(socket.as_fd()) && end(socket.as_fd(), idle).unwrap_or(false) {
            closed += 1;
        }
    }
    closed
}

/// Closes the worker's side of a connection if nothing is under way: all data read, all data acknowledged, nothing
/// received since something was last sent, and neither for `idle`. Says whether it did.
///
/// Only the sending side: the client sees the end of the connection, closes it too, and the worker then reads an end of
/// its own accord, as if the client had gone first. Closing both sides would answer with RST what is on its way.
///
/// # Errors
/// What the kernel said.
fn end(socket: BorrowedFd<'_>, idle: Duration) -> io::Result<bool> {
    let unread = rustix::io::ioctl_fionread(socket)?;
    let Activity { awaits_answer, silent, .. } = Activity::of_socket(socket)?;
    if unread > 0
        || unacknowledged(socket)? > 0
        || awaits_answer
        || Duration::from_millis(silent.into()) < idle
    {
        return Ok(false);
    }
    rustix::net::shutdown(socket, Shutdown::Write)?;
    Ok(true)
}

/// Bytes that were sent and not acknowledged, or not sent yet (`SIOCOUTQ`).
fn unacknowledged(socket: BorrowedFd<'_>) -> io::Result<libc::c_int> {
    let mut bytes = MaybeUninit::<libc::c_int>::zeroed();
    // SAFETY: this request writes one int.
    let status = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, bytes.as_mut_ptr()) };
    if status != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: zeroed, then written by the kernel.
    Ok(unsafe { bytes.assume_init() })
}
