//! Trial: how long decisions take, by the kernel's own clock.
//!
//! Datagrams are sent to a group of sockets that nobody reads. The kernel decides about each, and measures its programs
//! when it is asked to (`BPF_ENABLE_STATS`, Linux 5.8).

use std::{
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    os::fd::AsFd as _,
    path::Path,
};

use anyhow::{Context as _, ensure};
use aya_obj::{
    generated::{bpf_attach_type as attach, bpf_cmd, bpf_prog_type as program},
    obj::copy_instructions,
};
use cluster_common::{
    load::Seat,
    publish::{Mapped, publish},
    route::Entry,
    slot::Slot,
};
use socket2::{Domain, Socket, Type};

use super::{
    bpf::{self, ProgramShape},
    ids::Program,
    load::Select,
    probe::instruction,
};

/// `r0 = SK_PASS; exit`
const NOTHING: [[u8; 8]; 2] = [instruction(0xb7, 0, 0, 1), instruction(0x95, 0, 0, 0)];

/// What the decisions of a program have taken.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// What decided.
    pub who: &'static str,
    /// How often.
    pub decisions: u64,
    /// Nanoseconds of each, on average.
    pub nanoseconds: f64,
}

/// Measures an empty program, round robin and a program of the user's, one after the other, `workers` in the route.
///
/// # Errors
/// When the user's program cannot be used, the workers are none or too many, and what the kernel said.
pub fn measure(path: &Path, workers: u16, decisions: u32) -> anyhow::Result<[Cost; 3]> {
    ensure!(
        workers > 0
            && Slot::new(workers).is_some_and(Slot::is_worker)
            && Seat::new(workers).is_some(),
        "{workers} workers: at least one, and not more than there are slots"
    );
    let select = Select::new(Vec::new())?;
    let maps = select.load(false)?;
    let (custom, _made) = select.load_custom(path, &maps.all)?;
    let nothing = Program::of(bpf::load_program(&ProgramShape {
        name: "cluster_nothing",
        program_type: program::BPF_PROG_TYPE_SK_REUSEPORT as u32,
        attach_type: attach::BPF_SK_REUSEPORT_SELECT as u32,
        instructions: &copy_instructions(NOTHING.as_flattened())?,
        license: c"GPL",
        target: 0,
    })?)?;

    let first = socket(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    let address = first.local_addr()?.as_socket().context("a socket without an address")?;
    let mut sockets = vec![first];
    while sockets.len() < usize::from(workers) {
        sockets.push(socket(address)?);
    }
    // SAFETY: both mappings have the size of the tables and outlive the board; nobody else has them.
    let mut board = unsafe { Mapped::new(maps.routes.start(), maps.cursors.start()) };
    bpf::attach_to_group(maps.program.as_fd(), sockets[0].as_fd()).context("attach")?;
    let mut route = Vec::new();
    for (number, socket) in (1..=workers).zip(&sockets) {
        let (Some(slot), Some(seat)) = (Slot::new(number), Seat::new(number)) else { continue };
        bpf::update_socket(maps.sockets.as_fd(), slot.index(), socket.as_fd())
            .context("put a socket into a slot")?;
        route.push(Entry::new(slot, seat).word());
    }
    publish(&mut board, &route, &[])?;

    let _measuring = enable_statistics().context("ask the kernel to measure its programs")?;
    let trial = Trial { sockets: &sockets, address, decisions };
    Ok([
        trial.of("nothing", &nothing)?,
        trial.of("round-robin", &maps.program)?,
        trial.of("yours", &custom)?,
    ])
}

struct Trial<'a> {
    sockets: &'a [Socket],
    address: SocketAddr,
    decisions: u32,
}

impl Trial<'_> {
    fn of(&self, who: &'static str, program: &Program) -> anyhow::Result<Cost> {
        bpf::attach_to_group(program.as_fd(), self.sockets[0].as_fd()).context("attach")?;
        let client = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        let send = |count: u32| -> std::io::Result<()> {
            // Not connected: then each is looked up by itself. What finds a full buffer was decided about, too.
            (0..count).try_for_each(|_| client.send_to(b".", self.address).map(drop))
        };
        send(self.decisions / 10)?;
        let (ran, took) = program.runs();
        send(self.decisions)?;
        let (ran, took) = {
            let now = program.runs();
            (now.0 - ran, now.1 - took)
        };
        ensure!(ran > 0, "the kernel has not run the program");
        #[expect(clippy::cast_precision_loss, reason = "an average")]
        let nanoseconds = took as f64 / ran as f64;
        Ok(Cost { who, decisions: ran, nanoseconds })
    }
}

/// Lets the kernel measure its programs until what is returned is dropped.
fn enable_statistics() -> std::io::Result<std::os::fd::OwnedFd> {
    /// `BPF_STATS_RUN_TIME`
    const RUN_TIME: u32 = 0;
    bpf::descriptor(bpf_cmd::BPF_ENABLE_STATS, &RUN_TIME)
}

fn socket(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM.cloexec(), None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    Ok(socket)
}
