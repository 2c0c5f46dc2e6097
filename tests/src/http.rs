//! HTTP as a plain client speaks it: enough to ask a worker who it is.

use std::{
    collections::BTreeMap,
    io::{self, BufRead as _, BufReader, Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    time::Duration,
};

use socket2::{Domain, Socket, Type};

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(15);

/// `127.0.0.1` and a port.
pub fn local(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// `::1` and a port.
pub fn local6(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0, 0, 0, 0, 1], port))
}

/// One request over a connection of its own; the body of the answer.
///
/// # Errors
/// Whatever kept the answer away.
pub fn try_get(to: SocketAddr) -> io::Result<String> {
    Connection::open(to)?.ask("close")
}

/// One request over a connection of its own; the body of the answer.
#[track_caller]
pub fn get(to: SocketAddr) -> String {
    try_get(to).unwrap_or_else(|error| panic!("GET http://{to}/: {error}"))
}

/// How often each answer was given to `requests` requests, one after the other.
#[track_caller]
pub fn tally(to: SocketAddr, requests: u32) -> BTreeMap<String, u32> {
    let mut answers = BTreeMap::new();
    for _ in 0..requests {
        *answers.entry(get(to)).or_default() += 1;
    }
    answers
}

/// Checks that `requests` requests go to exactly `workers` workers, with a difference of one at most.
#[track_caller]
pub fn assert_exact(to: SocketAddr, requests: u32, workers: u32) {
    let answers = tally(to, requests);
    assert_eq!(answers.len(), workers as usize, "{to}: not every worker was chosen: {answers:#?}");
    assert!(
        spread(&answers) <= 1,
        "{to}: {requests} requests are not spread exactly: {answers:#?}"
    );
}

/// Largest count less smallest.
pub fn spread(counts: &BTreeMap<String, u32>) -> u32 {
    let most = counts.values().max().copied().unwrap_or_default();
    most - counts.values().min().copied().unwrap_or_default()
}

/// A connection that stays open between requests.
#[derive(Debug)]
pub struct Connection {
    host: SocketAddr,
    stream: BufReader<TcpStream>,
    closing: bool,
}

impl Connection {
    /// Connects.
    ///
    /// # Errors
    /// Whatever kept it from connecting.
    pub fn open(to: SocketAddr) -> io::Result<Self> {
        Self::over(TcpStream::connect_timeout(&to, PATIENCE)?, to)
    }

    /// Connects from an address of this host.
    ///
    /// # Errors
    /// Whatever kept it from connecting.
    pub fn open_from(source: IpAddr, to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None)?;
        socket.bind(&SocketAddr::from((source, 0)).into())?;
        socket.connect_timeout(&to.into(), PATIENCE)?;
        Self::over(socket.into(), to)
    }

    fn over(stream: TcpStream, to: SocketAddr) -> io::Result<Self> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { host: to, stream: BufReader::new(stream), closing: false })
    }

    /// Sends a request and reads the answer; the connection can be used again.
    ///
    /// # Errors
    /// Whatever kept the answer away.
    pub fn get(&mut self) -> io::Result<String> {
        self.ask("keep-alive")
    }

    /// Sends a request and does not wait for the answer.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send(&mut self, connection: &str) -> io::Result<()> {
        self.send_to("/", connection)
    }

    /// Sends a request for a path and does not wait for the answer.
    ///
    /// # Errors
    /// When it cannot be sent.
    pub fn send_to(&mut self, path: &str, connection: &str) -> io::Result<()> {
        let host = self.host;
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: {connection}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes())
    }

    /// Reads the answer to a request that was sent: its body.
    ///
    /// # Errors
    /// Whatever kept the answer away, an answer that is no success, or one that breaks off.
    pub fn receive(&mut self) -> io::Result<String> {
        let status = self.line()?;
        if !status.starts_with("HTTP/1.1 200") && !status.starts_with("HTTP/1.0 200") {
            return Err(io::Error::other(format!("answered `{}`", status.trim_end())));
        }
        let mut length = None;
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.trim_end().split_once(": ") {
                Some(("content-length", value)) => length = value.parse::<usize>().ok(),
                Some(("connection", "close")) => self.closing = true,
                Some(_) => {}
                None => break,
            }
        }
        let mut body = Vec::new();
        match length {
            Some(length) => {
                body.resize(length, 0);
                self.stream.read_exact(&mut body)?;
            }
            None => {
                self.stream.read_to_end(&mut body)?;
            }
        }
        Ok(String::from_utf8_lossy(&body).trim_end().to_owned())
    }

    /// Whether the server has said with its last answer that there will be no other.
    pub fn is_closing(&self) -> bool {
        self.closing
    }

    fn ask(&mut self, connection: &str) -> io::Result<String> {
        self.send(connection)?;
        self.receive()
    }

    fn line(&mut self) -> io::Result<String> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(line)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spread_is_the_difference_between_most_and_least() {
        let counts = [("a", 10), ("b", 11), ("c", 9)].map(|(who, n)| (who.to_owned(), n));
        assert_eq!(spread(&counts.into()), 2);
        assert_eq!(spread(&BTreeMap::new()), 0);
    }
}
