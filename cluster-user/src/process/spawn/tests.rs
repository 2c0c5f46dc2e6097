//! Children as they see themselves.

use std::{
    fs,
    io::{PipeReader, Read as _},
    os::unix::fs::PermissionsExt as _,
    process,
};

use super::*;
use crate::{
    config::{rlimit, spec::resources::Resources},
    id::{AppId, Instance, WorkerId},
    process::{
        cgroup::tests::hierarchy,
        limits,
        watch::{ExitStatus, reap},
    },
};

#[test]
fn a_program_finds_the_sockets_that_were_made_for_it_and_is_told_so() {
    let code = "import os, socket
s = socket.socket(fileno=5)
print(os.environ['LISTEN_PID'] == str(os.getpid()), os.environ['A'], s.getsockname()[:2],
    s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN), os.get_inheritable(5))";
    for way in [Way::Clone, Way::Fork] {
        let free = std::net::TcpListener::bind("[::1]:0").unwrap().local_addr().unwrap();
        let socket = Socket { number: 5, is_tcp: true, address: free, v6only: true, backlog: 4 };
        let (mut reader, writer) = io::pipe().unwrap();
        let args = ["python3", "-I", "-S", "-c", code].map(str::to_owned);
        let env = [("LISTEN_PID", ""), ("A", "")].map(|(k, v)| (k.to_owned(), v.to_owned()));
        let launch = Launch {
            program: Path::new("/usr/bin/python3"),
            args: &args,
            env: &env,
            cwd: Path::new("/"),
            user: None,
            cgroup: None,
            stdout: writer.as_fd(),
            stderr: writer.as_fd(),
            inherited: &[],
            sockets: &[socket],
            filter: None,
            bounds: &Bounds::default(),
        };
        let spawned = start(way, &launch).unwrap();
        drop(writer);
        let said = finish(&spawned, &mut reader);
        assert_eq!(said, format!("True  ('::1', {}) 1 True\n", free.port()), "{way:?}");
    }
}

#[test]
fn a_socket_that_cannot_be_made_is_named() {
    let held = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let fine = Socket {
        number: 5,
        is_tcp: false,
        address: "127.0.0.1:0".parse().unwrap(),
        v6only: false,
        backlog: 1,
    };
    let taken = Socket { number: 6, is_tcp: true, address, ..fine };
    let null = fs::File::options().write(true).open("/dev/null").unwrap();
    let launch = Launch {
        program: Path::new("/bin/true"),
        args: &["true".to_owned()],
        env: &[],
        cwd: Path::new("/"),
        user: None,
        cgroup: None,
        stdout: null.as_fd(),
        stderr: null.as_fd(),
        inherited: &[],
        sockets: &[fine, taken],
        filter: None,
        bounds: &Bounds::default(),
    };
    let error = spawn(&launch).unwrap_err();
    assert_eq!(
        (error.step, error.errno, error.socket),
        (Step::Socket, Errno::EADDRINUSE, Some(taken))
    );
    assert_eq!(error.to_string(), format!("failed to listen on {address}: address already in use"));
}

#[test]
fn a_child_has_no_signal_blocked_or_ignored() {
    for way in [Way::Clone, Way::Fork] {
        // The test process ignores SIGPIPE, as every Rust program does, and blocks one signal here.
        let mut blocked = nix::sys::signal::SigSet::empty();
        blocked.add(nix::sys::signal::Signal::SIGUSR1);
        blocked.thread_block().unwrap();
        let status = run(way, &Script::new("cat /proc/self/status")).unwrap();
        for field in ["SigBlk", "SigIgn"] {
            let line = status.lines().find(|line| line.starts_with(field)).unwrap();
            assert!(line.ends_with("0000000000000000"), "{way:?}: {line}");
        }
    }
}

#[test]
fn a_child_has_three_descriptors_and_the_environment_it_was_given() {
    for way in [Way::Clone, Way::Fork] {
        // One that this process inherited, so to speak: it is not close-on-exec.
        let inherited = fs::File::open("/dev/null").unwrap();
        let copy = nix::unistd::dup(&inherited).unwrap();
        let shown = run(
            way,
            &Script::new("for fd in /proc/$$/fd/*; do echo ${fd##*/}; done; cat /proc/$$/environ"),
        );
        drop(copy);
        let shown = shown.unwrap();
        let (fds, environment) = shown.split_at(shown.find("A=").unwrap());
        // The shell opens its script argument from memory, and the folder while it lists it.
        let fds: Vec<u32> =
            fds.lines().map(|fd| fd.parse().unwrap()).filter(|fd| *fd < 3).collect();
        assert_eq!(fds, [0, 1, 2]);
        assert_eq!(environment, "A=1\0B=two words\0");
    }
}

#[test]
fn nothing_but_the_streams_is_left_open() {
    let script = Script::program("/usr/bin/ls", &["ls", "-l", "/proc/self/fd"]);
    let shown = run(Way::Clone, &script).unwrap();
    // The fourth is the folder being listed.
    assert_eq!(shown.lines().filter(|line| line.contains(" -> ")).count(), 4, "{shown}");
    assert!(shown.contains("0 -> /dev/null"), "{shown}");
}

