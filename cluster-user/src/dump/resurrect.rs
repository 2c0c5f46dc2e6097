//! Starting what is in a dump: several apps at a time, and each for itself.

use std::{collections::VecDeque, path::Path};

use tokio::task::JoinSet;

use super::{Saved, SavedApp, Unread, is_stopped, mend::mend};
use crate::{
    api::{
        client::{Client, ClientError},
        message::{
            AppView, AppsRequest, Failure, Line, Notice, Reason, Request, StartRequest,
            TargetsRequest,
        },
    },
    config::{home::Home, resolve::cpus, scheduling::Policy, spec::AppSpec},
};

/// What became of one app.
#[derive(Debug)]
pub struct Outcome {
    /// Its name.
    pub name: String,
    /// How it ended.
    pub end: End,
    /// Why parts of what was saved are left out: this release refuses them.
    pub refused: Vec<String>,
    /// What the daemon had to say.
    pub notices: Vec<Notice>,
}

impl Outcome {
    /// What was left out, for users.
    pub fn left_out(&self) -> impl Iterator<Item = String> {
        self.refused.iter().map(|why| {
            let name = &self.name;
            format!("app `{name}` goes without what is refused of what was saved: {why}")
        })
    }
}

/// How the resurrection of one app ended.
#[derive(Debug)]
pub enum End {
    /// Its workers are ready.
    Up,
    /// It runs already.
    Running,
    /// It was stopped when it was saved, and is stopped.
    Stopped,
    /// It could not be started.
    Failed(Failure),
}

/// Starts every app of a dump that does not run, on a daemon that must be there. `tell` hears what became of each, in the
/// order in which they end.
///
/// # Errors
/// When the daemon does not say what runs.
pub async fn resurrect(
    home: &Home,
    saved: Saved,
    mut tell: impl FnMut(Outcome),
) -> Result<(), ClientError> {
    let known = known(home).await?;
    for Unread { name, failure } in saved.unread {
        let runs = known.iter().any(|known| known.name == name && !is_down(known));
        let end = if runs { End::Running } else { End::Failed(failure) };
        tell(Outcome { name, end, refused: Vec::new(), notices: Vec::new() });
    }
    let mut waiting: VecDeque<_> = saved.apps.into();
    let mut begun = JoinSet::new();
    // They start as many processes as they have workers, all of which want a CPU.
    let at_once = usize::try_from(cpus()).unwrap_or(2).max(2);
    loop {
        while begun.len() < at_once
            && let Some(app) = waiting.pop_front()
        {
            let known = known.iter().find(|known| known.name == app.spec.name.as_str()).cloned();
            let home = home.clone();
            begun.spawn(async move { one(&home, app, known).await });
        }
        match begun.join_next().await {
            Some(Ok(outcome)) => tell(outcome),
            // They neither panic nor are they cancelled.
            Some(Err(_)) => {}
            None => return Ok(()),
        }
    }
}

async fn known(home: &Home) -> Result<Vec<AppView>, ClientError> {
    let mut client = Client::connect(home).await?;
    match client.send(&Request::Apps(AppsRequest::default())).await?.next().await? {
        Some(Line::Done(done)) => Ok(done.apps),
        Some(Line::Failed(failure)) => Err(ClientError::Failed(failure)),
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
        | None => Err(ClientError::Broken("the daemon's answer makes no sense".to_owned())),
    }
}

async fn one(home: &Home, mut app: SavedApp, known: Option<AppView>) -> Outcome {
    let name = app.spec.name.to_string();
    let mut notices = Vec::new();
    // What is there already is what it is.
    let mut refused = if known.is_none() { mend(&mut app.spec) } else { Vec::new() };
    // What is not to be started with its definition alone, and ran all the same when it was saved.
    let then_starts = !app.stopped && !app.spec.autostart;
    let end_well = if app.stopped { End::Stopped } else { End::Up };
    let end = match request(app, known) {
        Next::Request(request) => {
            let (request, mut done) = begin(home, request, &mut notices, &mut refused).await;
            if let (true, Ok(()), Request::Start(_)) = (then_starts, &done, &request) {
                done = start_idle(home, &name, &mut notices).await;
            }
            match done {
                Ok(()) => end_well,
                Err(failure) => End::Failed(failure),
            }
        }
        Next::End(end) => end,
    };
    Outcome { name, end, refused, notices }
}

