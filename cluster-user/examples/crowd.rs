//! A group in one process: it has all the sockets, and is the client as well, so that a choice among them is all that a
//! measurement sees beside the kernel's own work. One connection is held at each socket: where one has nothing to do, some
//! policies need not look at the others. And once it listens it leaves its cgroup, where clients seldom are: what is done for
//! a worker's sockets must not be counted twice.
//!
//! `crowd ADDRESS SOCKETS FILE` connects, accepts and closes, one after the other, and keeps writing into the file how
//! often it has, and for how many nanoseconds.

use std::{
    env, fs,
    net::SocketAddr,
    process, thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use socket2::{Domain, Socket, Type};

/// Connections between two times that something is written.
const BATCH: u64 = 2048;
/// Time in which all sockets come to be known: connections that begin before are not counted.
const JOINING: Duration = Duration::from_secs(1);

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
    thread::sleep(JOINING);
    leave_cgroup().context("leave the cgroup")?;
    let mut held: Vec<Option<[Socket; 2]>> = listeners.iter().map(|_| None).collect();
    let mut events = [EpollEvent::empty(); 4];
    let mut connect = || -> anyhow::Result<(usize, [Socket; 2])> {
        let client = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        client.connect(&address.into())?;
        epoll.wait(&mut events, EpollTimeout::NONE)?;
        let place = usize::try_from(events[0].data())?;
        let accepted = listeners[place].accept()?.0;
        // No ends of streams: a port that waits for its time to be over cannot be used again.
        accepted.set_linger(Some(Duration::ZERO))?;
        Ok((place, [accepted, client]))
    };
    while held.iter().any(Option::is_none) {
        let (place, connection) = connect()?;
        held[place].get_or_insert(connection);
    }
    let began = Instant::now();
    let mut count = 0_u64;
    loop {
        for _ in 0..BATCH {
            connect()?;
        }
        count += BATCH;
        let written = format!("{file}.new");
        fs::write(&written, format!("{count} {}\n", began.elapsed().as_nanos()))?;
        fs::rename(&written, file)?;
    }
}

/// Goes to the root of the hierarchy, where its next sockets belong.
fn leave_cgroup() -> anyhow::Result<()> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let root =
        mounts.find(|mount| mount.get(2) == Some(&"cgroup2")).context("there is no cgroup2")?;
    Ok(fs::write(format!("{}/cgroup.procs", root[1]), process::id().to_string())?)
}
