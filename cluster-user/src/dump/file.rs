//! The file of a dump: replaced in one step, or not at all.

use std::{
    fmt,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, fchown},
    path::{Path, PathBuf},
};

use semver::Version;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use tempfile::NamedTempFile;

use super::{Dump, FORMAT, Saved, Unread};
use crate::{
    api::message::{Failure, Reason},
    config::home::Home,
};

/// Why there is no dump to be had. Displays as a fragment that names the file.
#[derive(Debug)]
pub enum DumpError {
    /// There is none.
    Absent {
        /// Where it would be.
        path: PathBuf,
    },
    /// It cannot be read.
    Unreadable {
        /// Where it is.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// It is no dump, or a broken one.
    Broken {
        /// Where it is.
        path: PathBuf,
        /// A fragment.
        why: String,
    },
    /// A program wrote it that knows more than this one.
    Newer {
        /// Where it is.
        path: PathBuf,
        /// The release of that program.
        release: String,
    },
}

impl fmt::Display for DumpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent { path } => write!(f, "nothing was saved: there is no {}", path.display()),
            Self::Unreadable { path, error } => {
                write!(f, "failed to read {}: {error}", path.display())
            }
            Self::Broken { path, why } => write!(f, "{} {why}", path.display()),
            Self::Newer { path, release } => write!(
                f,
                "{} was written by release {release}, and this is release {}",
                path.display(),
                env!("CARGO_PKG_VERSION")
            ),
        }
    }
}

impl std::error::Error for DumpError {}

/// Where the dump is that was there before the last one.
pub fn backup(home: &Home) -> PathBuf {
    home.dump().with_extension("json.bak")
}

