//! Answers: one line as a whole, or lines as they come.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderValue, StatusCode, header::CONTENT_TYPE},
    response::Response,
};
use hyper::body::Frame;
use tokio::sync::mpsc::{Receiver, UnboundedReceiver};

use super::message::{Failure, Line, Reason};

const ONE: HeaderValue = HeaderValue::from_static("application/json");
const STREAM: HeaderValue = HeaderValue::from_static("application/x-ndjson");

/// One line and a status that fits it.
pub(super) fn one(line: &Line) -> Response {
    let status = match line {
        Line::Failed(failure) => status(failure.reason),
        Line::Progress(_)
        | Line::Rolling(_)
        | Line::Notice(_)
        | Line::Done(_)
        | Line::Pong(_)
        | Line::Event(_)
        | Line::Telemetry(_)
        | Line::Readiness(_)
        | Line::Exporter(_) => StatusCode::OK,
    };
    with(status, ONE, Body::from(json(line)))
}

/// A failure, with a status of its own where HTTP has a better one than its reason's.
pub(super) fn failed(status: StatusCode, failure: Failure) -> Response {
    with(status, ONE, Body::from(json(&Line::Failed(failure))))
}

/// `first` and all that follow.
pub(super) fn stream(first: Line, rest: UnboundedReceiver<Line>) -> Response {
    with(StatusCode::OK, STREAM, Body::new(Lines { first: Some(first), rest: Some(rest) }))
}

/// Events, as they come and as fast as they are read.
pub(super) fn events(lines: Receiver<Line>) -> Response {
    with(StatusCode::OK, STREAM, Body::new(Events(lines)))
}

/// Status of a failure that came before any progress.
pub(super) fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::BadRequest => StatusCode::BAD_REQUEST,
        Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::Conflict => StatusCode::CONFLICT,
        Reason::Failed | Reason::Unschedulable => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::NotPermitted => StatusCode::FORBIDDEN,
        Reason::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Reason::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
    }
}

fn with(status: StatusCode, content: HeaderValue, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, content);
    response
}

fn json(line: &Line) -> Bytes {
    let mut text = serde_json::to_vec(line).unwrap_or_else(|error| {
        // A path that is no UTF-8 text, for one.
        let failure = Failure::new(Reason::Failed, format!("failed to write an answer: {error}"));
        serde_json::to_vec(&Line::Failed(failure)).unwrap_or_default()
    });
    text.push(b'\n');
    text.into()
}

/// Lines as they come, each in a frame of its own, so that none waits for the next.
struct Lines {
    first: Option<Line>,
    rest: Option<UnboundedReceiver<Line>>,
}

impl hyper::body::Body for Lines {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let line = match self.first.take() {
            Some(first) => Some(first),
            None => match &mut self.rest {
                Some(rest) => match rest.poll_recv(context) {
                    Poll::Ready(line) => line,
                    Poll::Pending => return Poll::Pending,
                },
                None => None,
            },
        };
        if matches!(line, None | Some(Line::Done(_) | Line::Failed(_) | Line::Pong(_))) {
            // Nothing follows the last line, even if the supervisor keeps its end.
            self.rest = None;
        }
        Poll::Ready(line.map(|line| Ok(Frame::data(json(&line)))))
    }
}

/// Events, each in a frame of its own.
struct Events(Receiver<Line>);

impl hyper::body::Body for Events {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|line| line.map(|line| Ok(Frame::data(json(&line)))))
    }
}