#[test]
fn what_is_to_be_inherited_has_its_number() {
    let (zero, null) = (fs::File::open("/dev/zero").unwrap(), fs::File::open("/dev/null").unwrap());
    let inherited = [(zero.as_fd(), 98), (null.as_fd(), 3), (zero.as_fd(), 99)];
    for way in [Way::Clone, Way::Fork] {
        let ls = Script::program("/usr/bin/ls", &["ls", "-l", "/proc/self/fd"]);
        let script = Script { inherited: &inherited, ..ls };
        let shown = run(way, &script).unwrap();
        for (number, target) in [(98, "/dev/zero"), (3, "/dev/null"), (99, "/dev/zero")] {
            assert!(shown.contains(&format!(" {number} -> {target}\n")), "{way:?}: {shown}");
        }
        // Those, the streams, and the folder being listed.
        assert_eq!(shown.lines().filter(|line| line.contains(" -> ")).count(), 7, "{shown}");
    }
}

#[test]
fn a_child_leads_a_session_in_its_folder() {
    let shown = run(
        Way::Clone,
        &Script::new("read a b c d pgrp session rest < /proc/$$/stat; echo $$ $pgrp $session; pwd"),
    )
    .unwrap();
    let mut words = shown.split_whitespace();
    let pid = words.next().unwrap();
    assert_eq!((words.next(), words.next(), words.next()), (Some(pid), Some(pid), Some("/tmp")));
}

#[test]
fn a_child_becomes_the_user_with_its_groups() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can become somebody else");
        return;
    }
    let user = User { uid: 65534, gid: 65533, groups: vec![65533, 7] };
    let script = Script {
        user: Some(user),
        ..Script::new("id -u; id -g; id -G; grep CapEff /proc/self/status")
    };
    let shown = run(Way::Clone, &script).unwrap();
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines[..3], ["65534", "65533", "65533 7"]);
    assert!(lines[3].ends_with("0000000000000000"));
}

#[test]
fn a_child_is_born_in_its_cgroup() {
    let hierarchy = hierarchy("spawn");
    for (number, way) in (0..).zip([Way::Clone, Way::Fork]) {
        let cgroup = hierarchy.create_worker(AppId(0), WorkerId(number)).unwrap();
        let script = Script::new("cat /proc/self/cgroup");
        let shown = run_in(way, &script, Some(cgroup.folder())).unwrap();
        let own = shown.lines().find(|line| line.starts_with("0::")).unwrap();
        assert!(own.ends_with(&format!("/app-0/worker-{number}")), "{way:?}: {own}");
    }
    hierarchy.remove().unwrap();
}

#[test]
fn a_raised_limit_is_not_passed_on() {
    let before = run(Way::Clone, &Script::new("ulimit -Sn")).unwrap();
    limits::raise_descriptors().unwrap();
    assert_eq!(run(Way::Clone, &Script::new("ulimit -Sn")).unwrap(), before);
}

#[test]
fn a_child_has_the_bounds_it_was_given() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can give away what it asks for");
        return;
    }
    let resources = Resources {
        cpus: Some("spread".parse().unwrap()),
        nice: Some(3),
        rlimits: [rlimit::parse("nofile=77:99").unwrap(), rlimit::parse("core=unlimited").unwrap()]
            .into(),
        umask: Some(0o027),
        oom_score_adj: Some(123),
        ..Resources::default()
    };
    // Set before the identity changes, so that they hold for one who could not set them.
    let user = Some(User { uid: 65534, gid: 65534, groups: vec![65534] });
    for way in [Way::Clone, Way::Fork] {
        let shown = Script::new(
            "ulimit -Sn; ulimit -Hn; ulimit -c; umask; cat /proc/self/oom_score_adj; nice; id -u; \
             grep Cpus_allowed_list /proc/self/status",
        );
        let shown = run(way, &Script { resources: resources.clone(), user: user.clone(), ..shown })
            .unwrap();
        let lines: Vec<_> = shown.lines().collect();
        assert_eq!(lines[..7], ["77", "99", "unlimited", "0027", "123", "3", "65534"], "{way:?}");
        let cpu = lines[7].split_whitespace().last().unwrap();
        let mine = run(way, &Script::new("grep Cpus_allowed_list /proc/self/status")).unwrap();
        assert!(cpu.parse::<u32>().is_ok(), "one CPU: {cpu}, of {mine}");
    }
}

