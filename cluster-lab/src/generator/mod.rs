//! The generator: requests that are made when they are due, whatever has become of those before them.
//!
//! Open loop: latency counts from when a request was due, so a server that keeps everybody waiting cannot
//! slow down the questions it is judged by (coordinated omission).

mod answer;
mod connection;

use std::{
    collections::VecDeque,
    io,
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use mio::{Events, Interest, Poll, Token, unix::SourceFd};
use nix::sys::{
    time::TimeSpec,
    timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags},
};
use slab::Slab;

use self::connection::{Connection, Step};
use crate::{
    arrival::Arrival,
    experiment::Kind,
    outcome::{Failure, Tally},
    worker::SERVICE,
};

/// Most requests that are made before answers are looked at.
const BURST: usize = 32;
/// How often those are looked for who have waited too long.
const LOOK: Duration = Duration::from_millis(50);
const TIMER: Token = Token(usize::MAX);

/// Whom to ask, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    /// Addresses that clients have, in turn; empty for whatever the kernel picks.
    pub(crate) clients: Vec<IpAddr>,
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Requests per connection.
    pub(crate) reuse: u32,
    pub(crate) patience: Duration,
}

/// Makes all requests of a plan, and waits for what becomes of them.
pub(crate) fn run(
    target: &Target,
    plan: &[Arrival],
    start: Instant,
    tally: Tally,
) -> anyhow::Result<Tally> {
    let mut generator = Generator::new(target, plan, start, tally)?;
    generator.run()?;
    Ok(generator.tally)
}

struct Generator<'a> {
    target: &'a Target,
    plan: &'a [Arrival],
    start: Instant,
    tally: Tally,
    poll: Poll,
    timer: TimerFd,
    connections: Slab<Connection>,
    /// Kept connections that nobody uses, the longest unused first.
    idle: VecDeque<usize>,
    /// Connections with a request, and how many these are.
    busy: usize,
    /// How many connections have been made.
    made: usize,
}

