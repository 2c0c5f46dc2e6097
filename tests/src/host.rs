//! Host: a machine for one test, with a `cluster` of its own.

use std::{
    fs::{self, Permissions},
    os::unix::{
        fs::{PermissionsExt as _, chown},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use cluster_user::datapath::Mode;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    built,
    command::{self, Begun, Output},
    leftover::Leftover,
    namespace::Namespace,
    wait,
};

/// A private network with one `CLUSTER_HOME`. Everything is run from the thread that made it, or from
/// threads that one starts: namespaces belong to threads.
#[derive(Debug)]
pub struct Host {
    mode: Mode,
    network: Namespace,
    folder: TempDir,
    /// Whether another host is in the same network, so that its processes are none of this one's.
    is_shared: bool,
    /// Who its commands run as.
    user: User,
}

/// Who the commands of a host run as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// As the tests do.
    Root,
    /// With no privilege at all.
    Nobody,
}

/// Numeric user and group of [`User::Nobody`].
pub const NOBODY: u32 = 65_534;

impl Host {
    /// A host where the kernel program carries connections.
    pub fn kernel() -> Self {
        Self::new(Mode::Kernel)
    }

    /// A host that makes do without BPF.
    pub fn plain() -> Self {
        Self::new(Mode::Plain)
    }

    /// A host in either mode.
    pub fn new(mode: Mode) -> Self {
        Self::within(Namespace::enter(), mode, false, User::Root)
    }

    /// A host of a user without any privilege, who gets plain mode without asking for it.
    pub fn unprivileged() -> Self {
        Self::within(Namespace::enter(), Mode::Plain, false, User::Nobody)
    }

    /// A second daemon on the same network, with a home of its own.
    pub fn beside(neighbour: &Self) -> Self {
        Self::within(neighbour.network.clone(), neighbour.mode, true, neighbour.user)
    }

    fn within(network: Namespace, mode: Mode, is_shared: bool, user: User) -> Self {
        let folder = tempfile::Builder::new().prefix("cluster-test-").tempdir();
        let folder = folder.expect("failed to create a folder");
        let host = Self { mode, network, folder, is_shared, user };
        fs::create_dir(host.work()).expect("failed to create a working folder");
        if user == User::Nobody {
            host.open_to_all();
            host.copy_programs();
            for folder in [host.folder.path(), &host.work()] {
                chown(folder, Some(NOBODY), Some(NOBODY)).expect("root may give a folder away");
            }
        }
        host
    }

    /// `PATH` of everything run here: the examples, `cluster`, and the system's own programs.
    fn search_path(&self) -> String {
        let built = match self.user {
            User::Root => format!("{0}/examples:{0}", built::programs().display()),
            User::Nobody => self.folder.path().join("bin").display().to_string(),
        };
        format!("{built}:{}", built::SYSTEM_PATH)
    }

    /// The folder they are built in may be closed to other users.
    fn copy_programs(&self) {
        let bin = self.folder.path().join("bin");
        fs::create_dir(&bin).expect("failed to create a folder");
        for program in ["cluster", "examples/app"] {
            let from = built::programs().join(program);
            let name = from.file_name().expect("programs have names");
            // By a process of its own: what another thread forks in this moment would inherit the file that is being
            // written, and a program that somebody may write to cannot be run (`ETXTBSY`).
            let copied = Command::new("cp").arg(&from).arg(bin.join(name)).status();
            assert!(copied.expect("failed to run cp").success(), "failed to copy a program");
        }
    }

    /// Lets every user into its folder, which is this test's user's alone otherwise.
    pub fn open_to_all(&self) {
        fs::set_permissions(self.folder.path(), Permissions::from_mode(0o755))
            .expect("failed to open a folder");
    }

    /// Which mode its daemon runs in.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// Its `CLUSTER_HOME`.
    pub fn home(&self) -> PathBuf {
        self.folder.path().join("home")
    }

    /// Working folder of its commands.
    pub fn work(&self) -> PathBuf {
        self.folder.path().join("work")
    }

