//! The socket of `NOTIFY_SOCKET`: one for all workers of a daemon.
//!
//! Its name is abstract, so it needs no folder that every user and every chroot can reach, goes with the daemon, and is
//! the same for the daemon after it. The kernel says who speaks (`SO_PASSCRED`); nothing is believed because it was said.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, IoSliceMut},
    mem::MaybeUninit,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags,
    SocketAddrUnix, SocketFlags, SocketType, bind, recvmsg, socket_with, sockopt,
};
use tokio::{
    io::{Interest, unix::AsyncFd},
    sync::mpsc,
    time::sleep,
};

use super::{News, word};

/// Longest datagram that is read; systemd's own limit is `PIPE_BUF` (`sd_notify(3)`).
const LONGEST: usize = 4096;
/// Descriptors that are taken from a datagram, to be closed. The kernel closes what is beyond that.
const PASSED: usize = 4;
/// More from one process in a [`WINDOW`] is not looked at.
const PER_PROCESS: u32 = 100;
/// More in all in a [`WINDOW`], and there is a [`PAUSE`] for each batch of this size: senders then have to wait.
const BATCH: u32 = 256;
const WINDOW: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(5);

/// Who sent a datagram.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sender {
    /// Its process id, which the kernel has checked.
    pub pid: u32,
    /// Its cgroup in the unified hierarchy, as `/proc/PID/cgroup` has it; absent if it has ended.
    pub cgroup: Option<String>,
    /// Value of the variable that marks workers in the environment it was started with, if it has that.
    pub marker: Option<String>,
}

/// The socket.
#[derive(Debug)]
pub struct Listener {
    socket: AsyncFd<OwnedFd>,
    name: String,
    marker: &'static str,
}

impl Listener {
    /// Makes the socket of the daemon with this home. `marker` is the variable that marks workers. To be called inside
    /// a tokio runtime.
    ///
    /// # Errors
    /// `EADDRINUSE` when somebody has taken the name.
    pub fn new(home_id: &str, marker: &'static str) -> io::Result<Self> {
        let name = format!("cluster/{home_id}/notify");
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::UNIX, SocketType::DGRAM, flags, None)?;
        sockopt::set_socket_passcred(&socket, true)?;
        bind(&socket, &SocketAddrUnix::new_abstract_name(name.as_bytes())?)?;
        // SAFETY: an owned descriptor is open, and stays the same one until the `AsyncFd` gives it up.
        let socket = unsafe { AsyncFd::register_with_interest(socket, Interest::READABLE) }?;
        Ok(Self { socket, name, marker })
    }

    /// The value of `NOTIFY_SOCKET`: `@` stands for the zero byte of an abstract name (`sd_notify(3)`).
    pub fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// Hands on what is said, until nobody listens.
    ///
    /// # Errors
    /// When the socket cannot be read.
    pub async fn listen(&self, news: mpsc::Sender<News>) -> io::Result<()> {
        let mut flood = Flood::new();
        loop {
            let mut ready = self.socket.readable().await?;
            let datagram = match receive(self.socket.get_ref()) {
                Ok(datagram) => datagram,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready.clear_ready();
                    continue;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            let Some(Datagram { pid, bytes, passed }) = datagram else { continue };
            if flood.admits(pid, Instant::now()) {
                let words = word::read(&bytes);
                if !words.is_empty() {
                    let sender = Sender::of(pid, self.marker);
                    if news.send(News::Notified { sender, words }).await.is_err() {
                        return Ok(());
                    }
                }
            }
            // Now whoever waits for a barrier knows that what came before it has been heard (sd_notify_barrier(3)).
            drop(passed);
            if flood.is_pressing() {
                sleep(PAUSE).await;
            }
        }
    }
}

impl Sender {
    fn of(pid: u32, marker: &str) -> Self {
        let cgroups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        let cgroup = cgroups.lines().find_map(|line| line.strip_prefix("0::")).map(str::to_owned);
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        let marker = environment.split(|byte| *byte == 0).find_map(|variable| {
            str::from_utf8(variable).ok()?.strip_prefix(marker)?.strip_prefix('=')
        });
        Self { pid, cgroup, marker: marker.map(str::to_owned) }
    }
}

struct Datagram {
    pid: u32,
    bytes: Vec<u8>,
    passed: Vec<OwnedFd>,
}

