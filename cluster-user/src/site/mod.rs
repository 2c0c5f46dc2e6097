//! A server of the files in a folder, for `cluster serve`: an app like any other, of one process and little memory.
#![forbid(unsafe_code)]

mod answer;
mod listing;
mod place;
pub mod guard;

use std::{io, net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use axum::{Router, extract::State, http::Request as HttpRequest, response::Response};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    net::TcpListener,
    runtime::Builder,
    select,
    signal::unix::{SignalKind, signal},
    sync::Semaphore,
    time::sleep,
};

use self::{answer::Site, guard::Guard};

/// Connections of a worker at a time: with a buffer each they are what it needs memory for. Others wait in the
/// kernel's queue.
const MAX_CONNECTIONS: usize = 1024;
/// Longest head of a request; hyper wants 8 KiB at least.
const HEAD: usize = 16 << 10;
/// From accepting, or from the answer before, to the end of a request's head.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How long to leave the socket alone after accepting failed, for want of descriptors say.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is served, and to whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// The folder.
    pub folder: PathBuf,
    /// Where to listen.
    pub address: SocketAddr,
    /// Whether what is not there is a page of an application that finds its own way: the homepage.
    pub spa: bool,
    /// The file that is shown for a folder, and for pages with `spa`.
    pub homepage: String,
    /// Whether a folder without that file is shown as a list.
    pub listing: bool,
    /// Whether links may lead out of the folder.
    pub follow: bool,
    /// Who may come in; everybody when absent.
    pub guard: Option<Guard>,
}

/// Serves until SIGTERM or SIGINT, and then what is under way.
///
/// `ready` is called when connections are accepted.
///
/// # Errors
/// When the folder is none, or the address cannot be had.
pub fn run(options: Options, ready: impl FnOnce()) -> io::Result<()> {
    Builder::new_current_thread().enable_all().build()?.block_on(serve(options, ready))
}

async fn serve(options: Options, ready: impl FnOnce()) -> io::Result<()> {
    let address = options.address;
    let site = Arc::new(Site::new(options)?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let listener = TcpListener::bind(address).await?;
    ready();
    let router = Router::new().fallback(handle).with_state(site);
    let graceful = GracefulShutdown::new();
    let room = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let next = async {
            // The semaphore is never closed.
            let permit = Arc::clone(&room).acquire_owned().await.ok()?;
            Some((permit, listener.accept().await))
        };
        let (permit, accepted) = select! {
            biased;
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            Some(next) = next => next,
        };
        let Ok((stream, _)) = accepted else {
            sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD_TIMEOUT)
            .max_buf_size(HEAD)
            .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router.clone()));
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            // A peer that breaks off or sends garbage is no event: hyper has answered it.
            drop(connection.await);
            drop(permit);
        });
    }
    drop(listener);
    // However long that takes: whoever asked it to end knows when it has been long enough.
    graceful.shutdown().await;
    Ok(())
}

async fn handle(State(site): State<Arc<Site>>, request: HttpRequest<axum::body::Body>) -> Response {
    site.answer(request).await
}

#[cfg(test)]
mod tests;
