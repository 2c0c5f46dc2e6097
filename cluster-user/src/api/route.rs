//! Routes: from a method, a path and a body to a decoded request, and from its lines to an answer.

use std::{borrow::Cow, time::Duration};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{FromRef, Request as Incoming, State},
    http::{HeaderMap, HeaderValue, StatusCode},
    middleware,
    response::Response,
    routing::{get, post},
};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use super::{
    VERSION_HEADER, answer,
    board::Board,
    desk::Desk,
    exporter::Exporter,
    look::{self, Look},
    message::{
        AppsRequest, Detail, EventsRequest, ExportRequest, Failure, HandOverRequest, KillRequest,
        Line, PolicyRequest, Reason, ReloadRequest, Request, ScaleRequest, SendRequest,
        SignalRequest, StartRequest, TargetsRequest, UpgradeRequest, VERSION,
    },
    telemetry::{self, Readers},
    validate,
};
use crate::config::metrics;

/// Largest body: the largest specification the kernel would execute, several times over.
const MAX_BODY: usize = 8 << 20;
/// The answer to more.
const TOO_LARGE: (StatusCode, &str) =
    (StatusCode::PAYLOAD_TOO_LARGE, "the request is larger than 8 MiB");
/// From the end of the head to the end of the body.
const BODY_TIMEOUT: Duration = Duration::from_secs(30);

/// Every route, for one peer.
pub(super) fn routes(room: Room) -> Router {
    let router = Router::new()
        .route("/v1/apps", get(apps))
        .route("/v1/ping", get(ping))
        .route("/v1/events", get(events))
        .route("/v1/telemetry", get(telemetry::once))
        .route("/v1/telemetry/stream", get(telemetry::stream))
        .route("/v1/readiness", get(readiness))
        .route("/v1/metrics", get(exporter).post(export))
        .merge(look::routes())
        .route("/v1/send", post(send))
        .route("/v1/start", post(start))
        .route("/v1/stop", post(|to, body| targets(to, body, Request::Stop)))
        .route("/v1/restart", post(|to, body| targets(to, body, Request::Restart)))
        .route("/v1/reload", post(reload))
        .route("/v1/promote", post(|to, body| targets(to, body, Request::Promote)))
        .route("/v1/rollback", post(|to, body| targets(to, body, Request::Rollback)))
        .route("/v1/delete", post(|to, body| targets(to, body, Request::Delete)))
        .route("/v1/flush", post(|to, body| targets(to, body, Request::Flush)))
        .route("/v1/reopen", post(reopen))
        .route("/v1/reset", post(|to, body| targets(to, body, Request::Reset)))
        .route("/v1/scale", post(scale))
        .route("/v1/policy", post(policy))
        .route("/v1/signal", post(signal))
        .route("/v1/upgrade", post(upgrade))
        .route("/v1/handover", post(hand_over))
        .route("/v1/kill", post(kill))
        .fallback(async |request: Incoming| {
            let path: String = request.uri().path().chars().take(80).collect();
            refused(Reason::NotFound, format!("there is no `{path}`"))
        })
        .method_not_allowed_fallback(async |request: Incoming| {
            let message = format!("method {} is not for this path", request.method());
            answer::failed(
                StatusCode::METHOD_NOT_ALLOWED,
                Failure::new(Reason::BadRequest, message).hint("GET for nouns, POST for verbs"),
            )
        })
        .with_state(room);
    finish(router)
}

/// Answers everything with one failure.
pub(super) fn refusing(failure: Failure) -> Router {
    finish(Router::new().fallback(async move || answer::one(&Line::Failed(failure))))
}

fn finish(router: Router) -> Router {
    router
        .layer(middleware::from_fn(async |request: Incoming, next: middleware::Next| {
            match other_version(request.headers()) {
                Some(failure) => answer::one(&Line::Failed(failure)),
                None => next.run(request).await,
            }
        }))
        .layer(middleware::map_response(async |mut response: Response| {
            response.headers_mut().insert(VERSION_HEADER, HeaderValue::from(VERSION));
            response
        }))
}

/// What routes need, each its own.
#[derive(Clone)]
pub(super) struct Room {
    desk: Desk,
    board: Board,
    readers: Readers,
    exporter: Exporter,
}

impl Room {
    pub(super) fn new(desk: Desk, board: Board, readers: Readers, exporter: Exporter) -> Self {
        Self { desk, board, readers, exporter }
    }
}

