//! Metrics: what Prometheus reads is what has happened, and probes hear the truth.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Stdio,
    time::{Duration, Instant},
};

use cluster_tests::{
    api::{self, exchange, request, status},
    built::fixture,
    command,
    host::{Host, signal},
    http::{self, Connection, local},
    in_both_modes, wait,
};
use cluster_user::api::message::Status;
use nix::sys::signal::Signal;
use serde_json::Value;

/// Exit code when there is no daemon.
const NO_DAEMON: i32 = 3;
/// Exit code for a command line that makes no sense.
const USAGE: i32 = 2;

in_both_modes!(
    probes_hear_who_is_there,
    an_address_is_served_until_it_is_switched_off,
    an_address_in_use_changes_nothing,
    an_address_outlives_the_daemon,
    a_stream_tells_again_and_again_and_ends_with_its_reader,
    prometheus_finds_no_fault,
);

#[test]
fn every_connection_is_counted_and_none_is_forgotten() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let selected = |host: &Host| sum(&scrape(host), "cluster_worker_connections_selected_total{");
    http::assert_exact(local(8080), 40, 2);
    assert_eq!(selected(&host), 40);

    host.cluster(&["reload", "app"]).ok();
    assert_eq!(selected(&host), 40, "new workers go on where the old ones were");
    http::assert_exact(local(8080), 10, 2);
    assert_eq!(selected(&host), 50);
    let killed = host.pids("app")[1];
    signal(killed, Signal::SIGKILL);
    host.until("app", "has a replacement", |app| {
        app.online == 2 && app.workers[1].pid != Some(killed)
    });
    assert_eq!(selected(&host), 50);
    host.cluster(&["upgrade"]).ok();
    assert_eq!(selected(&host), 50, "an upgrade loses nothing");
    host.kill_daemon();
    host.until_online("app", 2);
    assert_eq!(selected(&host), 50, "nor does a daemon that is killed");
    host.cluster(&["scale", "app", "1"]).ok();
    http::get(local(8080));

    let text = scrape(&host);
    assert_eq!(sum(&text, "cluster_app_connections_selected_total{"), 51);
    assert_eq!(value(&text, "cluster_app_workers{app=\"app\",state=\"online\"}"), 1);
    assert_eq!(value(&text, "cluster_app_workers_wanted{app=\"app\"}"), 1);
    let cpu = "cluster_app_cpu_seconds_total{app=\"app\"}";
    assert!(!["0", "0.0"].contains(&written(&text, cpu)), "{text}");
    assert!(value(&text, "cluster_worker_memory_bytes{app=\"app\",worker=\"0\"}") > 100_000);
    let json = host.cluster(&["list", "-v", "--json"]).ok().json();
    assert_eq!(json[0]["telemetry"]["selected"], 51);
    host.cluster(&["describe", "app"]).ok().says("traffic").says("drawn again");
}

#[test]
fn what_becomes_of_connections_is_metered_and_not_forgotten() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    http::assert_exact(local(8080), 40, 2);
    let of = |text: &str, name: &str| value(text, &format!("cluster_app_{name}{{app=\"app\"}}"));
    let metered = |text: &str| {
        [
            "connections_selected_total",
            "connections_accepted_total",
            "connection_duration_seconds_count",
            "connection_wait_seconds_count",
            "connection_round_trip_seconds_count",
        ]
        .map(|name| of(text, name))
    };
    wait::until_true("all are closed", || metered(&scrape(&host)) == [40; 5]);
    let before = scrape(&host);
    assert_eq!(of(&before, "live_connections"), 0);
    // Each asks in a line and a header at least.
    assert!(of(&before, "received_bytes_total") > 40 * 20, "{before}");
    assert!(of(&before, "sent_bytes_total") > 40 * 20, "{before}");
    let all = "cluster_app_connection_duration_seconds_bucket{le=\"+Inf\",app=\"app\"}";
    assert_eq!(value(&before, all), 40);

    host.cluster(&["reload", "app"]).ok();
    host.cluster(&["upgrade"]).ok();

    let after = scrape(&host);
    assert_eq!(metered(&after), [40; 5]);
    for name in ["received_bytes_total", "sent_bytes_total", "connection_duration_seconds_sum"] {
        let series = format!("cluster_app_{name}{{app=\"app\"}}");
        assert_eq!(written(&after, &series), written(&before, &series), "{name}");
    }
    http::assert_exact(local(8080), 10, 2);
    wait::until_true("all are closed", || metered(&scrape(&host)) == [50; 5]);
    host.cluster(&["describe", "app"])
        .ok()
        .says("round trip")
        .says("p99")
        .says("waiting for accept");
    host.cluster(&["list", "-v"]).ok().says("wait p99").never_mentions("–: ");
}

