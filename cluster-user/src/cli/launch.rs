//! Starting the daemon when there is none, and waiting until it answers.
//!
//! The child says on its standard output, a pipe, what became of it: `ok`, `held` when another daemon was
//! faster, or else an error to be shown. Whoever loses the race uses the winner's daemon.

use std::{
    fs::OpenOptions,
    io::Read as _,
    os::{
        fd::AsFd as _,
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    process::{ChildStdout, Command, Stdio},
    time::{Duration, Instant},
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::time::sleep;

use super::{error::Error, exit::Exit};
use crate::{
    api::{
        client::{Client, ClientError},
        socket::Lock,
    },
    config::home::{self, Home},
    supervisor::{journal, options::READY},
};

/// What a daemon says that found another one in its place.
pub(super) const HELD: &str = "held\n";

/// How long a daemon may take until it answers: loading the kernel's programs is most of it.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often a socket is tried that another command's daemon is about to make.
const RETRY: Duration = Duration::from_millis(5);
/// Longest error that is read from a daemon.
const LONGEST: usize = 64 << 10;

/// A connection to a daemon, and who started that.
#[derive(Debug)]
pub(super) enum Launched {
    /// It was there, or somebody else was faster.
    Before(Client),
    /// This command.
    Now(Client),
}

/// Connects to a daemon if there is one, and starts one if there was one that was killed.
///
/// # Errors
/// When it cannot be talked to, or as [`daemon`].
pub(super) async fn successor(home: &Home) -> Result<Option<Launched>, Error> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match Client::connect(home).await {
            Ok(client) => return Ok(Some(Launched::Before(client))),
            Err(ClientError::NoDaemon) => {}
            Err(error) => return Err(error.into()),
        }
        // One that ends as it was told to lets go of its home when its journal is gone.
        if !Lock::is_held(home) {
            return if journal::is_left(home) { daemon(home).await.map(Some) } else { Ok(None) };
        }
        // It begins, perhaps because its guardian has started it again, or it is about to end.
        if Instant::now() >= deadline {
            return Err(Error::failed("the daemon does not answer").hint(see_log(home)));
        }
        sleep(RETRY).await;
    }
}

/// Starts a daemon and connects to it, or to the one that was faster.
///
/// # Errors
/// The daemon's own, or what was last in its log.
pub(super) async fn daemon(home: &Home) -> Result<Launched, Error> {
    launch(home, Voice::File).await
}

/// Starts a daemon that says what it has to say on the standard error of this process: warnings, unless `CLUSTER_LOG`
/// asks for more.
///
/// # Errors
/// As [`daemon`].
pub(super) fn in_foreground(home: &Home) -> Result<(), Error> {
    super::session::block_on(launch(home, Voice::Own)).map(drop)
}

/// Where a daemon's log goes.
#[derive(Clone, Copy, Debug)]
enum Voice {
    /// Into its home.
    File,
    /// To the standard error of who starts it.
    Own,
}

