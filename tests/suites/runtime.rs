//! `cluster runtime`: apps in the foreground, as process 1 of a container.

use std::{fs, os::unix::fs::DirBuilderExt as _, path::Path};

use cluster_tests::{
    built::{fixture, programs},
    command,
    container::{Container, children},
    host::{self, Host},
    http::{self, Connection, local},
    load::Load,
    wait,
};
use nix::sys::signal::Signal;

/// Waits for an app that nobody has heard of yet.
fn comes_up(host: &Host, name: &str, workers: u32) {
    wait::until_true(&format!("`{name}` comes up"), || {
        host.apps().iter().any(|app| app.name == name && app.online == workers)
    });
}

#[test]
fn sigterm_finishes_what_is_under_way_and_exits_with_0() {
    for server in ["server.js", "server.py"] {
        let host = Host::kernel();
        let script = fixture(server);
        let mut container = Container::begin(&host, &["cluster", "runtime", &script, "-i", "2"]);
        comes_up(&host, "server", 2);
        let mut kept: Vec<_> = (0..8).map(|_| Connection::open(local(8080)).unwrap()).collect();
        for connection in &mut kept {
            connection.get().unwrap();
        }
        assert!(!container.begun().has_ended());
        container.signal(Signal::SIGTERM);
        container.end().code(0);
        assert!(host.processes().is_empty(), "{server}");
    }
}

#[test]
fn requests_that_are_being_answered_at_sigterm_are_answered() {
    let host = Host::kernel();
    let script = fixture("slow.py");
    let container = Container::begin(&host, &["cluster", "runtime", &script, "-i", "2"]);
    comes_up(&host, "slow", 2);
    let mut open: Vec<_> = (0..8).map(|_| Connection::open(local(8080)).unwrap()).collect();
    for connection in &mut open {
        connection.send("close").unwrap();
    }
    container.signal(Signal::SIGTERM);
    for mut connection in open {
        connection.receive().unwrap();
    }
    container.end().code(0);
}

#[test]
fn sighup_reloads_without_a_loss() {
    let host = Host::kernel();
    let container = Container::begin(&host, &["cluster", "runtime", "app", "-i", "2"]);
    comes_up(&host, "app", 2);
    let before = host.pids("app");
    let load = Load::keep(local(8080), 8);
    container.signal(Signal::SIGHUP);
    host.until("app", "is of the next generation", |app| {
        app.generation.0 == 2 && app.reload.is_none()
    });
    let score = load.stop();
    assert_eq!(score.failed(), 0, "{score:#?}");
    assert!(host.pids("app").iter().all(|pid| !before.contains(pid)));
    container.signal(Signal::SIGTERM);
    container.end().code(0);
}

#[test]
fn the_exit_code_is_that_of_the_app() {
    let host = Host::kernel();
    let script = fixture("exits.py");
    let ends = |code: &str, args: &[&str]| {
        let args = [&["cluster", "runtime", &script, "--no-port"][..], args].concat();
        Container::changed(&host, &args, |command| {
            command.env("CODE", code);
        })
        .end()
    };
    // Given up after some tries.
    ends("7", &["--max-restarts", "2", "--restart-delay", "10ms"])
        .code(7)
        .says("reading settings")
        .complains("exited with code 7");
    ends("0", &["--no-autorestart"]).code(0).says("reading settings");
    ends("3", &["--no-autorestart"]).code(3);
    let nothing = Container::begin(&host, &["cluster", "runtime", "/no/such/script"]).end();
    nothing.fails().code(1).complains("/no/such/script");
    Container::begin(&host, &["cluster", "runtime", &script, "--nope"]).end().code(2);
}

#[test]
fn an_app_that_is_killed_for_good_exits_as_a_shell_would_say() {
    let host = Host::kernel();
    let args = ["cluster", "runtime", "app", "--no-autorestart"];
    let container = Container::begin(&host, &args);
    comes_up(&host, "app", 1);
    // Its number is one of the container's.
    let pid = host.pids("app")[0].to_string();
    command::run(&mut container.command(&host, &["kill", "-KILL", &pid])).ok();
    container.end().code(137);
}