#[test]
fn bounds_that_cannot_be_had_are_explained() {
    let fails = |resources: Resources| {
        run(Way::Clone, &Script { resources, ..Script::new("true") }).unwrap_err().to_string()
    };
    let cpus = Resources { cpus: Some("8000".parse().unwrap()), ..Resources::default() };
    let error = fails(cpus);
    assert!(error.starts_with("failed to run on CPUs 8000: invalid argument (none of"), "{error}");
    // More descriptors than the kernel itself allows (fs.nr_open).
    let rlimits = [rlimit::parse("nofile=unlimited").unwrap()].into();
    let error = fails(Resources { rlimits, ..Resources::default() });
    assert!(error.contains("set its limits nofile=unlimited: operation not permitted"), "{error}");
}

#[test]
fn a_step_that_fails_is_named() {
    let fails = |script: &Script<'_>| run(Way::Clone, script).unwrap_err().to_string();
    assert_eq!(
        fails(&Script::program("/nowhere/x", &["x"])),
        "failed to execute /nowhere/x: no such file or directory"
    );
    assert_eq!(
        fails(&Script::program("/etc/passwd", &["x"])),
        "failed to execute /etc/passwd: permission denied"
    );
    assert_eq!(
        fails(&Script { cwd: "/nowhere", ..Script::new("true") }),
        "failed to change to folder /nowhere: no such file or directory"
    );
    let long = "x".repeat(200 * 1024);
    let error = fails(&Script::program("/bin/true", &["true", &long]));
    assert!(error.contains("its arguments (204806 bytes)"), "{error}");
    let null = fails(&Script::program("/bin/true", &["true", "a\0b"]));
    assert!(null.contains("null byte"), "{null}");
}

#[test]
fn a_script_with_a_missing_interpreter_is_explained() {
    let path = std::env::temp_dir().join(format!("cluster-spawn-{}", process::id()));
    fs::write(&path, "#!/nowhere/interpreter\n").unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    let error = run(Way::Clone, &Script::program(path.to_str().unwrap(), &["x"])).unwrap_err();
    fs::remove_file(&path).unwrap();
    assert_eq!((error.step, error.errno), (Step::Execute, Errno::ENOENT));
    assert!(error.to_string().contains("the file exists"), "{error}");
}

#[test]
fn a_filter_comes_with_its_notifier() {
    // Returns SECCOMP_RET_ALLOW whatever is called.
    let allow = [libc::sock_filter { code: 6, jt: 0, jf: 0, k: libc::SECCOMP_RET_ALLOW }];
    let script = Script { filter: Some(&allow), ..Script::new("grep Seccomp: /proc/self/status") };
    let (mut reader, writer) = io::pipe().unwrap();
    let spawned = launch(Way::Clone, &script, None, writer.as_fd()).unwrap();
    drop(writer);
    let shown = finish(&spawned, &mut reader);
    assert!(spawned.notifier.is_some());
    assert_eq!(shown, "Seccomp:\t2\n");
}

/// What to run, as in `Launch` but with ends that live long enough.
#[derive(Clone, Debug)]
struct Script<'a> {
    program: &'a str,
    args: Vec<String>,
    cwd: &'a str,
    user: Option<User>,
    filter: Option<&'a [libc::sock_filter]>,
    resources: Resources,
    inherited: &'a [(BorrowedFd<'a>, RawFd)],
}

impl<'a> Script<'a> {
    fn new(script: &str) -> Self {
        Self::program("/bin/sh", &["sh", "-c", script])
    }

    fn program(program: &'a str, args: &[&str]) -> Self {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        Self {
            program,
            args,
            cwd: "/tmp",
            user: None,
            filter: None,
            inherited: &[],
            resources: Resources::default(),
        }
    }
}

/// Runs it to its end and returns what it wrote.
fn run(way: Way, script: &Script<'_>) -> Result<String, SpawnError> {
    run_in(way, script, None)
}

fn run_in(
    way: Way,
    script: &Script<'_>,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<String, SpawnError> {
    let (mut reader, writer) = io::pipe().unwrap();
    let spawned = launch(way, script, cgroup, writer.as_fd());
    drop(writer);
    spawned.map(|spawned| finish(&spawned, &mut reader))
}

fn launch(
    way: Way,
    script: &Script<'_>,
    cgroup: Option<BorrowedFd<'_>>,
    stdout: BorrowedFd<'_>,
) -> Result<Spawned, SpawnError> {
    let env = [("A".to_owned(), "1".to_owned()), ("B".to_owned(), "two words".to_owned())];
    start(
        way,
        &Launch {
            program: Path::new(script.program),
            args: &script.args,
            env: &env,
            cwd: Path::new(script.cwd),
            user: script.user.as_ref(),
            cgroup,
            stdout,
            stderr: stdout,
            inherited: script.inherited,
            sockets: &[],
            filter: script.filter,
            bounds: &Bounds::of(&script.resources, Instance(1)),
        },
    )
}

fn finish(spawned: &Spawned, reader: &mut PipeReader) -> String {
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    let mut ready = [rustix::event::PollFd::new(&spawned.process, rustix::event::PollFlags::IN)];
    rustix::event::poll(&mut ready, None).unwrap();
    assert_eq!(reap(spawned.process.as_fd()).unwrap(), Some(ExitStatus::Code(0)), "{text}");
    text
}
