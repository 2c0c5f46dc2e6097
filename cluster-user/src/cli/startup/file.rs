//! File: what a service manager reads, written whole, and left alone once somebody has edited it.

use std::{
    fs::{self, Permissions},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use similar::TextDiff;
use tempfile::NamedTempFile;

use super::{super::error::Error, not_permitted};
use crate::config::home;

/// How the line begins by which an unedited file is known.
const SEAL: &str = "# Written by `cluster startup`";

/// A file of a service.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) path: PathBuf,
    /// With a line that says who wrote it.
    pub(super) text: String,
    mode: u32,
}

/// What came of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There was none.
    Made,
    /// There was another.
    Replaced,
    /// It was there already.
    None,
}

impl File {
    pub(super) fn new(path: PathBuf, body: &str, mode: u32) -> Self {
        Self { path, text: sealed(body), mode }
    }

    /// Whether something is there.
    pub(super) fn exists(&self) -> bool {
        self.path.symlink_metadata().is_ok()
    }

    /// If somebody edited the one that is there: what is different about it.
    pub(super) fn edited(&self) -> Result<Option<String>, Error> {
        let there = match fs::read(&self.path) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("read", &self.path, &error)),
        };
        if there == self.text || is_untouched(&there) {
            return Ok(None);
        }
        let names = (format!("{} as it is", self.path.display()), "as it would be written");
        let difference = TextDiff::from_lines(&there, &self.text);
        Ok(Some(difference.unified_diff().header(&names.0, names.1).to_string()))
    }

    /// Puts it in its place.
    pub(super) fn write(&self) -> Result<Change, Error> {
        let fail = |error: io::Error| failed("write", &self.path, &error);
        let change = match fs::read(&self.path) {
            Ok(bytes) if bytes == self.text.as_bytes() => return Ok(Change::None),
            Ok(_) => Change::Replaced,
            Err(_) => Change::Made,
        };
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(fail)?;
        let mut new = NamedTempFile::new_in(folder).map_err(fail)?;
        new.write_all(self.text.as_bytes()).map_err(fail)?;
        new.as_file().set_permissions(Permissions::from_mode(self.mode)).map_err(fail)?;
        new.as_file().sync_all().map_err(fail)?;
        new.persist(&self.path).map_err(|error| fail(error.error))?;
        Ok(change)
    }

    /// Removes it.
    pub(super) fn remove(&self) -> Result<(), Error> {
        fs::remove_file(&self.path).map_err(|error| failed("remove", &self.path, &error))
    }
}

fn failed(what: &str, path: &Path, error: &io::Error) -> Error {
    let path = path.display();
    if error.kind() == io::ErrorKind::PermissionDenied {
        return not_permitted(&format!("{what} {path}")).hint("sudo cluster startup");
    }
    Error::failed(format!("failed to {what} {path}: {error}"))
}

/// The text with a line that tells of any change to the others. What names an interpreter stays first.
fn sealed(body: &str) -> String {
    let (first, rest) = match body.split_once('\n') {
        Some((first, rest)) if first.starts_with("#!") => (format!("{first}\n"), rest),
        Some(_) | None => (String::new(), body),
    };
    let (release, sum) = (env!("CARGO_PKG_VERSION"), home::fold(body.as_ref()));
    format!("{first}{SEAL} of release {release}. Edited, it is kept: {sum:08x}\n{rest}")
}

fn is_untouched(text: &str) -> bool {
    let Some(seal) = text.lines().find(|line| line.starts_with(SEAL)) else { return false };
    let body = text.replacen(&format!("{seal}\n"), "", 1);
    seal.ends_with(&format!(": {:08x}", home::fold(body.as_ref())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unedited_file_is_replaced_and_an_edited_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("system/x.service");
        let file = |body| File::new(path.clone(), body, 0o644);
        assert!(file("a\n").edited().unwrap().is_none(), "there is none");
        assert_eq!(file("a\n").write().unwrap(), Change::Made);
        assert_eq!(file("a\n").write().unwrap(), Change::None);
        assert!(file("b\n").edited().unwrap().is_none(), "it is as an older release wrote it");
        assert_eq!(file("b\n").write().unwrap(), Change::Replaced);
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o644);
        let edited = fs::read_to_string(&path).unwrap().replace('b', "by hand");
        fs::write(&path, edited).unwrap();
        let difference = file("c\n").edited().unwrap().unwrap();
        assert!(difference.contains("-by hand\n") && difference.contains("+c\n"), "{difference}");
        fs::write(&path, "of somebody else\n").unwrap();
        assert!(file("c\n").edited().unwrap().is_some());
    }

    #[test]
    fn an_interpreter_stays_in_the_first_line() {
        let text = sealed("#!/bin/sh\nx\n");
        assert!(text.starts_with("#!/bin/sh\n# Written"), "{text}");
        assert!(is_untouched(&text));
        assert!(!is_untouched(&text.replace('x', "y")));
        assert!(!is_untouched(&text.replace("/bin/sh", "/bin/zsh")));
    }
}
