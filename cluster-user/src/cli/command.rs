//! The words of the command line.

use clap::{Parser, Subcommand};

use super::{
    apply::Wish,
    completion::Completion,
    daemon::Daemon,
    delete::Delete,
    describe::Describe,
    diff::Diff,
    doctor::Doctor,
    env::Env,
    error::Error,
    events::Events,
    flush::Flush,
    history::History,
    id::Id,
    import::Import,
    init::Init,
    jlist::Jlist,
    kill::Kill,
    lab::{Lab, LabArena, LabWorker},
    list::List,
    logs::Logs,
    man::Man,
    metrics::Metrics,
    pid::Pid,
    ping::Ping,
    pm2::Pm2,
    policy::Policy,
    promote::{Promote, Rollback},
    reload::Reload,
    reload_logs::ReloadLogs,
    report::Report,
    reset::Reset,
    restart::Restart,
    resurrect::Resurrect,
    runtime::Runtime,
    save::{Cleardump, Save},
    scale::Scale,
    schema::Schema,
    send::Send,
    serve::{Serve, ServeFiles},
    signal::Signal,
    start::Start,
    start_or::StartOr,
    startup::{Startup, Unstartup},
    stop::Stop,
    upgrade::Upgrade,
    version::Version,
};

/// Runs apps as many workers on one port; the kernel hands out the connections.
#[derive(Debug, Parser)]
#[command(
    name = "cluster",
    version,
    disable_version_flag = true,
    subcommand_required = true,
    arg_required_else_help = true,
    max_term_width = 100,
    after_help = "Examples:
  cluster start app.js -i 4    four workers on the port that app.js listens on
  cluster reload app           new workers in their place, without losing a connection
  cluster help reload          about one command

Targets are: NAME | ID | NAME:INSTANCE | NAMESPACE | all | /REGEX/

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no daemon, 4 not permitted, 5 kernel lacks it
Environment: CLUSTER_HOME is the folder of the daemon to talk to; NO_COLOR switches colours off"
)]
pub struct Cli {
    #[command(subcommand)]
    pub(super) command: Command,

    /// Say nothing but answers and errors
    #[arg(short, long, global = true)]
    pub(super) silent: bool,

    /// No colours, on a terminal too
    #[arg(long, global = true)]
    pub(super) no_color: bool,

    /// Print version
    #[arg(short = 'v', short_alias = 'V', long, action = clap::ArgAction::Version)]
    version: (),
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    Start(Box<Start>),
    Stop(Stop),
    Restart(Restart),
    #[command(visible_alias = "gracefulReload")]
    Reload(Reload),
    Diff(Diff),
    #[command(
        name = "startOrReload",
        alias = "startOrGracefulReload",
        about = "Starts the apps of a file that do not run, and reloads those that do"
    )]
    StartOrReload(StartOr),
    #[command(
        name = "startOrRestart",
        about = "Starts the apps of a file that do not run, and restarts those that do"
    )]
    StartOrRestart(StartOr),
    Promote(Promote),
    #[command(visible_alias = "undo")]
    Rollback(Rollback),
    History(History),
    #[command(visible_alias = "del")]
    Delete(Delete),
    Scale(Scale),
    Policy(Policy),
    #[command(visible_alias = "expose")]
    Serve(Serve),
    Runtime(Runtime),
    #[command(name = "serve-files", hide = true)]
    ServeFiles(ServeFiles),
    #[command(visible_aliases = ["ls", "l", "ps", "status"])]
    List(List),
    #[command(visible_aliases = ["desc", "show", "info"])]
    Describe(Describe),
    Logs(Logs),
    Events(Events),
    Metrics(Metrics),
    Send(Send),
    Flush(Flush),
    #[command(name = "reloadLogs", visible_alias = "reload-logs")]
    ReloadLogs(ReloadLogs),
    Reset(Reset),
    Pid(Pid),
    Id(Id),
    Env(Env),
    #[command(alias = "prettylist")]
    Jlist(Jlist),
    #[command(name = "sendSignal", visible_alias = "signal", alias = "sendsignal")]
    Signal(Signal),
    #[command(visible_alias = "dump")]
    Save(Save),
    Resurrect(Resurrect),
    Cleardump(Cleardump),
    Startup(Startup),
    Unstartup(Unstartup),
    Ping(Ping),
    Version(Version),
    Kill(Kill),
    #[command(visible_alias = "ecosystem")]
    Init(Init),
    Schema(Schema),
    Import(Import),
    Pm2(Pm2),
    Upgrade(Upgrade),
    Lab(Lab),
    #[command(name = "lab-arena", hide = true)]
    LabArena(LabArena),
    #[command(name = "lab-worker", hide = true)]
    LabWorker(LabWorker),
    Doctor(Doctor),
    Report(Report),
    Completion(Completion),
    Man(Man),
    Daemon(Daemon),
}

impl Command {
    pub(super) fn run(self) -> Result<(), Error> {
        match self {
            Self::Start(command) => command.run(),
            Self::Stop(command) => command.run(),
            Self::Restart(command) => command.run(),
            Self::Reload(command) => command.run(),
            Self::Diff(command) => command.run(),
            Self::StartOrReload(command) => command.run(Wish::Reload),
            Self::StartOrRestart(command) => command.run(Wish::Restart),
            Self::Promote(command) => command.run(),
            Self::Rollback(command) => command.run(),
            Self::History(command) => command.run(),
            Self::Delete(command) => command.run(),
            Self::Scale(command) => command.run(),
            Self::Policy(command) => command.run(),
            Self::Serve(command) => command.run(),
            Self::ServeFiles(command) => command.run(),
            Self::Runtime(command) => command.run(),
            Self::List(command) => command.run(),
            Self::Describe(command) => command.run(),
            Self::Logs(command) => command.run(),
            Self::Events(command) => command.run(),
            Self::Metrics(command) => command.run(),
            Self::Send(command) => command.run(),
            Self::Flush(command) => command.run(),
            Self::ReloadLogs(ReloadLogs {}) => ReloadLogs::run(),
            Self::Reset(command) => command.run(),
            Self::Pid(command) => command.run(),
            Self::Id(command) => command.run(),
            Self::Env(command) => command.run(),
            Self::Jlist(Jlist {}) => Jlist::run(),
            Self::Signal(command) => command.run(),
            Self::Save(command) => command.run(),
            Self::Resurrect(command) => command.run(),
            Self::Cleardump(Cleardump {}) => Cleardump::run(),
            Self::Startup(command) => command.run(),
            Self::Unstartup(command) => command.run(),
            Self::Ping(command) => command.run(),
            Self::Version(command) => command.run(),
            Self::Kill(Kill {}) => Kill::run(),
            Self::Init(command) => command.run(),
            Self::Schema(Schema {}) => Schema::run(),
            Self::Import(command) => command.run(),
            Self::Pm2(Pm2 {}) => Pm2::run(),
            Self::Upgrade(command) => command.run(),
            Self::Lab(command) => command.run(),
            Self::LabArena(command) => command.run(),
            Self::LabWorker(command) => command.run(),
            Self::Doctor(command) => command.run(),
            Self::Report(command) => command.run(),
            Self::Completion(command) => command.run(),
            Self::Man(command) => command.run(),
            Self::Daemon(command) => command.run(),
        }
    }
}
