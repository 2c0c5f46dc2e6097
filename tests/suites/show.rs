//! What `cluster` shows: tables for people, JSON for programs, words of PM2 for both.

use cluster_tests::{
    built::fixture,
    host::Host,
    http::{Connection, local},
    in_both_modes, wait,
};
use cluster_user::{
    api::message::{AppView, Status},
    datapath::Mode,
};

in_both_modes!(
    a_list_has_a_row_for_each_app,
    json_has_everything_a_list_has,
    connections_are_counted_when_asked_for,
    a_description_has_the_details,
    pids_are_printed_one_a_line,
    an_id_is_found_by_name,
    the_environment_of_an_app_is_shown,
    jlist_has_the_shape_of_pm2,
    a_dry_run_starts_nothing,
);

fn a_list_has_a_row_for_each_app(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--name", "web"]).ok();
    host.cluster(&["start", "app", "--name", "api", "--env", "PORT=8081"]).ok();

    let mode = mode(host);
    for command in ["list", "ls", "ps", "status"] {
        let shown = host.cluster(&[command]).ok();
        let row = |name: &str| {
            let row = shown.stdout.lines().find(|line| line.contains(name));
            row.unwrap_or_else(|| panic!("no row for `{name}`:\n{}", shown.stdout)).to_owned()
        };
        for text in ["2/2", "8080", "online", mode] {
            assert!(row("web").contains(text), "no `{text}` in {}", row("web"));
        }
        assert!(row("api").contains("1/1") && row("api").contains("8081"), "{}", row("api"));
        assert!(!shown.stdout.contains('\u{1b}'), "colours are for terminals");
    }
    let workers = host.cluster(&["list", "-v"]).ok();
    for pid in host.pids("web") {
        assert!(workers.stdout.contains(&pid.to_string()), "{}", workers.stdout);
    }
}

fn json_has_everything_a_list_has(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--namespace", "shop"]).ok();

    let app = host.app("app");
    assert_eq!((app.id.0, app.name.as_str(), app.namespace.as_str()), (0, "app", "shop"));
    assert_eq!((app.mode, app.status), (host.mode(), Status::Online));
    assert_eq!((app.online, app.instances, app.restarts), (2, 2, 0));
    assert_eq!(app.ports.len(), 1);
    assert_eq!(app.ports[0].address.port(), 8080);
    assert!(app.memory_bytes > 100_000, "{}", app.memory_bytes);
    assert!(app.uptime_ms.is_some());
    for (number, worker) in (0..).zip(&app.workers) {
        assert_eq!(worker.instance.0, number);
        assert!(worker.pid.is_some());
        // They are made with the first output.
        for log in [&worker.logs.out, &worker.logs.err] {
            assert!(log.starts_with(host.home().join("logs")), "{}", log.display());
        }
        assert_eq!(worker.env["NODE_APP_INSTANCE"], number.to_string());
    }
}

fn connections_are_counted_when_asked_for(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["start", "app", "--name", "idle", "--env", "PORT=8081"]).ok();
    let mut held: Vec<_> = (0..6).map(|_| Connection::open(local(8080)).unwrap()).collect();
    for connection in &mut held {
        connection.get().unwrap();
    }

    let usual = host.app("app");
    assert!(usual.workers.iter().all(|worker| worker.connections.is_none()), "{usual:#?}");
    for command in [&["list", "-v", "--json"][..], &["describe", "app", "idle", "--json"]] {
        let shown = host.cluster(command).ok().json();
        let apps: Vec<AppView> = serde_json::from_value(shown).unwrap();
        let counts: Vec<_> =
            apps[0].workers.iter().map(|worker| worker.connections.unwrap()).collect();
        assert_eq!((counts.len(), counts.iter().sum::<u32>()), (2, 6), "{command:?}");
        if host.mode() == Mode::Kernel {
            assert_eq!(counts, [3, 3]);
        }
        assert_eq!(apps[1].workers[0].connections, Some(0));
    }
    drop(held);
    wait::until_true("connections that are closed do not count", || {
        let shown = host.cluster(&["list", "-v", "--json"]).ok().json();
        let apps: Vec<AppView> = serde_json::from_value(shown).unwrap();
        apps[0].workers.iter().all(|worker| worker.connections == Some(0))
    });
}

fn a_description_has_the_details(host: &Host) {
    let script = fixture("server.py");
    host.cluster(&["start", &script, "-i", "2", "--name", "web"]).ok();

    for command in ["describe", "show", "info"] {
        let mut shown = host.cluster(&[command, "web"]).ok();
        for text in ["web", &script, "python3", "8080", "online", mode(host)] {
            shown = shown.says(text);
        }
        for pid in host.pids("web") {
            shown = shown.says(&pid.to_string());
        }
    }
}

fn pids_are_printed_one_a_line(host: &Host) {
    host.cluster(&["start", "app", "-i", "3"]).ok();

    let expected: Vec<_> = host.app("app").workers.iter().map(|worker| worker.pid).collect();
    let shown = host.cluster(&["pid", "app"]).ok();
    let pids: Vec<_> = shown.lines().iter().map(|line| line.parse().ok()).collect();
    assert_eq!(pids, expected);
}

fn an_id_is_found_by_name(host: &Host) {
    host.cluster(&["start", "app", "--name", "web"]).ok();
    host.cluster(&["start", "app", "--name", "api", "--env", "PORT=8081"]).ok();

    assert_eq!(host.cluster(&["id", "api"]).ok().stdout.trim(), "1");
    host.cluster(&["delete", "web"]).ok();
    assert_eq!(host.cluster(&["id", "api"]).ok().stdout.trim(), "1", "numbers stay");
}

fn the_environment_of_an_app_is_shown(host: &Host) {
    host.cluster(&["start", "app", "--env", "COLOUR=dark blue"]).ok();
    host.cluster(&["env", "app"]).ok().says("COLOUR").says("dark blue");
    host.cluster(&["env", "0"]).ok().says("COLOUR");
}

fn jlist_has_the_shape_of_pm2(host: &Host) {
    host.cluster(&["start", "app", "-i", "2"]).ok();

    let list = host.cluster(&["jlist"]).ok().json();
    let processes = list.as_array().unwrap();
    assert_eq!(processes.len(), 2, "one entry for each process");
    for process in processes {
        assert_eq!(process["name"], "app");
        assert!(process["pid"].is_u64() && process["pm_id"].is_u64(), "{process}");
        assert!(process["monit"]["memory"].is_u64() && process["monit"]["cpu"].is_number());
        assert_eq!(process["pm2_env"]["status"], "online");
    }
}

fn a_dry_run_starts_nothing(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--dry-run"]).ok().says("app");
    assert!(host.apps().is_empty());
}

fn mode(host: &Host) -> &'static str {
    match host.mode() {
        Mode::Kernel => "kernel",
        Mode::Plain => "plain",
    }
}

#[test]
fn without_a_daemon_there_is_nothing_to_show_and_none_is_started() {
    let host = Host::kernel();
    host.cluster(&["list"]).ok();
    for command in [&["list", "--json"][..], &["jlist"]] {
        assert_eq!(host.cluster(command).json(), serde_json::json!([]), "{command:?}");
    }
    host.cluster(&["ping"]).fails().code(3);
    assert!(host.processes().is_empty(), "no daemon was started");
}

#[test]
fn help_and_version_need_no_daemon() {
    let host = Host::kernel();
    host.cluster(&["--version"]).ok().says("cluster");
    host.cluster(&["--help"]).ok().says("start").says("scale");
    assert!(host.processes().is_empty(), "no daemon was started");
}
