//! What probes and Prometheus ask for, in their words: `/metrics`, `/healthz`, `/readyz`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Router,
    extract::{FromRef, Request as Incoming, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
    routing::get,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};

use super::{
    answer,
    desk::Desk,
    message::{AppReadiness, Line, Readiness, Reason, Request, Status, TelemetryRequest},
    metrics::{self, Format},
};

/// How long the supervisor may take: those who ask wait for 10 s as a rule.
const PATIENCE: Duration = Duration::from_secs(5);
/// Strangers are answered no more often than so.
const PACE: Duration = Duration::from_millis(100);

const TEXT: &str = "text/plain; charset=utf-8";

/// Who looks.
#[derive(Clone, Debug)]
pub(super) struct Look {
    desk: Desk,
    /// When a stranger looked last; none for those who may ask for more than this anyway.
    last: Option<Arc<Mutex<Option<Instant>>>>,
}

impl Look {
    /// Somebody who may do anything.
    pub(super) fn of_owner(desk: Desk) -> Self {
        Self { desk, last: None }
    }

    /// Anybody who can reach a port.
    pub(super) fn of_strangers(desk: Desk) -> Self {
        Self { desk, last: Some(Arc::default()) }
    }

    /// Asks the supervisor, and says what to answer when it does not.
    async fn ask(&self, request: Request) -> Result<Line, Response> {
        if let Some(last) = &self.last {
            // Each waits for the one before it: whoever asks as fast as he can gets no more than that.
            let mut last = last.lock().await;
            if let Some(before) = *last {
                sleep(PACE.saturating_sub(before.elapsed())).await;
            }
            *last = Some(Instant::now());
        }
        match timeout(PATIENCE, self.desk.ask(request)).await {
            Ok(Ok((Line::Failed(failure), _)) | Err(failure)) => {
                Err(say(answer::status(failure.reason), &failure.message))
            }
            Ok(Ok((line, _))) => Ok(line),
            Err(_elapsed) => Err(say(
                answer::status(Reason::Unavailable),
                &format!("the daemon has not answered for {} s", PATIENCE.as_secs()),
            )),
        }
    }
}

/// The three of them.
pub(super) fn routes<S>() -> Router<S>
where
    Look: FromRef<S>,
    S: Clone + Send + Sync + 'static,
{
    Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
}

async fn metrics(State(look): State<Look>, headers: HeaderMap) -> Response {
    let accepted = headers.get(header::ACCEPT).and_then(|types| types.to_str().ok());
    let format = Format::accepted(accepted);
    let line = match look.ask(Request::Telemetry(TelemetryRequest::default())).await {
        Ok(line) => line,
        Err(response) => return response,
    };
    let Line::Telemetry(snapshot) = line else { return nonsense() };
    match metrics::render(*snapshot, format) {
        Ok(text) => ([(header::CONTENT_TYPE, format.content_type())], text).into_response(),
        Err(error) => say(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

async fn healthz(State(look): State<Look>) -> Response {
    match look.ask(Request::Ping).await {
        Ok(_pong) => say(StatusCode::OK, "ok"),
        Err(response) => response,
    }
}

async fn readyz(State(look): State<Look>, request: Incoming) -> Response {
    let mut app = None;
    for (key, value) in form_urlencoded::parse(request.uri().query().unwrap_or_default().as_bytes())
    {
        match key.as_ref() {
            "app" => app = Some(value.into_owned()),
            key => {
                let key: String = key.escape_debug().take(40).collect();
                return say(StatusCode::BAD_REQUEST, &format!("unknown parameter `{key}`"));
            }
        }
    }
    match look.ask(Request::Readiness).await {
        Ok(Line::Readiness(readiness)) => {
            let (status, text) = judge(&readiness, app.as_deref());
            say(status, &text)
        }
        Ok(_) => nonsense(),
        Err(response) => response,
    }
}

/// Whether all is there that should be, or all of one app, and what is not.
fn judge(readiness: &Readiness, app: Option<&str>) -> (StatusCode, String) {
    let missing: Vec<String> = match app {
        None => {
            let begins = (!readiness.begun).then(|| "saved apps are being started".to_owned());
            begins.into_iter().chain(readiness.apps.iter().filter_map(lacking)).collect()
        }
        Some(name) => match readiness.apps.iter().find(|app| app.name == name) {
            // Who asks for one means that it should run.
            Some(app) if app.wanted == 0 => vec![format!("{name}: stopped")],
            Some(app) => lacking(app).into_iter().collect(),
            None => {
                let name: String = name.escape_debug().take(80).collect();
                return (StatusCode::NOT_FOUND, format!("there is no app `{name}`"));
            }
        },
    };
    if missing.is_empty() {
        return (StatusCode::OK, "ok".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, missing.join("\n"))
}

/// What an app lacks, if it lacks anything.
fn lacking(app: &AppReadiness) -> Option<String> {
    let AppReadiness { name, wanted, online, worst } = app;
    if online == wanted {
        return None;
    }
    let worst = worst.map(|status| format!(", the worst is {}", word(status))).unwrap_or_default();
    Some(format!("{name}: {online} of {wanted} workers online{worst}"))
}

fn word(status: Status) -> &'static str {
    match status {
        Status::Starting => "starting",
        Status::Ready => "ready, not online yet",
        Status::Online => "online",
        Status::Draining => "draining",
        Status::Stopping => "stopping",
        Status::Backoff => "waiting to be started again",
        Status::Errored => "errored",
        Status::Stopped => "stopped",
    }
}

fn say(status: StatusCode, text: &str) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], format!("{text}\n")).into_response()
}

fn nonsense() -> Response {
    say(StatusCode::INTERNAL_SERVER_ERROR, "the supervisor's answer makes no sense")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_is_who_has_all_workers_that_should_run() {
        let all = |apps: &[AppReadiness]| Readiness { begun: true, apps: apps.to_vec() };
        let ready = (StatusCode::OK, "ok".to_owned());
        assert_eq!(judge(&all(&[]), None), ready);
        assert_eq!(judge(&all(&[app("web", 2, 2, None), app("job", 0, 0, None)]), None), ready);
        let broken = all(&[
            app("web", 1, 2, Some(Status::Errored)),
            app("api", 0, 1, Some(Status::Starting)),
        ]);
        let (status, text) = judge(&broken, None);
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(
            text,
            "web: 1 of 2 workers online, the worst is errored\napi: 0 of 1 workers online, the worst is starting"
        );
    }

    #[test]
    fn one_app_can_be_asked_for() {
        let apps = vec![app("web", 2, 2, None), app("job", 0, 0, None)];
        let readiness = Readiness { begun: false, apps };
        assert_eq!(judge(&readiness, Some("web")).0, StatusCode::OK);
        assert_eq!(judge(&readiness, Some("job")).0, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(judge(&readiness, Some("none")).0, StatusCode::NOT_FOUND);
        let (status, text) = judge(&readiness, None);
        assert_eq!((status.as_u16(), text.as_str()), (503, "saved apps are being started"));
    }

    fn app(name: &str, online: u32, wanted: u32, worst: Option<Status>) -> AppReadiness {
        AppReadiness { name: name.to_owned(), wanted, online, worst }
    }
}
