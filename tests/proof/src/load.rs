//! Load: requests that are made when they are due, whatever has become of those before them.

use std::{
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use tokio::{runtime, sync::watch, task::JoinSet, time};

use crate::{
    account::Account,
    connection::Connection,
    exchange::{self, Broken, Trace},
    failure::{Cause, Failure, Phase},
    pool::Pool,
    request::{Kind, Request},
};

/// An app, and what it is asked.
#[derive(Clone, Debug)]
pub struct Target {
    /// As reports name it.
    pub name: String,
    /// Where it serves.
    pub address: SocketAddr,
    /// Requests per second, on average.
    pub rate: f64,
    /// Connections that are kept in use.
    pub connections: usize,
    /// Manners of requests, and how often each is chosen in proportion to the others.
    pub mix: Vec<(Kind, u32)>,
}

/// What is asked of which apps.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The same seed makes the same requests, due at the same times.
    pub seed: u64,
    /// The apps.
    pub targets: Vec<Target>,
    /// Longest time from the beginning of a request to the end of its answer.
    pub patience: Duration,
    /// Most requests under way at one time, for each app.
    pub limit: usize,
}

/// Clients at work, in the network of the thread that started them.
#[derive(Debug)]
pub struct Load {
    stop: watch::Sender<bool>,
    account: Arc<Mutex<Account>>,
    clients: JoinHandle<()>,
}

impl Load {
    /// Sets the clients to work.
    ///
    /// # Errors
    /// When there cannot be another thread.
    pub fn start(plan: Plan) -> io::Result<Self> {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let (stop, stopped) = watch::channel(false);
        let account = Arc::new(Mutex::new(Account::default()));
        let shared = Arc::clone(&account);
        let clients = thread::Builder::new().name("clients".to_owned()).spawn(move || {
            runtime.block_on(async {
                let mut targets = JoinSet::new();
                for (target, index) in plan.targets.into_iter().zip(0..) {
                    let clients = Clients {
                        pool: Mutex::new(Pool::new(target.connections)),
                        target,
                        account: Arc::clone(&shared),
                        patience: plan.patience,
                        limit: plan.limit,
                    };
                    let numbers = fastrand::Rng::with_seed(plan.seed.wrapping_add(index));
                    targets.spawn(ask(Arc::new(clients), index, numbers, stopped.clone()));
                }
                targets.join_all().await;
            });
        })?;
        Ok(Self { stop, account, clients })
    }

    /// What has been accounted for so far; to be looked at briefly, for the clients wait meanwhile.
    pub fn so_far(&self) -> MutexGuard<'_, Account> {
        lock(&self.account)
    }

    /// Begins no more requests, waits for those under way and adds up.
    ///
    /// # Panics
    /// When a client did.
    pub fn stop(self) -> Account {
        self.stop.send_replace(true);
        self.clients.join().expect("a client does not panic");
        std::mem::take(&mut lock(&self.account))
    }
}

/// All clients of one app.
struct Clients {
    target: Target,
    pool: Mutex<Pool>,
    account: Arc<Mutex<Account>>,
    patience: Duration,
    limit: usize,
}

/// Begins each request when it is due, until it is stopped; then waits for those under way.
async fn ask(
    clients: Arc<Clients>,
    index: u64,
    mut numbers: fastrand::Rng,
    mut stopped: watch::Receiver<bool>,
) {
    let mut under_way = JoinSet::new();
    let mut due = Instant::now();
    let total = clients.target.mix.iter().map(|(_, share)| share).sum::<u32>();
    for count in 0.. {
        // Times between the events of a Poisson process are distributed exponentially.
        due += Duration::from_secs_f64(-(1.0 - numbers.f64()).ln() / clients.target.rate);
        let kind = choose(&clients.target.mix, numbers.u32(0..total));
        // No two apps have a request of the same number.
        let request = Request::random((count << 4) | index, kind, &mut numbers);
        tokio::select! {
            biased;
            _ = stopped.wait_for(|stop| *stop) => break,
            () = time::sleep_until(due.into()) => {}
        }
        lock(&clients.account).asked += 1;
        if under_way.len() >= clients.limit {
            clients.refuse(&request, due);
        } else {
            under_way.spawn(Arc::clone(&clients).make(request, due));
        }
        while under_way.try_join_next().is_some() {}
    }
    under_way.join_all().await;
    lock(&clients.pool).close(&mut lock(&clients.account).connections);
}

