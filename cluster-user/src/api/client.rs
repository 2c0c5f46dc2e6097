//! The command's end of the socket.

use std::{fmt, io, time::Duration};

use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1::{self, SendRequest},
    header::HOST,
};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use tokio::time::timeout;

use super::{
    VERSION_HEADER,
    message::{Detail, Failure, Line, Request, VERSION},
    socket,
};
use crate::config::home::Home;

/// How long a noun may take; verbs take as long as they take.
const NOUN_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest line of an answer: thousands of workers with large environments.
const MAX_LINE: usize = 1 << 30;

/// A connection to a daemon.
#[derive(Debug)]
pub struct Client(SendRequest<Full<Bytes>>);

/// Why there is no answer.
#[derive(Debug)]
pub enum ClientError {
    /// No daemon runs with this home.
    NoDaemon,
    /// The socket is another user's.
    NotPermitted(Failure),
    /// The daemon is of another release.
    Version {
        /// What the daemon speaks.
        daemon: String,
    },
    /// The daemon refused, or could not carry it out.
    Failed(Failure),
    /// The conversation broke off, or was none.
    Broken(String),
}

impl fmt::Display for ClientError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoDaemon => f.write_str("no daemon is running"),
            Self::NotPermitted(failure) | Self::Failed(failure) => failure.fmt(f),
            Self::Version { daemon } => {
                write!(f, "the daemon speaks version {daemon}, this command version {VERSION}")
            }
            Self::Broken(what) => f.write_str(what),
        }
    }
}

impl std::error::Error for ClientError {}

impl Client {
    /// Connects to the daemon of a home.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn connect(home: &Home) -> Result<Self, ClientError> {
        let stream = socket::connect(home).await.map_err(|error| refused(home, &error))?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| ClientError::Broken(format!("failed to greet the daemon: {error}")))?;
        // Its errors come up in the request, too.
        tokio::spawn(async move { drop(connection.await) });
        Ok(Self(sender))
    }

    /// Sends a request.
    ///
    /// # Errors
    /// [`ClientError`], also when the daemon refuses before any progress.
    pub async fn send(&mut self, request: &Request) -> Result<Answer, ClientError> {
        let timeless = request.is_timeless();
        let request = encode(request)?;
        let noun = request.method() == Method::GET;
        let response = self.0.send_request(request);
        let response = if noun {
            timeout(NOUN_TIMEOUT, response)
                .await
                .map_err(|_elapsed| ClientError::Broken("the daemon does not answer".to_owned()))?
        } else {
            response.await
        };
        let response = response
            .map_err(|error| ClientError::Broken(format!("the daemon broke off: {error}")))?;
        if !timeless {
            check_version(&response)?;
        }
        let status = response.status();
        let mut answer = Answer { body: response.into_body(), read: Vec::new() };
        if status == StatusCode::OK {
            return Ok(answer);
        }
        match answer.next().await? {
            Some(Line::Failed(failure)) if status == StatusCode::FORBIDDEN => {
                Err(ClientError::NotPermitted(failure))
            }
            Some(Line::Failed(failure)) => Err(ClientError::Failed(failure)),
            Some(
                Line::Progress(_)
                | Line::Rolling(_)
                | Line::Notice(_)
                | Line::Done(_)
                | Line::Pong(_)
                | Line::Event(_)
                | Line::Telemetry(_)
                | Line::Readiness(_)
                | Line::Exporter(_),
            )
            | None => Err(ClientError::Broken(format!("the daemon answered with status {status}"))),
        }
    }
}

impl Client {
    /// Reads what is at a path as a whole, as text: for people and for programs of others.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn text(&mut self, path: &str) -> Result<String, ClientError> {
        let request = hyper::Request::builder().uri(path).header(HOST, "cluster");
        let request =
            request.header(VERSION_HEADER, VERSION).body(Full::new(Bytes::new())).map_err(
                |error| ClientError::Broken(format!("failed to write the request: {error}")),
            )?;
        let read = async {
            let response = self.0.send_request(request).await?;
            let (head, body) = response.into_parts();
            Ok::<_, hyper::Error>((head, body.collect().await?.to_bytes()))
        };
        let (head, body) = timeout(NOUN_TIMEOUT, read)
            .await
            .map_err(|_elapsed| ClientError::Broken("the daemon does not answer".to_owned()))?
            .map_err(|error| ClientError::Broken(format!("the daemon broke off: {error}")))?;
        let response = Response::from_parts(head, ());
        check_version(&response)?;
        let text = String::from_utf8_lossy(&body).into_owned();
        if response.status() == StatusCode::OK {
            return Ok(text);
        }
        // An answer of the API says why; one for probes does so in words.
        match serde_json::from_slice(&body) {
            Ok(Line::Failed(failure)) => Err(ClientError::Failed(failure)),
            Ok(_) | Err(_) => Err(ClientError::Broken(text.trim().to_owned())),
        }
    }
}

/// An answer, line by line.
#[derive(Debug)]
pub struct Answer {
    body: Incoming,
    read: Vec<u8>,
}