/// What is there; `None` for one that is too long or of nobody.
fn receive(socket: &OwnedFd) -> io::Result<Option<Datagram>> {
    let mut bytes = vec![0; LONGEST];
    let mut space =
        [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(PASSED), ScmCredentials(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let parts = &mut [IoSliceMut::new(&mut bytes)];
    let received = recvmsg(socket, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    let (mut pid, mut passed) = (None, Vec::new());
    for message in control.drain() {
        match message {
            RecvAncillaryMessage::ScmCredentials(sender) => {
                pid = Some(sender.pid.as_raw_nonzero().get().cast_unsigned());
            }
            RecvAncillaryMessage::ScmRights(descriptors) => passed.extend(descriptors),
            _ => {}
        }
    }
    bytes.truncate(received.bytes);
    let whole = !received.flags.contains(ReturnFlags::TRUNC);
    Ok(pid.filter(|_| whole).map(|pid| Datagram { pid, bytes, passed }))
}

/// Keeps a process that does not stop talking from keeping the daemon from its work.
struct Flood {
    since: Instant,
    heard: BTreeMap<u32, u32>,
    total: u32,
}

impl Flood {
    fn new() -> Self {
        Self { since: Instant::now(), heard: BTreeMap::new(), total: 0 }
    }

    /// Whether a process has not said too much yet.
    fn admits(&mut self, pid: u32, now: Instant) -> bool {
        if now.saturating_duration_since(self.since) > WINDOW {
            (self.since, self.total) = (now, 0);
            self.heard.clear();
        }
        self.total += 1;
        let heard = self.heard.entry(pid).or_default();
        *heard += 1;
        *heard <= PER_PROCESS
    }

    fn is_pressing(&self) -> bool {
        self.total.is_multiple_of(BATCH)
    }
}

#[cfg(test)]
mod tests {
    use std::{
        os::{
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr, UnixDatagram},
        },
        process::{Command, Stdio},
    };

    use tokio::time::timeout;

    use super::{super::word::Word, *};

    const PATIENCE: Duration = Duration::from_secs(10);

    /// What programs written for systemd carry with them.
    const SD_NOTIFY: &str = "
import os, socket, sys
address = os.environ['NOTIFY_SOCKET']
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.connect('\\0' + address[1:] if address[0] == '@' else address)
s.sendall(sys.argv[1].encode())
if len(sys.argv) > 2:
    r, w = os.pipe()
    socket.send_fds(s, [b'BARRIER=1'], [w])
    os.close(w)
    os.read(r, 1)
";

    #[tokio::test]
    async fn a_program_is_heard_with_its_name() {
        let (listener, mut news) = listening("heard");
        let mut child = notify(&listener, &["READY=1\nSTATUS=up", "barrier"]);

        let (sender, words) = next(&mut news).await;

        assert_eq!(words, [Word::Ready, Word::Status("up".to_owned())]);
        assert_eq!(sender.pid, child.id());
        assert_eq!(sender.marker.as_deref(), Some("home:7"));
        let own = fs::read_to_string("/proc/self/cgroup").unwrap();
        assert!(own.contains(&sender.cgroup.unwrap()), "{own}");
        let status = tokio::task::spawn_blocking(move || child.wait()).await.unwrap().unwrap();
        assert!(status.success(), "the barrier was closed");
    }

    #[tokio::test]
    async fn a_flood_is_cut_and_others_are_heard_through_it() {
        let (listener, mut news) = listening("flood");
        let address = address_of(&listener);
        let (stop, stopped) = std::sync::mpsc::channel::<()>();
        let flooding = std::thread::spawn(move || {
            let socket = UnixDatagram::unbound().unwrap();
            let mut sent = 0_u64;
            while stopped.try_recv() == Err(std::sync::mpsc::TryRecvError::Empty) {
                socket.send_to_addr(b"WATCHDOG=1", &address).unwrap();
                sent += 1;
            }
            sent
        });
        let (first, _) = next(&mut news).await;
        assert_eq!(first.pid, std::process::id());
        let mut child = notify(&listener, &["READY=1"]);

        let mut of_flood = 1_u64;
        while next(&mut news).await.0.pid != child.id() {
            of_flood += 1;
        }

        stop.send(()).unwrap();
        // It may be waiting for room, which is made while this waits.
        let sent = tokio::task::spawn_blocking(move || flooding.join().unwrap()).await.unwrap();
        child.wait().unwrap();
        assert!(of_flood < sent || sent <= u64::from(PER_PROCESS), "{of_flood} of {sent}");
    }

    #[tokio::test]
    async fn what_is_too_long_or_empty_does_no_harm() {
        let (listener, mut news) = listening("long");
        let address = address_of(&listener);
        let socket = UnixDatagram::unbound().unwrap();
        socket.send_to_addr(&[b'x'; LONGEST + 1], &address).unwrap();
        socket.send_to_addr(b"", &address).unwrap();
        socket.send_to_addr(b"\xff\xff\0", &address).unwrap();
        socket.send_to_addr(b"STOPPING=1", &address).unwrap();

        assert_eq!(next(&mut news).await.1, [Word::Stopping]);
    }

    #[tokio::test]
    async fn a_name_that_is_taken_is_an_error() {
        let (_listener, _news) = listening("taken");
        let error = Listener::new(&id("taken"), "MARK").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn a_process_is_heard_again_after_a_while() {
        let mut flood = Flood::new();
        let now = Instant::now();
        let admitted = (0..1000).filter(|_| flood.admits(1, now)).count();
        assert_eq!(admitted, PER_PROCESS as usize);
        assert!(flood.admits(2, now), "another process");
        assert!(flood.admits(1, now + WINDOW * 2));
    }

    fn listening(test: &str) -> (std::sync::Arc<Listener>, mpsc::Receiver<News>) {
        let listener = std::sync::Arc::new(Listener::new(&id(test), "MARK").unwrap());
        let (sender, news) = mpsc::channel(16);
        let listens = std::sync::Arc::clone(&listener);
        tokio::spawn(async move { listens.listen(sender).await });
        (listener, news)
    }

    fn id(test: &str) -> String {
        format!("test-{}-{test}", std::process::id())
    }

    fn address_of(listener: &Listener) -> SocketAddr {
        SocketAddr::from_abstract_name(listener.address().strip_prefix('@').unwrap()).unwrap()
    }

    fn notify(listener: &Listener, arguments: &[&str]) -> std::process::Child {
        let mut command = Command::new("/usr/bin/python3");
        command.args(["-I", "-S", "-c", SD_NOTIFY]).args(arguments).stdin(Stdio::null());
        command.env("NOTIFY_SOCKET", listener.address()).env("MARK", "home:7").spawn().unwrap()
    }

    async fn next(news: &mut mpsc::Receiver<News>) -> (Sender, Vec<Word>) {
        match timeout(PATIENCE, news.recv()).await.unwrap().unwrap() {
            News::Notified { sender, words } => (sender, words),
            other @ (News::Spoke { .. } | News::Answered { .. }) => panic!("{other:?}"),
        }
    }
}
