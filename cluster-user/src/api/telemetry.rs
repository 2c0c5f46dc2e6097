//! What is counted, again and again, for as long as somebody reads.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::{Request as Incoming, State},
    response::Response,
};
use tokio::{
    select,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{MissedTickBehavior, interval},
};

use super::{
    answer,
    desk::Desk,
    message::{Failure, Line, Reason, Request, TelemetryRequest},
};
use crate::config::duration;

/// So many read at a time.
const READERS: usize = 16;
/// How often, unless it is said otherwise.
const USUAL: Duration = Duration::from_secs(1);
/// Most often: every look asks the kernel about all connections.
const SHORTEST: Duration = Duration::from_millis(100);
/// Least often: who wants it more seldom can ask again.
const LONGEST: Duration = Duration::from_hours(1);

/// Those who read. Without any nothing is done.
#[derive(Clone, Debug)]
pub(super) struct Readers(Arc<Semaphore>);

impl Default for Readers {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(READERS)))
    }
}

/// `GET /v1/telemetry`
pub(super) async fn once(State(desk): State<Desk>, request: Incoming) -> Response {
    match asked(request.uri().query()) {
        Ok((asked, None)) => desk.noun(Request::Telemetry(asked)).await,
        Ok((_, Some(_))) => {
            let failure = Failure::new(Reason::BadRequest, "every makes a stream");
            answer::one(&Line::Failed(failure.hint("GET /v1/telemetry/stream?every=1s")))
        }
        Err(failure) => answer::one(&Line::Failed(failure)),
    }
}

/// `GET /v1/telemetry/stream`
pub(super) async fn stream(
    State(desk): State<Desk>,
    State(readers): State<Readers>,
    request: Incoming,
) -> Response {
    match begin(desk, readers, request.uri().query()).await {
        Ok(lines) => answer::events(lines),
        Err(failure) => answer::one(&Line::Failed(failure)),
    }
}

async fn begin(
    desk: Desk,
    readers: Readers,
    query: Option<&str>,
) -> Result<mpsc::Receiver<Line>, Failure> {
    let (asked, every) = asked(query)?;
    let permit = readers.0.try_acquire_owned().map_err(|_full| {
        let message = format!("{READERS} readers follow the telemetry already");
        Failure::new(Reason::Unavailable, message).hint("end some of them")
    })?;
    let (first, _) = desk.ask(Request::Telemetry(asked.clone())).await?;
    if let Line::Failed(failure) = first {
        return Err(failure);
    }
    let (sender, lines) = mpsc::channel(1);
    tokio::spawn(hand_on(first, desk, asked, every.unwrap_or(USUAL), sender, permit));
    Ok(lines)
}

async fn hand_on(
    first: Line,
    desk: Desk,
    asked: TelemetryRequest,
    every: Duration,
    sender: mpsc::Sender<Line>,
    _permit: OwnedSemaphorePermit,
) {
    let mut ticks = interval(every);
    // Who reads slowly gets what is true then, and not what was true before.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    ticks.tick().await;
    let mut line = first;
    loop {
        let is_last = matches!(line, Line::Failed(_));
        if sender.send(line).await.is_err() || is_last {
            return;
        }
        select! {
            _ = ticks.tick() => {}
            () = sender.closed() => return,
            () = desk.closed() => return,
        }
        line = match desk.ask(Request::Telemetry(asked.clone())).await {
            Ok((line, _)) => line,
            Err(_ending) => return,
        };
    }
}

/// What is asked for, and how often if that is said.
fn asked(query: Option<&str>) -> Result<(TelemetryRequest, Option<Duration>), Failure> {
    let mut asked = TelemetryRequest::default();
    let mut every = None;
    let refused = |message: String| Err(Failure::new(Reason::BadRequest, message));
    for (key, value) in form_urlencoded::parse(query.unwrap_or_default().as_bytes()) {
        let shown = |text: &str| text.escape_debug().take(40).collect::<String>();
        match key.as_ref() {
            "target" => asked.targets.push(value.into_owned()),
            "every" => match duration::parse(&value) {
                Ok(time) if (SHORTEST..=LONGEST).contains(&time) => every = Some(time),
                Ok(_) | Err(_) => {
                    let value = shown(&value);
                    return refused(format!("`{value}` is no time between 100ms and 1h"));
                }
            },
            key => return refused(format!("unknown parameter `{}`", shown(key))),
        }
    }
    Ok((asked, every))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_that_would_hurt_are_refused() {
        let (read, every) = asked(Some("target=web&target=a%20b&every=250ms")).unwrap();
        assert_eq!(read.targets, ["web", "a b"]);
        assert_eq!(every, Some(Duration::from_millis(250)));
        assert_eq!(asked(None).unwrap(), (TelemetryRequest::default(), None));
        for query in ["every=1ms", "every=0", "every=2h", "every=soon", "often=1s"] {
            assert_eq!(asked(Some(query)).unwrap_err().reason, Reason::BadRequest, "{query}");
        }
    }
}
