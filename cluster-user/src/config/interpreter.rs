//! What runs a file: `--interpreter`, else its first line (`#!`), else its extension, else it runs itself.
//!
//! The first line comes before the extension because it says more: `#!/usr/bin/env python3.11`.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{
    refusal::Refusal,
    script::{Lookup, Run},
};

/// What was asked for with `--interpreter` and `--interpreter-args`.
#[derive(Clone, Debug, Default)]
pub struct Interpreting {
    /// A program, or `none`.
    pub program: Option<String>,
    /// Arguments before the script's path.
    pub args: Vec<String>,
}

/// A language: its extensions, what runs it in the order of preference, and where that comes from.
struct Language {
    extensions: &'static [&'static str],
    programs: &'static [&'static str],
    install: &'static str,
}

const LANGUAGES: [Language; 6] = [
    Language {
        extensions: &["js", "mjs", "cjs"],
        programs: &["node"],
        install: "install Node.js (Debian: apt install nodejs)",
    },
    Language {
        extensions: &["py"],
        programs: &["python3", "python"],
        install: "install Python (Debian: apt install python3)",
    },
    Language {
        extensions: &["rb"],
        programs: &["ruby"],
        install: "install Ruby (Debian: apt install ruby)",
    },
    Language {
        extensions: &["php"],
        programs: &["php"],
        install: "install PHP (Debian: apt install php-cli)",
    },
    Language {
        extensions: &["pl"],
        programs: &["perl"],
        install: "install Perl (Debian: apt install perl)",
    },
    Language {
        extensions: &["sh"],
        programs: &["bash", "sh"],
        install: "install a shell (Debian: apt install bash)",
    },
];

const TYPESCRIPT: [&str; 3] = ["ts", "mts", "cts"];

/// Node runs TypeScript by itself since 22.18 and 23.6 (nodejs.org, release notes of both).
const NODE_STRIPS_TYPES: [(u32, u32); 2] = [(22, 18), (23, 6)];

/// Whether an extension says how to run a file.
pub fn is_known(extension: &str) -> bool {
    TYPESCRIPT.contains(&extension) || language(extension).is_some()
}

/// Whether scripts of that extension are run by `program` without being told.
pub fn runs(program: &str, extension: &str) -> bool {
    language(extension).is_some_and(|language| language.programs.contains(&program))
}

/// Whether a program runs scripts.
pub fn is_interpreter(program: &str) -> bool {
    ["bun", "deno", "tsx"].contains(&program)
        || LANGUAGES.iter().any(|language| language.programs.contains(&program))
}

/// Finds out what to execute to run `file` with `args`. The stem is left empty.
///
/// # Errors
/// When nothing can run it.
pub fn choose(
    file: &Path,
    args: &[String],
    interpreting: &Interpreting,
    lookup: &Lookup,
) -> Result<Run, Refusal> {
    let file = std::path::absolute(file).unwrap_or_else(|_empty| file.to_owned());
    let shown = file.display();
    let path = file
        .to_str()
        .ok_or_else(|| Refusal::new(format!("path `{shown}` is no UTF-8 text")))?
        .to_owned();
    let (executable, head) = inspect(&file)
        .map_err(|error| Refusal::new(format!("failed to read `{shown}`: {error}")))?;
    let through = |program: PathBuf, own: Vec<String>| {
        let given = interpreting.args.iter().cloned();
        let script = [path.clone()];
        let args = own.into_iter().chain(given).chain(script).chain(args.iter().cloned());
        Run { program, args: args.collect(), stem: String::new() }
    };
    let direct = || {
        if interpreting.args.is_empty() {
            return Ok(Run { program: file.clone(), args: args.to_vec(), stem: String::new() });
        }
        Err(Refusal::usage(format!("`{shown}` is run without an interpreter"))
            .hint("leave out --interpreter-args, or add --interpreter"))
    };
    match interpreting.program.as_deref() {
        Some("none") if executable => return direct(),
        Some("none") => return Err(not_executable(&file)),
        Some(name) => return Ok(through(named(name, lookup)?, Vec::new())),
        None => {}
    }
    let extension = file.extension().and_then(OsStr::to_str).unwrap_or_default().to_lowercase();
    if let Some((name, own)) = shebang(&head) {
        let program = lookup.program(&name).ok_or_else(|| {
            let known = LANGUAGES.iter().find(|known| known.programs.contains(&name.as_str()));
            let hint =
                known.map_or("install it, or name another with --interpreter", |l| l.install);
            Refusal::new(format!("`{name}`, which runs `{shown}`, is not installed")).hint(hint)
        })?;
        // Executing it directly keeps its own name in ps.
        let bare = executable && interpreting.args.is_empty();
        return if bare { direct() } else { Ok(through(program, own)) };
    }
    if TYPESCRIPT.contains(&extension.as_str()) {
        let (program, own) = typescript(lookup).ok_or_else(|| {
            Refusal::new(format!("nothing installed runs TypeScript such as `{shown}`"))
                .hint("install Node.js 22.18 or newer, bun, tsx, or deno")
        })?;
        return Ok(through(program, own));
    }
    if let Some(language) = language(&extension) {
        let found = language.programs.iter().find_map(|name| lookup.program(name));
        let program = found.ok_or_else(|| {
            let name = language.programs.join("` or `");
            Refusal::new(format!("`{name}`, which runs `{shown}`, is not installed"))
                .hint(format!("{}, or name another with --interpreter", language.install))
        })?;
        return Ok(through(program, Vec::new()));
    }
    if executable { direct() } else { Err(not_executable(&file)) }
}

