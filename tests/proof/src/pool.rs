//! Pool: connections to one app that are kept between requests.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use crate::{
    account::Connections,
    connection::{Connection, Idle},
};

/// A server that says after which time it closes gets the next request earlier by this.
const MARGIN: Duration = Duration::from_secs(1);

/// Used in turn, so that all of them are in use; the one that has rested longest comes first.
#[derive(Debug)]
pub(crate) struct Pool {
    idle: VecDeque<Connection>,
    /// Those in use included.
    open: usize,
    /// How many are wanted; more are opened only when all are in use.
    wanted: usize,
}

impl Pool {
    /// An empty one.
    pub(crate) fn new(wanted: usize) -> Self {
        Self { idle: VecDeque::new(), open: 0, wanted }
    }

    /// A connection that was open a moment ago; none when one has to be opened.
    pub(crate) fn take(&mut self, count: &mut Connections) -> Option<Connection> {
        while self.open >= self.wanted
            && let Some(connection) = self.idle.pop_front()
        {
            if is_usable(&connection, count) {
                return Some(connection);
            }
            self.open -= 1;
        }
        self.open += 1;
        None
    }

    /// Puts one back, to be used again.
    pub(crate) fn keep(&mut self, mut connection: Connection) {
        connection.used = Instant::now();
        self.idle.push_back(connection);
    }

    /// One that was taken, or opened in its place, is no more.
    pub(crate) fn lose(&mut self) {
        self.open -= 1;
    }

    /// Looks at all that are not in use a last time.
    pub(crate) fn close(&mut self, count: &mut Connections) {
        for connection in self.idle.drain(..) {
            is_usable(&connection, count);
            self.open -= 1;
        }
    }
}

fn is_usable(connection: &Connection, count: &mut Connections) -> bool {
    match connection.look() {
        Idle::Open => {
            let rested = connection.used.elapsed();
            let limit = connection.idle_limit.map(|limit| limit.saturating_sub(MARGIN));
            let is_fresh = limit.is_none_or(|limit| rested < limit);
            count.outdated += u64::from(!is_fresh);
            is_fresh
        }
        Idle::Closed => {
            count.closed_idle += 1;
            false
        }
        Idle::Reset => {
            count.reset_idle += 1;
            false
        }
        Idle::Surplus => {
            count.surplus_idle += 1;
            false
        }
    }
}
