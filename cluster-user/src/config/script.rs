//! Which program a script, a name or a command line means.
//!
//! In this order: a file (relative to `--cwd`, then to the current folder), a program on `PATH`, and, when
//! there is white space in it, a command line. A command line is split into words and run without a shell,
//! unless it has one of `` | & ; < > ( ) $ ` `` or a line break outside quotes, or begins with a variable
//! assignment: then `/bin/sh -c` runs it.

use std::{
    ffi::{OsStr, OsString},
    fs,
    path::{Path, PathBuf},
};

use super::{
    interpreter::{self, Interpreting},
    refusal::Refusal,
};

/// What to execute.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Absolute path of the file to execute.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub args: Vec<String>,
    /// What the app is called unless it is given a name.
    pub stem: String,
}

/// PM2's word for its server of files.
const SERVE: &str = "serve";

/// Where scripts and programs are looked for.
#[derive(Clone, Debug)]
pub struct Lookup {
    /// Folders that a script's path is relative to, the first one that has it wins.
    pub folders: Vec<PathBuf>,
    /// Value of `PATH`.
    pub path: Option<OsString>,
}

impl Lookup {
    /// The program of that name on `PATH`.
    pub fn program(&self, name: impl AsRef<OsStr>) -> Option<PathBuf> {
        which::which_in(name, self.path.as_ref(), self.folders.last()?).ok()
    }

    fn file(&self, script: &str) -> Option<PathBuf> {
        self.folders.iter().map(|folder| folder.join(script)).find(|path| path.exists())
    }
}

/// Finds out what to execute for `script` with `args`.
///
/// # Errors
/// When there is no such thing, or nothing that can run it.
pub fn locate(
    script: &str,
    args: &[String],
    interpreting: &Interpreting,
    lookup: &Lookup,
) -> Result<Run, Refusal> {
    if let Some(run) = one_word(script, args, interpreting, lookup) {
        return run;
    }
    if script.contains(char::is_whitespace) {
        return command_line(script, args, interpreting, lookup);
    }
    Err(missing(script, lookup))
}

/// What `serve` means where a server of files is meant, and no script of that name: this program, as that.
///
/// `asked` says that PM2's variables for its own are there, which go before a program of that name.
pub fn server(script: &str, args: &[String], asked: bool, lookup: &Lookup) -> Option<Run> {
    let is_ours = script == SERVE
        && lookup.file(script).is_none()
        && (asked || lookup.program(script).is_none());
    let args = std::iter::once("serve-files".to_owned()).chain(args.iter().cloned());
    is_ours.then(|| Run { program: own_program(), args: args.collect(), stem: SERVE.to_owned() })
}

/// The program that this process is, by its path; where that was replaced or removed, what is left of it.
pub fn own_program() -> PathBuf {
    let path = fs::read_link("/proc/self/exe").unwrap_or_else(|_| "/proc/self/exe".into());
    // The kernel says so of a file that was removed; another one may be there by now.
    let shown = path.as_os_str().to_string_lossy();
    shown
        .strip_suffix(" (deleted)")
        .map_or_else(|| path.clone(), |path| OsString::from(path).into())
}

/// Whether `script` is the path of something, so that no app is meant by it.
pub fn is_path(script: &str, cwd: &Path) -> bool {
    script.contains('/') || cwd.join(script).is_file()
}

fn one_word(
    script: &str,
    args: &[String],
    interpreting: &Interpreting,
    lookup: &Lookup,
) -> Option<Result<Run, Refusal>> {
    let on_path = || {
        let bare = !script.is_empty() && !script.contains('/');
        bare.then(|| lookup.program(script)).flatten()
    };
    let choose = |file: &Path| {
        let run = interpreter::choose(file, args, interpreting, lookup)?;
        Ok(Run { stem: stem(script), ..run })
    };
    let file = lookup.file(script).filter(|_| !script.is_empty());
    match file {
        Some(file) if file.is_file() => {
            let run = choose(&file);
            // A file that nothing can run does not hide the program of the same name.
            match (run, on_path()) {
                (Err(_), Some(program)) => Some(choose(&program)),
                (run, _) => Some(run),
            }
        }
        Some(other) => Some(match on_path() {
            Some(program) => choose(&program),
            None if other.is_dir() => Err(Refusal::new(format!("`{script}` is a folder"))
                .hint("name the script in it, or a file to execute")),
            None => Err(Refusal::new(format!("`{script}` is no regular file"))),
        }),
        None => on_path().map(|program| choose(&program)),
    }
}