#[test]
fn what_workers_write_is_printed_in_three_formats() {
    let host = Host::kernel();
    let script = fixture("exits.py");
    let run = |format: &[&str]| {
        let args =
            [&["cluster", "runtime"][..], format, &[&script, "--no-port", "--no-autorestart"]];
        let args = args.concat();
        Container::changed(&host, &args, |command| {
            command.env("CODE", "0");
        })
        .end()
    };
    let prefixed = run(&[]);
    assert_eq!(prefixed.lines().len(), 2, "{prefixed:?}");
    prefixed.says("0|exits:0 | reading settings").says("0|exits:0 | settings are missing");
    let raw = run(&["--raw"]);
    assert_eq!(raw.stdout, "reading settings\n", "what was printed before is not printed again");
    raw.complains("settings are missing");
    let json = run(&["--json"]);
    let lines: Vec<serde_json::Value> =
        json.lines().iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert!(lines.iter().any(|line| line["message"] == "reading settings"), "{json:?}");
}

#[test]
fn orphans_are_reaped_and_commands_work_beside_it() {
    let host = Host::kernel();
    let container = Container::begin(&host, &["cluster", "runtime", "app"]);
    comes_up(&host, "app", 1);
    let orphan = ["sh", "-c", "sleep 3 & echo $!"];
    command::run(&mut container.command(&host, &orphan)).ok();
    let strays = || {
        children(container.first()).into_iter().filter(|child| {
            fs::read_to_string(format!("/proc/{child}/comm")).is_ok_and(|name| name == "sleep\n")
        })
    };
    wait::until_true("an orphan comes to process 1", || strays().count() == 1);
    wait::until_true("it is reaped", || strays().count() == 0);
    let list = ["cluster", "list"];
    command::run(&mut container.command(&host, &list)).ok().says("app");
    command::run(&mut container.command(&host, &["cluster", "scale", "app", "2"])).ok();
    // What was stopped by hand may be started again, and the container stays.
    command::run(&mut container.command(&host, &["cluster", "stop", "app"])).ok();
    command::run(&mut container.command(&host, &["cluster", "start", "app"])).ok();
    http::get(local(8080));
    container.signal(Signal::SIGINT);
    container.end().code(0);
}

#[test]
fn what_a_worker_leaves_behind_is_reaped() {
    let host = Host::kernel();
    let script = host.work().join("leaves.sh");
    fs::write(&script, "(sleep 2 &)\nexec tail -f /dev/null\n").unwrap();
    let script = script.display().to_string();
    let container = Container::begin(&host, &["cluster", "runtime", &script, "--no-port"]);
    let orphans = || {
        let named = |pid: &u32, name: &str| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        };
        let of = |pid: u32| children(pid).into_iter().filter(|pid| named(pid, "sleep")).count();
        host.processes().into_iter().map(of).sum::<usize>()
    };
    wait::until_true("there is an orphan", || orphans() == 1);
    wait::until_true("it is reaped", || orphans() == 0);
    container.signal(Signal::SIGTERM);
    container.end().code(0);
}

#[test]
fn a_daemon_that_is_killed_is_started_again() {
    let host = Host::kernel();
    let container = Container::begin(&host, &["cluster", "runtime", "app", "-i", "2"]);
    comes_up(&host, "app", 2);
    let before = host.pids("app");
    let daemon = || {
        let own = |pid: &u32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with(b"cluster\0daemon")
        };
        let daemons: Vec<_> = host.processes().into_iter().filter(own).collect();
        let child = |pid: &&u32| daemons.contains(&host::parent(**pid));
        daemons.iter().find(child).copied()
    };
    let killed = daemon().expect("there is a daemon");
    host::signal(killed, Signal::SIGKILL);
    wait::until_true("there is another", || daemon().is_some_and(|pid| pid != killed));
    comes_up(&host, "app", 2);
    assert_eq!(host.pids("app"), before, "its workers run on");
    container.signal(Signal::SIGTERM);
    container.end().code(0);
}

