//! `cluster import`.

use std::{
    fs,
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
    time::SystemTime,
};

use clap::Args;

use super::{error::Error, human, init, output, takeover};
use crate::{
    api::message::Notice,
    config::{
        file::import::{self, Imported},
        resolve::Surroundings,
        secret,
    },
};

/// Turns what PM2 runs, or a configuration of it, into cluster.toml
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster import                        what `pm2 save` wrote last, into cluster.toml
  cluster import ecosystem.config.js -o web.toml
  cluster import --takeover             and one app after the other: stopped there, started here

A dump has the whole environment of whoever started an app, secrets included: what is of the app
is kept, and the file is for its owner alone. What differs is listed, and stands in the file.

--takeover asks PM2 to stop an app, starts it here, and deletes it there when it is ready; when it
does not come up here, PM2 starts it again. In between nobody serves its port: PM2's daemon holds
it for its workers, so both cannot have it at once. How long that was is told for each app.")]
pub(super) struct Import {
    /// A dump or a configuration of PM2; by default the dump in its folder
    file: Option<PathBuf>,

    /// Where to write it; - prints it
    #[arg(short, long, value_name = "FILE", default_value = "cluster.toml")]
    output: PathBuf,

    /// Show secrets on a terminal, too
    #[arg(long, visible_alias = "reveal")]
    show_secrets: bool,

    /// Start the apps here, and stop them in PM2, one by one
    #[arg(long)]
    takeover: bool,
}

impl Import {
    pub(super) fn run(self) -> Result<(), Error> {
        let around = Surroundings::here()?;
        let home = import::home(&around);
        let running = home.as_deref().and_then(takeover::daemon);
        let path = match (&self.file, &home) {
            (Some(file), _) => file.clone(),
            (None, Some(home)) => Self::dump(home, running)?,
            (None, None) => {
                return Err(Error::usage(
                    "neither PM2_HOME nor HOME says where PM2 keeps its dump",
                )
                .hint("name the file: cluster import ecosystem.config.js"));
            }
        };
        let imported = import::import(&path, &around)?;
        let prints = self.output.as_os_str() == "-";
        if prints && self.takeover {
            return Err(Error::usage("--takeover starts from a file, and - is none")
                .hint("leave out -o, or name a file with it"));
        }
        if prints {
            for (app, what) in &imported.differences {
                notice(app.as_deref(), what);
            }
            // What is on a screen is seen by others; what is in a pipe is meant to be whole.
            if io::stdout().is_terminal() && !self.show_secrets {
                return Ok(output::answer(&masked(&imported.text))?);
            }
            return Ok(output::answer(&imported.text)?);
        }
        let mode = if imported.is_private { 0o600 } else { 0o644 };
        init::create(&self.output, &imported.text, mode)?;
        output::answer(&summary(&imported, &self.output))?;
        if self.takeover {
            let home = home.ok_or_else(|| Error::usage("neither PM2_HOME nor HOME is set"))?;
            return takeover::run(&self.output, &imported.names, &home, running, &around);
        }
        output::quiet(&format!(
            "next: read it, then: cluster start {}",
            shell_words::quote(&self.output.to_string_lossy())
        ));
        Ok(())
    }

    /// The dump of PM2's folder, and what there is to be said of its age.
    fn dump(home: &Path, running: Option<takeover::Daemon>) -> Result<PathBuf, Error> {
        let path = home.join(import::DUMP);
        match (fs::metadata(&path), running) {
            (Ok(dump), Some(daemon)) => {
                let saved = dump.modified().ok();
                if saved.is_some_and(|saved| saved < daemon.since) {
                    let ago = ago(saved);
                    notice(
                        None,
                        &format!(
                            "the dump is older than the PM2 that runs (pid {}), saved {ago}: `pm2 save` writes what runs now",
                            daemon.pid
                        ),
                    );
                }
                Ok(path)
            }
            (Ok(_), None) => Ok(path),
            (Err(error), running) if error.kind() == io::ErrorKind::NotFound => {
                let shown = path.display();
                let hint = match running {
                    Some(daemon) => format!("PM2 runs (pid {}): pm2 save writes it", daemon.pid),
                    None => "name the file its apps are started from: cluster import ecosystem.config.js".to_owned(),
                };
                Err(Error::failed(format!("there is no `{shown}`")).hint(hint))
            }
            (Err(error), _) => {
                Err(Error::failed(format!("failed to look at `{}`: {error}", path.display())))
            }
        }
    }
}

/// The text with the values of variables that may be secret hidden.
fn masked(text: &str) -> String {
    let line = |line: &str| match line.split_once(" = ") {
        Some((name, value)) => {
            let shown = secret::shown(name.trim().trim_matches('"'), value);
            if shown == value { format!("{line}\n") } else { format!("{name} = \"{shown}\"\n") }
        }
        None => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

fn summary(imported: &Imported, to: &Path) -> String {
    let names: Vec<String> = imported.names.iter().map(|(_, name)| human::plain(name)).collect();
    let mut text = format!("wrote {} with {}", to.display(), names.join(", "));
    if imported.is_private {
        text.push_str("; it may have secrets in it, and is for its owner alone");
    }
    text.push('\n');
    if !imported.differences.is_empty() {
        text.push_str("what differs:\n");
    }
    for (app, what) in &imported.differences {
        let about =
            app.as_deref().map_or_else(String::new, |app| format!("{}: ", human::plain(app)));
        let line = format!("  {about}{}\n", human::plain(what));
        text.push_str(&line);
    }
    text
}

fn notice(app: Option<&str>, what: &str) {
    let about = app.map_or_else(String::new, |app| format!("{app}: "));
    output::notice(&Notice { message: format!("{about}{what}"), hint: None });
}

fn ago(when: Option<SystemTime>) -> String {
    let passed = when.and_then(|when| SystemTime::now().duration_since(when).ok());
    passed.map_or_else(
        || "at an unknown time".to_owned(),
        |passed| {
            let millis = u64::try_from(passed.as_millis()).unwrap_or(u64::MAX);
            format!("{} ago", human::uptime(millis))
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_shows_no_secret() {
        let text = "[apps.web]\nscript = \"api.js\"\n\n[apps.web.env]\nPORT = \"80\"\nAPI_TOKEN = \"tok-1\"\n";
        let shown = masked(text);
        assert!(!shown.contains("tok-1") && shown.contains("API_TOKEN = \"***"), "{shown}");
        assert_eq!(shown.replace("********", "tok-1"), text);
    }
}
