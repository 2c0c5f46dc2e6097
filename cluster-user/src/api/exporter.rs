//! Exporter: metrics and probes on a TCP address, for those who cannot reach the daemon's own socket.
//!
//! Nothing else is served there. The address is kept in the daemon's home, so that it outlives upgrades and crashes.

use std::{
    fs,
    io::{self, Write as _},
    net::SocketAddr,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, http::StatusCode};
use nix::unistd::{Gid, Uid};
use serde::{Deserialize, Serialize};
use socket2::{Domain, SockRef, Socket, Type};
use tokio::{
    net::TcpListener,
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{
    desk::Desk,
    guest,
    look::{self, Look},
    message::{ExporterView, Failure, Reason},
    server::{Call, Peer},
};
use crate::config::metrics;

/// Connections that wait to be accepted.
const BACKLOG: i32 = 128;
/// How often an address is tried again that could not be had when the daemon came up.
const RETRY: Duration = Duration::from_secs(5);

/// The exporter: one for a daemon, cheap to copy.
#[derive(Clone, Debug)]
pub struct Exporter(Arc<Mutex<Inner>>);

#[derive(Debug)]
struct Inner {
    file: PathBuf,
    /// Absent when the daemon ends.
    desk: Option<Desk>,
    listen: Option<SocketAddr>,
    failure: Option<String>,
    /// Dropped to have it end.
    running: Option<Running>,
}

/// A listener that is served.
#[derive(Debug)]
struct Running {
    listener: Arc<TcpListener>,
    _stop: oneshot::Sender<()>,
}

/// The file in the home.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    listen: Option<SocketAddr>,
}

impl Exporter {
    /// One that listens nowhere, and keeps its address in `file`.
    pub fn new(file: PathBuf, calls: mpsc::Sender<Call>) -> Self {
        // What it asks for nobody has to answer for.
        let (uid, gid) = (Uid::effective().as_raw(), Gid::effective().as_raw());
        let desk = Some(Desk::new(calls, Peer { pid: None, uid, gid }));
        let (listen, failure, running) = (None, None, None);
        Self(Arc::new(Mutex::new(Inner { file, desk, listen, failure, running })))
    }

    /// Listens where the variable says, or else where it listened last. What does not work is tried again: nothing else is
    /// to wait for it.
    pub fn resume(&self, variable: Option<&str>) {
        let mut inner = self.lock();
        let wanted = match variable.filter(|text| !text.is_empty()) {
            Some(text) => {
                metrics::parse(text).map_err(|error| format!("{}: {error}", metrics::VARIABLE))
            }
            None => read(&inner.file),
        };
        let address = match wanted {
            Ok(Some(address)) => address,
            Ok(None) => return,
            Err(error) => {
                log::error!("metrics are on the daemon's socket only: {error}");
                inner.failure = Some(error);
                return;
            }
        };
        inner.listen = Some(address);
        if let Err(error) = inner.begin(address) {
            let error = failed(address, &error);
            log::error!("{error}; it is tried again every {} s", RETRY.as_secs());
            inner.failure = Some(error);
            let exporter = self.clone();
            tokio::spawn(async move { exporter.retry(address).await });
        }
    }

    async fn retry(&self, address: SocketAddr) {
        loop {
            sleep(RETRY).await;
            let mut inner = self.lock();
            let is_over = inner.listen != Some(address) || inner.running.is_some();
            if is_over || inner.desk.is_none() {
                return;
            }
            if inner.begin(address).is_ok() {
                log::info!("metrics are on {address} now");
                return;
            }
        }
    }

    /// Listens there and nowhere else from now on, or nowhere. Nothing changes when that cannot be.
    ///
    /// # Errors
    /// When the address cannot be had, or the file not be written.
    pub(super) fn listen(&self, address: Option<SocketAddr>) -> Result<ExporterView, Failure> {
        let mut inner = self.lock();
        let keep = |inner: &Inner| {
            write(&inner.file, address).map_err(|error| {
                let message = format!("failed to write {}: {error}", inner.file.display());
                Failure::new(Reason::Failed, message)
                    .hint("nothing has changed; make room on its disk")
            })
        };
        match address {
            None => {
                keep(&inner)?;
                inner.running = None;
            }
            Some(address) if inner.listen == Some(address) && inner.running.is_some() => {
                keep(&inner)?;
            }
            Some(address) => {
                let listener = inner.bind(address).map_err(|error| {
                    let old = inner.listen.filter(|_| inner.running.is_some());
                    let now = old.map_or_else(
                        || "nothing has changed".to_owned(),
                        |old| format!("metrics stay on {old}"),
                    );
                    let message = failed(address, &error);
                    if error.kind() == io::ErrorKind::AddrInUse {
                        let hint = format!("{now}; name another port, or see who has it: ss -ltnp");
                        return Failure::new(Reason::Conflict, message).hint(hint);
                    }
                    Failure::new(Reason::Failed, message).hint(now)
                })?;
                keep(&inner)?;
                inner.serve(listener);
            }
        }
        inner.listen = address;
        inner.failure = None;
        Ok(inner.view())
    }

    /// Where it listens.
    pub(super) fn view(&self) -> ExporterView {
        self.lock().view()
    }