impl<'a> Generator<'a> {
    fn new(
        target: &'a Target,
        plan: &'a [Arrival],
        start: Instant,
        tally: Tally,
    ) -> anyhow::Result<Self> {
        let poll = Poll::new().context("failed to make a poll")?;
        // mio's own timeouts are whole milliseconds.
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, TimerFlags::TFD_NONBLOCK)
            .context("failed to make a timer")?;
        let fd = std::os::fd::AsRawFd::as_raw_fd(&std::os::fd::AsFd::as_fd(&timer));
        poll.registry().register(&mut SourceFd(&fd), TIMER, Interest::READABLE)?;
        let connections = Slab::new();
        let idle = VecDeque::new();
        Ok(Self { target, plan, start, tally, poll, timer, connections, idle, busy: 0, made: 0 })
    }

    fn run(&mut self) -> anyhow::Result<()> {
        let mut events = Events::with_capacity(1024);
        let mut next = 0;
        let mut armed = usize::MAX;
        let mut looked = 0;
        while next < self.plan.len() || self.busy > 0 {
            let mut burst = 0;
            while burst < BURST && self.plan.get(next).is_some_and(|it| it.due <= self.now()) {
                self.ask(self.plan[next], None);
                next += 1;
                burst += 1;
            }
            let mut timeout = Some(LOOK);
            if let Some(arrival) = self.plan.get(next) {
                let wait = arrival.due.saturating_sub(self.now());
                if wait == 0 {
                    timeout = Some(Duration::ZERO);
                } else if armed != next {
                    self.arm(wait)?;
                    armed = next;
                }
            }
            match self.poll.poll(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    return Err(error).context("failed to wait for answers");
                }
                Ok(()) | Err(_) => {}
            }
            for event in &events {
                if event.token() == TIMER {
                    // It is edge-triggered: what was armed once more fires once more.
                    armed = usize::MAX;
                } else {
                    self.go_on(event.token().0);
                }
            }
            let now = self.now();
            if now.saturating_sub(looked) > LOOK.as_nanos() as u64 {
                looked = now;
                self.give_up(now);
            }
        }
        Ok(())
    }

    /// Makes a request, on a kept connection if there is one, unless it is made again.
    fn ask(&mut self, arrival: Arrival, again: Option<u64>) {
        if again.is_none() {
            self.tally.begun(arrival.due, self.now());
            while let Some(key) = self.idle.pop_front() {
                let Some(connection) = self.connections.get_mut(key) else { continue };
                let now = self.start.elapsed().as_nanos() as u64;
                connection.ask(arrival, request(self.target, arrival, connection.is_last()), now);
                self.busy += 1;
                return self.go_on(key);
            }
        }
        let now = again.unwrap_or_else(|| self.now());
        let client = match self.target.clients.len() {
            0 => None,
            count => Some(self.target.clients[self.made % count]),
        };
        self.made += 1;
        let text = request(self.target, arrival, self.target.reuse == 1);
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let made = Connection::begin(self.target.address, client, self.target.reuse).and_then(
            |mut connection| connection.watch(self.poll.registry(), key).map(|()| connection),
        );
        match made {
            Ok(mut connection) => {
                connection.ask(arrival, text, now);
                entry.insert(connection);
                self.busy += 1;
            }
            Err(error) => {
                let now = self.start.elapsed().as_nanos() as u64;
                self.tally.failed(connection::cause(&error), arrival.due, now, now);
            }
        }
    }

    /// Does what a connection is ready for.
    fn go_on(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let step = connection.go_on();
        let now = self.start.elapsed().as_nanos() as u64;
        match step {
            Step::Wait => {}
            Step::Gone => drop(self.connections.remove(key)),
            Step::Answered { arrival, worker, overrun, keep, is_ok } => {
                self.busy -= 1;
                if let Some(worker) = worker {
                    self.tally.connected(arrival.due, &worker);
                }
                if let Some(overrun) = overrun {
                    self.tally.overran(arrival.due, overrun);
                }
                if is_ok {
                    self.tally.answered(arrival.due, now);
                } else {
                    self.tally.failed(Failure::Bad, arrival.due, now, now);
                }
                if keep {
                    self.idle.push_back(key);
                } else {
                    drop(self.connections.remove(key));
                }
            }
            Step::Failed { arrival, begun, failure, again } => {
                self.busy -= 1;
                drop(self.connections.remove(key));
                if again {
                    self.tally.retried(arrival.due);
                    self.ask(arrival, Some(begun));
                } else {
                    self.tally.failed(failure, arrival.due, begun, now);
                }
            }
        }
    }

    /// Ends what has been waited for too long.
    fn give_up(&mut self, now: u64) {
        let patience = self.target.patience.as_nanos() as u64;
        let late: Vec<usize> = self
            .connections
            .iter()
            .filter(|(_, it)| it.due().is_some_and(|due| now.saturating_sub(due) > patience))
            .map(|(key, _)| key)
            .collect();
        for key in late {
            let connection = self.connections.remove(key);
            if let Some(due) = connection.due() {
                self.busy -= 1;
                self.tally.failed(Failure::Timeout, due, connection.begun(), now);
            }
        }
    }

    fn arm(&self, nanos: u64) -> anyhow::Result<()> {
        let after = TimeSpec::from_duration(Duration::from_nanos(nanos));
        let flags = TimerSetTimeFlags::empty();
        self.timer.set(Expiration::OneShot(after), flags).context("failed to arm a timer")
    }

    /// Nanoseconds since the beginning.
    fn now(&self) -> u64 {
        self.start.elapsed().as_nanos() as u64
    }
}

fn request(target: &Target, arrival: Arrival, is_last: bool) -> Vec<u8> {
    let path = target.path.replace("{us}", &(arrival.service / 1_000).to_string());
    let close = if is_last { "Connection: close\r\n" } else { "" };
    let (nanos, kind) = (arrival.service, target.kind.name());
    format!("GET {path} HTTP/1.1\r\nHost: lab\r\n{SERVICE}: {nanos} {kind}\r\n{close}\r\n")
        .into_bytes()
}