#[test]
fn open_connections_are_a_gauge() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let mut held: Vec<_> = (0..6).map(|_| Connection::open(local(8080)).unwrap()).collect();
    for connection in &mut held {
        connection.get().unwrap();
    }
    let live = |host: &Host| value(&scrape(host), "cluster_app_live_connections{app=\"app\"}");
    assert_eq!(live(&host), 6);
    drop(held);
    wait::until_true("they are closed", || live(&host) == 0);
}

/// As docs/metrics.md says: the kernel keeps it in the daemon's cgroup.
#[test]
fn a_connection_that_has_waited_is_counted_as_one_that_moved() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "--restart-delay", "1s"]).ok();
    signal(host.pids("app")[0], Signal::SIGKILL);
    host.until("app", "has no worker", |app| app.online == 0);

    let mut waited = Connection::open(local(8080)).unwrap();
    waited.get().unwrap();

    let text = scrape(&host);
    let of = |name: &str| value(&text, &format!("cluster_app_{name}{{app=\"app\"}}"));
    assert_eq!(sum(&text, "cluster_group_connections_waited_total{"), 1);
    assert_eq!(of("connections_migrated_in_total"), 1);
    assert_eq!((of("connections_accepted_total"), of("live_connections")), (0, 0));
}

#[test]
fn a_counter_of_a_worker_that_listens_no_more_stays() {
    let host = Host::kernel();
    let script = "import http.server, signal, threading
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.send_header('Content-Length', '1'); self.end_headers()
        self.wfile.write(b'x')
    def log_message(self, *args): pass
server = http.server.ThreadingHTTPServer(('', 8080), Handler)
def deaf(*_):
    server.socket.close()
signal.signal(signal.SIGUSR1, deaf)
threading.Thread(target=server.serve_forever, daemon=True).start()
threading.Event().wait()
";
    let script = host.write("deaf.py", script);
    host.cluster(&["start", &script, "-i", "2"]).ok();
    (0..10).for_each(|_| drop(http::get(local(8080))));
    let selected = |host: &Host| sum(&scrape(host), "cluster_worker_connections_selected_total{");
    assert_eq!(selected(&host), 10);
    signal(host.pids("deaf")[0], Signal::SIGUSR1);
    // It is found out with a turn that comes to nobody.
    let mut sent = 10;
    host.until("deaf", "one listens no more", |app| {
        http::get(local(8080));
        sent += 1;
        app.ports[0].workers == 1
    });
    assert_eq!(selected(&host), sent);
}

fn probes_hear_who_is_there(host: &Host) {
    host.cluster(&["metrics"]).code(NO_DAEMON);
    host.cluster(&["start", "app", "-i", "2"]).ok();
    assert_eq!(ask(host, "/healthz"), (200, "ok\n".to_owned()));
    assert_eq!(ask(host, "/readyz"), (200, "ok\n".to_owned()));
    let fails = ["--env", "AFTER=0.1", "--env", "CODE=9", "--max-restarts", "2", "--no-wait"];
    host.cluster(&[&["start", &fixture("exits.py")], &fails[..]].concat()).ok();
    host.until("exits", "is errored", |app| app.status == Status::Errored);

    let (code, said) = ask(host, "/readyz");
    assert_eq!(code, 503, "{said}");
    assert_eq!(said, "exits: 0 of 1 workers online, the worst is errored\n");
    assert_eq!(ask(host, "/readyz?app=app"), (200, "ok\n".to_owned()));
    assert_eq!(ask(host, "/readyz?app=exits").0, 503);
    assert_eq!(ask(host, "/readyz?app=none").0, 404);
    assert_eq!(ask(host, "/readyz?apps=app").0, 400);
    assert_eq!(ask(host, "/healthz").0, 200, "the daemon is well");
    let text = scrape(host);
    assert_eq!(value(&text, "cluster_app_workers{app=\"exits\",state=\"errored\"}"), 1);

    host.cluster(&["stop", "exits"]).ok();
    assert_eq!(ask(host, "/readyz").0, 200, "who is stopped need not be there");
    assert_eq!(ask(host, "/readyz?app=exits").0, 503, "unless somebody asks for him");
    host.cluster(&["kill"]).ok();
}

