//! Host: a machine for one test, with a `cluster` of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command},
    thread,
};

use cluster_user::{
    api::message::{AppView, Pong, Status},
    datapath::Mode,
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

use crate::{
    built,
    command::{self, Output},
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
}

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
        Self::within(Namespace::enter(), mode, false)
    }

    /// A second daemon on the same network, with a home of its own.
    pub fn beside(neighbour: &Self) -> Self {
        Self::within(neighbour.network.clone(), neighbour.mode, true)
    }

    fn within(network: Namespace, mode: Mode, is_shared: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("cluster-test-").tempdir();
        let host =
            Self { mode, network, folder: folder.expect("failed to create a folder"), is_shared };
        fs::create_dir(host.work()).expect("failed to create a working folder");
        host
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
            .env("PATH", built::search_path())
            .env("HOME", self.folder.path())
            .env("LANG", "C.UTF-8")
            .env("CLUSTER_HOME", self.home())
            .current_dir(self.work());
        match self.mode {
            Mode::Kernel => {}
            Mode::Plain => {
                command.env("CLUSTER_MODE", "plain");
            }
        }
        command
    }

    /// Runs `cluster` with these arguments.
    pub fn cluster(&self, args: &[&str]) -> Output {
        command::run(self.command(built::programs().join("cluster")).args(args))
    }

    /// Starts a program that is none of `cluster`'s; it is ended with the guard.
    pub fn stranger(&self, program: &str, args: &[&str]) -> Stranger {
        let child = self.command(program).args(args).stdout(std::process::Stdio::null()).spawn();
        Stranger(child.unwrap_or_else(|error| panic!("failed to run `{program}`: {error}")))
    }

    /// All apps, as `list --json` shows them.
    #[track_caller]
    pub fn apps(&self) -> Vec<AppView> {
        let shown = self.cluster(&["list", "--json"]).ok();
        serde_json::from_value(shown.json())
            .unwrap_or_else(|error| panic!("{error}: {}", shown.stdout))
    }

    /// The app of that name.
    #[track_caller]
    pub fn app(&self, name: &str) -> AppView {
        let mut apps = self.apps();
        let at = apps.iter().position(|app| app.name == name);
        apps.swap_remove(at.unwrap_or_else(|| panic!("no app `{name}`: {apps:#?}")))
    }

    /// Waits until the app looks as described.
    #[track_caller]
    pub fn until(&self, name: &str, what: &str, mut is: impl FnMut(&AppView) -> bool) -> AppView {
        let mut last = None;
        let found = wait::within(wait::PATIENCE, || {
            let app = self.app(name);
            if is(&app) {
                return Some(app);
            }
            last = Some(app);
            None
        });
        found.unwrap_or_else(|| panic!("waited in vain: `{name}` {what}; it is {last:#?}"))
    }

    /// Waits until that many workers are online, and no others are about.
    #[track_caller]
    pub fn until_online(&self, name: &str, workers: u32) -> AppView {
        self.until(name, &format!("has {workers} workers, all online"), |app| {
            app.online == workers
                && app.workers.len() == workers as usize
                && app.workers.iter().all(|worker| worker.status == Status::Online)
        })
    }

    /// Process ids of the app's workers, by instance.
    #[track_caller]
    pub fn pids(&self, name: &str) -> Vec<u32> {
        self.cluster(&["pid", name]).ok().lines().iter().map(|pid| number(pid)).collect()
    }

    /// The daemon about itself.
    #[track_caller]
    pub fn ping(&self) -> Pong {
        let shown = self.cluster(&["ping", "--json"]).ok();
        serde_json::from_value(shown.json())
            .unwrap_or_else(|error| panic!("{error}: {}", shown.stdout))
    }

    /// Every process on this host's network: daemon, workers, strangers.
    pub fn processes(&self) -> Vec<u32> {
        self.network.processes()
    }
}

impl Drop for Host {
    /// Ends the daemon and checks that nothing of it is left; what is left is ended.
    fn drop(&mut self) {
        let before = Leftover::expected(&self.home(), &self.processes());
        let killed = self.home().exists().then(|| self.cluster(&["kill"]));
        let processes = || if self.is_shared { Vec::new() } else { self.processes() };
        let left =
            wait::within(wait::PATIENCE / 4, || before.of(&processes()).is_empty().then_some(()));
        let left = left.map_or_else(|| before.of(&processes()), |()| Vec::new());
        before.clean(&processes());
        if !thread::panicking() {
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
        self.0.kill().expect("a child can be killed");
        self.0.wait().expect("a child can be waited for");
    }
}

/// Sends a signal to one process.
#[track_caller]
pub fn signal(pid: u32, signal: Signal) {
    let target = Pid::from_raw(pid.cast_signed());
    kill(target, signal)
        .unwrap_or_else(|error| panic!("failed to send {signal} to {pid}: {error}"));
}

/// Whether a process is there and no zombie.
pub fn is_alive(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, state)| !state.starts_with(['Z', 'X']))
}

#[track_caller]
fn number(text: &str) -> u32 {
    text.trim().parse().unwrap_or_else(|_| panic!("`{text}` is no process id"))
}
