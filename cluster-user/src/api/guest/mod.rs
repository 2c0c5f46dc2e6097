//! Guests: strangers at the exporter's port. When there are too many, who asks nothing goes first.

#[cfg(test)]
mod tests;
mod wire;

use std::{
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, response::Response};
use hyper::{Request, body::Incoming, server::conn::http1, service::Service};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::TcpStream,
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{sleep, timeout},
};

use self::wire::Wire;
use super::door::Door;

/// Connections served at a time; for one more, one that is idle goes.
const MOST: u32 = 32;
/// From accepting, or from the answer before, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest head of a request.
const HEAD: usize = 16 << 10;
/// Most headers of a request.
const HEADERS: usize = 64;
/// After so long a connection is ended whatever it does: nobody keeps one for ever.
const LIFE: Duration = Duration::from_mins(5);
/// What open answers have to be read then.
const ENDING: Duration = Duration::from_secs(2);
/// Who has asked nothing for so long goes before those who were answered.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who is newer does not go at all: its request may be there already, and its task has had no turn yet.
const GRACE: Duration = Duration::from_millis(50);
/// An answer that is not taken within this time may be broken off for one more.
const TAKING: Duration = Duration::from_secs(10);
/// How long to leave the socket alone after accepting failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One connection.
#[derive(Debug)]
struct Guest {
    phase: Mutex<Phase>,
    /// It is to go.
    go: Notify,
    /// Somebody is idle now who was not.
    idle: Arc<Notify>,
}

/// What a guest does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Has asked nothing yet.
    Silent(Instant),
    /// Waits for an answer.
    Asking,
    /// There is an answer, which the kernel has not taken all of: its reader is slow.
    Writing(Instant),
    /// Has been answered, and may ask again.
    Answered(Instant),
    /// Was told to go when it is answered.
    Leaving,
    /// Was told to go without having asked anything.
    Dismissed,
}

/// Who goes for one more, the first first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Mute,
    Idle,
    New,
    Slow,
}

impl Phase {
    /// Whether it may go for one more, before whom, and since when it does what it does.
    fn rank(self, now: Instant) -> Option<(Rank, Instant)> {
        let (rank, since) = match self {
            // Mostly the newcomer. Were it to go before those who were answered, clients that keep their connections and come
            // back when they are closed would leave nobody else a place.
            Self::Silent(since) if now.duration_since(since) < PATIENCE => (Rank::New, since),
            Self::Silent(since) => (Rank::Mute, since),
            Self::Writing(since) => (Rank::Slow, since),
            Self::Answered(since) => (Rank::Idle, since),
            Self::Asking | Self::Leaving | Self::Dismissed => return None,
        };
        let least = match rank {
            Rank::Mute | Rank::Idle => Duration::ZERO,
            Rank::New => GRACE,
            Rank::Slow => TAKING,
        };
        (now.duration_since(since) >= least).then_some((rank, since))
    }
}

impl Guest {
    fn phase(&self) -> MutexGuard<'_, Phase> {
        self.phase.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something else now; who was told to go does not.
    fn turn(&self, next: Phase) {
        let mut phase = self.phase();
        if !matches!(*phase, Phase::Leaving | Phase::Dismissed) {
            *phase = next;
        }
    }

    /// Something of an answer is written.
    fn write(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Answered(_)) {
            *phase = Phase::Writing(Instant::now());
        }
    }

    /// All that there was to write has been written.
    fn flush(&self) {
        let mut phase = self.phase();
        if matches!(*phase, Phase::Writing(_)) {
            *phase = Phase::Answered(Instant::now());
            self.idle.notify_waiters();
        }
    }

    /// Sends it away: at once if it misses no answer.
    fn send_away(&self) {
        let silent = matches!(*self.phase(), Phase::Silent(_));
        self.turn(if silent { Phase::Dismissed } else { Phase::Leaving });
        self.go.notify_one();
    }
}

/// Serves at a door until `stopped` is sent to, or dropped.
pub(super) async fn serve(door: Arc<Door>, router: Router, mut stopped: oneshot::Receiver<()>) {
    let room = Arc::new(Semaphore::new(MOST as usize));
    let idle = Arc::new(Notify::new());
    let mut guests: Vec<Arc<Guest>> = Vec::new();
    loop {
        let next = async {
            let Ok(stream) = door.accept().await else {
                sleep(ACCEPT_PAUSE).await;
                return None;
            };
            Some((stream, enter(&room, &mut guests, &idle).await))
        };
        let entered = tokio::select! {
            biased;
            // A sender that is dropped says the same.
            _ = &mut stopped => break,
            next = next => next,
        };
        let Some((stream, permit)) = entered else { continue };
        let phase = Mutex::new(Phase::Silent(Instant::now()));
        let guest = Arc::new(Guest { phase, go: Notify::new(), idle: Arc::clone(&idle) });
        guests.push(Arc::clone(&guest));
        tokio::spawn(attend(stream, guest, router.clone(), permit));
    }
    door.close();
    for guest in guests {
        guest.send_away();
    }
    drop(timeout(ENDING, room.acquire_many(MOST)).await);
}

/// Waits for room, and makes some.
async fn enter(
    room: &Arc<Semaphore>,
    guests: &mut Vec<Arc<Guest>>,
    idle: &Notify,
) -> Option<OwnedSemaphorePermit> {
    // Only the list knows those that have gone.
    guests.retain(|guest| Arc::strong_count(guest) > 1);
    loop {
        if let Ok(permit) = Arc::clone(room).try_acquire_owned() {
            return Some(permit);
        }
        let mut more = pin!(idle.notified());
        // From now on, so that nobody who gets idle meanwhile is missed.
        more.as_mut().enable();
        let now = Instant::now();
        let ranked = guests.iter().filter_map(|guest| Some((guest.phase().rank(now)?, guest)));
        if let Some((_, guest)) = ranked.min_by_key(|it| it.0) {
            guest.send_away();
        }
        tokio::select! {
            // Never closed.
            permit = Arc::clone(room).acquire_owned() => return permit.ok(),
            () = more => {}
            // Nobody tells that somebody has been silent, or slow, for long enough.
            () = sleep(GRACE) => {}
        }
    }
}

/// Serves one connection to its end.
async fn attend(
    stream: TcpStream,
    guest: Arc<Guest>,
    router: Router,
    permit: Option<OwnedSemaphorePermit>,
) {
    let wire = Wire::new(stream, Arc::clone(&guest));
    let service = Attended { guest: Arc::clone(&guest), router: TowerToHyperService::new(router) };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(wire), service)
    );
    tokio::select! {
        // A peer that breaks off or sends garbage is no event: hyper has answered it.
        _ = connection.as_mut() => {}
        () = sleep(LIFE) => {}
        () = guest.go.notified() => {
            if *guest.phase() != Phase::Dismissed {
                connection.as_mut().graceful_shutdown();
                drop(timeout(ENDING, connection).await);
            }
        }
    }
    drop(permit);
}

/// What is served, with a look at who is busy.
#[derive(Debug)]
struct Attended {
    guest: Arc<Guest>,
    router: TowerToHyperService<Router>,
}

impl Service<Request<Incoming>> for Attended {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Self::Error>> + Send>>;

    fn call(&self, request: Request<Incoming>) -> Self::Future {
        self.guest.turn(Phase::Asking);
        let answer = self.router.call(request);
        let guest = Arc::clone(&self.guest);
        Box::pin(async move {
            let answer = answer.await;
            // The wire tells when it has been written.
            guest.turn(Phase::Writing(Instant::now()));
            answer
        })
    }
}
