//! Making the process: `clone3(2)` into its cgroup, or `fork(2)` where that is not to be had.
//!
//! Moving a process into a cgroup after it was made costs some 10 ms (kernel: `cgroup_attach_lock` waits
//! for a grace period), and hooks at the cgroup would miss what it does before.

use std::{
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use nix::{
    errno::Errno,
    sys::signal::{SigSet, SigmaskHow},
};
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::child::Plan;

/// `CLONE_INTO_CGROUP` of include/uapi/linux/sched.h, Linux 5.7 (too large for the type that `libc` gives it).
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// # Safety
/// All that the plan points to is valid.
pub(super) unsafe fn clone(
    plan: &Plan,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<(u32, OwnedFd), Errno> {
    let mut pidfd: RawFd = -1;
    let mut flags = libc::CLONE_PIDFD.cast_unsigned().into();
    if cgroup.is_some() {
        flags |= CLONE_INTO_CGROUP;
    }
    // SAFETY: all zero is a valid value: no stack of its own, nothing shared.
    let mut args: libc::clone_args = unsafe { MaybeUninit::zeroed().assume_init() };
    args.flags = flags;
    args.pidfd = (&raw mut pidfd).expose_provenance() as u64;
    args.exit_signal = libc::SIGCHLD.cast_unsigned().into();
    args.cgroup = cgroup.map_or(0, |fd| fd.as_raw_fd().cast_unsigned().into());
    // The daemon's handlers must not run in the child, where they would write into the daemon's pipes.
    let blocked = block_signals()?;
    // SAFETY: without CLONE_VM and a stack this is a fork; the structure is valid and so is its size.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of_val(&args)) };
    if pid == 0 {
        // SAFETY: this is the child, called once; the caller promised the rest.
        unsafe { plan.run() }
    }
    let result = Errno::result(pid);
    restore_signals(&blocked)?;
    let pid = u32::try_from(result?).map_err(|_negative| Errno::EINVAL)?;
    // SAFETY: the kernel stored a new descriptor there, which nobody else knows.
    Ok((pid, unsafe { OwnedFd::from_raw_fd(pidfd) }))
}

/// # Safety
/// All that the plan points to is valid.
pub(super) unsafe fn fork(plan: &Plan) -> Result<(u32, OwnedFd), Errno> {
    let blocked = block_signals()?;
    // SAFETY: the child does only what `child` promises.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: this is the child, called once; the caller promised the rest.
        unsafe { plan.run() }
    }
    let result = Errno::result(pid);
    restore_signals(&blocked)?;
    let pid = Pid::from_raw(result?).ok_or(Errno::EINVAL)?;
    // No race: nobody else waits for this child, so its number is not reused.
    let process = pidfd_open(pid, PidfdFlags::empty())
        .map_err(|error| Errno::from_raw(error.raw_os_error()))?;
    Ok((pid.as_raw_nonzero().get().cast_unsigned(), process))
}

fn block_signals() -> Result<SigSet, Errno> {
    SigSet::all().thread_swap_mask(SigmaskHow::SIG_SETMASK)
}

fn restore_signals(before: &SigSet) -> Result<(), Errno> {
    before.thread_set_mask()
}
