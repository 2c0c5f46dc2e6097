//! The daemon as a service: a real systemd boots, and what was saved serves.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    net::TcpStream,
};

use cluster_tests::{
    built::{self, static_go_pages},
    clients::{Clients, assert_served_by},
    command::Output,
    http::{self, local},
    machine::Machine,
    wait,
};

const UNIT: &str = "etc/systemd/system/cluster.service";

#[test]
fn saved_apps_serve_after_every_boot_and_after_a_power_cut() {
    let mut machine = machine();
    machine.boot();
    machine.run(&["cluster", "start", "pages-go", "-i", "2", "--name", "web"]).ok();
    machine.run(&["cluster", "start", "app", "--env", "PORT=8081"]).ok();
    let before = pids(&machine, "web");
    let clients = Clients::both(8080);

    let said = machine.run(&["cluster", "startup"]).ok();

    said.says("wrote /etc/systemd/system/cluster.service").complains("cluster save");
    clients.nothing_fails();
    assert_eq!(
        pids(&machine, "web"),
        before,
        "the service took over from the daemon that was there"
    );
    assert_eq!(machine.property("cluster", "MainPID"), daemon(&machine));
    machine.run(&["cluster", "save"]).ok();
    machine.run(&["cluster", "delete", "app"]).ok();
    verify(&machine, "/etc/systemd/system/cluster.service");

    machine.reboot();
    assert_eq!(machine.property("cluster", "ActiveState"), "active");
    assert_eq!(machine.property("cluster", "StatusText"), "2 apps, 3 of 3 workers online");
    assert_served_by(8080, &pids(&machine, "web"));
    http::assert_exact(local(8081), 4, 1);

    machine.cut_power();
    machine.boot();
    assert_served_by(8080, &pids(&machine, "web"));
    http::assert_exact(local(8081), 4, 1);
}

#[test]
fn a_reload_and_a_killed_daemon_are_not_noticed_by_those_who_ask() {
    let machine = serving(&[]);
    let before = pids(&machine, "web");
    let clients = Clients::both(8080);

    machine.run(&["systemctl", "reload", "cluster"]).ok();

    clients.until_answered(20);
    let reloaded = pids(&machine, "web");
    assert!(reloaded.iter().all(|pid| !before.contains(pid)), "{reloaded:?}");
    let killed = daemon(&machine);
    machine.run(&["kill", "-KILL", &killed]).ok();
    wait::until_true("systemd has started another daemon", || {
        let is_active = machine.property("cluster", "ActiveState") == "active";
        is_active
            && ![killed.as_str(), "0"].contains(&machine.property("cluster", "MainPID").as_str())
    });
    clients.nothing_fails();
    assert_eq!(pids(&machine, "web"), reloaded, "workers of a killed daemon run on");
    assert_eq!(machine.property("cluster", "NRestarts"), "1");
    assert_eq!(machine.property("cluster", "MainPID"), daemon(&machine));
}

#[test]
fn a_daemon_that_hangs_is_replaced_and_its_workers_serve_on() {
    let machine = serving(&["WatchdogSec=1"]);
    let before = pids(&machine, "web");
    let hung = daemon(&machine);
    let clients = Clients::both(8080);
    machine.run(&["kill", "-STOP", &hung]).ok();
    wait::until_true("systemd has replaced the daemon", || {
        let is_active = machine.property("cluster", "ActiveState") == "active";
        is_active
            && ![hung.as_str(), "0"].contains(&machine.property("cluster", "MainPID").as_str())
    });
    clients.nothing_fails();
    assert_eq!(pids(&machine, "web"), before);
}

#[test]
fn a_stop_waits_for_what_workers_have_and_leaves_nothing() {
    let machine = serving(&["TimeoutStopSec=1"]);
    machine.run(&["cluster", "start", "app", "--env", "PORT=8081"]).ok();
    let mut connection = http::Connection::open(local(8081)).unwrap();
    connection.get().unwrap();
    let stop = std::thread::scope(|scope| {
        let stop = scope.spawn(|| machine.run(&["systemctl", "stop", "cluster"]));
        wait::until_true("nobody is let in any more", || TcpStream::connect(local(8081)).is_err());
        // Longer than the unit allows by itself.
        wait::until_true("it has waited for more than the time of its unit", || {
            let since = machine.run(&["cat", "/proc/uptime"]).stdout;
            let now: f64 = since.split(' ').next().unwrap().parse().unwrap();
            let stopping = machine.property("cluster", "StateChangeTimestampMonotonic");
            now - stopping.parse::<f64>().unwrap() / 1e6 > 2.0
        });
        connection.get().expect("a connection that is there is finished");
        drop(connection);
        stop.join().unwrap()
    });
    stop.ok();

    assert_eq!(machine.property("cluster", "Result"), "success");
    let processes = machine.run(&["ps", "-eo", "args"]).ok();
    processes.never_mentions("pages-go").never_mentions("cluster daemon");
    let groups = machine.run(&["find", "/sys/fs/cgroup", "-name", "cluster-*"]).ok();
    assert_eq!(groups.stdout, "");
    machine.run(&["cluster", "ping"]).code(3);

    // What was not saved is not there.
    machine.run(&["systemctl", "start", "cluster"]).ok();
    machine.run(&["cluster", "list", "app"]).code(1);
    assert_served_by(8080, &pids(&machine, "web"));
}

