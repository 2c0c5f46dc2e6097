//! Empty: the cheapest selection program there can be, to know what counting and entering one cost alone.

use std::{
    ffi::c_long,
    fs, io,
    mem::offset_of,
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::Context as _;
use socket2::Socket;

use super::decision::Runs;

// linux/bpf.h
const BPF_PROG_LOAD: c_long = 5;
const BPF_PROG_TYPE_SK_REUSEPORT: u32 = 21;
/// `r0 = 1 (SK_PASS); exit`: no selection, so the kernel's hash decides.
const PROGRAM: [u64; 2] = [0x0000_0001_0000_00b7, 0x0000_0000_0000_0095];

/// The head of `union bpf_attr` for `BPF_PROG_LOAD`; the kernel takes what is missing as zeros.
#[repr(C)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
}

const _: () = assert!(offset_of!(Load, insns) == 8 && size_of::<Load>() == 24);

/// An empty program that was attached to a group of somebody else's.
pub(super) struct Attached {
    program: OwnedFd,
}

impl Attached {
    /// Attaches one to the groups of all ports on which a process listens.
    pub(super) fn to_groups_of(pid: u32) -> anyhow::Result<Self> {
        let program = load().context("failed to load an empty program")?;
        // SAFETY: both calls take numbers only.
        let process = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        let process = owned(process).with_context(|| format!("there is no process {pid}"))?;
        let mut found = 0;
        for entry in fs::read_dir(format!("/proc/{pid}/fd"))?.flatten() {
            let Some(number) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let number: libc::c_int = number;
            // SAFETY: as above.
            let copy =
                unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), number, 0) };
            // It may have been closed meanwhile.
            let Ok(copy) = owned(copy) else { continue };
            let socket = Socket::from(copy);
            if socket.is_listener().unwrap_or(false) {
                attach(&socket, &program).context("failed to attach an empty program")?;
                found += 1;
            }
        }
        anyhow::ensure!(found > 0, "process {pid} listens nowhere");
        Ok(Self { program })
    }

    /// How often it ran, and how long that took.
    pub(super) fn runs(&self) -> anyhow::Result<Runs> {
        let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", self.program.as_raw_fd()))?;
        Runs::read(&info).context("the kernel does not count runs")
    }
}

fn load() -> io::Result<OwnedFd> {
    let load = Load {
        prog_type: BPF_PROG_TYPE_SK_REUSEPORT,
        insn_cnt: 2,
        insns: PROGRAM.as_ptr().addr() as u64,
        license: c"GPL".as_ptr().addr() as u64,
    };
    // SAFETY: `load` and all it points to outlive the call, and its size is passed with it.
    let fd =
        unsafe { libc::syscall(libc::SYS_bpf, BPF_PROG_LOAD, &raw const load, size_of::<Load>()) };
    owned(fd)
}

/// The descriptor that a system call has made.
fn owned(result: c_long) -> io::Result<OwnedFd> {
    let fd = i32::try_from(result).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn attach(socket: &Socket, program: &OwnedFd) -> io::Result<()> {
    let fd = program.as_raw_fd();
    // SAFETY: the option takes one int, which outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_EBPF,
            (&raw const fd).cast(),
            4,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
