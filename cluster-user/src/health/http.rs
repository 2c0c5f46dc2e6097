//! One request over HTTP/1.1, on a connection of its own.

use std::time::Duration;

use http_body_util::{BodyExt as _, Empty};
use hyper::{
    Request,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{ACCEPT, CONNECTION, HOST, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet, time::timeout};

/// So much of a body is read, so that the worker does not see its answer cut off.
const BODY: usize = 256 << 10;
/// So long, at most: the answer is known by then.
const BODY_TIME: Duration = Duration::from_millis(200);

/// Asks for `path`; 200 to 399 is good.
///
/// # Errors
/// A lowercase fragment.
pub(super) async fn get(stream: TcpStream, host: &str, path: &str) -> Result<(), String> {
    let failed = |error: hyper::Error| {
        if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
            "the connection was closed without an answer".to_owned()
        } else if error.is_parse() {
            "the answer is not HTTP".to_owned()
        } else {
            format!("the answer could not be read: {error}")
        }
    };
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with this function.
    let mut tasks = JoinSet::new();
    tasks.spawn(connection);
    let request = Request::get(path)
        .header(HOST, host)
        .header(USER_AGENT, concat!("cluster-probe/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "*/*")
        .header(CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|error| format!("the request makes no sense: {error}"))?;
    let response = sender.send_request(request).await.map_err(failed)?;
    let status = response.status();
    if !(200..400).contains(&status.as_u16()) {
        return Err(format!("answered {status}"));
    }
    // Only for the worker's sake.
    drop(timeout(BODY_TIME, finish(response.into_body())).await);
    Ok(())
}

async fn finish(mut body: Incoming) {
    let mut read = 0;
    while let Some(Ok(frame)) = body.frame().await {
        read += frame.data_ref().map_or(0, Bytes::len);
        if read > BODY {
            return;
        }
    }
}