fn language(extension: &str) -> Option<&'static Language> {
    LANGUAGES.iter().find(|language| language.extensions.contains(&extension))
}

fn named(name: &str, lookup: &Lookup) -> Result<PathBuf, Refusal> {
    lookup.program(name).ok_or_else(|| {
        let known = LANGUAGES.iter().find(|language| language.programs.contains(&name));
        Refusal::new(format!("interpreter `{name}` is not installed"))
            .hint(known.map_or("give a program on PATH or its path, or `none`", |l| l.install))
    })
}

fn not_executable(file: &Path) -> Refusal {
    let shown = file.display();
    Refusal::new(format!("`{shown}` is not executable and says nothing about what runs it"))
        .hint(format!("chmod +x {shown}, or add --interpreter"))
}

/// Whether the file can be executed, and its first bytes.
fn inspect(file: &Path) -> io::Result<(bool, Vec<u8>)> {
    const LONGEST_FIRST_LINE: u64 = 256; // kernel: BINPRM_BUF_SIZE
    let executable = file.metadata()?.permissions().mode() & 0o111 != 0;
    let mut head = Vec::new();
    match File::open(file) {
        Ok(opened) => opened.take(LONGEST_FIRST_LINE).read_to_end(&mut head)?,
        // Binaries may be executable without being readable.
        Err(_unreadable) if executable => 0,
        Err(error) => return Err(error),
    };
    Ok((executable, head))
}

/// The interpreter of the first line and its arguments; `env` is seen through.
fn shebang(head: &[u8]) -> Option<(String, Vec<String>)> {
    let line = head.strip_prefix(b"#!")?.split(|byte| *byte == b'\n').next()?;
    let line = std::str::from_utf8(line).ok()?.trim();
    let (program, argument) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let argument = argument.trim();
    if Path::new(program).file_name() != Some(OsStr::new("env")) {
        let own = (!argument.is_empty()).then(|| argument.to_owned());
        return (!program.is_empty()).then(|| (program.to_owned(), own.into_iter().collect()));
    }
    let words = argument.strip_prefix("-S").unwrap_or(argument).split_whitespace();
    let mut words = words.skip_while(|word| word.starts_with('-') || word.contains('='));
    Some((words.next()?.to_owned(), words.map(str::to_owned).collect()))
}

fn typescript(lookup: &Lookup) -> Option<(PathBuf, Vec<String>)> {
    if let Some(node) = lookup.program("node")
        && node_version(&node).is_some_and(strips_types)
    {
        return Some((node, Vec::new()));
    }
    let found = |name: &str, args: &[&str]| {
        let args = args.iter().map(|arg| (*arg).to_owned()).collect();
        lookup.program(name).map(|program| (program, args))
    };
    found("bun", &[]).or_else(|| found("tsx", &[])).or_else(|| found("deno", &["run", "-A"]))
}

fn strips_types((major, minor): (u32, u32)) -> bool {
    let [(first, since), (next, next_since)] = NODE_STRIPS_TYPES;
    match major {
        _ if major == first => minor >= since,
        _ if major == next => minor >= next_since,
        _ => major > next,
    }
}

fn node_version(node: &Path) -> Option<(u32, u32)> {
    let output = Command::new(node).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let mut numbers = text.trim().trim_start_matches('v').split('.');
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_names_the_interpreter_through_env_too() {
        let read = |line: &str| {
            shebang(line.as_bytes()).map(|(program, args)| format!("{program} {}", args.join("|")))
        };
        assert_eq!(read("#!/bin/sh\n").unwrap(), "/bin/sh ");
        assert_eq!(read("#! /usr/bin/perl -w -T\nx").unwrap(), "/usr/bin/perl -w -T");
        assert_eq!(read("#!/usr/bin/env python3\r\n").unwrap(), "python3 ");
        assert_eq!(read("#!/usr/bin/env -S A=1 deno run -A\n").unwrap(), "deno run|-A");
        for none in ["", "#", "#!", "#!\n", "#!/usr/bin/env\n", "\x7fELF", "echo"] {
            assert_eq!(read(none), None, "{none:?}");
        }
        assert_eq!(shebang(b"#!\xff\xfe\n"), None);
    }

    #[test]
    fn node_strips_types_since_two_releases() {
        for (version, expected) in [
            ((20, 19), false),
            ((22, 17), false),
            ((22, 18), true),
            ((23, 5), false),
            ((23, 6), true),
            ((24, 0), true),
        ] {
            assert_eq!(strips_types(version), expected, "{version:?}");
        }
    }
}