fn an_address_is_served_until_it_is_switched_off(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["metrics", "--listen"]).ok().says("nowhere but");
    host.cluster(&["metrics", "--listen", "nonsense"]).code(USAGE);
    host.cluster(&["metrics", "--listen", "9400"]).ok().says("http://127.0.0.1:9400/metrics");
    host.cluster(&["metrics", "--listen"]).ok().says("http://127.0.0.1:9400/metrics");

    let answer = get(9400, "/metrics");
    assert_eq!(status(&answer), 200, "{answer}");
    assert!(answer.contains("cluster_worker_online{app=\"app\",worker=\"0\"} 1\n"), "{answer}");
    assert_eq!(status(&get(9400, "/healthz")), 200);
    assert_eq!(status(&get(9400, "/readyz")), 200);
    // Nothing of what changes or tells anything else is there.
    for path in ["/", "/v1/apps", "/v1/ping", "/v1/telemetry", "/v1/metrics", "/v1/events"] {
        assert_eq!(status(&get(9400, path)), 404, "{path}");
    }
    let posted = tcp(9400, &request("POST", "/v1/kill", "{}")).unwrap();
    assert_eq!(status(&posted), 404, "{posted}");
    assert_eq!(status(&tcp(9400, &request("POST", "/metrics", "")).unwrap()), 405);
    let long = format!("/{}", "x".repeat(1 << 20));
    let refused = tcp(9400, &request("GET", &long, "")).unwrap_or_default();
    assert!(!refused.starts_with("HTTP/1.1 2"), "{refused}");

    host.cluster(&["metrics", "--listen", "127.0.0.1:9401"]).ok();
    wait::until_true("the old one is closed", || TcpStream::connect(local(9400)).is_err());
    assert_eq!(status(&get(9401, "/metrics")), 200);
    host.cluster(&["metrics", "--listen", "0.0.0.0:9401"]).ok().complains("anybody who can reach");
    assert_eq!(status(&get(9401, "/healthz")), 200);
    let _idle: Vec<_> = (0..100).map(|_| TcpStream::connect(local(9401)).unwrap()).collect();
    let asked = Instant::now();
    assert_eq!(status(&get(9401, "/healthz")), 200);
    assert!(asked.elapsed() < Duration::from_secs(5), "it waited for those who ask nothing");
    host.cluster(&["metrics", "--listen", "0.0.0.0:9402"]).ok();
    host.cluster(&["metrics", "--listen", "off"]).ok().says("nowhere but");
    wait::until_true("it is closed", || TcpStream::connect(local(9402)).is_err());
}

fn an_address_in_use_changes_nothing(host: &Host) {
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["metrics", "--listen", ":9400"]).ok();
    let taken = TcpListener::bind(local(9500)).unwrap();
    let said = host.cluster(&["metrics", "--listen", "9500"]).fails();
    said.complains("failed to listen on 127.0.0.1:9500")
        .complains("metrics stay on 127.0.0.1:9400");
    assert_eq!(status(&get(9400, "/healthz")), 200);
    drop(taken);
}

fn an_address_outlives_the_daemon(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["metrics", "--listen", "9400"]).ok();
    host.cluster(&["upgrade"]).ok();
    wait::until_true("it is served again", || tcp(9400, &request("GET", "/healthz", "")).is_ok());
    host.kill_daemon();
    host.until_online("app", 2);
    wait::until_true("it is served again", || tcp(9400, &request("GET", "/healthz", "")).is_ok());
    host.cluster(&["kill"]).ok();
    // One in use keeps no daemon from coming up, and is had when it is free.
    let taken = TcpListener::bind(local(9400)).unwrap();
    host.cluster(&["start", "app"]).ok();
    host.cluster(&["metrics", "--listen"]).ok().says("failed to listen on 127.0.0.1:9400");
    drop(taken);
    wait::until_true("it is served again", || tcp(9400, &request("GET", "/healthz", "")).is_ok());
    host.cluster(&["kill"]).ok();
    let mut start = host.command("cluster");
    command::run(start.args(["start", "app"]).env("CLUSTER_METRICS", "9410")).ok();
    assert_eq!(status(&get(9410, "/healthz")), 200, "the variable goes before the file");
}

fn a_stream_tells_again_and_again_and_ends_with_its_reader(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    let socket = api::socket(&host.home());
    let once = exchange(&socket, &request("GET", "/v1/telemetry?target=app", "")).unwrap();
    assert!(once.contains("\"type\":\"telemetry\""), "{once}");
    for (path, said) in [
        ("/v1/telemetry/stream?every=1ms", "100ms"),
        ("/v1/telemetry?every=1s", "stream"),
        ("/v1/telemetry?target=none", "none"),
        ("/v1/telemetry/stream?nope=1", "unknown parameter"),
    ] {
        let answer = exchange(&socket, &request("GET", path, "")).unwrap();
        assert!(status(&answer) >= 400 && answer.contains(said), "{path}: {answer}");
    }
    // More readers than there may be, one after the other: each that leaves makes room.
    for _ in 0..20 {
        let mut stream = std::os::unix::net::UnixStream::connect(&socket).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        stream.write_all(&request("GET", "/v1/telemetry/stream?every=100ms", "")).unwrap();
        let mut read = String::new();
        let mut chunk = [0; 8192];
        while read.matches("\"type\":\"telemetry\"").count() < 2 {
            let count = stream.read(&mut chunk).unwrap();
            assert!(count > 0, "it ended: {read}");
            read.push_str(&String::from_utf8_lossy(&chunk[..count]));
            if read.contains("503") {
                break;
            }
        }
        assert!(!read.contains("follow the telemetry already"), "{read}");
    }
    host.cluster(&["kill"]).ok();
}

