//! The answer to each request.

use std::{io, path::PathBuf};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, Request, StatusCode, Uri, header},
    response::Response,
};
use tower_http::services::ServeDir;

use super::{
    Options, listing,
    place::{self, Place},
};

/// The page for what is not there, if the folder has one.
const NOT_FOUND: &str = "404.html";

/// A folder that is served.
#[derive(Debug)]
pub(super) struct Site {
    options: Options,
    /// The folder's real path.
    root: PathBuf,
    files: ServeDir,
}

impl Site {
    /// # Errors
    /// When the folder is none.
    pub(super) fn new(options: Options) -> io::Result<Self> {
        let root = options.folder.canonicalize()?;
        if !root.is_dir() {
            return Err(io::Error::new(io::ErrorKind::NotADirectory, "it is no folder"));
        }
        let files =
            ServeDir::new(&root).append_index_html_on_directories(false).precompressed_gzip();
        Ok(Self { options, root, files })
    }

    pub(super) async fn answer(&self, request: Request<Body>) -> Response {
        if let Some(guard) = &self.options.guard
            && !guard.admits(request.headers())
        {
            let mut response = text(StatusCode::UNAUTHORIZED, "who are you?\n");
            let challenge = HeaderValue::from_static("Basic realm=\"files\", charset=\"UTF-8\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
            return response;
        }
        if ![Method::GET, Method::HEAD].contains(request.method()) {
            let mut response =
                text(StatusCode::METHOD_NOT_ALLOWED, "GET and HEAD are all there is\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return response;
        }
        let path = request.uri().path().to_owned();
        let homepage = self.options.homepage.trim_start_matches('/').to_owned();
        let answer = match self.find(path.clone()).await {
            Place::File => self.file(request, &path).await,
            Place::Folder(_) if !path.ends_with('/') => Ok(redirect(request.uri())),
            Place::Folder(folder) => {
                let index = format!("{path}{homepage}");
                if self.find(index.clone()).await == Place::File {
                    self.file(request, &index).await
                } else if self.options.listing {
                    list(folder, path).await
                } else {
                    self.missing(request).await
                }
            }
            Place::Nothing if self.options.spa && is_page(&path, request.headers()) => {
                let index = format!("/{homepage}");
                if self.find(index.clone()).await == Place::File {
                    self.file(request, &index).await
                } else {
                    self.missing(request).await
                }
            }
            Place::Nothing => self.missing(request).await,
        };
        answer.unwrap_or_else(|error| {
            log::warn!("failed to answer a request: {error}");
            text(StatusCode::INTERNAL_SERVER_ERROR, "that did not work\n")
        })
    }

    /// The file system is asked in a thread for that: a slow disk must not keep others waiting.
    async fn find(&self, path: String) -> Place {
        let (root, follow) = (self.root.clone(), self.options.follow);
        let found = tokio::task::spawn_blocking(move || place::find(&root, &path, follow)).await;
        found.unwrap_or(Place::Nothing)
    }

    /// A file, with its type, age and parts as HTTP has them.
    async fn file(&self, request: Request<Body>, path: &str) -> io::Result<Response> {
        let (mut parts, _) = request.into_parts();
        parts.uri = path.parse::<Uri>().map_err(io::Error::other)?;
        let response =
            self.files.clone().try_call(Request::from_parts(parts, Body::empty())).await?;
        Ok(response.map(Body::new))
    }

    /// The folder's own page for that, or a line.
    async fn missing(&self, request: Request<Body>) -> io::Result<Response> {
        let page = format!("/{NOT_FOUND}");
        if self.find(page.clone()).await != Place::File {
            return Ok(text(StatusCode::NOT_FOUND, "there is nothing here\n"));
        }
        let (mut parts, body) = request.into_parts();
        // All of it, whatever part or state of the missing one is asked for.
        for name in [
            header::RANGE,
            header::IF_RANGE,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_MATCH,
            header::IF_UNMODIFIED_SINCE,
        ] {
            parts.headers.remove(name);
        }
        let mut response = self.file(Request::from_parts(parts, body), &page).await?;
        if response.status() == StatusCode::OK {
            *response.status_mut() = StatusCode::NOT_FOUND;
        }
        Ok(response)
    }
}

/// Whether somebody wants a page, and not a picture or a script that is missing: those must not come as HTML.
fn is_page(path: &str, headers: &HeaderMap) -> bool {
    let last = path.rsplit('/').next().unwrap_or_default();
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    !last.contains('.') || accepts.is_some_and(|accept| accept.contains("text/html"))
}

async fn list(folder: PathBuf, path: String) -> io::Result<Response> {
    let page = tokio::task::spawn_blocking(move || listing::page(&folder, &path)).await;
    let mut response = Response::new(Body::from(page.map_err(io::Error::other)??));
    let html = HeaderValue::from_static("text/html; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, html);
    Ok(response)
}

/// To the same with a slash, so that links in it lead where they should. Never to another host: `//evil` is one.
fn redirect(uri: &Uri) -> Response {
    let path = uri.path().trim_start_matches('/');
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut response = text(StatusCode::PERMANENT_REDIRECT, "");
    match HeaderValue::from_str(&format!("/{path}/{query}")) {
        Ok(place) => drop(response.headers_mut().insert(header::LOCATION, place)),
        Err(_) => *response.status_mut() = StatusCode::NOT_FOUND,
    }
    response
}

fn text(status: StatusCode, text: &'static str) -> Response {
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}
