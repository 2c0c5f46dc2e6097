//! Desk: where requests are handed to the supervisor, and its answers come from.

use axum::response::Response;
use tokio::sync::mpsc::{self, UnboundedReceiver};

use super::{
    answer,
    message::{Failure, Line, Reason, Request},
    server::{Call, Peer},
};

/// Where one peer's requests are handed over.
#[derive(Clone, Debug)]
pub(super) struct Desk {
    calls: mpsc::Sender<Call>,
    peer: Peer,
}

impl Desk {
    pub(super) fn new(calls: mpsc::Sender<Call>, peer: Peer) -> Self {
        Self { calls, peer }
    }

    /// Hands over a request and waits for the first line of its answer.
    ///
    /// # Errors
    /// When the daemon is ending.
    pub(super) async fn ask(
        &self,
        request: Request,
    ) -> Result<(Line, UnboundedReceiver<Line>), Failure> {
        let ending = || Failure::new(Reason::Unavailable, "the daemon is ending");
        let (reply, mut lines) = mpsc::unbounded_channel();
        let call = Call { request, peer: self.peer, reply };
        self.calls.send(call).await.map_err(|_closed| ending())?;
        let first = lines.recv().await.ok_or_else(ending)?;
        Ok((first, lines))
    }

    /// Hands over a request that is answered with lines as they come.
    pub(super) async fn verb(&self, request: Request) -> Response {
        match self.ask(request).await {
            Ok((failed @ Line::Failed(_), _)) => answer::one(&failed),
            Ok((first, rest)) => answer::stream(first, rest),
            Err(failure) => answer::one(&Line::Failed(failure)),
        }
    }

    /// Hands over a request that is answered with one line.
    pub(super) async fn noun(&self, request: Request) -> Response {
        let line = self.ask(request).await.map(|(line, _)| line);
        answer::one(&line.unwrap_or_else(Line::Failed))
    }

    /// Waits until nobody takes requests any more.
    pub(super) async fn closed(&self) {
        self.calls.closed().await;
    }
}