    /// Writes a file into the working folder and returns its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.work().join(name);
        fs::write(&path, text).expect("failed to write a file");
        path.into_os_string().into_string().expect("temporary folders have plain names")
    }

    /// A command with this host's environment, to be changed before it is run.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new(program.as_ref());
        command
            .env_clear()
            .env("PATH", self.search_path())
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("CLUSTER_HOME", self.home())
            .env("PYTHONDONTWRITEBYTECODE", "1")
            .current_dir(self.work());
        match (self.user, self.mode) {
            (User::Nobody, _) => {
                command.uid(NOBODY).gid(NOBODY);
            }
            (User::Root, Mode::Plain) => {
                command.env("CLUSTER_MODE", "plain");
            }
            (User::Root, Mode::Kernel) => {}
        }
        command
    }

    /// Runs `cluster` with these arguments.
    pub fn cluster(&self, args: &[&str]) -> Output {
        command::run(self.command("cluster").args(args))
    }

    /// Begins to run `cluster` with these arguments.
    pub fn begin(&self, args: &[&str]) -> Begun {
        Begun::begin(self.command("cluster").args(args))
    }

    /// Starts a program that is none of `cluster`'s; it is ended with the guard.
    pub fn stranger(&self, program: &str, args: &[&str]) -> Stranger {
        let child = self.command(program).args(args).stdout(std::process::Stdio::null()).spawn();
        Stranger(child.unwrap_or_else(|error| panic!("failed to run `{program}`: {error}")))
    }

    /// Every process on this host's network: daemon, workers, strangers.
    pub fn processes(&self) -> Vec<u32> {
        self.network.processes()
    }
}

impl Host {
    #[expect(clippy::print_stderr, reason = "printed only with the failure of the test")]
    fn show_daemon_log(&self) {
        let log = fs::read_to_string(self.home().join("daemon.log")).unwrap_or_default();
        eprintln!("--- daemon.log of {}\n{log}---", self.home().display());
    }
}

impl Host {
    /// Those of [`processes`](Self::processes) that are none of a neighbour's.
    fn own_processes(&self) -> Vec<u32> {
        if !self.is_shared {
            return self.processes();
        }
        if thread::panicking() {
            return Vec::new();
        }
        self.apps().iter().flat_map(|app| &app.workers).filter_map(|worker| worker.pid).collect()
    }
}

impl Drop for Host {
    /// Ends the daemon and checks that nothing of it is left; what is left is ended.
    fn drop(&mut self) {
        let before = Leftover::expected(&self.home(), &self.own_processes());
        // A panic in here, while the test's own is under way, would end all tests at once.
        let kill = || command::try_run(self.command("cluster").arg("kill"));
        let killed = self.home().exists().then(kill);
        let processes = || if self.is_shared { Vec::new() } else { self.processes() };
        let left =
            wait::within(wait::PATIENCE / 4, || before.of(&processes()).is_empty().then_some(()));
        let left = left.map_or_else(|| before.of(&processes()), |()| Vec::new());
        before.clean(&processes());
        if thread::panicking() {
            self.show_daemon_log();
        } else {
            assert!(left.is_empty(), "left behind after `cluster kill` ({killed:?}): {left:#?}");
        }
    }
}

/// A process of the test's own, ended when dropped.
#[derive(Debug)]
pub struct Stranger(Child);

impl Stranger {
    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        // Both succeed for a child, whatever has become of it.
        self.0.kill().unwrap_or_default();
        drop(self.0.wait());
    }
}

/// Sends a signal to one process.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    let target = Pid::from_raw(pid.cast_signed());
    kill(target, signal)
        .unwrap_or_else(|error| panic!("failed to send {signal} to {pid}: {error}"));
}

/// Stops a process and waits until no thread of it runs. Until then one that sleeps in `accept(2)` may
/// still take a connection that has come since: the kernel looks at the queue before it looks at signals.
#[track_caller]
pub fn freeze(pid: u32) {
    signal(pid, Signal::SIGSTOP);
    wait::until_true(&format!("every thread of {pid} is stopped"), || {
        let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("the process is there");
        let mut stats = tasks.flatten().filter_map(|task| {
            // A thread that has ended in the meantime does not run.
            fs::read_to_string(task.path().join("stat")).ok()
        });
        stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, state)| state.starts_with('T')))
    });
}

/// Whether a process is there and no zombie. One whose first thread has ended is there as long as another has not.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let threads = || fs::read_dir(format!("/proc/{pid}/task")).map_or(0, Iterator::count);
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']) || threads() > 1)
}

/// The parent of a process that is there.
#[track_caller]
pub fn parent(pid: u32) -> u32 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))
        .unwrap_or_else(|error| panic!("process {pid} is not there: {error}"));
    let (_, fields) = stat.rsplit_once(") ").expect("as in proc(5)");
    fields.split(' ').nth(1).expect("as in proc(5)").parse().expect("as in proc(5)")
}
