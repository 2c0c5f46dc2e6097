//! A conversation with the daemon: connecting, asking, carrying out, and telling of it as it goes.

use std::{cell::RefCell, pin::pin, time::Duration};

use indicatif::ProgressBar;
use tokio::{
    runtime::{Builder, Runtime},
    time::timeout,
};

use super::{
    error::Error,
    human,
    launch::{self, Launched},
    output,
};
use crate::{
    api::{
        client::{Client, ClientError},
        message::{
            AppView, AppsRequest, Detail, Done, Line, Notice, Pong, Progress, Request, Rolling,
            Step,
        },
    },
    config::{duration, home::Home, spec::Readiness},
};

/// A command's dealings with one daemon.
#[derive(Debug)]
pub(super) struct Session {
    /// The daemon's.
    pub(super) home: Home,
    told: RefCell<Vec<Notice>>,
}

/// After this long it is said why a start may take so long.
const LONG: Duration = Duration::from_secs(5);

/// How to speak of a verb while it is being carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Doing {
    /// Such as `starting`.
    pub(super) verb: &'static str,
    /// What workers are when it is done, such as `ready`.
    pub(super) reached: &'static str,
}

impl Session {
    /// A session with the daemon that the environment means.
    ///
    /// # Errors
    /// When the environment makes no sense.
    pub(super) fn new() -> Result<Self, Error> {
        Ok(Self { home: Home::from_env()?, told: RefCell::default() })
    }

    /// Connects to a daemon that must be there.
    ///
    /// # Errors
    /// Exit code 3 when there is none.
    pub(super) async fn connect(&self) -> Result<Client, Error> {
        self.find().await?.ok_or_else(|| ClientError::NoDaemon.into())
    }

    /// Connects to a daemon if there is one. One that was killed is started again: its workers run on without it.
    ///
    /// # Errors
    /// When there is one that cannot be talked to, or that cannot be started again.
    pub(super) async fn find(&self) -> Result<Option<Client>, Error> {
        match launch::successor(&self.home).await? {
            Some(Launched::Before(client)) => Ok(Some(client)),
            Some(Launched::Now(mut client)) => {
                self.greet(&mut client, "the daemon had been killed; started another").await?;
                Ok(Some(client))
            }
            None => Ok(None),
        }
    }

    /// Connects to the daemon, and starts it if there is none.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) async fn connect_or_launch(&self) -> Result<Client, Error> {
        if let Some(client) = self.find().await? {
            return Ok(client);
        }
        match launch::daemon(&self.home).await? {
            Launched::Before(client) => Ok(client),
            Launched::Now(mut client) => {
                self.greet(&mut client, "started the daemon").await?;
                Ok(client)
            }
        }
    }

    /// Says that there is a daemon now, and what it found.
    async fn greet(&self, client: &mut Client, what: &str) -> Result<(), Error> {
        let pong = ping(client).await?;
        output::quiet(&format!("{what} (pid {})", pong.pid));
        pong.found.iter().for_each(|notice| self.tell(notice));
        Ok(())
    }

    /// The apps that `targets` mean, all when there are none; `None` without a daemon.
    ///
    /// # Errors
    /// When a target means nothing.
    pub(super) async fn apps(
        &self,
        targets: &[String],
        detail: Detail,
    ) -> Result<Option<Vec<AppView>>, Error> {
        match self.find().await? {
            Some(mut client) => apps(&mut client, targets, detail).await.map(Some),
            None => Ok(None),
        }
    }

    /// The apps that `targets` mean, of a daemon that must be there.
    ///
    /// # Errors
    /// Exit code 3 when there is none.
    pub(super) async fn needed_apps(
        &self,
        targets: &[String],
        detail: Detail,
    ) -> Result<Vec<AppView>, Error> {
        apps(&mut self.connect().await?, targets, detail).await
    }

    /// Has a verb carried out, showing how far it is.
    ///
    /// # Errors
    /// When it is not carried out.
    pub(super) async fn carry_out(
        &self,
        client: &mut Client,
        request: &Request,
        doing: Doing,
    ) -> Result<Done, Error> {
        let mut answer = client.send(request).await?;
        let mut bar = Bar { spinner: output::spinner(), doing };
        let mut slow = why_it_takes_long(request);
        loop {
            let mut next = pin!(answer.next());
            let line = match timeout(LONG, &mut next).await {
                Ok(line) => line?,
                Err(_elapsed) => {
                    // Whoever comes from PM2 expects an answer by now.
                    slow.take().into_iter().for_each(|notice| bar.aside(|| self.tell(&notice)));
                    next.await?
                }
            };
            let Some(line) = line else { break };
            match line {
                Line::Progress(progress) => bar.show(&progress),
                Line::Rolling(rolling) => bar.roll(&rolling),
                Line::Notice(notice) => bar.aside(|| self.tell(&notice)),
                Line::Done(done) => return Ok(done),
                Line::Failed(failure) => return Err(failure.into()),
                Line::Pong(_)
                | Line::Event(_)
                | Line::Telemetry(_)
                | Line::Readiness(_)
                | Line::Exporter(_) => break,
            }
        }
        Err(Error::failed(format!("the daemon ended before {} was done", doing.verb))
            .hint("its log is daemon.log in the folder that cluster ping shows"))
    }

    /// Has a verb carried out, printing every line of its answer as it is.
    ///
    /// # Errors
    /// When it is not carried out.
    pub(super) async fn stream(&self, client: &mut Client, request: &Request) -> Result<(), Error> {
        let mut answer = client.send(request).await?;
        while let Some(mut line) = answer.next().await? {
            if let Line::Done(done) = &mut line {
                done.apps = super::list::shared(std::mem::take(&mut done.apps));
            }
            output::json_line(&line)?;
            match line {
                Line::Progress(_) | Line::Rolling(_) | Line::Notice(_) => {}
                Line::Done(_) => return Ok(()),
                Line::Failed(failure) => return Err(failure.into()),
                Line::Pong(_)
                | Line::Event(_)
                | Line::Telemetry(_)
                | Line::Readiness(_)
                | Line::Exporter(_) => break,
            }
        }
        Err(Error::failed("the daemon ended before it was done"))
    }

    fn tell(&self, notice: &Notice) {
        let mut told = self.told.borrow_mut();
        if !told.contains(notice) {
            output::notice(notice);
            told.push(notice.clone());
        }
    }
}