async fn launch(home: &Home, voice: Voice) -> Result<Launched, Error> {
    home.create()?;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut command = Command::new("/proc/self/exe");
        command.arg0("cluster").args(["daemon", "--background"]);
        let said = spawn(command, home, voice, deadline)?;
        let read = interpret(&said, home)?;
        while Instant::now() < deadline {
            match Client::connect(home).await {
                Ok(client) if read == Said::Ready => return Ok(Launched::Now(client)),
                Ok(client) => return Ok(Launched::Before(client)),
                Err(ClientError::NoDaemon) => sleep(RETRY).await,
                Err(error) => return Err(error.into()),
            }
            // The one that held the lock was on its way out: start another.
            if read == Said::Held && !Lock::is_held(home) {
                break;
            }
        }
        if Instant::now() >= deadline {
            return Err(Error::failed("the daemon does not answer").hint(see_log(home)));
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Said {
    Ready,
    Held,
}

fn interpret(said: &str, home: &Home) -> Result<Said, Error> {
    match said {
        READY => return Ok(Said::Ready),
        HELD => return Ok(Said::Held),
        _ => {}
    }
    if said.trim().is_empty() {
        return Err(Error::failed("the daemon ended before it answered").hint(see_log(home)));
    }
    // `code` on the first line, the error, and its hint, as `report` wrote them.
    let (code, rest) = said.split_once('\n').unwrap_or(("", said));
    let (message, hint) = rest.split_once("\nhint: ").unwrap_or((rest, ""));
    let exit = match code {
        "4" => Exit::NotPermitted,
        "5" => Exit::Unsupported,
        _ => Exit::Failed,
    };
    let hint = if hint.is_empty() { see_log(home) } else { hint.trim().to_owned() };
    Err(Error::new(exit, format!("failed to start the daemon: {}", message.trim())).hint(hint))
}

/// What [`interpret`] reads.
#[expect(clippy::as_conversions, reason = "the discriminants are the exit codes")]
pub(super) fn report(error: &Error) -> String {
    let hint = error.hint.as_ref().map(|hint| format!("\nhint: {hint}")).unwrap_or_default();
    format!("{}\n{}{hint}\n", error.exit as u8, error.message)
}

fn spawn(
    mut command: Command,
    home: &Home,
    voice: Voice,
    deadline: Instant,
) -> Result<String, Error> {
    let failed =
        |what: &str, error: std::io::Error| Error::failed(format!("failed to {what}: {error}"));
    let log = match voice {
        Voice::File => {
            let log =
                OpenOptions::new().append(true).create(true).mode(0o600).open(home.daemon_log());
            Stdio::from(log.map_err(|error| failed("open the daemon's log", error))?)
        }
        Voice::Own => {
            if std::env::var_os("CLUSTER_LOG").is_none() {
                command.env("CLUSTER_LOG", "warn");
            }
            Stdio::inherit()
        }
    };
    command
        .env(home::VARIABLE, home.path())
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    for key in ["NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "NODE_CHANNEL_FD"] {
        command.env_remove(key);
    }
    let mut child = command.spawn().map_err(|error| failed("start the daemon", error))?;
    let Some(pipe) = child.stdout.take() else {
        return Err(Error::failed("failed to listen to the daemon"));
    };
    listen(pipe, deadline).map_err(|error| failed("listen to the daemon", error))
}

/// Reads until there is an answer, the end, or no more time.
fn listen(mut pipe: ChildStdout, deadline: Instant) -> std::io::Result<String> {
    let mut said = Vec::new();
    let mut chunk = [0; 4096];
    while said.len() < LONGEST && said != READY.as_bytes() && said != HELD.as_bytes() {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) if left.is_zero() => break,
            Ok(0) | Err(nix::errno::Errno::EINTR) => {}
            Ok(_) => match pipe.read(&mut chunk)? {
                0 => break,
                count => said.extend_from_slice(&chunk[..count]),
            },
            Err(error) => return Err(error.into()),
        }
    }
    Ok(String::from_utf8_lossy(&said).into_owned())
}

fn see_log(home: &Home) -> String {
    format!("see {}", home.daemon_log().display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_says_what_became_of_it() {
        let (_folder, home) = home();
        let hear = |script: &str| {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", script]);
            spawn(command, &home, Voice::File, Instant::now() + Duration::from_secs(10)).unwrap()
        };
        assert_eq!(interpret(&hear("echo ok; sleep 5 >&-"), &home), Ok(Said::Ready));
        assert_eq!(interpret(&hear("echo held"), &home), Ok(Said::Held));
        assert!(interpret(&hear("exit 1"), &home).unwrap_err().message.contains("ended before"));
        let error = Error::new(Exit::NotPermitted, "no").hint("be root");
        let read = interpret(&report(&error), &home).unwrap_err();
        assert_eq!(read.exit, Exit::NotPermitted);
        assert_eq!(read.message, "failed to start the daemon: no");
        assert_eq!(read.hint.unwrap(), "be root");
    }

    #[test]
    fn a_daemon_that_says_nothing_is_not_waited_for_for_ever() {
        let (_folder, home) = home();
        let mut command = Command::new("/bin/sh");
        command.args(["-c", "exec sleep 2"]);
        let said =
            spawn(command, &home, Voice::File, Instant::now() + Duration::from_millis(50)).unwrap();
        assert_eq!(said, "");
    }

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        (folder, home)
    }
}
