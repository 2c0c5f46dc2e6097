//! Where a worker's output goes: names of log files.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    config::spec::logs::{Logs, Place},
    id::Instance,
};

/// Which of a worker's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Error => "error",
        }
    }
}

/// Whose output it is, and what shall become of it.
#[derive(Clone, Copy, Debug)]
pub struct Origin<'a> {
    /// Name of the app.
    pub app: &'a str,
    /// The worker's number.
    pub instance: Instance,
    /// How many workers the app is to have.
    pub instances: u32,
    /// What the app's definition says.
    pub logs: &'a Logs,
}

/// The files that a worker's output goes to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// Of standard output; `None` when it goes to no file.
    pub out: Option<PathBuf>,
    /// Of standard error.
    pub error: Option<PathBuf>,
    /// Of both together.
    pub combined: Option<PathBuf>,
}

impl Files {
    /// Where the output of `origin` goes, in `folder` unless something else was said.
    pub(super) fn of(origin: &Origin<'_>, folder: &Path) -> Self {
        let logs = origin.logs;
        if logs.disabled || !logs.to_file {
            return Self::default();
        }
        let file = |place: &Place, kind: Kind| match place {
            Place::Nowhere => None,
            Place::Usual => Some(folder.join(usual(origin, kind))),
            Place::File(path) => Some(own(origin, path)),
        };
        Self {
            out: file(&logs.out, Kind::Out),
            error: file(&logs.error, Kind::Error),
            combined: logs.combined.as_ref().map(|path| own(origin, path)),
        }
    }

    /// The file of one stream.
    pub fn of_kind(&self, kind: Kind) -> Option<&Path> {
        match kind {
            Kind::Out => self.out.as_deref(),
            Kind::Error => self.error.as_deref(),
        }
    }

    /// Every file, each once.
    pub fn all(&self) -> Vec<PathBuf> {
        let all = [&self.out, &self.error, &self.combined];
        let mut all: Vec<_> = all.into_iter().flatten().cloned().collect();
        all.sort();
        all.dedup();
        all
    }
}

/// `<app>-out-<instance>.log` or `<app>-error-<instance>.log`, as PM2 names them; without number when all share it.
fn usual(origin: &Origin<'_>, kind: Kind) -> String {
    let (app, kind, instance) = (origin.app, kind.word(), origin.instance);
    if origin.logs.merge {
        format!("{app}-{kind}.log")
    } else {
        format!("{app}-{kind}-{instance}.log")
    }
}

/// The file of a worker, of those that were given one name together.
fn own(origin: &Origin<'_>, path: &Path) -> PathBuf {
    if origin.logs.merge || origin.instances < 2 || is_special(path) {
        return canonical(path);
    }
    let mut name = path.file_stem().unwrap_or_default().to_owned();
    name.push(format!("-{}", origin.instance));
    if let Some(ending) = path.extension() {
        name.push(".");
        name.push(ending);
    }
    canonical(&path.with_file_name(name))
}

/// Devices, `/dev/stdout` for one, are what they are by their names.
fn is_special(path: &Path) -> bool {
    path.starts_with("/dev") || path.starts_with("/proc")
}

/// One name for a file, whatever links lead to it: two apps that mean the same file write it together.
fn canonical(path: &Path) -> PathBuf {
    if is_special(path) {
        return path.to_owned();
    }
    if let Ok(canonical) = fs::canonicalize(path) {
        return canonical;
    }
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
        return path.to_owned();
    };
    fs::canonicalize(parent).map_or_else(|_absent| path.to_owned(), |parent| parent.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(instances: u32, change: impl FnOnce(&mut Logs)) -> Files {
        let mut logs = Logs::default();
        change(&mut logs);
        let origin = Origin { app: "web", instance: Instance(1), instances, logs: &logs };
        Files::of(&origin, Path::new("/logs"))
    }

    #[test]
    fn each_worker_has_files_of_its_own_unless_they_are_merged() {
        let usual = files(2, |_| {});
        assert_eq!(usual.out.unwrap(), Path::new("/logs/web-out-1.log"));
        assert_eq!(usual.error.unwrap(), Path::new("/logs/web-error-1.log"));
        assert_eq!(usual.combined, None);
        let merged = files(2, |logs| logs.merge = true);
        assert_eq!(merged.out.unwrap(), Path::new("/logs/web-out.log"));
    }

    #[test]
    fn a_worker_of_several_has_its_number_in_a_given_name() {
        let given = |logs: &mut Logs| logs.out = Place::File("/no/such/folder/my.out.log".into());
        let name = |files: Files| files.out.unwrap().display().to_string();
        assert_eq!(name(files(2, given)), "/no/such/folder/my.out-1.log");
        assert_eq!(name(files(1, given)), "/no/such/folder/my.out.log");
        let device = |logs: &mut Logs| logs.out = Place::File("/dev/stdout".into());
        assert_eq!(name(files(2, device)), "/dev/stdout");
        let merged = |logs: &mut Logs| {
            given(logs);
            logs.merge = true;
        };
        assert_eq!(name(files(2, merged)), "/no/such/folder/my.out.log");
    }

    #[test]
    fn what_goes_to_no_file_has_none() {
        assert_eq!(files(1, |logs| logs.disabled = true), Files::default());
        assert_eq!(files(1, |logs| logs.to_file = false), Files::default());
        let quiet = files(1, |logs| logs.error = Place::Nowhere);
        assert!(quiet.error.is_none() && quiet.out.is_some());
    }

    #[test]
    fn a_file_has_one_name_whatever_links_lead_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let real = fs::canonicalize(folder.path()).unwrap();
        let link = real.join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert_eq!(canonical(&link.join("a.log")), real.join("a.log"));
        fs::write(real.join("b.log"), "").unwrap();
        std::os::unix::fs::symlink(real.join("b.log"), real.join("c.log")).unwrap();
        assert_eq!(canonical(&real.join("c.log")), real.join("b.log"));
    }
}
