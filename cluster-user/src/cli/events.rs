//! `cluster events`.

use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    time::{Duration, SystemTime},
};

use anstyle::{AnsiColor, Style};
use clap::Args;
use tokio::{
    io::{Interest, unix::AsyncFd},
    select,
    time::{Instant, sleep},
};

use super::{
    error::Error,
    human, output,
    selection::Selection,
    session::{Session, block_on},
};
use crate::{
    api::{
        client::{Answer, ClientError},
        message::{EventsRequest, Happening, Line, Request, What},
    },
    config::duration,
};

/// How long a daemon that is being upgraded may take to be there again.
const AWAY: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_millis(50);

/// Shows what happens: starts, ends, reloads, and what workers say of themselves
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster events                   the last ones, then as they come
  cluster events web --since 10m --no-follow --json

With --json, one object per line: type (event), number, at_ms, what, and where they apply
app {id, name, namespace}, instance, generation, pid, detail, data (the message). what is one of
daemon_started, daemon_ending, app_started, app_deleted, app_scaled, app_scheduled, reload_begun,
reload_done, reload_failed, reload_superseded, rolled_back, worker_starting, worker_ready,
worker_online, worker_draining, worker_stopping, worker_worn, worker_silent, worker_heard,
worker_exited, worker_failed, worker_backoff, worker_errored, message, messages_dropped, sent,
send_failed, status, stopping, reloading, main_pid, errno, extended, trouble, missed.
The daemon remembers the last 1000, until it ends.")]
pub(super) struct Events {
    /// Only these; see `cluster --help`
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,

    /// How many of the past to show first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 15)]
    lines: usize,

    /// Past ones since so long ago, such as 10m, all of them
    #[arg(long, value_name = "TIME", value_parser = duration::parse, conflicts_with = "lines")]
    since: Option<Duration>,

    /// Show the past and end
    #[arg(long, visible_alias = "nostream")]
    no_follow: bool,

    /// Print JSON, one event per line
    #[arg(long)]
    json: bool,
}

impl Events {
    pub(super) fn run(self) -> Result<(), Error> {
        Selection::parse(&self.targets)?;
        let session = Session::new()?;
        block_on(self.show(&session))
    }

    async fn show(&self, session: &Session) -> Result<(), Error> {
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = self.since.map(|ago| now.saturating_sub(ago));
        let mut asked = EventsRequest {
            targets: self.targets.clone(),
            last: since.is_none().then_some(self.lines),
            since_ms: since.map_or(0, millis),
            follow: !self.no_follow,
        };
        let mut client = session.connect().await?;
        let mut answer = client.send(&Request::Events(asked.clone())).await?;
        let reader = Reader::of_stdout();
        loop {
            let ended = select! {
                ended = self.print(&mut answer) => ended?,
                () = reader.gone() => return Ok(()),
            };
            if self.no_follow {
                return Ok(());
            }
            // A daemon that was upgraded goes on; one that has ended does not.
            let until = Instant::now() + AWAY;
            loop {
                match crate::api::client::Client::connect(&session.home).await {
                    Ok(connected) => {
                        client = connected;
                        break;
                    }
                    Err(ClientError::NoDaemon) if !ended && Instant::now() < until => {
                        sleep(PAUSE).await;
                    }
                    Err(ClientError::NoDaemon) => return Ok(()),
                    Err(error) => return Err(error.into()),
                }
            }
            // All that the next one has told until now is new.
            (asked.last, asked.since_ms) = (None, 0);
            answer = client.send(&Request::Events(asked.clone())).await?;
        }
    }