#[test]
fn a_second_sigterm_does_not_wait() {
    let host = Host::kernel();
    let script = fixture("stubborn.py");
    let args = ["cluster", "runtime", &script, "--kill-timeout", "1h"];
    let container = Container::begin(&host, &args);
    comes_up(&host, "stubborn", 1);
    container.signal(Signal::SIGTERM);
    host.until("stubborn", "is told to end", |app| {
        app.status != cluster_user::api::message::Status::Online
    });
    container.signal(Signal::SIGTERM);
    container.end();
}

#[test]
fn a_file_system_that_is_read_only_is_no_hindrance() {
    read_only(|_| {});
}

#[test]
fn a_home_that_an_image_was_made_with_is_no_hindrance_where_nothing_can_be_written() {
    read_only(|state| {
        fs::DirBuilder::new().mode(0o700).create(state.join("cluster")).unwrap();
        fs::write(state.join("cluster/daemon.lock"), "1\n").unwrap();
    });
}

/// Runs an app where only `/run` can be written, with what `image` puts in the folder that is `/var/lib`.
fn read_only(image: impl FnOnce(&Path)) {
    let host = Host::kernel();
    let [run, state] = ["run", "lib"].map(|name| host.work().join(name));
    for folder in [&run, &state] {
        fs::create_dir(folder).unwrap();
    }
    image(&state);
    let script = format!(
        "mount --bind {} /run && mount --bind {state} /var/lib && \
         mount -o remount,bind,ro /var/lib && mount -o remount,bind,ro / && \
         exec cluster runtime app",
        run.display(),
        state = state.display(),
    );
    let container = Container::changed(&host, &["sh", "-c", &script], |command| {
        command.env_remove("CLUSTER_HOME");
    });
    let list = || {
        let mut command = container.command(&host, &["cluster", "list"]);
        command::run(command.env_remove("CLUSTER_HOME"))
    };
    wait::until_true("commands find the daemon in its spare home", || {
        list().stdout.contains("online")
    });
    assert!(run.join("cluster").exists());
    container.signal(Signal::SIGTERM);
    container.end().code(0);
    assert!(!run.join("cluster").exists(), "it is removed at the end");
}

#[test]
fn without_capabilities_it_says_so_once_and_serves_all_the_same() {
    let host = Host::kernel();
    let less = ["setpriv", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all"];
    let args = [&less[..], &["cluster", "runtime", "app", "-i", "2"]].concat();
    let container = Container::begin(&host, &args);
    comes_up(&host, "app", 2);
    for _ in 0..20 {
        http::get(local(8080));
    }
    container.signal(Signal::SIGTERM);
    let output = container.end().code(0);
    assert_eq!(output.stderr.matches("plain mode").count(), 1, "{}", output.stderr);
}

#[test]
fn names_of_pm2_mean_the_same_and_so_does_no_daemon() {
    let host = Host::kernel();
    let link = host.work().join("pm2-runtime");
    std::os::unix::fs::symlink(programs().join("cluster"), &link).unwrap();
    let link = link.display().to_string();
    for args in [
        &[link.as_str(), "start", "app", "-i", "2"][..],
        &["cluster", "start", "app", "-i", "2", "--no-daemon"],
    ] {
        let container = Container::begin(&host, args);
        comes_up(&host, "app", 2);
        container.signal(Signal::SIGTERM);
        container.end().code(0);
    }
}

#[test]
fn it_works_where_it_is_not_process_1_and_one_home_has_one_daemon() {
    let host = Host::kernel();
    let begun = host.begin(&["runtime", "app"]);
    comes_up(&host, "app", 1);
    host.cluster(&["runtime", "app"]).fails().code(1).complains("already");
    host::signal(begun.pid(), Signal::SIGINT);
    begun.end().code(0);
    assert!(host.processes().is_empty());
}