/// The kind on which a number below the sum of all shares falls.
fn choose(mix: &[(Kind, u32)], number: u32) -> Kind {
    let mut above = 0;
    let chosen = mix.iter().find(|(_, share)| {
        above += share;
        number < above
    });
    chosen.map_or(Kind::Fresh, |(kind, _)| *kind)
}

impl Clients {
    /// Makes one request and enters what became of it.
    async fn make(self: Arc<Self>, request: Request, due: Instant) {
        let began = Instant::now();
        let mut trace = Trace { phase: Phase::Connect, sent: 0, received: 0 };
        let mut connection = None;
        let exchange = self.exchange(&request, &mut connection, &mut trace);
        let outcome = match time::timeout(self.patience, exchange).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(Cause::TimedOut.into()),
        };
        let ended = Instant::now();
        let mut account = lock(&self.account);
        account.lag = account.lag.max(began.saturating_duration_since(due));
        let worker = connection.as_ref().and_then(|connection| connection.worker);
        let keeps = match outcome {
            Ok(keeps) => {
                let latency = ended.saturating_duration_since(due);
                account.note_answer(&self.target.name, request.kind, worker, latency);
                let is_kept = request.kind.keeps_its_connection();
                account.connections.told_to_close += u64::from(is_kept && !keeps);
                keeps
            }
            Err(Broken { cause, errno }) => {
                account.failures.push(Failure {
                    id: request.id,
                    target: self.target.name.clone(),
                    kind: request.kind,
                    phase: trace.phase,
                    cause,
                    errno,
                    due,
                    began,
                    failed: ended,
                    local: connection.as_ref().map(|connection| connection.local),
                    worker,
                    earlier: connection.as_ref().map_or(0, |connection| connection.answers),
                    sent: trace.sent,
                    received: trace.received,
                });
                false
            }
        };
        drop(account);
        if request.kind.keeps_its_connection() {
            match connection {
                Some(connection) if keeps => lock(&self.pool).keep(connection),
                Some(_) | None => lock(&self.pool).lose(),
            }
        }
    }

    async fn exchange(
        &self,
        request: &Request,
        place: &mut Option<Connection>,
        trace: &mut Trace,
    ) -> Result<bool, Broken> {
        let kept = if request.kind.keeps_its_connection() {
            // Never the other way round: `ask` locks the pool first, too.
            let mut pool = lock(&self.pool);
            pool.take(&mut lock(&self.account).connections)
        } else {
            None
        };
        let connection = if let Some(connection) = kept {
            place.insert(connection)
        } else {
            let reads_slowly = request.kind == Kind::SlowReader;
            let opened = Connection::open(self.target.address, reads_slowly).await?;
            lock(&self.account).connections.opened += 1;
            place.insert(opened)
        };
        exchange::exchange(request, connection, trace).await
    }

    /// Enters a request that was not even begun.
    fn refuse(&self, request: &Request, due: Instant) {
        let now = Instant::now();
        lock(&self.account).failures.push(Failure {
            id: request.id,
            target: self.target.name.clone(),
            kind: request.kind,
            phase: Phase::Connect,
            cause: Cause::Crowded,
            errno: None,
            due,
            began: now,
            failed: now,
            local: None,
            worker: None,
            earlier: 0,
            sent: 0,
            received: 0,
        });
    }
}

/// What a client that panicked left is as good as ever: each entry is made at once.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_chosen_by_their_shares() {
        let mix = [(Kind::Kept, 3), (Kind::Echo, 1)];
        let chosen = (0..4).map(|number| choose(&mix, number)).collect::<Vec<_>>();
        assert_eq!(chosen, [Kind::Kept, Kind::Kept, Kind::Kept, Kind::Echo]);
    }
}
