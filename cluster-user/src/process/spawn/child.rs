//! What a new process does between clone and exec.
//!
//! It is a copy of one thread of a process with several, so every lock of the C library may be held by a
//! thread that does not exist here. Nothing in this file allocates, locks or panics; identity is changed
//! by raw system calls, because the C library's wrappers would wait for those threads
//! (`signal-safety(7)`, `nptl(7)`).

use std::{cell::Cell, mem, os::fd::RawFd, ptr};

use nix::errno::Errno;

use super::sockets::{Prepared, write_pid};

/// The things a child does, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Step {
    /// Making the process, and all that precedes it.
    Clone,
    /// Moving into the cgroup, where it was not born there.
    Cgroup,
    /// A session of its own.
    Session,
    /// Standard input, output and error.
    Streams,
    /// Default signal dispositions, nothing blocked.
    Signals,
    /// The mask of permissions.
    Umask,
    /// How willingly the kernel kills it.
    OomScore,
    /// CPUs to run on.
    Cpus,
    /// Priority.
    Nice,
    /// Limits of the process.
    Limits,
    /// A socket that the program is given.
    Socket,
    /// The seccomp filter.
    Filter,
    /// Supplementary groups.
    Groups,
    /// Group id.
    Gid,
    /// User id.
    Uid,
    /// Working folder.
    Folder,
    /// The program.
    Execute,
}

impl Step {
    /// All that a child can report, in order.
    const REPORTED: [Self; 16] = [
        Self::Cgroup,
        Self::Session,
        Self::Streams,
        Self::Signals,
        Self::Umask,
        Self::OomScore,
        Self::Cpus,
        Self::Nice,
        Self::Limits,
        Self::Socket,
        Self::Filter,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::Folder,
        Self::Execute,
    ];

    /// Reads the number back that a child sent.
    pub(super) fn from_wire(number: u32) -> Option<Self> {
        Self::REPORTED.into_iter().find(|step| *step as u32 == number)
    }
}

/// In place of a step: the message carries the notification descriptor.
pub(super) const NOTIFIER: u32 = u32::MAX;

/// Where a process keeps the notifier of its filter: beyond the numbers that programs count on to be free, and below the
/// limit that most have (1024).
const KEPT: RawFd = 1000;

/// Length of a message: step, error number, and which of several.
pub(super) const MESSAGE: usize = 12;

/// Everything the child needs, made before it exists. The pointers are into what `spawn` holds.
pub(super) struct Plan {
    pub(super) program: *const libc::c_char,
    pub(super) argv: *const *const libc::c_char,
    pub(super) envp: *const *const libc::c_char,
    pub(super) cwd: *const libc::c_char,
    /// `cgroup.procs`, when the child has to move itself.
    pub(super) procs: Option<RawFd>,
    /// What becomes standard input, output and error; each at least `OWN`, so that none overwrites another.
    pub(super) streams: [RawFd; 3],
    /// What else is passed on, at least `OWN`, and the numbers it gets, below `OWN`.
    pub(super) passed: *const (RawFd, RawFd),
    pub(super) passed_count: usize,
    /// Where steps that failed, and the notifier, are sent to; at least `OWN`.
    pub(super) report: RawFd,
    pub(super) identity: Option<Identity>,
    pub(super) filter: Option<libc::sock_fprog>,
    pub(super) bounds: Bounds,
    pub(super) sockets: *const Prepared,
    pub(super) sockets_count: usize,
    /// Which of them is being made.
    pub(super) socket: Cell<u32>,
    /// Where the text of the process id is wanted; null when nowhere.
    pub(super) own_pid: *mut u8,
}