fn command_line(
    line: &str,
    args: &[String],
    interpreting: &Interpreting,
    lookup: &Lookup,
) -> Result<Run, Refusal> {
    let words = shell_words::split(line).map_err(|_unclosed| {
        Refusal::new(format!("command line `{line}` has a quote that is not closed"))
    })?;
    let Some((first, rest)) = words.split_first() else {
        return Err(
            Refusal::new("the script is empty").hint("name a file, a program or a command line")
        );
    };
    let shell = shell_needed(line);
    if shell == Shell::None {
        let args: Vec<String> = rest.iter().chain(args).cloned().collect();
        let run = one_word(first, &args, interpreting, lookup)
            .unwrap_or_else(|| Err(missing(first, lookup)))?;
        return Ok(Run { stem: line_stem(first, rest), ..run });
    }
    if interpreting.program.is_some() || !interpreting.args.is_empty() {
        return Err(Refusal::usage("a command line for the shell takes no interpreter"));
    }
    let mut text = line.trim().to_owned();
    if !args.is_empty() {
        text = format!("{text} {}", shell_words::join(args));
    }
    if shell == Shell::OneCommand {
        // Without it the worker would be a shell that does not pass signals on.
        text = format!("exec {text}");
    }
    let stem = line_stem(first, rest);
    Ok(Run { program: PathBuf::from("/bin/sh"), args: vec!["-c".to_owned(), text], stem })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shell {
    None,
    OneCommand,
    Several,
}

fn shell_needed(line: &str) -> Shell {
    let assignment = line.split_whitespace().next().is_some_and(|word| {
        let name = word.split_once('=').map_or("", |(name, _)| name);
        !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
    });
    let mut needed = if assignment { Shell::Several } else { Shell::None };
    let mut quote = None;
    let mut escaped = false;
    for c in line.trim().chars() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (None | Some('"'), '\\') => escaped = true,
            (Some(open), c) if open == c => quote = None,
            (None, '\'' | '"') => quote = Some(c),
            (None, '|' | '&' | ';' | '(' | ')' | '\n') => return Shell::Several,
            (None, '<' | '>') | (None | Some('"'), '$' | '`') if needed == Shell::None => {
                needed = Shell::OneCommand;
            }
            _ => {}
        }
    }
    needed
}

fn missing(script: &str, lookup: &Lookup) -> Refusal {
    let shown: String = script.escape_debug().take(200).collect();
    let refusal = Refusal::new(format!("there is no script, program or app `{shown}`"));
    match nearest(script, lookup) {
        Some(name) => refusal.hint(format!("did you mean `{name}`?")),
        None => refusal.hint("name a file, a program on PATH, or a stopped app"),
    }
}

/// The most similar name in the folder where the script should be.
fn nearest(script: &str, lookup: &Lookup) -> Option<String> {
    const SIMILAR: f64 = 0.85;
    const LOOKED_AT: usize = 2000;
    let path = Path::new(script);
    let name = path.file_name()?.to_str()?;
    let parent = path.parent().unwrap_or(Path::new(""));
    lookup
        .folders
        .iter()
        .filter_map(|folder| fs::read_dir(folder.join(parent)).ok())
        .flat_map(|entries| entries.take(LOOKED_AT).flatten())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .map(|candidate| (strsim::jaro_winkler(name, &candidate), candidate))
        .filter(|(score, _)| *score >= SIMILAR)
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .map(|(_, candidate)| parent.join(candidate).display().to_string())
}

fn stem(script: &str) -> String {
    let name = Path::new(script).file_name().and_then(OsStr::to_str).unwrap_or(script);
    match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() && interpreter::is_known(extension) => {
            stem.to_owned()
        }
        _ => name.to_owned(),
    }
}

/// `node server.js --port 1` is `server`; `python3 -m http.server` is `http.server`.
fn line_stem(first: &str, rest: &[String]) -> String {
    let program = stem(first);
    let script = rest.iter().find(|word| !word.starts_with('-'));
    match script {
        Some(script) if interpreter::is_interpreter(&program) => stem(script),
        _ => program,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shell_is_used_only_for_what_needs_one() {
        for (line, expected) in [
            ("node app.js --port 80", Shell::None),
            ("node 'a;b' \"c|d\"", Shell::None),
            ("node app.js '$HOME'", Shell::None),
            ("node app.js \\$HOME", Shell::None),
            ("node app.js --url=http://x/?a=b", Shell::None),
            ("node app.js $HOME", Shell::OneCommand),
            ("node app.js \"$HOME\"", Shell::OneCommand),
            ("node app.js > /dev/null", Shell::OneCommand),
            ("node app.js $A | cat", Shell::Several),
            ("cd x && node app.js", Shell::Several),
            ("PORT=80 node app.js", Shell::Several),
        ] {
            assert_eq!(shell_needed(line), expected, "{line}");
        }
    }

    #[test]
    fn an_app_is_called_like_its_script() {
        for (script, name) in [
            ("app.js", "app"),
            ("/srv/api.v2.py", "api.v2"),
            ("nginx", "nginx"),
            ("my.app", "my.app"),
        ] {
            assert_eq!(stem(script), name);
        }
        let name = |line: &str| {
            let words = shell_words::split(line).unwrap();
            line_stem(&words[0], &words[1..])
        };
        assert_eq!(name("node --inspect server.js 8080"), "server");
        assert_eq!(name("python3 -m http.server 8000"), "http.server");
        assert_eq!(name("/usr/sbin/nginx -g 'daemon off;'"), "nginx");
    }
}
