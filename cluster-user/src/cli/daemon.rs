//! `cluster daemon`: the same program as the supervisor.

use std::{
    fs::File,
    io::{self, Write as _},
    os::fd::{AsFd as _, OwnedFd},
};

use clap::{Args, ValueEnum};
use nix::unistd::{dup2_stdout, setsid};

use super::{error::Error, launch};
use crate::{
    api::socket::LockError,
    config::{home::Home, refusal::Refusal},
    datapath::Mode,
    supervisor::{
        self,
        guardian::{self, Role},
        options::DaemonOptions,
        succession::{self, Inheritance},
    },
};

/// Runs the daemon in the foreground; the first command that needs one starts it by itself
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster daemon                 in the foreground, for a service manager
  cluster daemon --replace       takes over from the one that runs; its workers go on
  cluster daemon --mode plain    without BPF, as on a host that lacks it

Everything it keeps is in CLUSTER_HOME: /var/lib/cluster for root, else
$XDG_STATE_HOME/cluster or ~/.local/state/cluster.")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct Daemon {
    /// How connections are carried; by default as the host allows
    #[arg(long, value_enum, env = "CLUSTER_MODE", hide_env_values = true)]
    mode: Option<ModeArg>,

    /// Say on standard output when ready, and leave the terminal
    #[arg(long, hide = true)]
    background: bool,

    /// Go on for the supervisor that this process was before
    #[arg(long, hide = true, conflicts_with = "background")]
    succeed: bool,

    /// Take over from the daemon that runs, which ends and leaves its workers running
    #[arg(long)]
    replace: bool,

    /// Start the apps that were saved, as after a boot
    #[arg(long)]
    resurrect: bool,

    /// Say in JSON what this program could take over from
    #[arg(long, hide = true)]
    what: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ModeArg {
    /// A program in the kernel picks the worker of each connection
    Kernel,
    /// The kernel's own hash
    Plain,
}

impl Daemon {
    pub(super) fn run(self) -> Result<(), Error> {
        if self.what {
            return Ok(super::output::json(&super::upgrade::What::own())?);
        }
        if self.replace {
            super::upgrade::replace()?;
        }
        // Who is started through /proc/self/exe is `exe` to ps and pgrep otherwise; that it has a name is no need.
        rustix::thread::set_name(c"cluster").unwrap_or_default();
        let mut logger = env_logger::Builder::new();
        logger.filter_level(log::LevelFilter::Info).parse_env("CLUSTER_LOG");
        if std::env::var_os("JOURNAL_STREAM").is_some() && !self.background {
            // systemd's journal knows the time itself.
            logger.format_timestamp(None);
        }
        logger.init();
        let home = Home::from_env()?;
        let (ready, again) = match self.role(&home) {
            Ok(Role::Daemon { ready, again }) => (ready, again),
            Ok(Role::Guardian) => return Ok(()),
            Err(error) => return Err(Error::failed(format!("failed to detach: {error}"))),
        };
        if again {
            // The program that was started in the beginning may not be the one that was running.
            succession::follow_upgrade(&home, self.mode());
        }
        let listener = ready.as_ref().and_then(|ready| ready.try_clone().ok());
        let result = self.supervise(&home, ready);
        if let (Err(failure), Some(listener)) = (&result, listener) {
            let said = match failure {
                Ended::Held => launch::HELD.to_owned(),
                Ended::Failed(error) => launch::report(error),
            };
            // Nobody listens any more once it has said that it is ready.
            drop(File::from(listener).write_all(said.as_bytes()));
        }
        result.or_else(|failure| match failure {
            // Somebody was faster than the guardian, and has a guardian too.
            Ended::Held if again => Ok(()),
            Ended::Held => Err(Error::failed(LockError::Held.to_string())
                .hint("cluster ping shows it; CLUSTER_HOME makes room for another")),
            Ended::Failed(error) => Err(error),
        })
    }

    fn role(&self, home: &Home) -> io::Result<Role> {
        if self.background {
            guardian::stand_by(detach()?, home)
        } else {
            Ok(Role::Daemon { ready: None, again: false })
        }
    }

    fn supervise(&self, home: &Home, ready: Option<OwnedFd>) -> Result<(), Ended> {
        home.create()?;
        let inheritance = if self.succeed { Inheritance::take() } else { Inheritance::default() };
        let (home, mode) = (home.path().to_owned(), self.mode());
        let resurrect = self.resurrect;
        Ok(supervisor::run(DaemonOptions { home, ready, mode, resurrect, inheritance })?)
    }

    fn mode(&self) -> Option<Mode> {
        self.mode.map(|mode| match mode {
            ModeArg::Kernel => Mode::Kernel,
            ModeArg::Plain => Mode::Plain,
        })
    }
}

/// Why the daemon ended other than by being told to.
enum Ended {
    /// Another one runs.
    Held,
    Failed(Error),
}

impl From<Refusal> for Ended {
    fn from(refusal: Refusal) -> Self {
        Self::Failed(refusal.into())
    }
}

impl From<anyhow::Error> for Ended {
    fn from(error: anyhow::Error) -> Self {
        if let Some(LockError::Held) = error.downcast_ref() {
            return Self::Held;
        }
        match error.downcast::<Refusal>() {
            Ok(refusal) => refusal.into(),
            Err(error) => Self::Failed(Error::failed(format!("{error:#}"))),
        }
    }
}

/// Leaves the terminal, the session and all that was inherited but the standard streams. Standard output
/// is returned; from now on what is printed goes where standard error goes: to the log.
fn detach() -> io::Result<OwnedFd> {
    // Without it a daemon keeps open, for ever, what the shell or a test had open when it came up.
    // SAFETY: it is the first thing this process does, so nothing in it owns a descriptor above 2.
    let closed = unsafe { libc::syscall(libc::SYS_close_range, 3, u32::MAX, 0) };
    if closed != 0 {
        let error = io::Error::last_os_error();
        // Kernels before 5.9 keep what was inherited: untidy, no harm.
        if error.raw_os_error() != Some(libc::ENOSYS) {
            return Err(error);
        }
    }
    // A process that leads a group already cannot; then it has left the terminal before.
    let _already_leads = setsid();
    let ready = io::stdout().as_fd().try_clone_to_owned()?;
    dup2_stdout(io::stderr())?;
    Ok(ready)
}
