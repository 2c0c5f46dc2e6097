//! The laboratory's worker: one thread, one request at a time, busy for as long as the request says.
//!
//! It accepts a connection only when it has nothing to do, as a server without an event loop does, so that
//! what waits, waits in the kernel's queue.

use std::{
    collections::BTreeMap,
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    os::fd::{AsFd as _, AsRawFd as _, FromRawFd as _, OwnedFd, RawFd},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::{
        epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout},
        signal::{SigSet, Signal},
        signalfd::{SfdFlags, SignalFd},
        time::TimeSpec,
    },
    time::{ClockId, ClockNanosleepFlags, clock_gettime, clock_nanosleep},
};
use socket2::{Domain, Protocol, Socket, Type};

/// What an answer says of who gave it.
pub(crate) const WORKER: &str = "X-Worker";
/// What a request says of how long it takes: nanoseconds, and what to do meanwhile.
pub(crate) const SERVICE: &str = "X-Service";
/// What an answer says of how long it took beyond that: nanoseconds. A machine without a CPU to spare for its workers
/// makes slow ones of them, whoever picks them.
pub(crate) const OVERRUN: &str = "X-Overrun";
/// Slowness is told by this signal, in hundredths.
pub(crate) const SLOWNESS: Signal = Signal::SIGUSR1;
/// How long the request of a new connection is waited for before somebody else's turn, in milliseconds.
const FIRST: u16 = 2;
/// A longer head is no request of the laboratory.
const LONGEST: usize = 16 * 1024;

const LISTENER: u64 = u64::MAX;
const SIGNALS: u64 = u64::MAX - 1;

/// What a worker is told on its command line.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it serves.
    pub address: SocketAddr,
    /// Whether it shares the address with others by itself.
    pub reuse_port: bool,
    /// A socket that listens already.
    pub inherited: Option<RawFd>,
    /// Most connections that wait.
    pub backlog: u32,
    /// What it calls itself.
    pub name: String,
}

/// Serves until SIGTERM.
///
/// # Errors
/// When it cannot listen.
pub fn serve(options: &Options) -> anyhow::Result<()> {
    // Sleeps end when they should, not up to 50 µs later (prctl(2), PR_SET_TIMERSLACK).
    // SAFETY: it changes a number of this thread.
    unsafe { libc::prctl(libc::PR_SET_TIMERSLACK, 1) };
    let mut told = SigSet::empty();
    for signal in [Signal::SIGTERM, Signal::SIGINT, SLOWNESS] {
        told.add(signal);
    }
    told.thread_block().context("failed to block signals")?;
    let signals = SignalFd::with_flags(&told, SfdFlags::SFD_NONBLOCK)
        .context("failed to listen to signals")?;
    let listener = listen(options)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("failed to make an epoll")?;
    // One connection wakes one of those who share the socket.
    let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLEXCLUSIVE;
    epoll.add(&listener, EpollEvent::new(flags, LISTENER)).context("failed to watch the socket")?;
    epoll
        .add(&signals, EpollEvent::new(EpollFlags::EPOLLIN, SIGNALS))
        .context("failed to watch")?;
    let name = options.name.clone();
    let mut worker = Worker { name, epoll, kept: BTreeMap::new(), slowness: 100 };
    let mut events = [EpollEvent::empty(); 64];
    loop {
        let count = match worker.epoll.wait(&mut events, EpollTimeout::NONE) {
            Ok(count) => count,
            Err(nix::Error::EINTR) => 0,
            Err(error) => return Err(error).context("failed to wait"),
        };
        let mut is_called = false;
        for event in &events[..count] {
            match event.data() {
                LISTENER => is_called = true,
                SIGNALS => {
                    while let Ok(Some(signal)) = signals.read_signal() {
                        if signal.ssi_signo != SLOWNESS as u32 {
                            return Ok(());
                        }
                        worker.slowness = u64::from(signal.ssi_int.unsigned_abs().max(1));
                    }
                }
                connection => worker.go_on(connection),
            }
        }
        if is_called && let Ok((stream, _)) = listener.accept() {
            worker.take(stream);
        }
    }
}

struct Worker {
    name: String,
    epoll: Epoll,
    /// Connections by their descriptors.
    kept: BTreeMap<u64, TcpStream>,
    /// In hundredths.
    slowness: u64,
}

