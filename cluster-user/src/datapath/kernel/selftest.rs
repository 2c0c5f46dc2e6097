//! Whether this kernel really moves a connection when its listener is closed, and wakes the one it moves to.
//!
//! A version number does not tell: the wake-up came with 6.1.175 and 6.12.86 (kernel commit "tcp: call
//! `sk_data_ready()` after listener migration"), and distributions carry it in other versions.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpStream},
    os::fd::AsFd as _,
    time::Duration,
};

use anyhow::Context as _;
use cluster_common::publish::{Mapped, publish};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

use super::{bpf, load::Select};

/// In milliseconds: longer than a migration takes by orders of magnitude.
const PATIENCE: u8 = 200;

/// What became of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Moved {
    /// It moved, and the other listener was woken.
    Yes,
    /// It moved, but nobody was told.
    Silently,
    /// It was closed with its listener.
    No,
}

/// Closes a listener with a connection in its queue, on a loopback port that the kernel chooses.
///
/// # Errors
/// When it does not come to that.
pub(super) fn migration() -> anyhow::Result<Moved> {
    let maps = Select::new(Vec::new())?.load(false)?;
    // SAFETY: both mappings have the size of the tables and outlive the board; nobody else has them.
    let mut board = unsafe { Mapped::new(maps.routes.start(), maps.cursors.start()) };
    let put =
        |slot: u32, socket: &Socket| bpf::update_socket(maps.sockets.as_fd(), slot, socket.as_fd());

    let first = listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
    bpf::attach_to_group(maps.program.as_fd(), first.as_fd()).context("attach the program")?;
    let address = first.local_addr()?.as_socket().context("a listener without an address")?;
    let second = listener(address).context("listen on the port a second time")?;
    put(1, &first).context("put a socket into a slot")?;
    put(2, &second).context("put a socket into a slot")?;

    publish(&mut board, &[1], &[])?;
    let _queued = TcpStream::connect_timeout(&address, Duration::from_secs(1))
        .context("connect over the loopback interface")?;
    publish(&mut board, &[2], &[])?;

    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&second, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    drop(first);
    let woken = epoll.wait(&mut [EpollEvent::empty()], EpollTimeout::from(PATIENCE))? > 0;
    Ok(match (woken, second.accept()) {
        (true, Ok(_)) => Moved::Yes,
        (false, Ok(_)) => Moved::Silently,
        (_, Err(_)) => Moved::No,
    })
}

fn listener(address: SocketAddr) -> std::io::Result<Socket> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM.nonblocking().cloexec(), None)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into())?;
    socket.listen(8)?;
    Ok(socket)
}