impl FromRef<Room> for Desk {
    fn from_ref(room: &Room) -> Self {
        room.desk.clone()
    }
}

impl FromRef<Room> for Board {
    fn from_ref(room: &Room) -> Self {
        room.board.clone()
    }
}

impl FromRef<Room> for Readers {
    fn from_ref(room: &Room) -> Self {
        room.readers.clone()
    }
}

impl FromRef<Room> for Exporter {
    fn from_ref(room: &Room) -> Self {
        room.exporter.clone()
    }
}

impl FromRef<Room> for Look {
    fn from_ref(room: &Room) -> Self {
        Self::of_owner(room.desk.clone())
    }
}

async fn apps(State(desk): State<Desk>, request: Incoming) -> Response {
    let mut asked = AppsRequest::default();
    for (key, value) in form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
    {
        match (key, value) {
            (Cow::Borrowed("target"), value) => asked.targets.push(value.into_owned()),
            (Cow::Borrowed("detail"), Cow::Borrowed("connections")) => {
                asked.detail = Detail::Connections;
            }
            (Cow::Borrowed("detail"), Cow::Borrowed("history")) => {
                asked.detail = Detail::History;
            }
            (Cow::Borrowed("detail"), value) => {
                let value: String = value.escape_debug().take(40).collect();
                return refused(Reason::BadRequest, format!("unknown detail `{value}`"));
            }
            (key, _) => {
                let key: String = key.escape_debug().take(40).collect();
                return refused(Reason::BadRequest, format!("unknown parameter `{key}`"));
            }
        }
    }
    desk.noun(Request::Apps(asked)).await
}

async fn events(State(board): State<Board>, request: Incoming) -> Response {
    let mut asked = EventsRequest { targets: Vec::new(), last: None, since_ms: 0, follow: true };
    for (key, value) in form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
    {
        let known = match key.as_ref() {
            "target" => {
                asked.targets.push(value.to_string());
                true
            }
            "last" => value.parse().map(|last| asked.last = Some(last)).is_ok(),
            "since" => value.parse().map(|since| asked.since_ms = since).is_ok(),
            "follow" => value.parse().map(|follow| asked.follow = follow).is_ok(),
            _ => {
                let key: String = key.escape_debug().take(40).collect();
                return refused(Reason::BadRequest, format!("unknown parameter `{key}`"));
            }
        };
        if !known {
            let value: String = value.escape_debug().take(40).collect();
            return refused(Reason::BadRequest, format!("`{value}` makes no sense as `{key}`"));
        }
    }
    match board.read(&asked) {
        Ok(lines) => answer::events(lines),
        Err(failure) => answer::one(&Line::Failed(failure)),
    }
}

async fn send(State(desk): State<Desk>, body: Body) -> Response {
    match decode::<SendRequest>(body).await {
        Ok(request) if request.targets.is_empty() => {
            let failure =
                Failure::new(Reason::BadRequest, "targets is empty").hint("`all` means every app");
            answer::one(&Line::Failed(failure))
        }
        Ok(request) => desk.verb(Request::Send(request)).await,
        Err(response) => response,
    }
}

async fn readiness(State(desk): State<Desk>) -> Response {
    desk.noun(Request::Readiness).await
}

async fn exporter(State(exporter): State<Exporter>) -> Response {
    answer::one(&Line::Exporter(exporter.view()))
}

