//! Whether log files can be written where they are to be, before anything is started.

use std::{
    fmt,
    fs::{self, OpenOptions},
    io,
    os::unix::fs::{FileTypeExt as _, OpenOptionsExt as _},
    path::Path,
};

use nix::unistd::{AccessFlags, access};

use super::{Origin, Output, service};

/// Why output cannot go where it is to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unusable {
    message: String,
    hint: &'static str,
}

impl Unusable {
    /// The next step.
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

impl fmt::Display for Unusable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Unusable {}

impl Output {
    /// Finds out whether what `origin` writes could be written, and makes folders that are missing.
    ///
    /// # Errors
    /// The first place that cannot be written.
    pub fn check(&self, origin: &Origin<'_>) -> Result<(), Unusable> {
        for file in self.files(origin).all() {
            check(&file).map_err(|(why, hint)| Unusable {
                message: format!("log file `{}` {why}", shown(&file)),
                hint,
            })?;
        }
        if let Some(service) = origin.logs.service.filter(|_| !origin.logs.disabled) {
            let place = service::place(service);
            let there = fs::metadata(place).is_ok_and(|metadata| metadata.file_type().is_socket());
            if !there {
                return Err(Unusable {
                    message: format!("no log service listens at `{place}`"),
                    hint: "start it, or leave --log-to out: output goes to files then",
                });
            }
        }
        Ok(())
    }
}

const ELSEWHERE: &str = "name another file, or /dev/null for none";

fn check(file: &Path) -> Result<(), (String, &'static str)> {
    let said = |error: io::Error| (format!("cannot be written: {error}"), ELSEWHERE);
    match fs::metadata(file) {
        Ok(metadata) => {
            let kind = metadata.file_type();
            if kind.is_dir() {
                return Err(("is a folder".to_owned(), "name a file in it"));
            }
            if kind.is_socket() || kind.is_block_device() {
                return Err(("is no file that lines can be written to".to_owned(), ELSEWHERE));
            }
            let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
            match OpenOptions::new().write(true).custom_flags(flags).open(file) {
                // A pipe that nobody reads now.
                Err(error) if error.raw_os_error() == Some(libc::ENXIO) && kind.is_fifo() => Ok(()),
                opened => opened.map(drop).map_err(said),
            }
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let folder = file.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(folder).map_err(|error| {
                (format!("has no folder, and it cannot be made: {error}"), ELSEWHERE)
            })?;
            access(folder, AccessFlags::W_OK | AccessFlags::X_OK)
                .map_err(|errno| said(errno.into()))
        }
        Err(error) => Err(said(error)),
    }
}

fn shown(path: &Path) -> String {
    path.to_string_lossy().escape_debug().take(200).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_written_is_said_and_what_is_missing_is_made() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        check(&path("a/b/c.log")).unwrap();
        assert!(path("a/b").is_dir() && !path("a/b/c.log").exists());
        assert_eq!(check(&path("a")).unwrap_err().0, "is a folder");
        fs::write(path("file"), "kept").unwrap();
        check(&path("file")).unwrap();
        assert_eq!(fs::read(path("file")).unwrap(), b"kept");
        assert!(check(&path("file/x.log")).unwrap_err().0.contains("cannot be"));
        nix::unistd::mkfifo(&path("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        check(&path("fifo")).unwrap();
        let _socket = std::os::unix::net::UnixDatagram::bind(path("socket")).unwrap();
        assert!(check(&path("socket")).unwrap_err().0.contains("no file"));
        check(Path::new("/dev/null")).unwrap();
    }
}
