//! The daemon's socket as any HTTP client would use it, and as a bad one would.

use std::{
    io::{self, Read as _, Write as _},
    net::Shutdown,
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

pub use cluster_proof::leftover::sockets;

/// Longest wait for an answer, or for the daemon to hang up.
const PATIENCE: Duration = Duration::from_secs(15);

/// The daemon's socket: the only one in its home.
#[track_caller]
pub fn socket(home: &Path) -> PathBuf {
    let mut found = sockets(home);
    assert_eq!(found.len(), 1, "a running daemon has one socket: {found:?}");
    found.remove(0)
}

/// Sends bytes as they are and reads until the daemon hangs up.
///
/// # Errors
/// When it cannot be reached or does not hang up in time. A daemon may hang up before it has read all.
pub fn exchange(socket: &Path, request: &[u8]) -> io::Result<String> {
    let mut stream = connect(socket)?;
    let sent = stream.write_all(request);
    answer(stream, sent)
}

/// Sends bytes that are no request, says that there are no more, and reads until the daemon hangs up.
///
/// # Errors
/// As [`exchange`].
pub fn throw(socket: &Path, garbage: &[u8]) -> io::Result<String> {
    let mut stream = connect(socket)?;
    let sent = stream.write_all(garbage).and_then(|()| stream.shutdown(Shutdown::Write));
    answer(stream, sent)
}

fn connect(socket: &Path) -> io::Result<UnixStream> {
    let stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

fn answer(mut stream: UnixStream, sent: io::Result<()>) -> io::Result<String> {
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error),
    }
    if answer.is_empty() {
        sent?;
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// A request in due form, with a body of JSON.
pub fn request(method: &str, path: &str, body: &str) -> Vec<u8> {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: cluster\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// The status code of an answer.
#[track_caller]
pub fn status(answer: &str) -> u16 {
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok());
    code.unwrap_or_else(|| panic!("no HTTP answer: `{answer}`"))
}
