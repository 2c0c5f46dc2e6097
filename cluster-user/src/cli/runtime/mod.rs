//! `cluster runtime`: apps in the foreground, for containers; also `cluster-runtime` and `pm2-runtime`.
//!
//! What runs is what runs in the background, too: a daemon with its guardian, `cluster start`, `cluster logs`,
//! and at the end `cluster kill`. This process only waits: for signals, for its children and those of others
//! that come to it as process 1, and for the apps to be done.

mod first;
mod place;

use std::{
    ffi::{OsStr, OsString},
    path::Path,
};

use clap::Args;

use self::first::First;
use super::error::Error;

/// Names of this program that mean `cluster runtime`.
const NAMES: [&str; 3] = ["cluster-runtime", "pm2-runtime", "pm2-docker"];

/// Runs apps in the foreground, as process 1 of a container, until they are done
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster runtime app.js -i max            what start takes, runtime takes
  cluster runtime --json app.js            each line of the log as an object
  CMD [\"cluster\", \"runtime\", \"app.js\"]     in a Dockerfile; cluster-runtime is the same

What workers write is on standard output, with the worker's name before each line. --raw leaves that
out, and keeps standard error apart. What goes wrong with the daemon is on standard error.

SIGTERM and SIGINT end apps in good order: no new connections, what is under way is finished. Give
docker stop the time that takes (-t). A second one ends them at once. SIGHUP reloads all apps
without losing a connection; SIGUSR2 opens log files anew.

Exit code: 0 when all apps ended well or were told to end; else that of the first that did not, 128
and more for one that was killed; 1 when one did not come up. An app that has been stopped by hand
is not done: it may be started again. Other commands work beside it, with docker exec for example.

Everything is kept in CLUSTER_HOME or its usual place; where that cannot be written, in a folder
under /run, /dev/shm or /tmp that is removed at the end.")]
pub(super) struct Runtime {
    /// Print what workers write as it is, each to the stream that it wrote to
    #[arg(long, conflicts_with = "json")]
    raw: bool,

    /// Print each line of workers as an object
    #[arg(long)]
    json: bool,

    /// Stay when all apps are done
    #[arg(long)]
    no_auto_exit: bool,

    /// What start takes: a script or a file, and options
    #[arg(
        value_name = "SCRIPT|FILE",
        required = true,
        trailing_var_arg = true,
        allow_hyphen_values = true
    )]
    start: Vec<OsString>,
}

/// How what workers write is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Format {
    Prefixed,
    Raw,
    Json,
}

impl Runtime {
    pub(super) fn run(mut self) -> Result<(), Error> {
        self.sort_out();
        if self.start.is_empty() {
            return Err(Error::usage("nothing is said that could be started")
                .hint("cluster runtime app.js, or cluster runtime cluster.toml"));
        }
        let format = match (self.raw, self.json) {
            (true, _) => Format::Raw,
            (false, true) => Format::Json,
            (false, false) => Format::Prefixed,
        };
        foreground(&self.start, format, !self.no_auto_exit)
    }

    /// Takes out of what start gets what is not meant for it: our options may come after the script, as PM2's may.
    fn sort_out(&mut self) {
        let mut own = true;
        let words = std::mem::take(&mut self.start);
        for (at, word) in words.into_iter().enumerate() {
            own &= word != "--";
            match word.to_str() {
                // pm2-runtime start app.js
                Some("start") if at == 0 => {}
                Some("--raw") if own => self.raw = true,
                Some("--json") if own => self.json = true,
                Some("--no-auto-exit") if own => self.no_auto_exit = true,
                Some("--no-daemon" | "--format" | "--formatted") if own => {}
                Some(_) | None => self.start.push(word),
            }
        }
    }
}

/// Runs what `start` would be given, until it is done.
fn foreground(start: &[OsString], format: Format, leave_when_done: bool) -> Result<(), Error> {
    let place = place::Place::choose()?;
    let outcome = First::begin(&place, start, format, leave_when_done).and_then(First::run);
    place.remove();
    match outcome? {
        0 => Ok(()),
        code => Err(Error { code: Some(code), ..Error::failed("") }),
    }
}

/// `cluster start --no-daemon`: the same with what was typed after `start`.
///
/// # Errors
/// As [`Runtime::run`].
pub(super) fn instead_of_start(args: impl Iterator<Item = OsString>) -> Result<(), Error> {
    let start = args.skip_while(|word| word != "start").skip(1);
    Runtime { raw: false, json: false, no_auto_exit: false, start: start.collect() }.run()
}

/// The command line as it was meant, when the program was called by one of its other names.
pub(super) fn by_name(mut args: Vec<OsString>) -> Vec<OsString> {
    let name = args.first().map(Path::new).and_then(Path::file_name).and_then(OsStr::to_str);
    let asks_version = args.get(1).is_some_and(|word| word == "--version" || word == "-v");
    if name.is_some_and(|name| NAMES.contains(&name)) && !asks_version {
        args.insert(1, "runtime".into());
    }
    args
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::{
        super::command::{Cli, Command},
        *,
    };

    #[test]
    fn options_of_start_pass_and_own_ones_stay_wherever_they_are() {
        let read = |line: &str| {
            let args = by_name(line.split(' ').map(OsString::from).collect());
            let Command::Runtime(mut runtime) = Cli::try_parse_from(args).unwrap().command else {
                panic!("{line}");
            };
            runtime.sort_out();
            let start: Vec<_> =
                runtime.start.iter().map(|word| word.to_string_lossy().into_owned()).collect();
            (start.join(" "), runtime.raw, runtime.json)
        };
        let plain = |text: &str| (text.to_owned(), false, false);
        assert_eq!(read("cluster runtime app.js -i 4"), plain("app.js -i 4"));
        assert_eq!(read("cluster runtime -i 4 app.js -- --raw"), plain("-i 4 app.js -- --raw"));
        assert_eq!(
            read("/usr/bin/pm2-runtime start a.json --only web"),
            plain("a.json --only web")
        );
        assert_eq!(read("cluster runtime --raw a.js"), ("a.js".to_owned(), true, false));
        assert_eq!(read("cluster-runtime a.js --json -n x"), ("a.js -n x".to_owned(), false, true));
        assert!(Cli::try_parse_from(["cluster", "runtime"]).is_err());
        let version = by_name(vec!["pm2-runtime".into(), "--version".into()]);
        assert_eq!(version.len(), 2);
    }
}