/// What the process may use; the pointers are into what `spawn` holds.
pub(super) struct Bounds {
    pub(super) umask: Option<libc::mode_t>,
    /// What is written into `/proc/self/oom_score_adj`, and its length; null for nothing.
    pub(super) oom_score: *const libc::c_char,
    pub(super) oom_score_length: usize,
    /// A bit for each CPU, and its length in bytes; 0 for all.
    pub(super) cpus: *const u8,
    pub(super) cpus_length: usize,
    pub(super) nice: Option<libc::c_int>,
    pub(super) rlimits: *const (u32, libc::rlimit),
    pub(super) rlimits_count: usize,
}

/// Whom to become.
pub(super) struct Identity {
    pub(super) uid: libc::uid_t,
    pub(super) gid: libc::gid_t,
    pub(super) groups: *const libc::gid_t,
    pub(super) count: usize,
}

impl Plan {
    /// Carries the plan out; returns only by ending the process.
    ///
    /// # Safety
    /// To be called once, in a new process that is a copy of the caller (no shared memory), with all
    /// pointers of the plan valid and null-terminated where C wants that.
    pub(super) unsafe fn run(&self) -> ! {
        // SAFETY: the caller's promise is passed on.
        let (step, errno) = match unsafe { self.steps() } {
            Ok(never) => match never {},
            Err(failure) => failure,
        };
        send(self.report, step as u32, errno as i32, self.socket.get(), None);
        // SAFETY: ends this process without running the daemon's exit handlers.
        unsafe { libc::_exit(127) }
    }

    /// # Safety
    /// As for [`Plan::run`].
    unsafe fn steps(&self) -> Result<Never, (Step, Errno)> {
        if let Some(procs) = self.procs {
            // SAFETY: one byte of static memory; "0" stands for the writer (cgroup v2 documentation).
            at(Step::Cgroup, unsafe { libc::write(procs, c"0".as_ptr().cast(), 1) }
                as libc::c_long)?;
        }
        // SAFETY: takes no memory.
        at(Step::Session, unsafe { libc::setsid() }.into())?;
        self.streams()?;
        signals()?;
        // While there may be privileges: priorities are raised and limits lifted with them only.
        self.bounds()?;
        self.sockets()?;
        // Before the identity changes: with privileges a filter costs the program nothing, without them
        // it must give up setuid programs.
        if let Some(filter) = &self.filter {
            let notifier = install(filter)?;
            send(self.report, NOTIFIER, 0, 0, Some(notifier));
            // One for the program itself, which knows nothing of it: there the next daemon finds it when this one has
            // died. It is no harm where that is refused, for few descriptors say.
            // SAFETY: takes no memory.
            unsafe { libc::fcntl(notifier, libc::F_DUPFD, KEPT) };
        }
        self.identity()?;
        // SAFETY: a null-terminated path, by the caller's promise.
        at(Step::Folder, unsafe { libc::chdir(self.cwd) }.into())?;
        // SAFETY: null-terminated strings and arrays, by the caller's promise.
        at(Step::Execute, unsafe { libc::execve(self.program, self.argv, self.envp) }.into())?;
        Err((Step::Execute, Errno::UnknownErrno))
    }

