//! A group in one process: it has all the sockets, and is the client as well, so that a choice among them is all that a
//! measurement sees beside the kernel's own work.
//!
//! `crowd ADDRESS SOCKETS FILE` connects, accepts and closes, one after the other, and keeps writing into the file how
//! often it has, and for how many nanoseconds.

use std::{env, fs, net::SocketAddr, time::Instant};

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

/// Connections between two times that something is written.
const BATCH: u64 = 2048;

fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [address, sockets, file] = arguments.as_slice() else {
        anyhow::bail!("expected an address, a number of sockets and a file");
    };
    let address: SocketAddr = address.parse().context("parse the address")?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    let listeners: Vec<Socket> = (0..sockets.parse().context("parse the number of sockets")?)
        .map(|place| {
            let listener = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            listener.set_reuse_port(true)?;
            listener.bind(&address.into())?;
            listener.listen(128)?;
            epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, place))?;
            Ok(listener)
        })
        .collect::<anyhow::Result<_>>()
        .context("listen")?;
    let began = Instant::now();
    let mut count = 0_u64;
    let mut events = [EpollEvent::empty(); 4];
    loop {
        for _ in 0..BATCH {
            let client = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
            client.connect(&address.into())?;
            let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
            for event in &events[..ready] {
                let place = usize::try_from(event.data())?;
                // No ends of streams: a port that waits for its time to be over cannot be used again.
                listeners[place].accept()?.0.set_linger(Some(std::time::Duration::ZERO))?;
            }
        }
        count += BATCH;
        let written = format!("{file}.new");
        fs::write(&written, format!("{count} {}\n", began.elapsed().as_nanos()))?;
        fs::rename(&written, file)?;
    }
}
