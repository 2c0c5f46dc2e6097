//! Machine: systemd as the first process of namespaces of its own, on a disk that is there again at the next boot.

use std::{
    fs::{self, File, Permissions},
    io,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

use nix::{
    sched::{CloneFlags, setns},
    sys::signal::Signal,
};
use tempfile::TempDir;

use crate::{
    built::{self, fixture},
    command::{self, Output},
    host::signal,
    wait,
};

/// Units of distributions that have nothing to do with what is tested, and wait for hardware.
const MASKED: [&str; 6] = [
    "systemd-firstboot",
    "systemd-networkd",
    "systemd-networkd-wait-online",
    "systemd-resolved",
    "systemd-udevd",
    "systemd-timesyncd",
];

/// Number of [`Machine::user`], and its group's.
const USER: u32 = 47_123;

/// A machine. The thread that boots it is in its network from then on.
#[derive(Debug)]
pub struct Machine {
    folder: TempDir,
    programs: Vec<PathBuf>,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    /// Waits for the first process, and ends it with itself.
    outside: Child,
    /// The first process.
    init: u32,
    cgroup: PathBuf,
}

impl Machine {
    /// A machine that has `cluster` and these programs in /usr/local/bin, switched off.
    pub fn new(programs: &[&Path]) -> Self {
        let folder = tempfile::Builder::new().prefix("cluster-machine-").tempdir();
        let folder = folder.expect("failed to create a folder");
        // Users other than root have their files in it.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).expect("it is ours");
        let cluster = built::programs().join("cluster");
        let programs = programs.iter().map(|path| (*path).to_owned()).chain([cluster]).collect();
        let machine = Self { folder, programs, running: None };
        machine.install().expect("failed to write to the disk of a machine");
        machine
    }

    fn install(&self) -> io::Result<()> {
        let etc = self.disk("etc");
        for folder in [etc.join("systemd/system"), self.disk("var/lib"), self.disk("home/web")] {
            fs::create_dir_all(folder)?;
        }
        std::os::unix::fs::chown(self.disk("home/web"), Some(USER), Some(USER))?;
        fs::copy("/etc/ld.so.cache", etc.join("ld.so.cache"))?;
        let groups = fs::read_to_string("/etc/group")?;
        fs::write(etc.join("group"), format!("{groups}web:x:{USER}:\n"))?;
        let users = fs::read_to_string("/etc/passwd")?;
        fs::write(etc.join("passwd"), format!("{users}web:x:{USER}:{USER}::/home/web:/bin/sh\n"))?;
        fs::write(etc.join("nsswitch.conf"), "passwd: files\ngroup: files\nhosts: files\n")?;
        fs::write(etc.join("hostname"), "machine\n")?;
        // With one it is no first boot, at which a distribution's services are enabled.
        fs::write(etc.join("machine-id"), "0123456789abcdef0123456789abcdef\n")?;
        for unit in MASKED {
            let path = etc.join(format!("systemd/system/{unit}.service"));
            std::os::unix::fs::symlink("/dev/null", path)?;
        }
        Ok(())
    }

    /// Where a file of the machine is outside of it: below `etc`, `var` or `home`.
    pub fn disk(&self, path: &str) -> PathBuf {
        self.folder.path().join("disk").join(path)
    }

    /// Boots, and waits until systemd has started everything.
    #[track_caller]
    pub fn boot(&mut self) {
        static BOOTS: AtomicU32 = AtomicU32::new(0);
        assert!(self.running.is_none(), "it is running");
        let number = BOOTS.fetch_add(1, Ordering::Relaxed);
        let name = format!("cluster-machine-{}-{number}", std::process::id());
        let cgroup = cgroups().join(name);
        fs::create_dir(&cgroup).expect("failed to make a cgroup, which needs root");
        let console = File::create(self.folder.path().join("console")).expect("a file");
        let outside = Command::new(fixture("boot.sh"))
            .arg(&cgroup)
            .arg(self.folder.path())
            .args(&self.programs)
            .stdin(Stdio::null())
            .stdout(console.try_clone().expect("a file"))
            .stderr(console)
            .spawn()
            .expect("failed to run a fixture");
        let id = outside.id();
        let running = self.running.insert(Running { outside, init: 0, cgroup });
        running.init = wait::until("the first process is systemd", || {
            let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).ok()?;
            let init = children.split_whitespace().next()?.parse().ok()?;
            // Until then it sees the files of the host, and its services.
            let name = fs::read_to_string(format!("/proc/{init}/comm")).ok()?;
            (name.trim() == "systemd").then_some(init)
        });
        let network = File::open(format!("/proc/{}/ns/net", running.init)).expect("it is there");
        setns(network, CloneFlags::CLONE_NEWNET).expect("root may enter a network");
        wait::until_true("the machine has booted", || {
            // It fails as long as systemd does not listen.
            let said = command::run(&mut self.inside(&["systemctl", "is-system-running"]));
            ["running", "degraded"].contains(&said.stdout.trim())
        });
        self.run(&["systemctl", "list-units", "--failed", "--no-legend"]).ok().never_mentions("●");
    }

    /// Shuts it down in good order and boots it again.
    #[track_caller]
    pub fn reboot(&mut self) {
        // It may end with the machine.
        drop(self.run(&["systemctl", "reboot"]));
        let running = self.running.as_mut().expect("it is running");
        wait::until("the machine is down", || running.outside.try_wait().expect("a child"));
        self.clear();
        self.boot();
    }

    /// Ends everything in it at once, as a power cut does.
    pub fn cut_power(&mut self) {
        if let Some(running) = &mut self.running {
            // Perhaps it is down already.
            if running.init > 0 && running.outside.try_wait().is_ok_and(|end| end.is_none()) {
                signal(running.init, Signal::SIGKILL);
            }
            running.outside.kill().unwrap_or_default();
            drop(running.outside.wait());
        }
        self.clear();
    }

    /// Removes what is left of the last boot.
    fn clear(&mut self) {
        if let Some(running) = self.running.take() {
            let removed = wait::within(wait::PATIENCE, || remove(&running.cgroup).ok());
            assert!(removed.is_some() || std::thread::panicking(), "processes are left");
        }
    }

    /// Runs a command as root, in a scope of its own.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Output {
        let mut all = vec!["systemd-run", "--quiet", "--scope", "--"];
        all.extend(args);
        command::run(&mut self.inside(&all))
    }

    /// Runs a command as the user `web`.
    #[track_caller]
    pub fn run_as_user(&self, args: &[&str]) -> Output {
        let (user, group) = (format!("--reuid={USER}"), format!("--regid={USER}"));
        let mut all = vec!["setpriv", &user, &group, "--clear-groups", "--"];
        all.extend(["env", "HOME=/home/web", "--chdir=/home/web"]);
        all.extend(args);
        self.run(&all)
    }

    /// One of the properties of a unit.
    #[track_caller]
    pub fn property(&self, unit: &str, name: &str) -> String {
        let said = self.run(&["systemctl", "show", unit, "--value", "--property", name]).ok();
        said.stdout.trim().to_owned()
    }

    fn inside(&self, args: &[&str]) -> Command {
        let init = self.running.as_ref().expect("it is running").init.to_string();
        let mut command = Command::new("nsenter");
        command
            .args(["--target", &init, "--mount", "--uts", "--ipc", "--net", "--pid", "--cgroup"]);
        command.args([
            "--",
            "env",
            "--ignore-environment",
            "PATH=/usr/local/bin:/usr/bin:/usr/sbin",
        ]);
        command.args(args);
        command
    }
}

impl Drop for Machine {
    #[expect(clippy::print_stderr, reason = "printed only with the failure of the test")]
    fn drop(&mut self) {
        if std::thread::panicking() && self.running.as_ref().is_some_and(|running| running.init > 0)
        {
            let journal = &["journalctl", "--no-pager", "--lines", "60"];
            let said = command::try_run(&mut self.inside(journal));
            let said = said.map_or_else(|error| error.to_string(), |said| said.stdout);
            eprintln!("--- journal of the machine\n{said}");
            let console = fs::read_to_string(self.folder.path().join("console"));
            eprintln!("--- console\n{}", console.unwrap_or_default());
        }
        self.cut_power();
    }
}

/// Where cgroups (v2) are.
fn cgroups() -> PathBuf {
    let mounts = fs::read_to_string("/proc/self/mounts").expect("it is always there");
    let mut mounts = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>());
    let mount = mounts.find(|fields| fields[2] == "cgroup2").expect("no cgroup v2 is mounted");
    mount[1].into()
}

fn remove(cgroup: &Path) -> io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}
