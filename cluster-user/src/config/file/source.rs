//! Where a configuration comes from, and its text.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

use super::place::{Lines, Problem};
use crate::config::refusal::Refusal;

/// No configuration that is meant is larger; what is, is another file.
const LARGEST: u64 = 4 * 1024 * 1024;

/// Where a configuration comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file; a relative path is relative to the current folder.
    File(PathBuf),
    /// Standard input, in any of the formats that are no program.
    Stdin,
}

/// In what form it is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// `*.toml`.
    Toml,
    /// `*.json`, comments allowed.
    Json,
    /// `*.yml` or `*.yaml`.
    Yaml,
    /// `*.config.js`, `*.config.cjs` or `*.config.mjs`.
    JavaScript,
}

/// Ends of names, and what files of such names are.
const ENDINGS: [(&str, Format); 7] = [
    (".toml", Format::Toml),
    (".json", Format::Json),
    (".yml", Format::Yaml),
    (".yaml", Format::Yaml),
    (".config.js", Format::JavaScript),
    (".config.cjs", Format::JavaScript),
    (".config.mjs", Format::JavaScript),
];

/// What is looked for in a folder, the first that is there wins: the own format, then what PM2 takes by itself, then
/// what it takes when told.
pub const NAMES: [&str; 7] = [
    "cluster.toml",
    "ecosystem.config.js",
    "ecosystem.config.cjs",
    "ecosystem.config.mjs",
    "ecosystem.json",
    "ecosystem.yml",
    "ecosystem.yaml",
];

impl Format {
    /// What a file of that name is, if it is a configuration at all.
    pub fn of(path: &Path) -> Option<Self> {
        let name = path.file_name()?.to_str()?;
        let ending = ENDINGS.iter().find(|(ending, _)| name.ends_with(ending));
        ending.map(|(_, format)| *format)
    }

    /// A script of the name `ecosystem.js` is one too when that is asked for by name.
    pub(super) fn of_named(path: &Path) -> Option<Self> {
        let extension = path.extension().and_then(|extension| extension.to_str());
        let is_program = matches!(extension, Some("js" | "cjs" | "mjs"));
        Self::of(path).or_else(|| is_program.then_some(Self::JavaScript))
    }

    /// What a text without a name is: JSON begins with a bracket, TOML and YAML do not look alike.
    pub(super) fn guess(text: &str) -> Self {
        let mut lines = text.lines().map(str::trim);
        let first = lines.find(|line| {
            !line.is_empty()
                && !["#", "//", "/*", "*"].iter().any(|comment| line.starts_with(comment))
        });
        let Some(first) = first else { return Self::Json };
        let is_toml_table = first.starts_with('[')
            && first.ends_with(']')
            && first.trim_matches(['[', ']']).starts_with(|c: char| c.is_alphabetic());
        match first.chars().next() {
            Some('[') if is_toml_table => Self::Toml,
            Some('{' | '[') => Self::Json,
            Some(_) | None if first.contains('=') && !first.contains(": ") => Self::Toml,
            Some(_) | None => Self::Yaml,
        }
    }
}

/// The text of a file.
///
/// # Errors
/// When it cannot be read, is no text, or is too large; the file is named.
pub(super) fn text(path: &Path, name: &str) -> Result<String, Refusal> {
    if path.is_dir() {
        return Err(Refusal::new(format!("`{name}` is a folder"))
            .hint(format!("name the file in it, such as {}", NAMES[0])));
    }
    // What a shell makes of <(command) has one who writes; nobody may ever open another.
    let is_pipe = |metadata: Metadata| metadata.file_type().is_fifo();
    if fs::metadata(path).is_ok_and(is_pipe)
        && !path.starts_with("/dev")
        && !path.starts_with("/proc")
    {
        return Err(Refusal::new(format!("`{name}` is a pipe"))
            .hint("- reads standard input: COMMAND | cluster start -"));
    }
    let unread = |error: io::Error| {
        let kind = error.kind();
        if kind == io::ErrorKind::NotFound {
            return Refusal::new(format!("there is no file `{name}`"))
                .hint("cluster init writes a cluster.toml to begin with");
        }
        if kind == io::ErrorKind::PermissionDenied {
            return Refusal::not_permitted(format!("`{name}` may not be read by this user"));
        }
        Refusal::new(format!("failed to read `{name}`: {error}"))
    };
    read(File::open(path).map_err(unread)?, name)
}

