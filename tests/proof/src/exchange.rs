//! Exchange: one request over one connection, and its answer checked to the last byte.

use std::io;

use crate::{
    chunks::Chunks,
    connection::{Connection, Idle},
    failure::{Cause, Phase},
    head::{self, Framing, Head},
    request::{Kind, Request},
};

/// How far an exchange has come; outlives one that is given up.
#[derive(Debug)]
pub(crate) struct Trace {
    /// In this phase.
    pub(crate) phase: Phase,
    /// Bytes of the request that were taken.
    pub(crate) sent: usize,
    /// Bytes of the answer that have come.
    pub(crate) received: usize,
}

/// Why an exchange ended before its end.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) cause: Cause,
    pub(crate) errno: Option<i32>,
}

/// Sends the request, takes the answer; whether the connection can be used again.
pub(crate) async fn exchange(
    request: &Request,
    connection: &mut Connection,
    trace: &mut Trace,
) -> Result<bool, Broken> {
    trace.phase = Phase::Send;
    send(request, connection, trace).await?;
    trace.phase = Phase::Head;
    let head = receive_head(request, connection, trace).await?;
    trace.phase = Phase::Body;
    receive_body(request, &head.framing, connection, trace).await?;
    trace.phase = Phase::After;
    connection.answers += 1;
    match connection.look() {
        Idle::Surplus => Err(Cause::Surplus.into()),
        Idle::Open => Ok(head.keeps),
        Idle::Closed | Idle::Reset => Ok(false),
    }
}

async fn send(
    request: &Request,
    connection: &mut Connection,
    trace: &mut Trace,
) -> Result<(), Broken> {
    let bytes = request.bytes();
    let turns = match request.kind {
        Kind::SlowSender => request.turns as usize,
        Kind::Kept
        | Kind::Fresh
        | Kind::Large
        | Kind::Chunked
        | Kind::Echo
        | Kind::Late
        | Kind::SlowReader => 1,
    };
    for (turn, part) in bytes.chunks(bytes.len().div_ceil(turns)).enumerate() {
        if turn > 0 {
            tokio::time::sleep(request.rest).await;
        }
        let mut rest = part;
        while !rest.is_empty() {
            let taken = connection.send(rest).await?;
            trace.sent += taken;
            rest = &rest[taken..];
        }
    }
    Ok(())
}

async fn receive_head(
    request: &Request,
    connection: &mut Connection,
    trace: &mut Trace,
) -> Result<Head, Broken> {
    let end = loop {
        if let Some(end) = head::end(connection.buffered()) {
            break end;
        }
        if connection.buffered().len() > head::LIMIT {
            return Err(Cause::Wrong("its head does not end".to_owned()).into());
        }
        receive(connection, trace).await?;
    };
    let head = Head::parse(&connection.buffered()[..end])?;
    connection.consume(end);
    if head.pid.is_some() {
        connection.worker = head.pid;
    }
    connection.idle_limit = head.idle_limit.map(std::time::Duration::from_secs);
    if head.id != Some(request.id) {
        return Err(Cause::Wrong(format!("it answers request {:?}", head.id)).into());
    }
    let expected =
        if request.pieces > 0 { Framing::Chunked } else { Framing::Length(request.size) };
    if head.framing != expected {
        let what = format!("its body ends by {:?} instead of {expected:?}", head.framing);
        return Err(Cause::Wrong(what).into());
    }
    Ok(head)
}

async fn receive_body(
    request: &Request,
    framing: &Framing,
    connection: &mut Connection,
    trace: &mut Trace,
) -> Result<(), Broken> {
    let (expected, mut at) = (request.expected(), 0);
    let turn = expected.len().div_ceil(request.turns as usize).max(1);
    let mut next_rest = turn;
    let mut chunks = Chunks::default();
    loop {
        let bytes = connection.buffered();
        let taken = match framing {
            Framing::Length(length) => {
                let size = bytes.len().min(length - at);
                compare(expected, &mut at, &bytes[..size])?;
                size
            }
            Framing::Chunked => chunks.take(bytes, |part| compare(expected, &mut at, part))?,
            Framing::UntilClosed => return Err(Cause::Wrong("it has no length".to_owned()).into()),
        };
        connection.consume(taken);
        let is_done = match framing {
            Framing::Length(length) => at == *length,
            Framing::Chunked => chunks.is_done(),
            Framing::UntilClosed => true,
        };
        if is_done && at == expected.len() {
            return Ok(());
        }
        if is_done {
            return Err(Cause::Wrong(format!("{at} bytes instead of {}", expected.len())).into());
        }
        if request.kind == Kind::SlowReader && at >= next_rest {
            next_rest = at + turn;
            tokio::time::sleep(request.rest).await;
        }
        receive(connection, trace).await?;
    }
}

/// Compares a part of the body with what belongs there.
fn compare(expected: &[u8], at: &mut usize, part: &[u8]) -> Result<(), Cause> {
    let due = &expected[(*at).min(expected.len())..(*at + part.len()).min(expected.len())];
    if part != due {
        let same = part.iter().zip(due).take_while(|(came, due)| came == due).count();
        return Err(Cause::WrongByte { at: *at + same });
    }
    *at += part.len();
    Ok(())
}

async fn receive(connection: &mut Connection, trace: &mut Trace) -> Result<(), Broken> {
    match connection.receive().await? {
        0 => Err(Cause::Closed.into()),
        count => {
            trace.received += count;
            Ok(())
        }
    }
}

impl From<Cause> for Broken {
    fn from(cause: Cause) -> Self {
        Self { cause, errno: None }
    }
}

impl From<io::Error> for Broken {
    fn from(error: io::Error) -> Self {
        Self { cause: Cause::of(&error), errno: error.raw_os_error() }
    }
}