impl Worker {
    /// Serves the first request of a connection, if it comes at once, and keeps the connection.
    fn take(&mut self, mut stream: TcpStream) {
        let mut ready = [PollFd::new(stream.as_fd(), PollFlags::POLLIN)];
        let is_there = poll(&mut ready, PollTimeout::from(FIRST)).is_ok_and(|count| count > 0);
        if is_there && !self.answer(&mut stream) {
            return;
        }
        let key = u64::from(stream.as_raw_fd().unsigned_abs());
        if self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key)).is_ok() {
            self.kept.insert(key, stream);
        }
    }

    /// Serves the next request of a connection.
    fn go_on(&mut self, key: u64) {
        let Some(mut stream) = self.kept.remove(&key) else { return };
        if self.answer(&mut stream) {
            self.kept.insert(key, stream);
        }
    }

    /// Whether the connection can be kept.
    fn answer(&self, stream: &mut TcpStream) -> bool {
        let Some(service) = read(stream) else { return false };
        let overrun = service.spend(self.slowness);
        let name = &self.name;
        let answer = format!(
            "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{WORKER}: {name}\r\n{OVERRUN}: {overrun}\r\n\r\nok\n",
        );
        stream.write_all(answer.as_bytes()).is_ok()
    }
}

/// How busy a request makes its worker.
struct Service {
    nanos: u64,
    is_sleep: bool,
}

impl Service {
    /// How many nanoseconds longer it took than it was to take.
    fn spend(&self, slowness: u64) -> u64 {
        let nanos = self.nanos.saturating_mul(slowness) / 100;
        let began = Instant::now();
        if self.is_sleep {
            sleep(nanos);
        } else {
            compute(nanos);
        }
        (began.elapsed().as_nanos() as u64).saturating_sub(nanos)
    }
}

/// Until a point in time, so that being late to sleep is no longer sleep.
fn sleep(nanos: u64) {
    let Ok(now) = clock_gettime(ClockId::CLOCK_MONOTONIC) else { return };
    let until = now + TimeSpec::from_duration(Duration::from_nanos(nanos));
    let absolute = ClockNanosleepFlags::TIMER_ABSTIME;
    while clock_nanosleep(ClockId::CLOCK_MONOTONIC, absolute, &until) == Err(nix::Error::EINTR) {}
}

/// Until this thread has had so much of a CPU, however long that takes.
fn compute(nanos: u64) {
    let spent = || {
        let now = clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap_or(TimeSpec::new(0, 0));
        Duration::from(now)
    };
    let until = spent() + Duration::from_nanos(nanos);
    while spent() < until {
        std::hint::spin_loop();
    }
}

/// The next request; `None` when there is none any more.
fn read(stream: &mut TcpStream) -> Option<Service> {
    let mut head = Vec::with_capacity(512);
    let mut chunk = [0; 2048];
    loop {
        let count = stream.read(&mut chunk).ok().filter(|count| *count > 0)?;
        head.extend_from_slice(&chunk[..count]);
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        if request.parse(&head).ok()?.is_complete() {
            let said = request.headers.iter().find(|it| it.name.eq_ignore_ascii_case(SERVICE));
            let said = said.and_then(|header| std::str::from_utf8(header.value).ok());
            let (nanos, kind) =
                said.and_then(|said| said.split_once(' ')).unwrap_or(("0", "sleep"));
            return Some(Service { nanos: nanos.parse().ok()?, is_sleep: kind == "sleep" });
        }
        if head.len() > LONGEST {
            return None;
        }
    }
}

fn listen(options: &Options) -> anyhow::Result<TcpListener> {
    let listener: TcpListener = if let Some(fd) = options.inherited {
        // SAFETY: whoever started this process left the descriptor to it, and it is taken once.
        unsafe { OwnedFd::from_raw_fd(fd) }.into()
    } else {
        bind(options.address, options.reuse_port, options.backlog)?.into()
    };
    listener.set_nonblocking(true)?;
    Ok(listener)
}

/// A socket that listens.
pub(crate) fn bind(address: SocketAddr, reuse_port: bool, backlog: u32) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if reuse_port {
        socket.set_reuse_port(true)?;
    }
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket)
}
