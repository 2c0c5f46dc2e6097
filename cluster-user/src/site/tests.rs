//! Requests to a site in a temporary folder.

use std::{fs, os::unix::fs::symlink};

use axum::{
    body::Body,
    http::{Request, header},
};
use http_body_util::BodyExt as _;

use super::*;

#[test]
fn files_come_with_type_age_parts_and_tags() {
    let (_folder, site) = site(|_| {});
    let page = ask(&site, "GET", "/", &[]);
    assert_eq!((page.status, page.body.as_str()), (200, "<p>home"));
    assert!(page.header("content-type").starts_with("text/html"), "{page:?}");
    let head = ask(&site, "HEAD", "/data.txt", &[]);
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert_eq!(head.header("content-length"), "10");
    let part = ask(&site, "GET", "/data.txt", &[("range", "bytes=2-4")]);
    assert_eq!((part.status, part.body.as_str()), (206, "234"));
    assert_eq!(part.header("content-range"), "bytes 2-4/10");
    let tag = head.header("etag").to_owned();
    assert_eq!(ask(&site, "GET", "/data.txt", &[("if-none-match", &tag)]).status, 304);
    let age = head.header("last-modified").to_owned();
    assert_eq!(ask(&site, "GET", "/data.txt", &[("if-modified-since", &age)]).status, 304);
    assert_eq!(ask(&site, "GET", "/data.txt", &[("range", "bytes=99-")]).status, 416);
    let post = ask(&site, "POST", "/", &[]);
    assert_eq!((post.status, post.header("allow")), (405, "GET, HEAD"));
}

#[test]
fn a_compressed_copy_beside_a_file_is_used() {
    let (_folder, site) = site(|_| {});
    let plain = ask(&site, "GET", "/app.js", &[]);
    assert_eq!(plain.body, "plain");
    let small = ask(&site, "GET", "/app.js", &[("accept-encoding", "gzip")]);
    assert_eq!((small.body.as_str(), small.header("content-encoding")), ("small", "gzip"));
    assert!(small.header("content-type").contains("javascript"), "{small:?}");
}

#[test]
fn a_folder_is_its_homepage_or_a_list_or_nothing() {
    let (_folder, site) = site(|_| {});
    let moved = ask(&site, "GET", "//sub?x=1", &[]);
    assert_eq!((moved.status, moved.header("location")), (308, "/sub/?x=1"));
    assert_eq!(ask(&site, "GET", "/sub/", &[]).status, 404);
    let (_folder, site) = self::site(|options| options.listing = true);
    let list = ask(&site, "GET", "/sub/", &[]);
    assert!(list.body.contains("deep.txt"), "{list:?}");
    assert_eq!(ask(&site, "GET", "/", &[]).body, "<p>home");
}

#[test]
fn what_is_missing_or_elsewhere_gets_the_page_for_that() {
    let (folder, site) = site(|_| {});
    for path in ["/no", "/../../etc/passwd", "/%2e%2e/secret", "/out", "/.env"] {
        let missing = ask(&site, "GET", path, &[("range", "bytes=0-1")]);
        assert_eq!((missing.status, missing.body.as_str()), (404, "<p>lost"), "{path}");
    }
    fs::remove_file(folder.path().join("site/404.html")).unwrap();
    assert_eq!(ask(&site, "GET", "/no", &[]).status, 404);
}

#[test]
fn an_application_gets_its_homepage_for_pages_only() {
    let (_folder, site) = site(|options| options.spa = true);
    for path in ["/users/7", "/a/b/c"] {
        let page = ask(&site, "GET", path, &[]);
        assert_eq!((page.status, page.body.as_str()), (200, "<p>home"), "{path}");
    }
    assert_eq!(ask(&site, "GET", "/v1.2", &[("accept", "text/html,*/*")]).status, 200);
    // A script that is gone must not come as a page.
    assert_eq!(ask(&site, "GET", "/app.1234.js", &[("accept", "*/*")]).status, 404);
    assert_eq!(ask(&site, "GET", "/data.txt", &[]).body, "0123456789");
}

#[test]
fn nobody_comes_in_without_the_password() {
    let (_folder, site) =
        site(|options| options.guard = Some(Guard::new("ada".to_owned(), "pass".to_owned())));
    let stranger = ask(&site, "GET", "/data.txt", &[]);
    assert_eq!((stranger.status, stranger.header("www-authenticate").is_empty()), (401, false));
    let known = ask(&site, "GET", "/data.txt", &[("authorization", "Basic YWRhOnBhc3M=")]);
    assert_eq!(known.status, 200);
}

#[test]
fn what_is_no_folder_is_not_served() {
    let file = tempfile::NamedTempFile::new().unwrap();
    let mut options = options(file.path().to_owned());
    assert!(Site::new(options.clone()).is_err());
    options.folder = "/no/such/folder".into();
    assert!(Site::new(options).is_err());
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: axum::http::HeaderMap,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn ask(site: &Site, method: &str, uri: &str, headers: &[(&str, &str)]) -> Answer {
    let mut request = Request::builder().method(method).uri(uri).header(header::HOST, "x");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Body::empty()).unwrap();
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let response = site.answer(request).await;
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes();
        Answer {
            status: parts.status.as_u16(),
            headers: parts.headers,
            body: String::from_utf8_lossy(&body).into_owned(),
        }
    })
}

fn site(change: impl FnOnce(&mut Options)) -> (tempfile::TempDir, Site) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("site");
    fs::create_dir_all(root.join("sub")).unwrap();
    for (name, text) in [
        ("secret", "secret"),
        ("site/index.html", "<p>home"),
        ("site/404.html", "<p>lost"),
        ("site/data.txt", "0123456789"),
        ("site/app.js", "plain"),
        ("site/app.js.gz", "small"),
        ("site/.env", "secret"),
        ("site/sub/deep.txt", "deep"),
    ] {
        fs::write(folder.path().join(name), text).unwrap();
    }
    symlink("../secret", root.join("out")).unwrap();
    let mut options = options(root);
    change(&mut options);
    let site = Site::new(options).unwrap();
    (folder, site)
}

fn options(folder: PathBuf) -> Options {
    Options {
        folder,
        address: "127.0.0.1:0".parse().unwrap(),
        spa: false,
        homepage: "/index.html".to_owned(),
        listing: false,
        follow: false,
        guard: None,
    }
}