fn prometheus_finds_no_fault(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    (0..4).for_each(|_| drop(http::get(local(8080))));
    let text = scrape(host);
    assert!(text.contains("# TYPE cluster_build_info gauge\n"), "{text}");
    let mut promtool = host.command("promtool");
    promtool.args(["check", "metrics"]).stdin(Stdio::piped());
    promtool.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn().expect("promtool is of the package prometheus");
    promtool.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let judged = promtool.wait_with_output().unwrap();
    let said = [judged.stdout, judged.stderr].concat();
    assert!(
        judged.status.success() && said.is_empty(),
        "{}\n{text}",
        String::from_utf8_lossy(&said)
    );

    // Who asks for OpenMetrics gets it.
    let mut curl = host.command("curl");
    curl.args(["--silent", "--header", "Accept: application/openmetrics-text; version=1.0.0"]);
    curl.arg("--unix-socket").arg(api::socket(&host.home())).arg("http://cluster/metrics");
    let open = command::run(&mut curl).ok().stdout;
    assert!(
        open.ends_with("# EOF\n") && open.contains("# UNIT cluster_app_memory_bytes bytes\n"),
        "{open}"
    );
}

#[test]
fn prometheus_itself_scrapes_it() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["metrics", "--listen", "9400"]).ok();
    http::assert_exact(local(8080), 10, 2);
    let config = "global: {scrape_interval: 1s}\nscrape_configs:\n- job_name: cluster\n  static_configs:\n  - targets: ['127.0.0.1:9400']\n";
    let config = format!("--config.file={}", host.write("prometheus.yml", config));
    let data = format!("--storage.tsdb.path={}", host.work().join("data").display());
    let _prometheus = host.stranger(
        "prometheus",
        &[&config, &data, "--web.listen-address=127.0.0.1:9090", "--log.level=error"],
    );
    let query = "/api/v1/query?query=sum(cluster_worker_connections_selected_total)";
    let found = wait::until("it has scraped", || {
        let answer = tcp(9090, &request("GET", query, "")).ok()?;
        let json: Value = serde_json::from_str(answer.rsplit("\r\n\r\n").next()?).ok()?;
        json["data"]["result"][0]["value"][1].as_str().map(str::to_owned)
    });
    assert_eq!(found, "10");
}

/// What `cluster metrics` prints.
#[track_caller]
fn scrape(host: &Host) -> String {
    host.cluster(&["metrics"]).ok().stdout
}

/// The value of one series, as it is written.
#[track_caller]
fn written<'a>(text: &'a str, series: &str) -> &'a str {
    let line = text.lines().find_map(|line| line.strip_prefix(series));
    line.unwrap_or_else(|| panic!("no `{series}` in:\n{text}")).trim()
}

/// The value of one series, without a fraction.
#[track_caller]
fn value(text: &str, series: &str) -> u64 {
    whole(written(text, series))
}

/// All series that begin so, together.
#[track_caller]
fn sum(text: &str, begin: &str) -> u64 {
    let found = text.lines().filter(|line| line.starts_with(begin));
    let found: Vec<u64> = found.filter_map(|line| line.rsplit(' ').next()).map(whole).collect();
    assert!(!found.is_empty(), "no `{begin}` in:\n{text}");
    found.iter().sum()
}

fn whole(number: &str) -> u64 {
    let whole = number.split('.').next().unwrap_or_default();
    whole.parse().unwrap_or_else(|_| panic!("`{number}` is no number"))
}

/// Asks on the daemon's own socket: status and body.
#[track_caller]
fn ask(host: &Host, path: &str) -> (u16, String) {
    let answer = exchange(&api::socket(&host.home()), &request("GET", path, "")).unwrap();
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    (status(&answer), body.unwrap_or_default())
}

#[track_caller]
fn get(port: u16, path: &str) -> String {
    tcp(port, &request("GET", path, "")).expect("it is served")
}

fn tcp(port: u16, request: &[u8]) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(local(port))?;
    stream.set_read_timeout(Some(Duration::from_secs(15)))?;
    // It may hang up before it has read all.
    drop(stream.write_all(request));
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => {}
        Err(error) => return Err(error),
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}
