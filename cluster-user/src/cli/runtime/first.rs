//! The loop of the first process: signals, children, and a look at the apps now and then.

use std::{
    ffi::OsString,
    fs,
    io::{self, Read as _},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use nix::{
    errno::Errno,
    sys::{
        signal::{SigSet, SigmaskHow, Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

use super::{Format, place::Place};
use crate::{
    api::message::{AppView, Status, WorkerView},
    cli::{error::Error, launch, session},
    process::watch,
    supervisor::{guardian, succession},
};

const HEARD: [Signal; 6] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGQUIT,
    Signal::SIGHUP,
    Signal::SIGUSR2,
    Signal::SIGCHLD,
];

/// How often it is looked whether the apps are done.
const LOOK: Duration = Duration::from_millis(500);
/// How long an answer of the daemon may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long the last lines may take to be printed: whoever reads them may be slow, or gone for good.
const LAST_LINES: Duration = Duration::from_secs(10);

/// What a signal looks like in an exit code, as in a shell.
const BY_SIGNAL: i32 = 128;

/// The first process.
#[derive(Debug)]
pub(super) struct First {
    heard: SigSet,
    /// Where the daemon is.
    home: crate::config::home::Home,
    /// Given to every child, where the home is not the usual one.
    variables: Vec<(&'static str, OsString)>,
    leave_when_done: bool,
    /// `cluster logs`, and the input whose end is its end.
    logs: Option<(Pid, UnixStream)>,
    start: Progress,
    kill: Option<Progress>,
    /// What to exit with.
    code: i32,
}

/// A child that does something and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Running(Pid),
    /// With this code.
    Ended(i32),
}

impl First {
    /// Starts the daemon, what prints the log, and the apps.
    ///
    /// # Errors
    /// When one of them cannot be started.
    pub(super) fn begin(
        place: &Place,
        start: &[OsString],
        format: Format,
        leave_when_done: bool,
    ) -> Result<Self, Error> {
        let heard: SigSet = HEARD.into_iter().collect();
        heard
            .thread_swap_mask(SigmaskHow::SIG_BLOCK)
            .map_err(|error| failed("wait for signals", error))?;
        // As process 1 it is that anyway.
        watch::become_subreaper().map_err(|error| failed("become a subreaper", error))?;
        let mut variables = Vec::new();
        if place.temporary {
            let path = place.home.path().as_os_str().to_owned();
            variables.push((crate::config::home::VARIABLE, path));
        }
        let mut first = Self {
            heard,
            home: place.home.clone(),
            variables,
            leave_when_done,
            logs: None,
            start: Progress::Ended(0),
            kill: None,
            code: 0,
        };
        first.forget_earlier_life()?;
        launch::in_foreground(&first.home)?;
        first.follow_logs(format)?;
        let mut command = first.command("start");
        command.arg("--json").args(start).stdin(Stdio::null()).stdout(Stdio::null());
        first.start = Progress::Running(pid(&spawn(&mut command)?));
        Ok(first)
    }

    /// Waits until all is done, and says with which code.
    ///
    /// # Errors
    /// When the kernel cannot be asked.
    pub(super) fn run(mut self) -> Result<u8, Error> {
        let mut looked = Instant::now();
        loop {
            match guardian::next_signal(&self.heard, LOOK) {
                Ok(Some(Signal::SIGCHLD)) => self.reap(),
                Ok(Some(Signal::SIGHUP)) => self.reload(),
                Ok(Some(Signal::SIGUSR2)) => self.reopen(),
                Ok(Some(_)) => self.end()?,
                Ok(None) => {}
                Err(error) => return Err(failed("wait for signals", error)),
            }
            if let Some(Progress::Ended(code)) = self.kill {
                self.finish_logs();
                let code = if self.code == 0 { code } else { self.code };
                return Ok(u8::try_from(code).unwrap_or(1));
            }
            let started = matches!(self.start, Progress::Ended(_));
            if self.kill.is_none() && started && looked.elapsed() >= LOOK {
                self.look()?;
                looked = Instant::now();
            }
        }
    }

    /// Lets go of what a daemon left here that was killed.
    fn forget_earlier_life(&self) -> Result<(), Error> {
        let journal = self.home.journal();
        if !journal.exists() {
            return Ok(());
        }
        if std::process::id() == 1 {
            // Whoever is in there lived in another pid namespace, and ended with it.
            return fs::remove_file(journal)
                .map_err(|error| failed("remove an old journal", error));
        }
        let mut command = self.command("kill");
        let ended = spawn(command.stdin(Stdio::null()).stdout(Stdio::null()))?.wait();
        ended.map(drop).map_err(|error| failed("wait for a child", error))
    }

    fn follow_logs(&mut self, format: Format) -> Result<(), Error> {
        let mut command = self.command("logs");
        let (mut input, theirs) =
            UnixStream::pair().map_err(|error| failed("talk to a child", error))?;
        command.args(["--lines", "0", "--until-input-ends"]).stdin(OwnedFd::from(theirs));
        match format {
            Format::Prefixed => {}
            Format::Raw => drop(command.arg("--raw")),
            Format::Json => drop(command.arg("--json")),
        }
        // Out of the terminal's reach: an interrupt there is not meant for it, and last lines are still to come.
        command.process_group(0);
        let child = spawn(&mut command)?;
        // Its copy of their end.
        drop(command);
        // What a worker writes before anybody follows would look like that of an earlier life. If the answer does not
        // come, apps start all the same.
        let patience = input.set_read_timeout(Some(PATIENCE));
        drop(patience.and_then(|()| input.read(&mut [0])));
        self.logs = Some((pid(&child), input));
        Ok(())
    }

    /// This very program, with another command.
    fn command(&self, word: &str) -> Command {
        let mut command = Command::new(succession::own_program());
        command.arg0("cluster").arg(word);
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Reaps every child that has ended; strays are nobody's business.
    fn reap(&mut self) {
        loop {
            let (child, code) = match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(child, code)) => (child, code),
                Ok(WaitStatus::Signaled(child, signal, _)) => {
                    (child, BY_SIGNAL + i32::from(number(signal)))
                }
                Ok(WaitStatus::StillAlive) | Err(Errno::ECHILD) => return,
                Ok(_) | Err(Errno::EINTR) => continue,
                Err(error) => {
                    log::error!("failed to wait for children: {error}");
                    return;
                }
            };
            if self.start == Progress::Running(child) {
                self.start = Progress::Ended(code);
            } else if self.kill == Some(Progress::Running(child)) {
                self.kill = Some(Progress::Ended(code));
            } else if self.logs.as_ref().is_some_and(|(logs, _)| *logs == child) {
                // Nobody reads what is printed; the files are there.
                self.logs = None;
            }
        }
    }

    /// Whether the apps are done, and what follows from it.
    fn look(&mut self) -> Result<(), Error> {
        let Some(apps) = session::glance(&self.home, PATIENCE) else {
            // Its guardian starts it again, unless there is no guardian any more.
            if crate::api::socket::Lock::is_held(&self.home) || self.guarded() {
                return Ok(());
            }
            self.code = 1;
            self.kill = Some(Progress::Ended(1));
            return Ok(());
        };
        let Progress::Ended(start) = self.start else { return Ok(()) };
        let done = if apps.is_empty() { Some(start) } else { outcome(&apps) };
        if let Some(code) = done.filter(|_| self.leave_when_done) {
            self.code = code;
            // While there is somebody who knows the files of a worker that lived for a moment.
            self.finish_logs();
            self.kill()?;
        }
        Ok(())
    }

    /// Whether somebody will start the daemon again: any child but the log's.
    fn guarded(&self) -> bool {
        let children =
            fs::read_to_string(format!("/proc/self/task/{}/children", nix::unistd::gettid()));
        let logs = self.logs.as_ref().map(|(logs, _)| logs.to_string());
        children.is_ok_and(|children| {
            children.split_whitespace().any(|child| Some(child) != logs.as_deref())
        })
    }

    /// A signal to end: in good order, and the second time at once.
    fn end(&mut self) -> Result<(), Error> {
        if self.kill.is_none() {
            return self.kill();
        }
        let mut command = self.command("sendSignal");
        command.args(["--tree", "KILL", "all"]).stdin(Stdio::null()).stdout(Stdio::null());
        // Somebody who is in a hurry need not hear that there was nobody left.
        drop(spawn(command.stderr(Stdio::null()))?);
        Ok(())
    }

    fn kill(&mut self) -> Result<(), Error> {
        if let Progress::Running(start) = self.start {
            // Whoever waits for apps to come up waits in vain now.
            kill(start, Signal::SIGTERM).unwrap_or_default();
        }
        let mut command = self.command("kill");
        command.arg("--silent").stdin(Stdio::null()).stdout(Stdio::null()).process_group(0);
        self.kill = Some(Progress::Running(pid(&spawn(&mut command)?)));
        Ok(())
    }

    fn reload(&self) {
        let mut command = self.command("reload");
        command.args(["all", "--no-wait", "--silent"]).stdin(Stdio::null()).stdout(Stdio::null());
        if let Err(error) = spawn(&mut command) {
            log::error!("{}", error.message);
        }
    }

    fn reopen(&self) {
        let daemon = fs::read_to_string(self.home.lock()).unwrap_or_default();
        if let Ok(daemon) = daemon.trim().parse() {
            // One that has ended has no files.
            kill(Pid::from_raw(daemon), Signal::SIGUSR2).unwrap_or_default();
        }
    }

    /// Has the last lines printed.
    fn finish_logs(&mut self) {
        let Some((logs, input)) = self.logs.take() else { return };
        drop(input);
        let deadline = Instant::now() + LAST_LINES;
        while Instant::now() < deadline {
            match waitpid(logs, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::StillAlive) => {}
                Ok(_) | Err(_) => return,
            }
            // Its end is a signal.
            drop(guardian::next_signal(&[Signal::SIGCHLD].into_iter().collect(), LOOK));
        }
        kill(logs, Signal::SIGKILL).unwrap_or_default();
    }
}

/// With which code it is all over, if it is: no worker runs, will be started again, or was stopped by hand.
fn outcome(apps: &[AppView]) -> Option<i32> {
    let workers = || apps.iter().flat_map(|app| &app.workers);
    let is_done = |worker: &WorkerView| {
        // Stopped without a reason it was by somebody's wish.
        let wished = worker.status == Status::Stopped && worker.reason.is_none();
        worker.status.is_down() && !wished
    };
    if !workers().all(is_done) {
        return None;
    }
    let mut codes = workers().map(|worker| {
        worker.exit_code.unwrap_or_else(|| i32::from(worker.status == Status::Errored))
    });
    // That a job was done before it was ready is what start complains of.
    Some(codes.find(|code| *code != 0).unwrap_or(0))
}

fn spawn(command: &mut Command) -> Result<Child, Error> {
    command.spawn().map_err(|error| failed("start a child", error))
}

fn pid(child: &Child) -> Pid {
    Pid::from_raw(child.id().cast_signed())
}

fn number(signal: Signal) -> i16 {
    #[expect(clippy::as_conversions, reason = "the discriminants are the numbers")]
    i16::try_from(signal as i32).unwrap_or(0)
}

fn failed(what: &str, error: impl Into<io::Error>) -> Error {
    let error: io::Error = error.into();
    Error::failed(format!("failed to {what}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::{super::super::sample::app, *};

    #[test]
    fn it_is_over_when_no_worker_runs_or_will() {
        let mut apps = [app(), app()];
        assert_eq!(outcome(&apps), None, "one is online");
        let mut end = |codes: [(Status, Option<i32>); 2]| {
            for (app, (status, code)) in apps.iter_mut().zip(codes) {
                for worker in &mut app.workers {
                    (worker.status, worker.exit_code) = (status, code);
                    worker.reason = Some("exited".to_owned());
                }
            }
            outcome(&apps)
        };
        assert_eq!(end([(Status::Stopped, Some(0)), (Status::Stopped, Some(0))]), Some(0));
        assert_eq!(end([(Status::Stopped, Some(0)), (Status::Errored, Some(7))]), Some(7));
        assert_eq!(end([(Status::Errored, None), (Status::Stopped, Some(0))]), Some(1));
        assert_eq!(end([(Status::Errored, Some(137)), (Status::Backoff, Some(1))]), None);
        for worker in apps.iter_mut().flat_map(|app| &mut app.workers) {
            (worker.status, worker.exit_code, worker.reason) = (Status::Stopped, None, None);
        }
        assert_eq!(outcome(&apps), None, "stopped by hand, it may be started again");
    }
}