#[test]
fn root_makes_a_service_for_another_user() {
    let mut machine = machine();
    machine.boot();
    machine.run(&["cluster", "startup", "-u", "web"]).ok().says("cluster-web.service");
    verify(&machine, "/etc/systemd/system/cluster-web.service");
    machine.run_as_user(&["cluster", "start", "app", "-i", "2"]).ok();
    machine.run_as_user(&["cluster", "save"]).ok();

    machine.reboot();

    let list = |machine: &Machine| machine.run_as_user(&["cluster", "list", "--json"]).ok();
    let before = worker_pids(&list(&machine), "app");
    assert_eq!(before.len(), 2);
    let user = machine.run(&["ps", "-o", "user=", "-p", &before[0].to_string()]).ok();
    user.says("web");
    let killed = machine.property("cluster-web", "MainPID");
    machine.run(&["kill", "-KILL", &killed]).ok();
    wait::until_true("systemd has started another daemon", || {
        let is_active = machine.property("cluster-web", "ActiveState") == "active";
        is_active
            && ![killed.as_str(), "0"]
                .contains(&machine.property("cluster-web", "MainPID").as_str())
    });
    assert_eq!(worker_pids(&list(&machine), "app"), before, "workers of a killed daemon run on");
    http::get(local(8080));
    machine.run(&["systemctl", "stop", "cluster-web"]).ok();
    machine.run(&["ps", "-u", "web", "-o", "args="]).code(1);
}

#[test]
fn a_unit_that_was_edited_is_kept_and_shown() {
    let mut machine = machine();
    machine.boot();
    machine.run(&["cluster", "startup", "--dry-run"]).ok().says("Type=notify");
    assert!(!machine.disk(UNIT).exists(), "a dry run writes nothing");
    machine.run(&["cluster", "startup"]).ok();
    machine.run(&["cluster", "startup"]).ok().says("is as it should be");
    let mut unit = OpenOptions::new().append(true).open(machine.disk(UNIT)).unwrap();
    writeln!(unit, "# by hand").unwrap();
    let edited = fs::read(machine.disk(UNIT)).unwrap();

    let refused = machine.run(&["cluster", "startup"]).code(1);
    refused.says("-# by hand").complains("was edited").complains("--force");
    machine.run(&["cluster", "unstartup"]).code(1).complains("was edited");
    assert_eq!(fs::read(machine.disk(UNIT)).unwrap(), edited);

    machine.run(&["cluster", "startup", "--force"]).ok();
    machine.run(&["cluster", "start", "app"]).ok();
    machine.run(&["cluster", "unstartup"]).ok();
    assert!(!machine.disk(UNIT).exists());
    http::get(local(8080));
    machine.run(&["cluster", "unstartup"]).code(1).complains("there is no");
    machine.reboot();
    machine.run(&["cluster", "ping"]).code(3);
}

fn machine() -> Machine {
    Machine::new(&[&built::programs().join("examples/app"), static_go_pages()])
}

/// A machine whose service has an app of two workers on port 8080, and these lines in its unit.
fn serving(lines: &[&str]) -> Machine {
    let mut machine = machine();
    let changes = machine.disk("etc/systemd/system/cluster.service.d");
    fs::create_dir_all(&changes).unwrap();
    fs::write(changes.join("test.conf"), format!("[Service]\n{}\n", lines.join("\n"))).unwrap();
    machine.boot();
    machine.run(&["cluster", "startup"]).ok();
    machine.run(&["cluster", "start", "pages-go", "-i", "2", "--name", "web"]).ok();
    machine.run(&["cluster", "save"]).ok();
    machine
}

/// What systemd itself has to say about a unit.
fn verify(machine: &Machine, unit: &str) {
    let said = machine.run(&["systemd-analyze", "verify", unit]).ok();
    assert_eq!(format!("{}{}", said.stdout, said.stderr), "");
}

fn daemon(machine: &Machine) -> String {
    machine.run(&["cat", "/var/lib/cluster/daemon.lock"]).ok().stdout.trim().to_owned()
}

/// The workers of an app, as the machine numbers them.
fn pids(machine: &Machine, app: &str) -> Vec<u32> {
    worker_pids(&machine.run(&["cluster", "list", "--json"]).ok(), app)
}

fn worker_pids(list: &Output, app: &str) -> Vec<u32> {
    let apps = list.json();
    let app = apps.as_array().unwrap().iter().find(|view| view["name"] == app).unwrap();
    let workers = app["workers"].as_array().unwrap().iter();
    workers.map(|worker| u32::try_from(worker["pid"].as_u64().unwrap()).unwrap()).collect()
}
