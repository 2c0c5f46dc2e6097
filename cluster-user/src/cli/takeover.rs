//! Takes apps over from PM2, one by one, so that each is served by one of the two for as long as possible.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Instant, SystemTime},
};

use super::{
    error::Error,
    human, output,
    session::{Doing, Session, block_on},
};
use crate::{
    api::message::{Notice, Request, StartRequest},
    config::{
        definition::Definition,
        file::{self, Select, Source},
        resolve::{Surroundings, resolve},
        spec::AppSpec,
    },
};

/// A PM2 that runs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Daemon {
    pub(super) pid: u32,
    /// When it wrote down its pid.
    pub(super) since: SystemTime,
}

/// The PM2 of a folder, if it runs.
pub(super) fn daemon(home: &Path) -> Option<Daemon> {
    let path = home.join("pm2.pid");
    let pid: u32 = fs::read_to_string(&path).ok()?.trim().parse().ok()?;
    let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // Its title names it and its folder: `PM2 v7.0.4: God Daemon (/root/.pm2)`.
    let is_one = String::from_utf8_lossy(&command).contains("PM2 ");
    let since = fs::metadata(&path).and_then(|file| file.modified()).ok()?;
    is_one.then_some(Daemon { pid, since })
}

/// An app on its way.
struct Move {
    /// What it is called there.
    there: String,
    spec: AppSpec,
}

/// Starts the apps of `file` here, each after it was stopped there.
pub(super) fn run(
    file: &Path,
    names: &[(String, String)],
    home: &Path,
    running: Option<Daemon>,
    around: &Surroundings,
) -> Result<(), Error> {
    let pm2 = Pm2::find(home, running, around)?;
    let loaded = file::read(&Source::File(file.to_owned()), around, &Select::default())?;
    // All of them make sense before the first one is stopped.
    let moves = loaded
        .apps
        .iter()
        .zip(names)
        .map(|(definition, (there, _))| prepare(definition, there, around))
        .collect::<Result<Vec<_>, _>>()?;
    // Two apps of one name are stopped by it together.
    let mut left: Vec<&str> = Vec::new();
    let session = Session::new()?;
    for (at, one) in moves.iter().enumerate() {
        let shares = |other: &Move| other.there == one.there;
        let is_first = !moves[..at].iter().any(shares);
        let is_last = !moves[at + 1..].iter().any(shares);
        let outcome = take_over(&session, &pm2, one, is_first, is_last);
        if let Err(error) = outcome {
            left.extend(moves[at..].iter().map(|one| one.there.as_str()));
            left.dedup();
            let names = left.join(", ");
            return Err(error.hint(format!(
                "PM2 runs as before: {names}; change `{}`, then: cluster start {0} --only …, and pm2 delete …",
                file.display()
            )));
        }
    }
    if running.is_some() {
        output::quiet(
            "next: pm2 save --force, so that PM2 does not start them at the next boot; then cluster save and cluster startup",
        );
    }
    Ok(())
}

fn prepare(definition: &Definition, there: &str, around: &Surroundings) -> Result<Move, Error> {
    let resolved = resolve(definition, around)?;
    for message in resolved.notices {
        output::notice(&Notice { message, hint: None });
    }
    Ok(Move { there: there.to_owned(), spec: resolved.spec })
}

fn take_over(
    session: &Session,
    pm2: &Pm2,
    one: &Move,
    is_first: bool,
    is_last: bool,
) -> Result<(), Error> {
    let name = human::plain(&one.there);
    if is_first {
        pm2.tell(&["stop", &one.there])?;
    }
    let began = Instant::now();
    let started = block_on(async {
        // Before PM2 was asked there may have been no daemon; that must not count as a failure of the app.
        let mut client = session.connect_or_launch().await?;
        let request =
            StartRequest { idle: !one.spec.autostart, spec: one.spec.clone(), wait: true };
        let doing = Doing { verb: "starting", reached: "ready" };
        session.carry_out(&mut client, &Request::Start(Box::new(request)), doing).await
    });
    let gap = began.elapsed().as_millis();
    if let Err(error) = started {
        let again = pm2.tell(&["start", &one.there]);
        let message = match again {
            Ok(()) => format!(
                "app `{name}` does not come up here, and PM2 started it again: {}",
                error.message
            ),
            Err(why) => format!(
                "app `{name}` does not come up here: {}; and PM2 does not start it again: {}",
                error.message, why.message
            ),
        };
        return Err(Error { message, ..error });
    }
    if is_last {
        pm2.tell(&["delete", &one.there])?;
    }
    let text = if pm2.program.is_some() {
        format!("app `{name}` runs here; between its stop there and being ready here: {gap} ms")
    } else {
        format!("app `{name}` runs here")
    };
    Ok(output::answer(&text)?)
}

/// PM2's command; none when it does not run, so that nothing needs to be stopped.
struct Pm2 {
    program: Option<PathBuf>,
    home: PathBuf,
}

impl Pm2 {
    fn find(home: &Path, running: Option<Daemon>, around: &Surroundings) -> Result<Self, Error> {
        let home = home.to_owned();
        // Asked anything, PM2 starts its daemon.
        let Some(daemon) = running else { return Ok(Self { program: None, home }) };
        let path = around.env.iter().find(|(key, _)| key == "PATH").map(|(_, path)| path.clone());
        match which::which_in("pm2", path, &around.cwd) {
            Ok(program) => Ok(Self { program: Some(program), home }),
            Err(_) => Err(Error::failed(format!(
                "PM2 runs (pid {}), and there is no `pm2` on PATH to stop its apps with",
                daemon.pid
            ))
            .hint("add the folder of its command to PATH")),
        }
    }

    fn tell(&self, args: &[&str]) -> Result<(), Error> {
        let Some(program) = &self.program else { return Ok(()) };
        let shown = format!("pm2 {}", args.join(" "));
        let failed = |why: String| Error::failed(format!("`{shown}` failed: {why}"));
        let output = Command::new(program)
            .args(args)
            .env("PM2_HOME", &self.home)
            .stdin(Stdio::null())
            .output()
            .map_err(|error| failed(error.to_string()))?;
        if output.status.success() {
            return Ok(());
        }
        let complaint = [&output.stderr[..], &output.stdout[..]].concat();
        let complaint = String::from_utf8_lossy(&complaint).into_owned();
        let line = complaint.lines().find(|line| line.contains("ERROR")).unwrap_or_default();
        Err(failed(format!("{} {}", output.status, human::plain(line))))
    }
}