/// Runs a command's conversation.
///
/// # Errors
/// Those of the command.
pub(super) fn block_on<T>(task: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    runtime()?.block_on(task)
}

/// The apps of a daemon that runs, if it answers soon; one that does not run is not started for that.
pub(super) fn glance(home: &Home, patience: Duration) -> Option<Vec<AppView>> {
    let glance = async {
        let mut client = Client::connect(home).await.ok()?;
        apps(&mut client, &[], Detail::Usual).await.ok()
    };
    runtime().ok()?.block_on(async { timeout(patience, glance).await.ok()? })
}

/// Asks the daemon about itself.
///
/// # Errors
/// When it does not answer.
pub(super) async fn ping(client: &mut Client) -> Result<Pong, Error> {
    match client.send(&Request::Ping).await?.next().await? {
        Some(Line::Pong(pong)) => Ok(pong),
        Some(Line::Failed(failure)) => Err(failure.into()),
        Some(
            Line::Progress(_)
            | Line::Rolling(_)
            | Line::Notice(_)
            | Line::Done(_)
            | Line::Event(_)
            | Line::Telemetry(_)
            | Line::Readiness(_)
            | Line::Exporter(_),
        )
        | None => Err(nonsense()),
    }
}

/// The apps that are meant, asked over a connection that is there.
pub(super) async fn apps(
    client: &mut Client,
    targets: &[String],
    detail: Detail,
) -> Result<Vec<AppView>, Error> {
    let request = Request::Apps(AppsRequest { targets: targets.to_vec(), detail });
    match client.send(&request).await?.next().await? {
        Some(Line::Done(done)) => Ok(done.apps),
        Some(Line::Failed(failure)) => Err(failure.into()),
        Some(
            Line::Progress(_)
            | Line::Rolling(_)
            | Line::Notice(_)
            | Line::Pong(_)
            | Line::Event(_)
            | Line::Telemetry(_)
            | Line::Readiness(_)
            | Line::Exporter(_),
        )
        | None => Err(nonsense()),
    }
}

/// What whoever waits long for an app that does not get ready may not know.
fn why_it_takes_long(request: &Request) -> Option<Notice> {
    let Request::Start(start) = request else { return None };
    let spec = &start.spec;
    let listens = spec.readiness == Readiness::Listening && spec.probe.is_none();
    listens.then(|| Notice {
        message: format!(
            "app `{}` does not listen on a port yet",
            human::plain(spec.name.as_str())
        ),
        hint: Some(format!(
            "--no-port is for one that serves none; it is waited for until {} have passed",
            duration::format(spec.listen_timeout)
        )),
    })
}

/// One step of a reload.
fn rolling_line(rolling: &Rolling) -> String {
    let Rolling { app, instance, generation, step, detail } = rolling;
    let app = human::plain(app);
    let detail = detail.as_deref().map(|detail| format!(" ({})", human::plain(detail)));
    let detail = detail.unwrap_or_default();
    format!("{app}:{instance} generation {generation} {step}{detail}")
}

/// Whether a step is more than what happens between two others as a matter of course.
fn worth_a_line(rolling: &Rolling) -> bool {
    match rolling.step {
        Step::Starting | Step::Soaking | Step::Canary | Step::Serving | Step::Gone => true,
        // An answer that was not good; connections that are waited for.
        Step::Probing | Step::Draining => rolling.detail.is_some(),
        Step::Ready | Step::Stopping => false,
    }
}

pub(super) fn nonsense() -> Error {
    Error::failed("the daemon's answer makes no sense")
}

fn runtime() -> Result<Runtime, Error> {
    Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::failed(format!("failed to begin: {error}")))
}

/// A line on the terminal that goes away when this does.
struct Bar {
    spinner: Option<ProgressBar>,
    doing: Doing,
}

impl Bar {
    fn show(&self, progress: &Progress) {
        if let Some(spinner) = &self.spinner {
            let Progress { app, reached, wanted, .. } = progress;
            let Doing { verb, reached: state } = self.doing;
            let app = human::plain(app);
            spinner.set_message(format!("{verb} {app}: {reached}/{wanted} workers {state}"));
        }
    }

    /// One step of a reload: all of them pass by on a terminal, and those that say something stay.
    fn roll(&mut self, rolling: &Rolling) {
        let line = rolling_line(rolling);
        if let Some(spinner) = &self.spinner {
            let verb = self.doing.verb;
            spinner.set_message(format!("{verb}: {line}"));
        }
        if worth_a_line(rolling) {
            self.aside(|| output::quiet(&line));
        }
    }

    fn aside(&mut self, say: impl FnOnce()) {
        match &self.spinner {
            Some(spinner) => spinner.suspend(say),
            None => say(),
        }
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        if let Some(spinner) = &self.spinner {
            spinner.finish_and_clear();
        }
    }
}
