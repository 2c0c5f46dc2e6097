//! `cluster serve`: a folder as an app.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
};

use cluster_tests::{
    command,
    host::Host,
    http::{self, local},
    in_both_modes,
    load::Load,
};

in_both_modes!(a_folder_is_served_by_an_app_like_any_other);

fn a_folder_is_served_by_an_app_like_any_other(host: &Host) {
    site(host);
    host.cluster(&["serve", "site", "8080", "-i", "2", "--name", "docs"]).ok().says("2/2");
    for _ in 0..10 {
        assert_eq!(http::get(local(8080)), "<p>home");
    }
    host.cluster(&["expose", "site", "8081"]).ok().says("static-page-server-8081");
    host.cluster(&["scale", "docs", "1"]).ok().says("1/1");
    host.cluster(&["stop", "docs"]).ok();
    assert_eq!(http::get(local(8081)), "<p>home");
}

#[test]
fn a_reload_of_four_workers_loses_nothing() {
    let host = Host::kernel();
    site(&host);
    host.cluster(&["serve", "site", "8080", "-i", "4", "--name", "docs"])
        .ok()
        .says("docs")
        .says("4/4");
    assert_eq!(http::get(local(8080)), "<p>home");
    let load = Load::keep(local(8080), 8);
    let before = host.pids("docs");
    host.cluster(&["reload", "docs"]).ok();
    let score = load.stop();
    assert_eq!(score.failed(), 0, "{score:#?}");
    assert!(score.answered() > 50, "{score:#?}");
    assert!(host.pids("docs").iter().all(|pid| !before.contains(pid)));
}

#[test]
fn nothing_but_the_folder_is_served() {
    let host = Host::kernel();
    site(&host);
    host.cluster(&["serve", "site", "--port", "8080"]).ok().says("static-page-server-8080");
    for path in ["/../secret", "/%2e%2e/secret", "/.env", "/link", "//etc/passwd"] {
        let answer = ask(path, "");
        assert!(answer.starts_with("HTTP/1.1 404"), "{path}: {answer}");
        assert!(!answer.contains("hunter"), "{path}: {answer}");
    }
    assert!(ask("/data.txt", "Range: bytes=1-2\r\n").contains("206 Partial"));
    assert!(ask("/app/page", "").starts_with("HTTP/1.1 404"));
    host.cluster(&["delete", "all"]).ok();
    host.cluster(&["serve", "site", "8080", "--spa", "--ftp"]).ok();
    assert!(ask("/app/page", "").ends_with("<p>home"));
    assert!(ask("/sub/", "").contains("deep.txt"));
}

#[test]
fn a_password_is_asked_for_and_shown_to_nobody() {
    let host = Host::kernel();
    site(&host);
    host.cluster(&["serve", "site", "8080", "--basic-auth-username", "ada"])
        .fails()
        .code(2)
        .complains("no password");
    let mut command = host.command("cluster");
    command.args(["serve", "site", "8080", "--basic-auth-username", "ada"]);
    command::run(command.env("PM2_SERVE_BASIC_AUTH_PASSWORD", "hunter2")).ok();
    assert!(ask("/", "").starts_with("HTTP/1.1 401"));
    // ada:hunter2
    assert!(ask("/", "Authorization: Basic YWRhOmh1bnRlcjI=\r\n").starts_with("HTTP/1.1 200"));
    for pid in host.processes() {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        assert!(!String::from_utf8_lossy(&arguments).contains("hunter2"), "{pid}");
    }
    for shown in [&["list", "--json"][..], &["describe", "all"], &["jlist"], &["report"]] {
        host.cluster(shown).ok().never_mentions("hunter2");
    }
}

#[test]
fn variables_of_pm2_mean_what_they_mean_there() {
    let host = Host::kernel();
    site(&host);
    let mut command = host.command("cluster");
    command.args(["start", "serve", "--name", "site"]);
    command.env("PM2_SERVE_PATH", host.work().join("site")).env("PM2_SERVE_PORT", "8080");
    command::run(command.env("PM2_SERVE_SPA", "true")).ok();
    assert!(ask("/any/page", "").ends_with("<p>home"));
}

#[test]
fn what_cannot_be_served_is_said() {
    let host = Host::kernel();
    host.cluster(&["serve", "nowhere"]).fails().complains("nowhere");
    host.write("file", "");
    host.cluster(&["serve", "file"]).fails().code(2).complains("no folder");
    host.cluster(&["serve", ".", "0"]).fails().code(2);
    host.cluster(&["serve", ".", "--host", "example.org"]).fails().code(2).complains("no address");
    assert!(host.processes().is_empty(), "no daemon was started");
}

fn site(host: &Host) {
    let root = host.work().join("site");
    fs::create_dir_all(root.join("sub")).unwrap();
    for (name, text) in [
        ("secret", "hunter2"),
        ("site/.env", "hunter2"),
        ("site/index.html", "<p>home"),
        ("site/data.txt", "0123456789"),
        ("site/sub/deep.txt", "deep"),
    ] {
        host.write(name, text);
    }
    std::os::unix::fs::symlink("../secret", root.join("link")).unwrap();
}

/// A request as it is, and the whole answer.
fn ask(path: &str, headers: &str) -> String {
    let mut stream = TcpStream::connect(local(8080)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}
