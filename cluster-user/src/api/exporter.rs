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
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};

use super::{
    desk::Desk,
    door::{self, Door},
    guest,
    look::{self, Look},
    message::{ExporterView, Failure, Reason},
    server::{Call, Peer},
};
use crate::config::metrics;

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

/// A door that is served.
#[derive(Debug)]
struct Running {
    door: Arc<Door>,
    _stop: oneshot::Sender<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.door.close();
    }
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
            self.keep_trying(address);
        }
    }

    fn keep_trying(&self, address: SocketAddr) {
        let exporter = self.clone();
        tokio::spawn(async move { exporter.retry(address).await });
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

    /// Listens there and nowhere else from now on, or nowhere. When that cannot be it listens where it did.
    ///
    /// # Errors
    /// When the address cannot be had, or the file not be written.
    pub(super) fn listen(&self, address: Option<SocketAddr>) -> Result<ExporterView, Failure> {
        let mut inner = self.lock();
        let old = inner.listen.filter(|_| inner.running.is_some());
        match address {
            Some(address) if old != Some(address) => {
                let opened = inner.open(address).map_err(|error| {
                    let message = failed(address, &error);
                    if error.kind() == io::ErrorKind::AddrInUse {
                        let hint = "name another port, or see who has it: ss -ltnp";
                        return (Failure::new(Reason::Conflict, message), Some(hint));
                    }
                    (Failure::new(Reason::Failed, message), None)
                });
                // What has been opened is closed again when that cannot be kept.
                match opened.and_then(|door| inner.keep(Some(address)).map(|()| door)) {
                    Ok(door) => inner.serve(door),
                    Err((failure, hint)) => {
                        let now = self.stay(&mut inner, old);
                        let hint =
                            hint.map_or_else(|| now.clone(), |hint| format!("{now}; {hint}"));
                        return Err(failure.hint(hint));
                    }
                }
            }
            Some(_) | None => {
                inner.keep(address).map_err(|(failure, hint)| {
                    let hint = hint.unwrap_or_default();
                    failure.hint(format!("nothing has changed; {hint}"))
                })?;
                if address.is_none() {
                    inner.running = None;
                }
            }
        }
        inner.listen = address;
        inner.failure = None;
        Ok(inner.view())
    }

    /// Goes on where it has listened, and says so.
    fn stay(&self, inner: &mut Inner, old: Option<SocketAddr>) -> String {
        let Some(old) = old else { return "nothing has changed".to_owned() };
        if inner.running.is_none()
            && let Err(error) = inner.begin(old)
        {
            let error = failed(old, &error);
            let now = format!(
                "metrics are no longer served, for the old address is lost too: {error}; it is tried again every {} s",
                RETRY.as_secs()
            );
            log::error!("{now}");
            inner.failure = Some(error);
            self.keep_trying(old);
            return now;
        }
        format!("metrics stay on {old}")
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
        let door = Door::open(address)?;
        self.serve(door);
        self.failure = None;
        Ok(())
    }

    /// Takes an address, also one that only the door in use is in the way of, from this host to all, and back: then that is
    /// closed first, and it is for the caller to open it again.
    ///
    /// That leaves a gap, in which somebody may be refused, or take the port. Both at a time could be had with `SO_REUSEPORT`
    /// only, at the price of sharing the port with whoever asks ever after; see [`Door::open`].
    fn open(&mut self, address: SocketAddr) -> io::Result<Door> {
        let opened = Door::open(address);
        let is_own =
            self.running.is_some() && self.listen.is_some_and(|old| door::overlap(old, address));
        match opened {
            Err(error) if is_own && error.kind() == io::ErrorKind::AddrInUse => {
                self.running = None;
                Door::open(address)
            }
            other => other,
        }
    }

    /// Has the next daemon listen there, too.
    fn keep(&self, address: Option<SocketAddr>) -> Result<(), (Failure, Option<&'static str>)> {
        write(&self.file, address).map_err(|error| {
            let message = format!("failed to write {}: {error}", self.file.display());
            (Failure::new(Reason::Failed, message), Some("make room on its disk"))
        })
    }

    /// Serves at a door, and at no other any more.
    fn serve(&mut self, door: Door) {
        let Some(desk) = self.desk.clone() else { return };
        let (stop, stopped) = oneshot::channel::<()>();
        let door = Arc::new(door);
        self.running = Some(Running { door: Arc::clone(&door), _stop: stop });
        tokio::spawn(guest::serve(door, routes(Look::of_strangers(desk)), stopped));
    }
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
    use std::net::{TcpListener, TcpStream};

    use socket2::{Domain, Socket, Type};

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
            TcpStream::connect(own).unwrap();
            for wanted in [own, all, both] {
                steal(wanted).expect_err("nobody else gets it, not even to share");
            }
        }
    }

    /// Listens there as who would share the port.
    fn steal(address: SocketAddr) -> io::Result<Socket> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(true)?;
        socket.bind(&address.into())?;
        socket.listen(1)?;
        Ok(socket)
    }

    #[tokio::test]
    async fn it_stays_where_it_is_when_it_cannot_be_widened() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("metrics.json");
        let (calls, _requests) = mpsc::channel(1);
        let exporter = Exporter::new(file.clone(), calls);
        let other = TcpListener::bind("127.0.0.2:0").unwrap();
        let port = other.local_addr().unwrap().port();
        let own = SocketAddr::from(([127, 0, 0, 1], port));
        let all = SocketAddr::from(([0, 0, 0, 0], port));
        let stays = |failure: Failure| {
            assert!(failure.hint.unwrap().contains(&format!("stay on {own}")));
            assert_eq!(exporter.view(), ExporterView { listen: Some(own), failure: None });
            TcpStream::connect(own).unwrap();
        };
        exporter.listen(Some(own)).unwrap();

        let failure = exporter.listen(Some(all)).unwrap_err();

        assert_eq!(failure.reason, Reason::Conflict);
        stays(failure);
        assert_eq!(read(&file).unwrap(), Some(own));
        drop(other);
        // Nor when that cannot be kept.
        drop(folder);
        stays(exporter.listen(Some(all)).unwrap_err());
        exporter.lock().running = None;
        let taken = TcpListener::bind(own).unwrap();
        let said = exporter.stay(&mut exporter.lock(), Some(own));
        assert!(said.contains("no longer served"), "{said}");
        assert!(exporter.view().failure.unwrap().contains(&own.to_string()));
        drop(taken);
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
