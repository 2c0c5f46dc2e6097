//! The daemon's socket and its lock: one daemon per home, however long the home's path.
//!
//! A living daemon holds an exclusive lock on `daemon.lock`, which the kernel releases when it dies. So a
//! socket file without a lock holder was left behind by a killed daemon, and is replaced.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io::{self, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    },
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
};
use tokio::net::{UnixListener, UnixStream};

use crate::config::home::Home;

/// Longest path of a socket (unix(7): 108 bytes with the NUL).
const LONGEST: usize = 107;

/// Held by the one daemon of a home for as long as it lives.
#[derive(Debug)]
pub struct Lock {
    file: Flock<File>,
}

/// Why a home could not be locked.
#[derive(Debug)]
pub enum LockError {
    /// Another daemon has it.
    Held,
    /// The file cannot be opened or locked.
    Failed(io::Error),
}

impl fmt::Display for LockError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Held => f.write_str("another daemon runs already"),
            Self::Failed(error) => write!(f, "failed to lock daemon.lock: {error}"),
        }
    }
}

impl std::error::Error for LockError {}

/// Time in which whoever looks at the lock is done with it.
const LOOK: Duration = Duration::from_secs(1);

impl Lock {
    /// The lock that the supervisor before this one held in the same process.
    pub fn inherit(lock: OwnedFd) -> Result<Self, LockError> {
        // It is the same open file, so it is locked already.
        match Flock::lock(File::from(lock), FlockArg::LockExclusiveNonblock) {
            Ok(locked) => Ok(Self { file: locked }),
            Err((_, Errno::EWOULDBLOCK)) => Err(LockError::Held),
            Err((_, error)) => Err(LockError::Failed(error.into())),
        }
    }

    /// A descriptor of the lock, which is held for as long as one is open.
    ///
    /// # Errors
    /// When descriptors run out.
    pub fn descriptor(&self) -> io::Result<OwnedFd> {
        self.file.as_fd().try_clone_to_owned()
    }

    /// Locks a home without waiting, and leaves this process's pid in the file.
    ///
    /// # Errors
    /// [`LockError`].
    pub fn acquire(home: &Home) -> Result<Self, LockError> {
        let mut file = open(home).map_err(LockError::Failed)?;
        let until = Instant::now() + LOOK;
        let mut locked = loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(locked) => break locked,
                // Whoever only looks whether it is held shares it for a moment, and that is no daemon.
                Err((again, Errno::EWOULDBLOCK)) if Instant::now() < until => {
                    if Self::is_held(home) {
                        return Err(LockError::Held);
                    }
                    file = again;
                    thread::yield_now();
                }
                Err((_, Errno::EWOULDBLOCK)) => return Err(LockError::Held),
                Err((_, error)) => return Err(LockError::Failed(error.into())),
            }
        };
        let written = locked.set_len(0).and_then(|()| writeln!(locked, "{}", std::process::id()));
        written.map_err(LockError::Failed)?;
        Ok(Self { file: locked })
    }

    /// Whether a daemon holds the lock of a home.
    pub fn is_held(home: &Home) -> bool {
        OpenOptions::new().read(true).open(home.lock()).is_ok_and(|file| {
            matches!(Flock::lock(file, FlockArg::LockSharedNonblock), Err((_, Errno::EWOULDBLOCK)))
        })
    }
}

fn open(home: &Home) -> io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(home.lock())
}

/// Listens on the socket of a home, mode 0600. The lock proves that nobody else does.
///
/// # Errors
/// What the kernel says, or when something else than a socket is in the way.
pub fn bind(home: &Home, _held: &Lock) -> io::Result<UnixListener> {
    // The socket is made aside and renamed: nobody ever meets it with a mode other than 0600, and a
    // command that waits for it finds it listening.
    let aside = "cluster.sock.new";
    let reach = Reach::of(home, aside)?;
    if let Err(error) = fs::remove_file(&reach.path)
        && error.kind() != io::ErrorKind::NotFound
    {
        return Err(error);
    }
    let listener = UnixListener::bind(&reach.path)?;
    fs::set_permissions(&reach.path, fs::Permissions::from_mode(0o600))?;
    fs::rename(home.path().join(aside), home.socket())?;
    Ok(listener)
}

/// Removes the socket, when the daemon ends.
pub fn unbind(home: &Home, _held: &Lock) {
    // It being gone already is as good.
    drop(fs::remove_file(home.socket()));
}

/// Connects to the daemon of a home.
///
/// # Errors
/// What the kernel says; `NotFound` and `ConnectionRefused` mean that there is no daemon.
pub async fn connect(home: &Home) -> io::Result<UnixStream> {
    UnixStream::connect(&Reach::of(home, Home::SOCKET)?.path).await
}

/// A path that is short enough for a socket address, as long as this lives.
struct Reach {
    path: PathBuf,
    _folder: Option<File>,
}

impl Reach {
    fn of(home: &Home, name: &str) -> io::Result<Self> {
        let path = home.path().join(name);
        if path.as_os_str().len() <= LONGEST {
            return Ok(Self { path, _folder: None });
        }
        let folder = File::open(home.path())?;
        let path = PathBuf::from(format!("/proc/self/fd/{}/{name}", folder.as_raw_fd()));
        Ok(Self { path, _folder: Some(folder) })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn one_daemon_holds_a_home_until_it_ends() {
        let (_folder, home) = home("h");
        assert!(!Lock::is_held(&home));
        let lock = Lock::acquire(&home).unwrap();
        assert!(matches!(Lock::acquire(&home), Err(LockError::Held)));
        assert!(Lock::is_held(&home));
        let pid = fs::read_to_string(home.lock()).unwrap();
        assert_eq!(pid.trim(), std::process::id().to_string());
        drop(lock);
        assert!(!Lock::is_held(&home));
        drop(Lock::acquire(&home).unwrap());
    }

    #[test]
    fn who_only_looks_keeps_no_daemon_from_beginning() {
        let (_folder, home) = home("h");
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        Lock::is_held(&home);
                    }
                });
            }
            let acquired = (0..500).map(|_| Lock::acquire(&home).map(drop)).find(Result::is_err);
            done.store(true, Ordering::Relaxed);
            assert!(acquired.is_none(), "{acquired:?}");
        });
    }

    #[tokio::test]
    async fn a_socket_left_behind_is_replaced_and_a_long_path_works() {
        for name in ["short".to_owned(), "x".repeat(200)] {
            let (_folder, home) = home(&name);
            let lock = Lock::acquire(&home).unwrap();
            drop(bind(&home, &lock).unwrap());
            assert!(connect(&home).await.is_err(), "nobody listens");
            let listener = bind(&home, &lock).unwrap();
            let mode = fs::metadata(home.socket()).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            let (connected, accepted) = tokio::join!(connect(&home), listener.accept());
            connected.unwrap();
            accepted.unwrap();
            unbind(&home, &lock);
            assert!(!home.socket().exists());
        }
    }

    fn home(name: &str) -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join(name)).unwrap();
        home.create().unwrap();
        (folder, home)
    }
}
