//! Guests: strangers at the exporter's port. When there are too many, who asks nothing goes first.

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
    net::{TcpListener, TcpStream},
    sync::{Notify, OwnedSemaphorePermit, Semaphore, oneshot},
    time::{sleep, timeout},
};

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
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Phase {
    /// Has asked nothing yet.
    Silent(Instant),
    /// Has been answered, and may ask again.
    Answered(Instant),
    /// Waits for an answer.
    Asking,
    /// Was told to go when it is answered.
    Leaving,
    /// Was told to go without having asked anything.
    Dismissed,
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

    /// Sends it away: at once if it misses no answer.
    fn send_away(&self) {
        let silent = matches!(*self.phase(), Phase::Silent(_));
        self.turn(if silent { Phase::Dismissed } else { Phase::Leaving });
        self.go.notify_one();
    }
}

/// Serves a listener until `stopped` is sent to, or dropped.
pub(super) async fn serve(
    listener: Arc<TcpListener>,
    router: Router,
    mut stopped: oneshot::Receiver<()>,
) {
    let room = Arc::new(Semaphore::new(MOST as usize));
    let idle = Arc::new(Notify::new());
    let mut guests: Vec<Arc<Guest>> = Vec::new();
    loop {
        let next = async {
            let Ok((stream, _)) = listener.accept().await else {
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
    drop(listener);
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
        // Of those who have asked nothing the oldest, else who was answered longest ago.
        let oldest = guests.iter().map(|guest| (*guest.phase(), guest)).min_by_key(|it| it.0);
        if let Some((Phase::Silent(_) | Phase::Answered(_), guest)) = oldest {
            guest.send_away();
        }
        tokio::select! {
            // Never closed.
            permit = Arc::clone(room).acquire_owned() => return permit.ok(),
            () = more => {}
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
    let service = Attended { guest: Arc::clone(&guest), router: TowerToHyperService::new(router) };
    let mut connection = pin!(
        http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD)
            .max_headers(HEADERS)
            .serve_connection(TokioIo::new(stream), service)
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
            guest.turn(Phase::Answered(Instant::now()));
            guest.idle.notify_waiters();
            answer
        })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::*;

    /// Far less than the time after which who says nothing is sent away anyway.
    const SOON: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn who_asks_is_answered_though_the_room_is_full_of_those_who_do_not() {
        let address = open();
        let mut silent = Vec::new();
        for number in 0..3 * MOST {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if number % 2 == 1 {
                stream.write_all(b"GET /").await.unwrap();
            }
            silent.push(stream);
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let answer = timeout(SOON, ask(&mut stream)).await;
        assert!(answer.expect("it is answered at once").ends_with("well"));
        let mut last = silent.pop().unwrap();
        assert!(timeout(SOON, ask(&mut last)).await.is_ok(), "the newest have stayed");
    }

    #[tokio::test]
    async fn who_was_answered_longest_ago_goes_for_one_more() {
        let address = open();
        let mut kept = Vec::new();
        for _ in 0..=MOST {
            let mut stream = TcpStream::connect(address).await.unwrap();
            assert!(timeout(SOON, ask(&mut stream)).await.unwrap().ends_with("well"));
            kept.push(stream);
        }
        let end = timeout(SOON, kept[0].read(&mut [0; 8])).await;
        assert_eq!(end.expect("the first one was closed").unwrap(), 0);
        assert!(timeout(SOON, ask(&mut kept[1])).await.unwrap().ends_with("well"));
    }

    /// A server of `/`, which goes with the test's runtime.
    fn open() -> SocketAddr {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let listener = Arc::new(TcpListener::from_std(listener).unwrap());
        let router = Router::new().route("/", get(async || "well"));
        tokio::spawn(async move {
            let (_stop, stopped) = oneshot::channel();
            serve(listener, router, stopped).await;
        });
        address
    }

    async fn ask(stream: &mut TcpStream) -> String {
        stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        let mut answer = vec![0; 1024];
        let read = stream.read(&mut answer).await.unwrap();
        String::from_utf8_lossy(&answer[..read]).into_owned()
    }
}