    /// Puts the three streams in place, marks all else to be closed at exec, and passes on what is to be.
    fn streams(&self) -> Result<(), (Step, Errno)> {
        for (target, source) in (0..).zip(self.streams) {
            // SAFETY: takes no memory.
            at(Step::Streams, unsafe { libc::dup2(source, target) }.into())?;
        }
        // Everything of the daemon's is opened close-on-exec; this is for what it inherited itself. So
        // it may fail, as it does before Linux 5.11.
        // SAFETY: takes no memory.
        unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, libc::CLOSE_RANGE_CLOEXEC) };
        // Duplicates are not close-on-exec, hence the order.
        for index in 0..self.passed_count {
            // SAFETY: one of `passed_count` pairs, by the promise made to `run`.
            let pair = unsafe { self.passed.add(index) };
            // SAFETY: as above.
            let (source, target) = unsafe { pair.read() };
            // SAFETY: takes no memory.
            at(Step::Streams, unsafe { libc::dup2(source, target) }.into())?;
        }
        Ok(())
    }

    fn bounds(&self) -> Result<(), (Step, Errno)> {
        let bounds = &self.bounds;
        if let Some(umask) = bounds.umask {
            // SAFETY: takes no memory and never fails.
            unsafe { libc::umask(umask) };
        }
        if !bounds.oom_score.is_null() {
            let flags = libc::O_WRONLY | libc::O_CLOEXEC;
            // SAFETY: a null-terminated path.
            let file = unsafe { libc::open(c"/proc/self/oom_score_adj".as_ptr(), flags) };
            at(Step::OomScore, file.into())?;
            let text = bounds.oom_score.cast();
            // SAFETY: that many bytes, by the promise made to `run`.
            let written = unsafe { libc::write(file, text, bounds.oom_score_length) };
            at(Step::OomScore, written as libc::c_long)?;
            // SAFETY: takes no memory.
            unsafe { libc::close(file) };
        }
        if bounds.cpus_length > 0 {
            let (length, mask) = (bounds.cpus_length, bounds.cpus);
            // SAFETY: that many bytes, by the promise made to `run`; 0 stands for the caller.
            at(Step::Cpus, unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, length, mask) })?;
        }
        if let Some(nice) = bounds.nice {
            // SAFETY: takes no memory; 0 stands for the caller.
            let status =
                unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) };
            at(Step::Nice, status)?;
        }
        for index in 0..bounds.rlimits_count {
            // SAFETY: one of `rlimits_count`, by the promise made to `run`.
            let limit = unsafe { bounds.rlimits.add(index) };
            // SAFETY: as above.
            let (resource, limit) = unsafe { limit.read() };
            let old = ptr::null::<libc::rlimit>();
            let new = ptr::from_ref(&limit);
            // SAFETY: the limit is a valid structure and the old one is not wanted; 0 stands for the caller.
            at(Step::Limits, unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource, new, old) })?;
        }
        Ok(())
    }

    /// Before the filter, which would have these calls wait for an answer of the supervisor, which waits for exec; and
    /// before the identity changes, which may not have a right to the port.
    fn sockets(&self) -> Result<(), (Step, Errno)> {
        for index in 0..self.sockets_count {
            self.socket.set(u32::try_from(index).unwrap_or(u32::MAX));
            // SAFETY: one of `sockets_count`, by the promise made to `run`.
            let socket = unsafe { self.sockets.add(index) };
            // SAFETY: as above.
            let socket = unsafe { &*socket };
            socket.make().map_err(|errno| (Step::Socket, errno))?;
        }
        if !self.own_pid.is_null() {
            // SAFETY: takes no memory.
            let pid = unsafe { libc::getpid() };
            // SAFETY: there is room for it, by the promise made to `run`.
            unsafe { write_pid(pid.cast_unsigned(), self.own_pid) };
        }
        Ok(())
    }

    fn identity(&self) -> Result<(), (Step, Errno)> {
        let Some(who) = &self.identity else { return Ok(()) };
        // SAFETY: `groups` points to `count` ids, by the promise made to `run`.
        let status = unsafe { libc::syscall(libc::SYS_setgroups, who.count, who.groups) };
        at(Step::Groups, status)?;
        // SAFETY: takes no memory.
        let status = unsafe { libc::syscall(libc::SYS_setresgid, who.gid, who.gid, who.gid) };
        at(Step::Gid, status)?;
        // SAFETY: takes no memory.
        let status = unsafe { libc::syscall(libc::SYS_setresuid, who.uid, who.uid, who.uid) };
        at(Step::Uid, status)
    }
}

/// Nothing: a successful exec does not return.
enum Never {}