/// Carries a request out. An app whose policy is not to be had, such as a program that has gone or is of another release, is
/// better off without than not there: its workers take turns, and `refused` says why.
async fn begin(
    home: &Home,
    request: Request,
    notices: &mut Vec<Notice>,
    refused: &mut Vec<String>,
) -> (Request, Result<(), Failure>) {
    let done = carry_out(home, &request, notices).await;
    let (Request::Start(start), Err(failure)) = (&request, &done) else { return (request, done) };
    let is_usual = start.spec.scheduling.policy == Policy::RoundRobin;
    if is_usual || !matches!(failure.reason, Reason::Unschedulable | Reason::Unsupported) {
        return (request, done);
    }
    let mut start = start.clone();
    let spec = &mut start.spec;
    refused.push(failure.message.clone());
    spec.scheduling.policy = Policy::RoundRobin;
    refused.extend(spec.scheduling.mend(spec.instances));
    let request = Request::Start(start);
    let done = carry_out(home, &request, notices).await;
    (request, done)
}

enum Next {
    Request(Request),
    End(End),
}

fn request(app: SavedApp, known: Option<AppView>) -> Next {
    match known {
        Some(known) if app.stopped && is_stopped(&known) => Next::End(End::Stopped),
        Some(known) if !app.stopped && is_down(&known) => Next::Request(restart(&known)),
        Some(_) => Next::End(End::Running),
        None => match missing(&app.spec) {
            Some(failure) if !app.stopped => Next::End(End::Failed(failure)),
            Some(_) | None => {
                let (spec, idle) = (app.spec, app.stopped);
                Next::Request(Request::Start(Box::new(StartRequest { spec, idle, wait: true })))
            }
        },
    }
}

/// By its number: its name may be that of a namespace, too.
fn restart(app: &AppView) -> Request {
    Request::Restart(TargetsRequest { targets: vec![app.id.to_string()], wait: true })
}

/// Starts an app that is known and has not been started with that.
async fn start_idle(home: &Home, name: &str, notices: &mut Vec<Notice>) -> Result<(), Failure> {
    let apps = known(home).await.map_err(failure)?;
    match apps.iter().find(|app| app.name == name) {
        Some(app) => carry_out(home, &restart(app), notices).await,
        // Somebody has deleted it meanwhile.
        None => Ok(()),
    }
}

/// Whether none of its workers runs or will.
fn is_down(app: &AppView) -> bool {
    app.workers.iter().all(|worker| worker.status.is_down())
}

/// What has gone since it was saved, such as the folder of an interpreter's old version.
fn missing(spec: &AppSpec) -> Option<Failure> {
    let gone = |what: &str, path: &Path| {
        let name = &spec.name;
        let message = format!("{what} `{}` is not there any more", path.display());
        Failure::new(Reason::Failed, message).hint(format!(
            "put it back, or start app `{name}` from where it is now, and save again"
        ))
    };
    // A folder that this user may not look into may be open to the one that the app runs as.
    let is_gone = |path: &Path| path.try_exists().is_ok_and(|exists| !exists);
    if is_gone(&spec.program) {
        return Some(gone("program", &spec.program));
    }
    is_gone(&spec.cwd).then(|| gone("folder", &spec.cwd))
}

async fn carry_out(
    home: &Home,
    request: &Request,
    notices: &mut Vec<Notice>,
) -> Result<(), Failure> {
    let mut client = Client::connect(home).await.map_err(failure)?;
    let mut answer = client.send(request).await.map_err(failure)?;
    while let Some(line) = answer.next().await.map_err(failure)? {
        match line {
            Line::Notice(notice) => notices.push(notice),
            Line::Done(_) => return Ok(()),
            Line::Failed(failure) => return Err(failure),
            Line::Progress(_)
            | Line::Rolling(_)
            | Line::Pong(_)
            | Line::Event(_)
            | Line::Telemetry(_)
            | Line::Readiness(_)
            | Line::Exporter(_) => {}
        }
    }
    Err(Failure::new(Reason::Unavailable, "the daemon ended before it was started"))
}

fn failure(error: ClientError) -> Failure {
    match error {
        ClientError::Failed(failure) | ClientError::NotPermitted(failure) => failure,
        ClientError::NoDaemon | ClientError::Version { .. } | ClientError::Broken(_) => {
            Failure::new(Reason::Unavailable, error.to_string())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_gone_since_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        let mut spec = AppSpec::usual("web".parse().unwrap());
        (spec.program, spec.cwd) = (program.clone(), folder.path().to_owned());
        assert!(missing(&spec).unwrap().message.contains("program"));
        std::fs::write(program, "").unwrap();
        assert!(missing(&spec).is_none());
        spec.cwd = folder.path().join("nowhere");
        assert!(missing(&spec).unwrap().message.contains("folder"));
    }
}
