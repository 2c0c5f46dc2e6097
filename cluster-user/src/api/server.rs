//! The daemon's end of the socket: connections in, decoded requests out to the supervisor.

use std::{sync::Arc, time::Duration};

use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use nix::unistd::Uid;
use tokio::{
    net::{UnixListener, UnixStream},
    sync::{Semaphore, mpsc},
    time::{sleep, timeout},
};

use super::{
    board::Board,
    desk::Desk,
    exporter::Exporter,
    message::{Failure, Line, Reason, Request},
    route::{self, Room},
    telemetry::Readers,
};

/// Connections served at a time; more are told to come back.
pub const MAX_CONNECTIONS: usize = 256;
/// Connections that are being told so; what exceeds this is closed at once.
const MAX_REFUSALS: usize = 32;
/// From accepting, or from the answer before, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// What refused connections have to read their refusal.
const REFUSAL_TIMEOUT: Duration = Duration::from_secs(1);
/// What open answers have to be read when the daemon ends.
const ENDING: Duration = Duration::from_secs(2);
/// How long to leave the socket alone after accepting failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// One request on its way to the supervisor.
#[derive(Debug)]
pub struct Call {
    /// What is asked.
    pub request: Request,
    /// Who asks.
    pub peer: Peer,
    /// Where the lines go: any number of progress and notices, then one of the others. It is closed when
    /// the peer has gone, which does not undo what was asked.
    pub reply: mpsc::UnboundedSender<Line>,
}

/// The process at the other end, as the kernel says (`SO_PEERCRED`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its process id, when it is in this pid namespace.
    pub pid: Option<u32>,
    /// Its effective user id when it connected.
    pub uid: u32,
    /// Its effective group id when it connected.
    pub gid: u32,
}

/// Serves `listener` until `stop` is done and the open answers are read.
///
/// Requests wait in `calls` while the supervisor is busy; connections wait in the socket's backlog.
pub async fn serve(
    listener: UnixListener,
    calls: mpsc::Sender<Call>,
    board: Board,
    exporter: Exporter,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let readers = Readers::default();
    let served = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let refused = Arc::new(Semaphore::new(MAX_REFUSALS));
    tokio::pin!(stop);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut stop => break,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let permit = match admit(&stream) {
            Ok(peer) => Arc::clone(&served)
                .try_acquire_owned()
                .map(|permit| (permit, peer))
                .map_err(|_full| too_many()),
            Err(failure) => Err(failure),
        };
        match permit {
            Ok((permit, peer)) => {
                let desk = Desk::new(calls.clone(), peer);
                let room = Room::new(desk, board.clone(), readers.clone(), exporter.clone());
                let service = TowerToHyperService::new(route::routes(room));
                let connection = http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEAD_TIMEOUT)
                    .serve_connection(TokioIo::new(stream), service);
                let connection = graceful.watch(connection);
                tokio::spawn(async move {
                    // A peer that breaks off or sends garbage is no event: hyper has answered it.
                    drop(connection.await);
                    drop(permit);
                });
            }
            Err(failure) => {
                if let Ok(permit) = Arc::clone(&refused).try_acquire_owned() {
                    tokio::spawn(async move {
                        refuse(stream, failure).await;
                        drop(permit);
                    });
                }
            }
        }
    }
    drop(listener);
    // A peer that does not read its answer cannot keep the daemon.
    drop(timeout(ENDING, graceful.shutdown()).await);
}

async fn refuse(stream: UnixStream, failure: Failure) {
    let service = TowerToHyperService::new(route::refusing(failure));
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .keep_alive(false)
        .half_close(true) // who has said all is answered still
        .serve_connection(TokioIo::new(stream), service);
    drop(timeout(REFUSAL_TIMEOUT, connection).await);
}

fn admit(stream: &UnixStream) -> Result<Peer, Failure> {
    let peer = stream.peer_cred().map_err(|error| {
        Failure::new(Reason::NotPermitted, format!("failed to find out who asks: {error}"))
    })?;
    let pid = peer.pid().and_then(|pid| u32::try_from(pid).ok());
    let peer = Peer { pid, uid: peer.uid(), gid: peer.gid() };
    let own = Uid::effective().as_raw();
    if may_use(peer.uid, own) {
        return Ok(peer);
    }
    Err(Failure::new(
        Reason::NotPermitted,
        format!("this daemon belongs to user {own}, not to user {}", peer.uid),
    )
    .hint("use sudo, or a daemon of your own with CLUSTER_HOME"))
}

fn may_use(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

fn too_many() -> Failure {
    Failure::new(
        Reason::Unavailable,
        format!("{MAX_CONNECTIONS} connections are open to this daemon already"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_and_root_may_use_a_daemon() {
        assert!(may_use(1000, 1000));
        assert!(may_use(0, 1000));
        assert!(!may_use(1001, 1000));
        assert!(!may_use(1000, 0));
    }
}
