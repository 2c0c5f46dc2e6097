//! What was typed after `start`, word for word: no file, clock or environment was looked at.

use std::{str::FromStr, time::Duration};

use clap::Args;

use super::{
    duration, instances::Instances, name::Name, probe, signal::StopSignal, spec::ProbeTarget,
};

/// More answers in a row than this are asked for by mistake.
pub const MOST: i64 = 10_000;

/// What was typed after `start`.
#[derive(Args, Clone, Debug)]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub struct StartArgs {
    /// Script, binary, "command line", or the name or id of a stopped app
    #[arg(required = true, value_name = "SCRIPT|NAME")]
    pub scripts: Vec<String>,

    /// How many workers: a number, `max` (or 0) for one per CPU, -N for that many fewer
    #[arg(short, long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    pub instances: Instances,

    /// Name of the app; by default that of the script without its extension
    #[arg(short, long)]
    pub name: Option<Name>,

    /// Group of apps to be named together
    #[arg(long, default_value = "default")]
    pub namespace: Name,

    /// Working folder; by default the current one
    #[arg(long, value_name = "FOLDER")]
    pub cwd: Option<String>,

    /// Variable for the workers' environment; repeatable
    #[arg(long = "env", value_name = "KEY=VALUE")]
    pub variables: Vec<Variable>,

    /// Program that runs the script, or `none` to execute it directly
    #[arg(long, value_name = "PROGRAM", help_heading = "How it is run")]
    pub interpreter: Option<String>,

    /// Arguments for the interpreter, in one string
    #[arg(
        long,
        visible_alias = "node-args",
        value_name = "ARGS",
        allow_hyphen_values = true,
        help_heading = "How it is run"
    )]
    pub interpreter_args: Option<String>,

    /// User to run as, by name or number
    #[arg(long, value_name = "USER", help_heading = "How it is run")]
    pub uid: Option<String>,

    /// Group to run as, by name or number
    #[arg(long, value_name = "GROUP", help_heading = "How it is run")]
    pub gid: Option<String>,

    /// Balance only these ports; by default every port the app listens on
    #[arg(
        long = "port",
        value_name = "PORT,…",
        value_delimiter = ',',
        value_parser = clap::value_parser!(u16).range(1..),
        help_heading = "Ports and readiness"
    )]
    pub ports: Vec<u16>,

    /// The app serves no port: it is ready when it has run for --min-uptime
    #[arg(long, conflicts_with = "ports", help_heading = "Ports and readiness")]
    pub no_port: bool,

    /// From start to ready, else the start has failed
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, help_heading = "Ports and readiness")]
    pub listen_timeout: Duration,

    /// How long connections wait for a worker while there is none
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, help_heading = "Ports and readiness")]
    pub wait_timeout: Duration,

    /// What a new worker must answer to be ready: http://:PORT/PATH, /PATH, tcp, or a command
    #[arg(long, value_name = "PROBE", value_parser = probe::parse, help_heading = "Ports and readiness")]
    pub probe: Option<ProbeTarget>,

    /// From one answer to the next question
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, requires = "probe", help_heading = "Ports and readiness")]
    pub probe_interval: Duration,

    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, requires = "probe", help_heading = "Ports and readiness")]
    pub probe_timeout: Duration,

    /// This many good answers in a row, and a worker is ready
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=MOST), requires = "probe", help_heading = "Ports and readiness")]
    pub probe_successes: u32,

    /// This many bad answers in a row from a worker that was ready, and it has failed
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=MOST), requires = "probe", help_heading = "Ports and readiness")]
    pub probe_failures: u32,

    /// A worker is ready when it says `READY=1` on its `NOTIFY_SOCKET`, as for systemd
    #[arg(long, help_heading = "Ports and readiness")]
    pub notify: bool,

    /// A worker is ready when it says so: process.send('ready')
    #[arg(long, help_heading = "Ports and readiness")]
    pub wait_ready: bool,

    /// What a worker must go on answering, else it is replaced; as for --probe
    #[arg(long, value_name = "PROBE", value_parser = probe::parse, help_heading = "Ports and readiness")]
    pub liveness: Option<ProbeTarget>,

    /// From one answer to the next question
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, requires = "liveness", help_heading = "Ports and readiness")]
    pub liveness_interval: Duration,

    /// How long an answer may take
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, requires = "liveness", help_heading = "Ports and readiness")]
    pub liveness_timeout: Duration,

    /// This many bad answers in a row, and a worker is replaced
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=MOST), requires = "liveness", help_heading = "Ports and readiness")]
    pub liveness_failures: u32,

    /// A worker must say `WATCHDOG=1` on its `NOTIFY_SOCKET` at least this often, else it is replaced
    #[arg(long, value_name = "TIME", value_parser = duration::parse, help_heading = "Ports and readiness")]
    pub watchdog: Option<Duration>,

    /// Whether a reload starts the new worker beside the old one; off: after it
    #[arg(long, value_name = "on|off", default_value = "on", value_parser = on_off, action = clap::ArgAction::Set, help_heading = "Ports and readiness")]
    pub overlap: bool,

    /// This many unstable runs in a row, and a worker is given up
    #[arg(long, value_name = "N", default_value_t = 16, help_heading = "Restarting")]
    pub max_restarts: u32,

    /// A shorter run is unstable
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = duration::parse, help_heading = "Restarting")]
    pub min_uptime: Duration,

    /// Fixed wait before a replacement; 0 for at once, growing while unstable
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse, help_heading = "Restarting")]
    pub restart_delay: Duration,

    /// Do not replace workers that end by themselves
    #[arg(long, help_heading = "Restarting")]
    pub no_autorestart: bool,

    /// Exit codes after which a worker is not replaced
    #[arg(
        long,
        value_name = "CODE,…",
        value_delimiter = ',',
        value_parser = clap::value_parser!(i32).range(0..=255),
        help_heading = "Restarting"
    )]
    pub stop_exit_codes: Vec<i32>,

    /// From the stop signal to SIGKILL
    #[arg(short, long, value_name = "TIME", default_value = "10s", value_parser = duration::parse, help_heading = "Stopping")]
    pub kill_timeout: Duration,

    /// Signal that asks a worker to end
    #[arg(long, value_name = "SIGNAL", default_value = "SIGTERM", help_heading = "Stopping")]
    pub kill_signal: StopSignal,

    /// Ask it with the message `shutdown` of Node's IPC channel instead of a signal
    #[arg(long, help_heading = "Stopping")]
    pub shutdown_with_message: bool,

    /// How long a worker may finish what it has, before the stop signal
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = duration::parse, help_heading = "Stopping")]
    pub drain_timeout: Duration,

    /// Log every decision of the kernel program
    #[arg(long, help_heading = "Kernel")]
    pub trace: bool,

    /// Fail where the kernel program cannot be used, instead of falling back to plain mode
    #[arg(long, help_heading = "Kernel")]
    pub require_kernel: bool,

    /// Arguments for the script
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

/// Reads a switch.
fn on_off(text: &str) -> Result<bool, String> {
    match text {
        "on" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!(
            "`{}` is neither on nor off",
            text.escape_default().take(40).collect::<String>()
        )),
    }
}

/// A variable as typed after `--env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, not empty.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || text.escape_default().take(40).collect::<String>();
        match text.split_once('=') {
            None => Err(format!("`{}` is not of the form KEY=VALUE", shown())),
            Some(("", _)) => Err(format!("`{}` has no name before the equals sign", shown())),
            Some(_) if text.contains('\0') => Err(format!("`{}` contains a NUL", shown())),
            Some((key, value)) => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_ends_at_its_first_equals_sign() {
        let variable: Variable = "A=b=c".parse().unwrap();
        assert_eq!((variable.key.as_str(), variable.value.as_str()), ("A", "b=c"));
        assert_eq!("A=".parse::<Variable>().unwrap().value, "");
    }

    #[test]
    fn a_variable_without_name_or_with_nul_is_refused() {
        for text in ["", "A", "=b", "A=\0"] {
            assert!(text.parse::<Variable>().is_err(), "{text:?}");
        }
    }
}
