//! Listening Unix sockets that all workers of an app share: made here, because only one process can bind the path.

use std::{
    fs, io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd, RawFd},
        unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _, chown},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, fchmod},
    io::Errno,
    net::{
        AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, getsockname, listen,
        socket_with, sockopt,
    },
    process::{ForeignRawFd, PidfdGetfdFlags, pidfd_getfd},
};

/// A socket to be made.
#[derive(Clone, Copy, Debug)]
pub struct Wanted<'a> {
    /// Where.
    pub path: &'a Path,
    /// Permissions of the path.
    pub mode: u32,
    /// Its owner; the daemon's user when absent.
    pub uid: Option<u32>,
    /// Its group; the daemon's when absent.
    pub gid: Option<u32>,
    /// Connections that wait to be accepted.
    pub backlog: u32,
}

/// A listening socket and its path.
#[derive(Debug)]
pub struct Shared {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode of the path: another may have put its own there.
    file: Option<(u64, u64)>,
}

impl Shared {
    /// Makes a socket. What an earlier one left at its path is removed.
    ///
    /// # Errors
    /// A lowercase fragment: somebody listens there, something else is there, or what the kernel says.
    pub fn open(wanted: &Wanted<'_>) -> Result<Self, String> {
        let shown = wanted.path.display();
        let failed =
            |what: &str, error: io::Error| format!("failed to {what} unix:{shown}: {error}");
        clear(wanted.path)?;
        let address =
            SocketAddrUnix::new(wanted.path).map_err(|error| failed("name", error.into()))?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
            .map_err(|error| failed("make", error.into()))?;
        // The path never has more permissions than it shall have (kernel: `unix_bind_bsd` takes the socket's mode).
        fchmod(&socket, Mode::from_raw_mode(wanted.mode))
            .map_err(|error| failed("set the mode of", error.into()))?;
        bind(&socket, &address).map_err(|error| failed("bind", error.into()))?;
        let shared = Self { file: file_of(wanted.path), path: wanted.path.to_owned(), socket };
        let rest = (|| {
            if wanted.uid.is_some() || wanted.gid.is_some() {
                chown(wanted.path, wanted.uid, wanted.gid)?;
            }
            // The mask of the daemon took some away.
            fs::set_permissions(wanted.path, fs::Permissions::from_mode(wanted.mode))?;
            let backlog = i32::try_from(wanted.backlog).unwrap_or(i32::MAX);
            io::Result::Ok(listen(&shared.socket, backlog)?)
        })();
        match rest {
            Ok(()) => Ok(shared),
            Err(error) => {
                shared.close();
                Err(failed("listen on", error))
            }
        }
    }

    /// Takes the socket from a process that was given it under a number by an earlier daemon.
    pub fn reopen(process: BorrowedFd<'_>, number: RawFd, path: &Path) -> Option<Self> {
        let number: ForeignRawFd = number;
        let socket = pidfd_getfd(process, number, PidfdGetfdFlags::empty()).ok()?;
        // It may have put something else there.
        let address = SocketAddrUnix::try_from(getsockname(&socket).ok()?).ok()?;
        let is_it = address.path_bytes() == Some(path.as_os_str().as_encoded_bytes())
            && sockopt::socket_acceptconn(&socket) == Ok(true);
        is_it.then(|| Self { socket, path: path.to_owned(), file: file_of(path) })
    }

    /// Ends it and removes its path, unless that is another's by now. Workers that have it still can go on accepting what
    /// waits.
    pub fn close(self) {
        if self.file.is_some() && file_of(&self.path) == self.file {
            // Somebody was faster.
            fs::remove_file(&self.path).unwrap_or_default();
        }
    }
}

impl AsFd for Shared {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Makes room for a socket at a path.
fn clear(path: &Path) -> Result<(), String> {
    let shown = path.display();
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(format!("failed to look at {shown}: {error}")),
    };
    if !kind.is_socket() {
        return Err(format!("{shown} is there already, and is no socket"));
    }
    match who_listens(path) {
        Ok(Some(holder)) => Err(format!("unix:{shown} is held by {holder}")),
        Ok(None) => {
            fs::remove_file(path).map_err(|error| format!("failed to remove {shown}: {error}"))
        }
        Err(error) => Err(format!("failed to find out who listens on unix:{shown}: {error}")),
    }
}

/// `pid 7 (nginx)`, if somebody listens there.
fn who_listens(path: &Path) -> io::Result<Option<String>> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => {
            let Ok(peer) = sockopt::socket_peercred(&socket) else {
                return Ok(Some("another process".to_owned()));
            };
            let pid = peer.pid.as_raw_nonzero();
            let command = fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            Ok(Some(format!("pid {pid} ({})", command.trim_end())))
        }
        // More wait than it takes, or it is of another kind.
        Err(Errno::AGAIN | Errno::PROTOTYPE) => Ok(Some("another process".to_owned())),
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn file_of(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path).ok().map(|metadata| (metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::{UnixListener, UnixStream};

    use super::*;

    #[test]
    fn a_socket_has_its_mode_and_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let shared = Shared::open(&wanted(&path)).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        UnixStream::connect(&path).unwrap();
        shared.close();
        assert!(!path.exists());
    }

    #[test]
    fn what_an_earlier_one_left_is_replaced_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        drop(UnixListener::bind(&path).unwrap());
        Shared::open(&wanted(&path)).unwrap().close();

        let other = UnixListener::bind(&path).unwrap();
        let error = Shared::open(&wanted(&path)).unwrap_err();
        assert!(error.contains(&format!("pid {}", std::process::id())), "{error}");
        UnixStream::connect(&path).unwrap();
        drop(other);

        fs::remove_file(&path).unwrap();
        fs::write(&path, "precious").unwrap();
        let error = Shared::open(&wanted(&path)).unwrap_err();
        assert!(error.contains("is no socket"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    }

    #[test]
    fn a_path_that_became_anothers_is_left_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("app.sock");
        let shared = Shared::open(&wanted(&path)).unwrap();
        fs::remove_file(&path).unwrap();
        let _other = UnixListener::bind(&path).unwrap();
        shared.close();
        assert!(path.exists());
    }

    #[test]
    fn a_folder_that_is_missing_is_named() {
        let error = Shared::open(&wanted(Path::new("/no/where/app.sock"))).unwrap_err();
        assert!(error.contains("/no/where/app.sock"), "{error}");
    }

    fn wanted(path: &Path) -> Wanted<'_> {
        Wanted { path, mode: 0o660, uid: None, gid: None, backlog: 16 }
    }
}
