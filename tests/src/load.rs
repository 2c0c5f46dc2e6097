//! Load: clients that ask as fast as they are answered, until they are told to stop.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
};

use crate::http::{self, Connection};

/// Clients at work.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<Score>>,
}

/// What the clients saw.
#[derive(Debug, Default)]
pub struct Score {
    /// How often each answer was given.
    pub answers: BTreeMap<String, u32>,
    /// How often each failure was met.
    pub failures: BTreeMap<String, u32>,
}

impl Load {
    /// Sets `clients` clients to work, each request over a new connection. They are in the network of the calling thread.
    pub fn start(to: SocketAddr, clients: u32) -> Self {
        Self::each(clients, || move || http::try_get(to))
    }

    /// The same, but each client keeps its connection for as long as it is not told that it ends.
    pub fn keep(to: SocketAddr, clients: u32) -> Self {
        Self::each(clients, || {
            let mut kept = None;
            move || {
                let mut connection = match kept.take() {
                    Some(connection) => connection,
                    None => Connection::open(to)?,
                };
                let answer = connection.get()?;
                kept = (!connection.is_closing()).then_some(connection);
                Ok(answer)
            }
        })
    }

    fn each<Ask>(clients: u32, client: impl Fn() -> Ask) -> Self
    where
        Ask: FnMut() -> io::Result<String> + Send + 'static,
    {
        let stop = Arc::new(AtomicBool::new(false));
        let clients = (0..clients).map(|_| {
            let stop = Arc::clone(&stop);
            let mut ask = client();
            thread::spawn(move || {
                let mut score = Score::default();
                while !stop.load(Ordering::Relaxed) {
                    score.note(ask());
                }
                score
            })
        });
        Self { clients: clients.collect(), stop }
    }

    /// Lets each client finish its request and adds up.
    pub fn stop(self) -> Score {
        self.stop.store(true, Ordering::Relaxed);
        let mut total = Score::default();
        for client in self.clients {
            let score = client.join().expect("a client does not panic");
            for (answer, count) in score.answers {
                *total.answers.entry(answer).or_default() += count;
            }
            for (failure, count) in score.failures {
                *total.failures.entry(failure).or_default() += count;
            }
        }
        total
    }
}

impl Score {
    /// Requests that were answered.
    pub fn answered(&self) -> u32 {
        self.answers.values().sum()
    }

    /// Requests that were not.
    pub fn failed(&self) -> u32 {
        self.failures.values().sum()
    }

    fn note(&mut self, outcome: io::Result<String>) {
        let (counts, key) = match outcome {
            Ok(answer) => (&mut self.answers, answer),
            Err(error) => (&mut self.failures, error.to_string()),
        };
        *counts.entry(key).or_default() += 1;
    }
}
