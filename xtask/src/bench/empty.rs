//! Empty: the cheapest selection program there can be, to know what counting and entering one cost alone.

use std::{
    ffi::c_long,
    fs, io,
    mem::offset_of,
    net::{Ipv4Addr, SocketAddr},
    os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd},
};

use anyhow::Context as _;
use socket2::{Domain, Protocol, SockAddr, Socket, Type};

use super::decision::Runs;

/// Where nobody else listens.
const PORT: u16 = 9;
const CONNECTIONS: u32 = 20_000;

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

/// Nanoseconds of each run of a program that does nothing.
pub(super) fn nanoseconds() -> anyhow::Result<f64> {
    let program = load().context("failed to load an empty program")?;
    let address = SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT)));
    let listener = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    listener.set_reuse_port(true)?;
    listener.bind(&address)?;
    listener.listen(128)?;
    attach(&listener, &program).context("failed to attach an empty program")?;
    for _ in 0..CONNECTIONS {
        let client = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
        client.connect(&address)?;
        drop(listener.accept()?);
    }
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", program.as_raw_fd()))?;
    let runs = Runs::read(&info).context("the kernel does not count runs")?;
    runs.each().context("the kernel counted no run of an empty program")
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
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
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