/// The text of standard input.
///
/// # Errors
/// As [`text`].
pub(super) fn stdin(name: &str) -> Result<String, Refusal> {
    read(io::stdin().lock(), name)
}

fn read(from: impl Read, name: &str) -> Result<String, Refusal> {
    let mut bytes = Vec::new();
    from.take(LARGEST + 1)
        .read_to_end(&mut bytes)
        .map_err(|error| Refusal::new(format!("failed to read `{name}`: {error}")))?;
    let length = u64::try_from(bytes.len()).unwrap_or(u64::MAX);
    if length > LARGEST {
        let most = LARGEST / 1024 / 1024;
        return Err(Refusal::new(format!("{name}: is larger than {most} MiB"))
            .hint("a configuration is a list of apps; is this another file?"));
    }
    decode(bytes).map_err(|problem| problem.of(name))
}

fn decode(bytes: Vec<u8>) -> Result<String, Problem> {
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().get(..good).unwrap_or_default();
        let place = std::str::from_utf8(before).ok().map(|before| Lines::of(before).place(good));
        Problem::new(place, "is no UTF-8 text").hint("iconv -t UTF-8 converts it")
    })?;
    let text = text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text);
    if text.trim().is_empty() {
        return Err(Problem::new(None, "is empty"));
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_what_a_file_is() {
        for (name, format) in [
            ("cluster.toml", Some(Format::Toml)),
            ("/a/b/pm2.json", Some(Format::Json)),
            ("x.yml", Some(Format::Yaml)),
            ("x.yaml", Some(Format::Yaml)),
            ("ecosystem.config.js", Some(Format::JavaScript)),
            ("my.config.cjs", Some(Format::JavaScript)),
            ("my.config.mjs", Some(Format::JavaScript)),
            ("app.js", None),
            ("config.js", None),
            ("server", None),
            ("json", None),
        ] {
            assert_eq!(Format::of(Path::new(name)), format, "{name}");
        }
        assert_eq!(Format::of_named(Path::new("config.js")), Some(Format::JavaScript));
    }

    #[test]
    fn a_text_without_a_name_is_recognized() {
        for (text, format) in [
            ("{\"apps\": []}", Format::Json),
            ("// all\n[{ script: 'a' }]", Format::Json),
            ("[{\"script\": \"a\"}]", Format::Json),
            ("# all\n[apps.web]\nscript = 'a'", Format::Toml),
            ("apps.web.script = 'a'", Format::Toml),
            ("apps:\n  - script: a", Format::Yaml),
            ("---\napps: []", Format::Yaml),
            ("- script: a", Format::Yaml),
        ] {
            assert_eq!(Format::guess(text), format, "{text}");
        }
    }

    #[test]
    fn what_is_no_configuration_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: &[u8]| {
            let path = folder.path().join(name);
            fs::write(&path, bytes).unwrap();
            text(&path, name).unwrap_err().message
        };
        assert_eq!(write("a.json", b""), "a.json: is empty");
        assert_eq!(write("a.json", b" \n\t"), "a.json: is empty");
        assert_eq!(write("a.json", b"{}\n{\xff}"), "a.json:2:2: is no UTF-8 text");
        assert!(write("a.json", &vec![b' '; 100 << 20]).contains("is larger than 4 MiB"));
        assert!(text(folder.path(), "x").unwrap_err().message.contains("is a folder"));
        assert!(text(&folder.path().join("none"), "none").unwrap_err().message.contains("no file"));
        assert!(text(Path::new("/dev/zero"), "zero").unwrap_err().message.contains("larger"));
        let pipe = folder.path().join("pipe.toml");
        nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::S_IRWXU).unwrap();
        assert!(text(&pipe, "pipe.toml").unwrap_err().message.contains("is a pipe"));
        assert_eq!(decode(b"\xef\xbb\xbf{}".to_vec()).unwrap(), "{}");
    }
}
