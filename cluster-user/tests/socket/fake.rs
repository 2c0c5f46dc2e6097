//! A daemon whose supervisor answers from a script, for tests of the API and the command.

use std::{
    path::Path,
    process::{Command, Output},
    sync::{Arc, Mutex, mpsc},
    thread::{self, JoinHandle},
    time::Duration,
};

use cluster_user::{
    api::{
        board::Board,
        exporter::Exporter,
        message::{AppView, Done, Line, LogFiles, Pong, Request, Status, VERSION, WorkerView},
        server::{self, Call},
        socket::{self, Lock},
    },
    config::{
        home::Home,
        spec::{AppSpec, Readiness},
    },
    datapath::Mode,
    id::{AppId, Generation, Instance},
};
use tempfile::TempDir;
use tokio::sync::oneshot;

/// A running daemon; it ends when dropped.
pub(crate) struct Daemon {
    pub(crate) home: Home,
    requests: Arc<Mutex<Vec<Request>>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
    _folder: TempDir,
}

impl Daemon {
    /// Starts one that answers each request with what `script` says.
    pub(crate) fn new(script: impl FnMut(&Request) -> Vec<Line> + Send + 'static) -> Self {
        Self::named("home", script)
    }

    /// The same with a home of that name.
    pub(crate) fn named(
        name: &str,
        mut script: impl FnMut(&Request) -> Vec<Line> + Send + 'static,
    ) -> Self {
        Self::with(name, move |call| {
            for line in script(&call.request) {
                drop(call.reply.send(line));
            }
        })
    }

    /// Starts one that hands every call to `script`.
    pub(crate) fn with(name: &str, mut script: impl FnMut(Call) + Send + 'static) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path().join(name)).unwrap();
        home.create().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let (up, listening) = mpsc::channel();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let thread = thread::spawn({
            let (home, requests) = (home.clone(), Arc::clone(&requests));
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.unwrap().block_on(async move {
                    let lock = Lock::acquire(&home).unwrap();
                    let listener = socket::bind(&home, &lock).unwrap();
                    up.send(()).unwrap();
                    let (calls, mut called) = tokio::sync::mpsc::channel::<Call>(16);
                    tokio::spawn(async move {
                        while let Some(call) = called.recv().await {
                            requests.lock().unwrap().push(call.request.clone());
                            script(call);
                        }
                    });
                    let board = Board::default();
                    let exporter = Exporter::new(home.metrics(), calls.clone());
                    let stop = async move { drop(stopped.await) };
                    server::serve(listener, calls, board, exporter, stop).await;
                    socket::unbind(&home, &lock);
                });
            }
        });
        listening.recv_timeout(Duration::from_secs(10)).unwrap();
        Self { home, requests, stop: Some(stop), thread: Some(thread), _folder: folder }
    }

    /// Runs the command with this daemon.
    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        run(self.home.path(), args)
    }

    /// The command, ready to be spawned.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        command(self.home.path(), args)
    }

    /// What was asked so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// What a command printed and exited with.
#[derive(Debug)]
pub(crate) struct Ran {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Ran {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }
}

/// Runs the command with a home.
pub(crate) fn run(home: &Path, args: &[&str]) -> Ran {
    command(home, args).output().unwrap().into()
}

/// The command, ready to be spawned.
pub(crate) fn command(home: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_cluster"));
    command
        .args(args)
        .env("CLUSTER_HOME", home)
        .env_remove("NO_COLOR")
        .env_remove("CLICOLOR_FORCE");
    command
}

/// A line that ends an answer.
pub(crate) fn done(apps: Vec<AppView>) -> Line {
    Line::Done(Done { apps, ..Done::default() })
}

/// The answer to a ping.
pub(crate) fn pong() -> Line {
    Line::Pong(Pong {
        version: VERSION,
        release: "0.1.0".to_owned(),
        pid: 77,
        home: "/x".into(),
        mode: Mode::Plain,
        missing: Vec::new(),
        found: Vec::new(),
        uptime_ms: 61_000,
    })
}

/// An app with one worker per pid.
pub(crate) fn app(id: u32, name: &str, pids: &[u32]) -> AppView {
    let workers = pids.iter().zip(0..).map(|(pid, instance)| worker(*pid, instance)).collect();
    let count = u32::try_from(pids.len()).unwrap();
    AppView {
        id: AppId(id),
        name: name.to_owned(),
        namespace: "default".to_owned(),
        mode: Mode::Plain,
        status: Status::Online,
        online: count,
        instances: count,
        generation: Generation(1),
        reload: None,
        history: None,
        ports: Vec::new(),
        policy: "hash".to_owned(),
        unscheduled: None,
        restarts: 0,
        cpu_percent: 0.0,
        memory_bytes: 1 << 20,
        uptime_ms: Some(1000),
        created_ms: 0,
        telemetry: None,
        workers,
        spec: spec(),
    }
}

/// A specification that is fit.
pub(crate) fn spec() -> AppSpec {
    AppSpec {
        program: "/bin/true".into(),
        cwd: "/".into(),
        env: [("TOKEN".to_owned(), "secret".to_owned())].into(),
        readiness: Readiness::Running,
        ..AppSpec::usual("web".parse().unwrap())
    }
}

fn worker(pid: u32, instance: u32) -> WorkerView {
    WorkerView {
        instance: Instance(instance),
        generation: Generation(1),
        pid: Some(pid),
        status: Status::Online,
        exit_code: None,
        reason: None,
        restarts: 0,
        unstable: 0,
        cpu_percent: 0.0,
        memory_bytes: 1 << 20,
        uptime_ms: Some(1000),
        connections: None,
        selected: None,
        migrated: None,
        telemetry: None,
        connections_per_second: None,
        logs: LogFiles {
            out: "/nowhere/out.log".into(),
            err: "/nowhere/err.log".into(),
            combined: None,
        },
        dropped_bytes: 0,
        status_text: None,
        errno: None,
        main_pid: None,
        last_words: Vec::new(),
        env: [("NODE_APP_INSTANCE".to_owned(), instance.to_string())].into(),
        others: Vec::new(),
    }
}