async fn export(State(exporter): State<Exporter>, body: Body) -> Response {
    let request: ExportRequest = match decode(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    let address = match metrics::parse(&request.listen) {
        Ok(address) => address,
        Err(message) => return refused(Reason::BadRequest, message),
    };
    answer::one(&exporter.listen(address).map_or_else(Line::Failed, Line::Exporter))
}

async fn ping(State(desk): State<Desk>) -> Response {
    desk.noun(Request::Ping).await
}

async fn start(State(desk): State<Desk>, body: Body) -> Response {
    let request: StartRequest = match decode(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    if let Err(message) = validate::spec(&request.spec) {
        return refused(Reason::BadRequest, format!("spec: {message}"));
    }
    desk.verb(Request::Start(Box::new(request))).await
}

async fn reopen(State(desk): State<Desk>) -> Response {
    desk.verb(Request::Reopen).await
}

async fn targets(
    State(desk): State<Desk>,
    body: Body,
    verb: impl FnOnce(TargetsRequest) -> Request,
) -> Response {
    let request: TargetsRequest = match decode(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    if request.targets.is_empty() {
        let failure =
            Failure::new(Reason::BadRequest, "targets is empty").hint("`all` means every app");
        return answer::one(&Line::Failed(failure));
    }
    desk.verb(verb(request)).await
}

async fn reload(State(desk): State<Desk>, body: Body) -> Response {
    let request: ReloadRequest = match decode(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    if let Err(message) = validate::reload(&request) {
        return refused(Reason::BadRequest, message);
    }
    desk.verb(Request::Reload(Box::new(request))).await
}

async fn scale(State(desk): State<Desk>, body: Body) -> Response {
    let request: ScaleRequest = match decode(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    if let Err(message) = validate::scale(request.to) {
        return refused(Reason::BadRequest, message);
    }
    desk.verb(Request::Scale(request)).await
}

async fn policy(State(desk): State<Desk>, body: Body) -> Response {
    match decode::<PolicyRequest>(body).await {
        Ok(request) if request.targets.is_empty() => {
            let failure =
                Failure::new(Reason::BadRequest, "targets is empty").hint("`all` means every app");
            answer::one(&Line::Failed(failure))
        }
        Ok(request) => desk.verb(Request::Policy(Box::new(request))).await,
        Err(response) => response,
    }
}

async fn signal(State(desk): State<Desk>, body: Body) -> Response {
    let request: SignalRequest = match decode(body).await {
        Ok(request) => request,
        Err(response) => return response,
    };
    if let Err(message) = validate::signal(request.signal) {
        return refused(Reason::BadRequest, message);
    }
    desk.verb(Request::Signal(request)).await
}

async fn upgrade(State(desk): State<Desk>, body: Body) -> Response {
    match decode::<UpgradeRequest>(body).await {
        Ok(request) => desk.verb(Request::Upgrade(request)).await,
        Err(response) => response,
    }
}

async fn hand_over(State(desk): State<Desk>, body: Body) -> Response {
    match decode::<HandOverRequest>(body).await {
        Ok(request) => desk.verb(Request::HandOver(request)).await,
        Err(response) => response,
    }
}

async fn kill(State(desk): State<Desk>, body: Body) -> Response {
    match decode::<KillRequest>(body).await {
        Ok(request) => desk.verb(Request::Kill(request)).await,
        Err(response) => response,
    }
}

async fn decode<T: DeserializeOwned>(body: Body) -> Result<T, Response> {
    let bytes = collect(body).await?;
    // An empty body is the empty object, which is all that `kill` needs.
    let text = if bytes.is_empty() { &b"{}"[..] } else { &bytes };
    let mut json = serde_json::Deserializer::from_slice(text);
    let decoded = serde_path_to_error::deserialize(&mut json).map_err(|error| {
        let place = error.path().to_string();
        let place = if place == "." { String::new() } else { format!(" at `{place}`") };
        format!("malformed request{place}: {}", error.inner())
    });
    let decoded = decoded.and_then(|value| {
        json.end().map(|()| value).map_err(|error| format!("malformed request: {error}"))
    });
    decoded
        .map_err(|message| refused(Reason::BadRequest, message.escape_debug().take(500).collect()))
}

async fn collect(body: Body) -> Result<Bytes, Response> {
    // What is announced to be too large need not be awaited.
    let announced = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let read = timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect());
    let (status, message) = if announced > MAX_BODY {
        TOO_LARGE
    } else {
        match read.await {
            Ok(Ok(collected)) => return Ok(collected.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => TOO_LARGE,
            Ok(Err(_broken)) => (StatusCode::BAD_REQUEST, "the request breaks off"),
            Err(_elapsed) => (StatusCode::REQUEST_TIMEOUT, "the request took longer than 30 s"),
        }
    };
    Err(answer::failed(status, Failure::new(Reason::BadRequest, message)))
}

/// `curl` and probes send no version; a command of another release does.
fn other_version(headers: &HeaderMap) -> Option<Failure> {
    let sent = headers.get(VERSION_HEADER)?.to_str().unwrap_or("?");
    (sent != VERSION.to_string()).then(|| {
        let sent: String = sent.chars().take(20).collect();
        Failure::new(
            Reason::Conflict,
            format!("this command speaks version {sent}, the daemon version {VERSION}"),
        )
        .hint("use the command that started the daemon, or run `cluster kill` and start anew")
    })
}

fn refused(reason: Reason, message: String) -> Response {
    answer::one(&Line::Failed(Failure::new(reason, message)))
}