    /// Prints until the daemon ends the answer; whether every app was stopped then.
    async fn print(&self, answer: &mut Answer) -> Result<bool, Error> {
        let mut orderly = false;
        loop {
            match answer.next().await {
                Ok(Some(Line::Event(happening))) => {
                    orderly = happening.what == What::DaemonEnding
                        && happening.detail.as_deref() == Some("every app is stopped");
                    if self.json {
                        output::json_line(&Line::Event(happening))?;
                    } else {
                        output::answer(&shown(&happening))?;
                    }
                }
                Ok(Some(Line::Failed(failure))) => return Err(failure.into()),
                Ok(Some(
                    Line::Progress(_)
                    | Line::Rolling(_)
                    | Line::Notice(_)
                    | Line::Done(_)
                    | Line::Pong(_)
                    | Line::Telemetry(_)
                    | Line::Readiness(_)
                    | Line::Exporter(_),
                )) => {
                    return Err(Error::failed("the daemon's answer makes no sense"));
                }
                // It was killed, or has ended.
                Ok(None) | Err(ClientError::Broken(_)) => return Ok(orderly),
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// Whoever reads standard output.
struct Reader(Option<AsyncFd<OwnedFd>>);

impl Reader {
    fn of_stdout() -> Self {
        let Ok(copy) = io::stdout().as_fd().try_clone_to_owned() else { return Self(None) };
        // Only pipes, sockets and terminals can lose their reader, and only they can be waited for.
        // SAFETY: an owned descriptor is open, and stays the same one until the `AsyncFd` gives it up.
        Self(unsafe { AsyncFd::register_with_interest(copy, Interest::ERROR) }.ok())
    }

    /// Waits until it has gone.
    async fn gone(&self) {
        match &self.0 {
            Some(stdout) => drop(stdout.ready(Interest::ERROR).await),
            None => std::future::pending().await,
        }
    }
}

fn shown(happening: &Happening) -> String {
    const DIM: Style = Style::new().dimmed();
    let style = match happening.what {
        What::WorkerErrored
        | What::WorkerFailed
        | What::ReloadFailed
        | What::SendFailed
        | What::Trouble
        | What::Errno => AnsiColor::Red.on_default(),
        What::WorkerBackoff
        | What::WorkerWorn
        | What::WorkerSilent
        | What::MessagesDropped
        | What::Missed => AnsiColor::Yellow.on_default(),
        What::WorkerOnline
        | What::WorkerReady
        | What::WorkerHeard
        | What::ReloadDone
        | What::AppStarted => AnsiColor::Green.on_default(),
        What::DaemonStarted
        | What::DaemonEnding
        | What::AppDeleted
        | What::AppScaled
        | What::AppScheduled
        | What::ReloadBegun
        | What::RolledBack
        | What::ReloadSuperseded
        | What::WorkerExited
        | What::WorkerStarting
        | What::WorkerDraining
        | What::WorkerStopping
        | What::Message
        | What::Sent
        | What::Status
        | What::Stopping
        | What::Reloading
        | What::MainPid
        | What::Extended => Style::new(),
    };
    let whose = match (&happening.app, happening.instance) {
        (Some(app), Some(instance)) => format!("{}:{instance}", human::plain(&app.name)),
        (Some(app), None) => human::plain(&app.name),
        (None, _) => "-".to_owned(),
    };
    let time = human::time(happening.at_ms);
    let mut line = format!("{DIM}{time}{DIM:#}  {whose:<16}  {style}{}{style:#}", happening.what);
    let number = happening.generation.map(|generation| format!("generation {generation}"));
    let about = [
        happening.detail.as_deref().map(human::plain),
        happening.data.as_ref().map(|data| human::plain(&data.to_string())),
    ];
    for text in about.into_iter().flatten() {
        line = format!("{line}  {text}");
    }
    let pid = happening.pid.map(|pid| format!("pid {pid}"));
    let marks: Vec<_> = [number, pid].into_iter().flatten().collect();
    if !marks.is_empty() {
        line = format!("{line}  {DIM}({}){DIM:#}", marks.join(", "));
    }
    line
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::message::Subject,
        id::{AppId, Generation, Instance},
    };

    #[test]
    fn the_help_names_everything_that_can_happen() {
        // Serde names all of them when it knows none of that name.
        let all = serde_json::from_str::<What>("\"nothing\"").unwrap_err().to_string();
        let all: Vec<&str> = all.split('`').skip(3).step_by(2).collect();
        assert!(all.contains(&"daemon_started") && all.contains(&"trouble"), "{all:?}");
        let help = Events::augment_args(clap::Command::new("events"));
        let help = help.get_after_help().unwrap().to_string();
        let (_, named) = help.split_once("what is one of").unwrap();
        let (named, _) = named.split_once('.').unwrap();
        let mut named: Vec<&str> = named.split(',').map(str::trim).collect();
        let mut expected = all.clone();
        named.sort_unstable();
        expected.sort_unstable();
        assert_eq!(named, expected);
    }

    #[test]
    fn an_event_is_one_line_that_cannot_steer_the_terminal() {
        let (name, namespace) = ("web".to_owned(), "default".to_owned());
        let happening = Happening {
            number: 1,
            at_ms: 0,
            what: What::Status,
            app: Some(Subject { id: AppId(0), name, namespace }),
            instance: Some(Instance(2)),
            generation: Some(Generation(3)),
            pid: Some(77),
            detail: Some("up\x1b[2J\nand well".to_owned()),
            data: None,
        };
        let line = anstream::adapter::strip_str(&shown(&happening)).to_string();
        let end = "web:2             status  up\\u{1b}[2J\\nand well  (generation 3, pid 77)";
        assert!(line.ends_with(end), "{line}");
    }
}
