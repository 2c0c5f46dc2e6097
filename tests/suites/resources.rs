//! What workers may use.

use std::fs;

use cluster_tests::{host::Host, in_both_modes};
use cluster_user::{config::spec::resources::Controller, process::cgroup};

in_both_modes!(workers_have_the_limits_that_their_app_was_given);

fn workers_have_the_limits_that_their_app_was_given(host: &Host) {
    host.cluster(&[
        "start",
        "app",
        "-i",
        "2",
        "--rlimit",
        "nofile=512:1024",
        "--rlimit",
        "core=0",
        "--umask",
        "027",
        "--nice",
        "5",
        "--cpus",
        "spread",
        "--oom-score-adj",
        "250",
    ])
    .ok();
    let mut cpus = Vec::new();
    for pid in host.pids("app") {
        let read = |file: &str| fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let limits = read("limits");
        let limit = |name: &str| {
            let line = limits.lines().find(|line| line.starts_with(name)).unwrap();
            line[name.len()..].split_whitespace().take(2).map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(limit("Max open files"), ["512", "1024"]);
        assert_eq!(limit("Max core file size"), ["0", "0"]);
        let status = read("status");
        assert!(status.contains("Umask:\t0027\n"), "{status}");
        assert_eq!(read("oom_score_adj").trim(), "250");
        // The nineteenth field, seventeen after the name in parentheses (proc(5)).
        let stat = read("stat");
        assert_eq!(stat.rsplit(") ").next().unwrap().split(' ').nth(16), Some("5"));
        let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        cpus.push(list.trim().parse::<u32>().expect("one CPU"));
    }
    let all = fs::read_to_string("/proc/self/status").unwrap();
    let all = all.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
    assert_eq!(cpus[0] == cpus[1], all.trim().parse::<u32>().is_ok(), "{cpus:?} of {all}");
}

/// Where this host offers a controller the limit is kept, and where not the start is refused with the next step.
#[test]
fn limits_of_cgroups_hold_or_what_they_lack_is_named() {
    for (controller, args, file, value) in [
        (Controller::Memory, ["--memory-max", "300M"], "memory.max", "314572800"),
        (Controller::Cpu, ["--cpu-max", "150%"], "cpu.max", "150000 100000"),
        (Controller::Pids, ["--pids-max", "50"], "pids.max", "50"),
    ] {
        let host = Host::kernel();
        let started = host.cluster(&["start", "app", args[0], args[1]]);
        let row = format!("cgroup controller {}", controller.name());
        let doctor = host.cluster(&["doctor"]);
        let line = doctor.lines().into_iter().find(|line| line.contains(&row)).unwrap().to_owned();
        match cgroup::offered(controller) {
            Ok(_) => {
                started.ok();
                assert!(line.starts_with("ok"), "{line}");
                let pid = host.pids("app")[0];
                let own = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap();
                let own = own.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
                let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
                let mount = mounts.lines().find(|line| line.contains(" cgroup2 ")).unwrap();
                let top = mount.split(' ').nth(1).unwrap();
                let found = fs::read_to_string(format!("{top}/{own}/{file}")).unwrap();
                assert_eq!(found.trim(), value);
            }
            Err(lacking) => {
                println!("this host: {lacking}");
                let limit = args[0].trim_start_matches("--").replace('-', "_");
                started
                    .fails()
                    .complains(&format!("{limit} is not to be had: {lacking}"))
                    .complains(&lacking.hint());
                assert!(line.starts_with("missing"), "{line}");
                assert!(host.apps().is_empty(), "nothing was started");
            }
        }
    }
}

#[test]
fn what_cannot_be_is_refused_by_its_name() {
    let host = Host::plain();
    let start = |args: &[&str]| host.cluster(&[&["start", "app"], args].concat()).fails();
    start(&["--rlimit", "nofiles=10"]).complains("is `nofile` meant?");
    start(&["--umask", "999"]).complains("is no umask");
    start(&["--cpus", "8000"]).complains("has no CPU 8000");
    start(&["--cpu-max", "lots"]).complains("is no number of CPUs");
    start(&["--nice", "77"]).complains("nice is 77");
}

#[test]
fn a_daemon_without_privileges_says_what_it_may_not_give() {
    let host = Host::unprivileged();
    let start = |args: &[&str]| host.cluster(&[&["start", "app"], args].concat()).fails();
    start(&["--nice", "-5", "--max-restarts", "1"]).complains("failed to set nice to -5: ");
    host.cluster(&["delete", "app"]).ok();
    let limit = ["--rlimit", "nofile=unlimited", "--max-restarts", "1"];
    start(&limit).complains("failed to set its limits nofile=unlimited: ");
}