    /// Ends: the next daemon is to have the address.
    pub fn close(&self) {
        let mut inner = self.lock();
        (inner.desk, inner.running) = (None, None);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn view(&self) -> ExporterView {
        ExporterView { listen: self.listen, failure: self.failure.clone() }
    }

    fn begin(&mut self, address: SocketAddr) -> io::Result<()> {
        let listener = bind(address, false)?;
        self.serve(listener);
        self.failure = None;
        Ok(())
    }

    /// Takes an address, also one that only the listener in use is in the way of: from this host to all, and back.
    fn bind(&self, address: SocketAddr) -> io::Result<TcpListener> {
        let free = bind(address, false);
        let old = self.running.as_ref().filter(|_| {
            self.listen.is_some_and(|old| old.port() == address.port() && old != address)
        });
        let (Err(error), Some(old)) = (&free, old) else { return free };
        if error.kind() != io::ErrorKind::AddrInUse {
            return free;
        }
        // Both may have the port when both say so (socket(7)), they and others of this user that say so, too: it is taken
        // back at once. The old one is closed when the new one is served.
        let old = SockRef::from(&*old.listener);
        old.set_reuse_port(true)?;
        let both = bind(address, true);
        old.set_reuse_port(false)?;
        let both = both?;
        SockRef::from(&both).set_reuse_port(false)?;
        Ok(both)
    }

    /// Serves a listener, and no other any more.
    fn serve(&mut self, listener: TcpListener) {
        let Some(desk) = self.desk.clone() else { return };
        let (stop, stopped) = oneshot::channel::<()>();
        let listener = Arc::new(listener);
        self.running = Some(Running { listener: Arc::clone(&listener), _stop: stop });
        tokio::spawn(guest::serve(listener, routes(Look::of_strangers(desk)), stopped));
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

fn failed(address: SocketAddr, error: &io::Error) -> String {
    format!("failed to listen on {address} for metrics: {error}")
}

fn read(file: &Path) -> Result<Option<SocketAddr>, String> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("failed to read {}: {error}", file.display())),
    };
    let kept: Result<Kept, _> = serde_json::from_slice(&text);
    kept.map(|kept| kept.listen)
        .map_err(|error| format!("{} makes no sense: {error}", file.display()))
}

fn write(file: &Path, listen: Option<SocketAddr>) -> io::Result<()> {
    let new = file.with_extension("new");
    let mut options = fs::OpenOptions::new();
    let options = options.write(true).create(true).truncate(true).mode(0o600);
    options.open(&new)?.write_all(&serde_json::to_vec(&Kept { listen })?)?;
    fs::rename(&new, file)
}

fn routes(look: Look) -> Router {
    let other = async || (StatusCode::NOT_FOUND, "there are /metrics, /healthz and /readyz here\n");
    look::routes().fallback(other).with_state(look)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn the_address_is_kept_and_one_in_use_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.json");
        let (calls, _requests) = mpsc::channel(1);
        let exporter = Exporter::new(file.clone(), calls.clone());
        exporter.resume(None);
        assert_eq!(exporter.view(), ExporterView::default());
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        exporter.listen(Some(free)).unwrap();

        let failure = exporter.listen(Some(taken.local_addr().unwrap())).unwrap_err();

        assert_eq!(failure.reason, Reason::Conflict);
        assert!(failure.hint.unwrap().contains(&format!("stay on {free}")));
        assert_eq!(exporter.view().listen, Some(free));
        assert_eq!(read(&file).unwrap(), Some(free));
        exporter.listen(None).unwrap();
        assert_eq!(read(&file).unwrap(), None);
        let next = Exporter::new(file.clone(), calls);
        next.resume(None);
        assert_eq!(next.view(), ExporterView::default());
        fs::write(&file, "{").unwrap();
        next.resume(None);
        assert!(next.view().failure.is_some_and(|failure| failure.contains("makes no sense")));
    }

    #[tokio::test]
    async fn an_address_is_widened_and_narrowed_in_place() {
        let folder = tempfile::tempdir().unwrap();
        let (calls, _requests) = mpsc::channel(1);
        let exporter = Exporter::new(folder.path().join("metrics.json"), calls);
        let own = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let [all, both] = ["0.0.0.0", "[::]"]
            .map(|ip| format!("{ip}:{}", own.port()).parse::<SocketAddr>().unwrap());
        for address in [own, all, own, both, all, own] {
            let view = exporter.listen(Some(address)).unwrap();
            assert_eq!(view.listen, Some(address));
            // The old one is closed by its task.
            tokio::task::yield_now().await;
        }
        assert!(TcpListener::bind(all).is_err(), "nobody else gets it unasked");
        assert!(TcpListener::bind(own).is_err());
    }

    #[tokio::test]
    async fn the_variable_goes_before_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let (calls, _requests) = mpsc::channel(1);
        let taken = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let exporter = Exporter::new(folder.path().join("metrics.json"), calls);
        write(&folder.path().join("metrics.json"), Some(taken)).unwrap();
        exporter.resume(Some(&free.to_string()));
        assert_eq!(exporter.view(), ExporterView { listen: Some(free), failure: None });
        exporter.resume(Some("nonsense"));
        assert!(exporter.view().failure.unwrap().contains("CLUSTER_METRICS"));
    }
}