impl Answer {
    /// The next line; `None` after the last.
    ///
    /// # Errors
    /// When the daemon breaks off or writes what is no line.
    pub async fn next(&mut self) -> Result<Option<Line>, ClientError> {
        let mut searched = 0;
        loop {
            if let Some(at) = self.read[searched..].iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=searched + at).collect();
                return decode(&line).map(Some);
            }
            searched = self.read.len();
            if searched > MAX_LINE {
                return Err(ClientError::Broken("the daemon's answer does not end".to_owned()));
            }
            match self.body.frame().await {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        self.read.extend_from_slice(data);
                    }
                }
                Some(Err(error)) => {
                    return Err(ClientError::Broken(format!("the daemon broke off: {error}")));
                }
                None if self.read.is_empty() => return Ok(None),
                None => return decode(&std::mem::take(&mut self.read)).map(Some),
            }
        }
    }
}

fn decode(line: &[u8]) -> Result<Line, ClientError> {
    serde_json::from_slice(line).map_err(|error| {
        ClientError::Broken(format!("the daemon's answer makes no sense: {error}"))
    })
}

fn encode(request: &Request) -> Result<hyper::Request<Full<Bytes>>, ClientError> {
    let (method, query, body) = match request {
        Request::Start(start) => (Method::POST, String::new(), json(start)?),
        Request::Stop(targets)
        | Request::Restart(targets)
        | Request::Promote(targets)
        | Request::Rollback(targets)
        | Request::Delete(targets)
        | Request::Flush(targets)
        | Request::Reset(targets) => (Method::POST, String::new(), json(targets)?),
        Request::Reload(reload) => (Method::POST, String::new(), json(reload)?),
        Request::Scale(scale) => (Method::POST, String::new(), json(scale)?),
        Request::Policy(policy) => (Method::POST, String::new(), json(policy)?),
        Request::Signal(signal) => (Method::POST, String::new(), json(signal)?),
        Request::Upgrade(upgrade) => (Method::POST, String::new(), json(upgrade)?),
        Request::HandOver(hand_over) => (Method::POST, String::new(), json(hand_over)?),
        Request::Kill(kill) => (Method::POST, String::new(), json(kill)?),
        Request::Apps(asked) => {
            let mut query = form_urlencoded::Serializer::new(String::new());
            for target in &asked.targets {
                query.append_pair("target", target);
            }
            match asked.detail {
                Detail::Usual => {}
                Detail::Connections => drop(query.append_pair("detail", "connections")),
                Detail::History => drop(query.append_pair("detail", "history")),
            }
            let query = query.finish();
            let mark = if query.is_empty() { "" } else { "?" };
            (Method::GET, format!("{mark}{query}"), Bytes::new())
        }
        Request::Reopen => (Method::POST, String::new(), Bytes::new()),
        Request::Send(send) => (Method::POST, String::new(), json(send)?),
        Request::Events(asked) => {
            let mut query = form_urlencoded::Serializer::new(String::from("?"));
            for target in &asked.targets {
                query.append_pair("target", target);
            }
            if let Some(last) = asked.last {
                query.append_pair("last", &last.to_string());
            }
            query.append_pair("since", &asked.since_ms.to_string());
            query.append_pair("follow", if asked.follow { "true" } else { "false" });
            (Method::GET, query.finish(), Bytes::new())
        }
        Request::Telemetry(asked) => {
            let mut query = form_urlencoded::Serializer::new(String::from("?"));
            for target in &asked.targets {
                query.append_pair("target", target);
            }
            (Method::GET, query.finish(), Bytes::new())
        }
        Request::Export(export) => (Method::POST, String::new(), json(export)?),
        Request::Readiness | Request::Exporter | Request::Ping => {
            (Method::GET, String::new(), Bytes::new())
        }
    };
    let mut builder = hyper::Request::builder()
        .method(method)
        .uri(format!("{}{query}", request.path()))
        .header(HOST, "cluster");
    if !request.is_timeless() {
        builder = builder.header(VERSION_HEADER, VERSION);
    }
    builder
        .body(Full::new(body))
        .map_err(|error| ClientError::Broken(format!("failed to write the request: {error}")))
}

fn json<T: Serialize>(value: &T) -> Result<Bytes, ClientError> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| ClientError::Broken(format!("failed to write the request: {error}")))
}

fn check_version<T>(response: &Response<T>) -> Result<(), ClientError> {
    let sent = response.headers().get(VERSION_HEADER);
    let daemon = sent.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    match daemon {
        Some(daemon) if daemon == VERSION.to_string() => Ok(()),
        Some(daemon) => Err(ClientError::Version { daemon }),
        None => Err(ClientError::Broken("what answers on the socket is no daemon".to_owned())),
    }
}

fn refused(home: &Home, error: &io::Error) -> ClientError {
    use io::ErrorKind::{ConnectionRefused, NotADirectory, NotFound, PermissionDenied};

    let path = home.path().display();
    let kind = error.kind();
    if [NotFound, ConnectionRefused, NotADirectory].contains(&kind) {
        return ClientError::NoDaemon;
    }
    let message = format!("failed to reach the daemon of `{path}`: {error}");
    if kind == PermissionDenied {
        let failure = Failure::new(super::message::Reason::NotPermitted, message);
        return ClientError::NotPermitted(
            failure.hint("use sudo, or a daemon of your own with CLUSTER_HOME"),
        );
    }
    ClientError::Broken(message)
}