/// Undoes what exec does not: ignored signals stay ignored, and so does the mask.
fn signals() -> Result<(), (Step, Errno)> {
    // The kernel's own structure, all zero: default action, no flags, empty mask. The C library's call
    // would leave out two signals it keeps for itself, and those may be ignored too.
    let default = [0_u64; 4];
    let size_of_mask = 8;
    for signal in 1..=libc::SIGRTMAX() {
        // SIGKILL and SIGSTOP refuse; they are never ignored.
        // SAFETY: the action is valid and no old one is wanted.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                ptr::null::<u64>(),
                size_of_mask,
            )
        };
    }
    // SAFETY: all zero is the empty set.
    let none: libc::sigset_t = unsafe { mem::zeroed() };
    // SAFETY: the set is valid and no old one is wanted.
    let status = unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut()) };
    at(Step::Signals, status.into())
}

/// Installs a seccomp filter and returns its notification descriptor, which is close-on-exec.
fn install(filter: &libc::sock_fprog) -> Result<RawFd, (Step, Errno)> {
    // Signals must not interrupt a call that the supervisor is carrying out (5.19; Go preempts its
    // threads by signals). A filter that only notifies is no sandbox and needs no speculation barriers.
    let plain = libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW;
    let mut flags = plain | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    let mut status = set_filter(filter, flags);
    // The kernel looks at flags before it looks at privileges.
    if status == Err(Errno::EINVAL) {
        flags = plain;
        status = set_filter(filter, flags);
    }
    if status == Err(Errno::EACCES) {
        // SAFETY: takes no memory.
        let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        at(Step::Filter, set.into())?;
        status = set_filter(filter, flags);
    }
    status.map_err(|errno| (Step::Filter, errno))
}

fn set_filter(filter: &libc::sock_fprog, flags: libc::c_ulong) -> Result<RawFd, Errno> {
    // SAFETY: the filter is a valid program, by the promise made to `run`.
    let fd = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            flags,
            ptr::from_ref(filter),
        )
    };
    RawFd::try_from(fd).ok().filter(|fd| *fd >= 0).ok_or_else(Errno::last)
}

/// Room for one descriptor in a control message, aligned as its header wants it.
#[repr(C, align(8))]
struct Control([u8; 24]);

/// Sends a message to the parent. There is nobody to tell when that fails.
fn send(report: RawFd, step: u32, errno: i32, which: u32, descriptor: Option<RawFd>) {
    let mut bytes = [0; MESSAGE];
    let (head, tail) = bytes.split_at_mut(4);
    let (middle, tail) = tail.split_at_mut(4);
    head.copy_from_slice(&step.to_ne_bytes());
    middle.copy_from_slice(&errno.to_ne_bytes());
    tail.copy_from_slice(&which.to_ne_bytes());
    let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let mut control = Control([0; 24]);
    // SAFETY: zero is a valid value of this structure: nothing to send.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    if let Some(descriptor) = descriptor {
        message.msg_control = control.0.as_mut_ptr().cast();
        message.msg_controllen = control.0.len();
        // SAFETY: the control buffer has room for a header and one descriptor (16 + 4, padded to 24).
        let header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: computes a length, touches no memory.
        let length = unsafe { libc::CMSG_LEN(4) };
        let value = libc::cmsghdr {
            cmsg_len: length as usize,
            cmsg_level: libc::SOL_SOCKET,
            cmsg_type: libc::SCM_RIGHTS,
        };
        // SAFETY: `header` points into the control buffer, which is aligned for it.
        unsafe { header.write(value) };
        // SAFETY: stays inside the control buffer.
        let data = unsafe { libc::CMSG_DATA(header) };
        // SAFETY: four bytes of room follow the header.
        unsafe { data.cast::<RawFd>().write_unaligned(descriptor) };
    }
    // SAFETY: all parts of the message live until the call returns.
    unsafe { libc::sendmsg(report, &raw const message, libc::MSG_NOSIGNAL) };
}

/// Turns a system call's result into the failure of a step.
fn at(step: Step, status: libc::c_long) -> Result<(), (Step, Errno)> {
    if status < 0 { Err((step, Errno::last())) } else { Ok(()) }
}