/// Reads the dump of a home.
///
/// # Errors
/// [`DumpError`], also when not one of its apps can be read.
pub fn read(home: &Home) -> Result<Saved, DumpError> {
    let path = home.dump();
    match fs::read(&path) {
        Ok(bytes) => decode(path, &bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(DumpError::Absent { path }),
        Err(error) => Err(DumpError::Unreadable { path, error }),
    }
}

/// Writes the dump of a home, for its owner only, and keeps the one before it. When this fails, that is still in its place.
///
/// # Errors
/// When it cannot be written.
pub fn write(home: &Home, dump: &Dump) -> io::Result<()> {
    let path = home.dump();
    let mut bytes = serde_json::to_vec_pretty(dump)?;
    bytes.push(b'\n');
    match fs::read(&path) {
        // The one before it is worth more than the same once again.
        Ok(before) if before == bytes => return Ok(()),
        Ok(before) => replace(home.path(), &backup(home), &before)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    replace(home.path(), &path, &bytes)
}

/// Whatever happens meanwhile, the file is the old one or the new one, and one that can be read after a power cut.
fn replace(folder: &Path, path: &Path, bytes: &[u8]) -> io::Result<()> {
    // Environments are in it, and with them secrets: mode 0600 from the beginning.
    let mut new = NamedTempFile::new_in(folder)?;
    new.write_all(bytes)?;
    let (folder_owner, owner) = (fs::metadata(folder)?, new.as_file().metadata()?);
    if folder_owner.uid() != owner.uid() {
        // Root speaks to the daemon of somebody else, who is to read it.
        fchown(new.as_file(), Some(folder_owner.uid()), Some(folder_owner.gid()))?;
    }
    new.as_file().sync_all()?;
    new.persist(path)?;
    File::open(folder)?.sync_all()
}

fn decode(path: PathBuf, bytes: &[u8]) -> Result<Saved, DumpError> {
    /// What every version of the file has.
    #[derive(Deserialize)]
    struct Header {
        format: u32,
        release: String,
    }
    let header: Header = match serde_json::from_slice(bytes) {
        Ok(header) => header,
        Err(error) => return Err(DumpError::Broken { path, why: format!("is no dump: {error}") }),
    };
    let is_newer = Version::parse(&header.release).is_ok_and(|release| {
        Version::parse(env!("CARGO_PKG_VERSION")).is_ok_and(|own| own < release)
    });
    let release: String = header.release.escape_debug().take(40).collect();
    if header.format > FORMAT {
        let why = format!("has format {}, and this release reads up to {FORMAT}", header.format);
        let broken = DumpError::Broken { path: path.clone(), why };
        return Err(if is_newer { DumpError::Newer { path, release } } else { broken });
    }
    let nonsense = |path: PathBuf, (place, why): (String, String)| {
        if is_newer {
            return DumpError::Newer { path, release: release.clone() };
        }
        DumpError::Broken { path, why: format!("makes no sense at `{place}`: {why}") }
    };
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let dump: Dump<Value> = match understand(&mut json) {
        Ok(dump) => dump,
        Err(error) => return Err(nonsense(path, error)),
    };
    let mut saved = Saved::default();
    let mut first = None;
    for (app, number) in dump.apps.into_iter().zip(0..) {
        // It may be anything.
        let name = app.pointer("/spec/name").and_then(Value::as_str);
        let name = name.map(|name| name.escape_debug().take(60).collect());
        match understand(app) {
            Ok(app) => saved.apps.push(app),
            Err((place, why)) => {
                let whole = format!("apps[{number}]");
                // A dot stands for all of it.
                let place = if place == "." { whole.clone() } else { format!("{whole}.{place}") };
                let release = is_newer.then_some(release.as_str());
                saved.unread.push(unread(name.unwrap_or(whole), &place, &why, release));
                first.get_or_insert((place, why));
            }
        }
    }
    match first {
        Some(first) if saved.apps.is_empty() => Err(nonsense(path, first)),
        Some(_) | None => Ok(saved),
    }
}

/// The value, or where there is something else than was expected, and what.
fn understand<'de, T: DeserializeOwned>(
    json: impl serde::Deserializer<'de, Error = serde_json::Error>,
) -> Result<T, (String, String)> {
    serde_path_to_error::deserialize(json)
        .map_err(|error| (error.path().to_string(), error.into_inner().to_string()))
}

/// An app that makes no sense at `place`, perhaps because a newer `release` saved it.
fn unread(name: String, place: &str, why: &str, release: Option<&str>) -> Unread {
    let failure = match release {
        Some(release) => Failure::new(
            Reason::Failed,
            format!(
                "release {release} saved something of it that release {} does not know: `{place}`: {why}",
                env!("CARGO_PKG_VERSION")
            ),
        )
        .hint("install that release of cluster, or start the app and save anew"),
        None => Failure::new(
            Reason::Failed,
            format!("what was saved of it makes no sense at `{place}`: {why}"),
        )
        .hint("mend that, or start the app and save anew"),
    };
    Unread { name, failure }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::{super::SavedApp, *};
    use crate::config::spec::AppSpec;

    #[test]
    fn what_was_written_is_read() {
        let (_folder, home) = home();
        assert!(matches!(read(&home), Err(DumpError::Absent { .. })));
        write(&home, &dump(&["web", "api"])).unwrap();
        assert_eq!(read(&home).unwrap().apps, dump(&["web", "api"]).apps);
        let mode = fs::metadata(home.dump()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "environments are in it");
    }

    #[test]
    fn the_one_before_is_kept_and_the_same_once_again_is_not_one() {
        let (_folder, home) = home();
        for names in [&["a"][..], &["a", "b"], &["a", "b"]] {
            write(&home, &dump(names)).unwrap();
        }
        let before = decode(backup(&home), &fs::read(backup(&home)).unwrap()).unwrap();
        assert_eq!(before.apps, dump(&["a"]).apps);
        assert_eq!(fs::metadata(backup(&home)).unwrap().permissions().mode() & 0o777, 0o600);
        let files = fs::read_dir(home.path()).unwrap().count();
        assert_eq!(files, 2, "nothing else is left");
    }

    #[test]
    fn what_is_cut_off_or_garbage_is_broken_and_what_is_from_the_future_is_newer() {
        let (_folder, home) = home();
        write(&home, &dump(&["web"])).unwrap();
        let whole = fs::read_to_string(home.dump()).unwrap();
        let wrong = whole.replacen("\"instances\": 1", "\"instances\": \"many\"", 1);
        for text in [&whole[..whole.len() / 2], "garbage", "", "{}", "[]", &wrong] {
            fs::write(home.dump(), text).unwrap();
            assert!(matches!(read(&home), Err(DumpError::Broken { .. })), "{text}");
        }
        assert!(read(&home).unwrap_err().to_string().contains("apps[0].spec.instances"));
        let release = dump(&[]).release;
        let format = whole.replacen("\"format\": 1", "\"format\": 99", 1);
        fs::write(home.dump(), &format).unwrap();
        assert!(read(&home).unwrap_err().to_string().contains("has format 99"));
        let format = format.replacen(&release, "99.0.0", 1);
        let field = whole.replacen("\"stopped\"", "\"new\": 1, \"stopped\"", 1);
        let field = field.replacen(&release, "99.0.0", 1);
        for text in [&format, &field] {
            fs::write(home.dump(), text).unwrap();
            assert!(matches!(read(&home), Err(DumpError::Newer { .. })), "{text}");
        }
    }

    #[test]
    fn an_app_that_cannot_be_read_does_not_hide_the_others() {
        let (_folder, home) = home();
        write(&home, &dump(&["web", "api", "jobs"])).unwrap();
        let whole = fs::read_to_string(home.dump()).unwrap();
        let wrong = whole.replacen("\"stopped\"", "\"new\": 1, \"stopped\"", 1);
        let nameless = wrong.replacen("\"web\"", "7", 1);
        let mut null: Value = serde_json::from_str(&whole).unwrap();
        null["apps"][0] = Value::Null;
        let null = null.to_string();
        let newer = wrong.replacen(&dump(&[]).release, "99.0.0", 1);
        for (text, name, why) in [
            (&wrong, "web", "makes no sense at `apps[0].new`: unknown field"),
            (&nameless, "apps[0]", "makes no sense at"),
            (&null, "apps[0]", "makes no sense at `apps[0]`: invalid type: null"),
            (&newer, "web", "release 99.0.0 saved something of it"),
        ] {
            fs::write(home.dump(), text).unwrap();
            let saved = read(&home).unwrap();
            assert_eq!(saved.apps, dump(&["api", "jobs"]).apps);
            assert_eq!(saved.len(), 3);
            let [unread] = &saved.unread[..] else { panic!("{:?}", saved.unread) };
            assert_eq!(unread.name, name);
            let message = unread.failure.to_string();
            assert!(message.contains(why), "{message}");
        }
    }

    fn home() -> (tempfile::TempDir, Home) {
        let folder = tempfile::tempdir().unwrap();
        let home = Home::at(folder.path()).unwrap();
        (folder, home)
    }

    fn dump(names: &[&str]) -> Dump {
        let apps = names
            .iter()
            .map(|name| SavedApp { stopped: false, spec: AppSpec::usual(name.parse().unwrap()) });
        Dump { apps: apps.collect(), ..Dump::of(Vec::new()) }
    }
}
