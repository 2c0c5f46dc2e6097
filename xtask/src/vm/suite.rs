//! Suite: a release of Debian whose packages are read without installing any, beside what this host is set up for.

use std::{
    collections::BTreeSet,
    fmt, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::process;

/// Debian's own keys, from its package `debian-archive-keyring`.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Age at which lists of packages are read anew.
const FRESH: Duration = Duration::from_hours(24);
/// What a kernel is spread over: until 2025 everything was in `linux-image-…`.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

/// What apt says when it is the network, the mirror or the mirror's packages that are not there, and not that something is
/// wrong with what was asked of it (in English, of apt 2.2 to 3.1).
const ABSENT: [&str; 13] = [
    "Could not resolve",
    "Temporary failure resolving",
    "Could not connect",
    "Unable to connect",
    "Cannot initiate the connection",
    "Connection failed",
    "Connection timed out",
    "Connection refused",
    "Network is unreachable",
    "404  Not Found",
    "does not have a Release file",
    "No packages found",
    "Unable to locate package",
];

/// Something that cannot be had on this host; whatever else goes wrong is a failure.
#[derive(Debug)]
pub(super) struct NotOffered(String);

impl fmt::Display for NotOffered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for NotOffered {}

impl NotOffered {
    /// The same of something else for the same reason.
    pub(super) fn again(&self) -> Self {
        Self(self.0.clone())
    }
}

/// Runs a program of apt.
fn ask(apt: &mut Command) -> anyhow::Result<String> {
    process::run(apt.env("LC_ALL", "C")).map_err(|error| {
        let said = format!("{error:#}");
        if is_absent(&said) { NotOffered(said).into() } else { error }
    })
}

/// Whether that is why apt failed.
fn is_absent(said: &str) -> bool {
    ABSENT.iter().any(|absent| said.contains(absent))
}

/// Where this host gets Debian's packages from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Archive {
    main: String,
    security: Option<String>,
}

/// The packages of one release.
pub(super) struct Suite {
    name: &'static str,
    folder: PathBuf,
    /// Why its lists of packages are those of an earlier day, if they are.
    pub(super) stale: Option<anyhow::Error>,
}

impl Archive {
    /// Asks this host's apt.
    pub(super) fn of_this_host() -> anyhow::Result<Self> {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let targets = ask(Command::new("apt-get").args(["indextargets", "--format", format]))?;
        Self::read(&targets).ok_or_else(|| {
            let why = "this host's apt knows no archive of Debian\nhint: apt-get update, on Debian 12 or later";
            NotOffered(why.to_owned()).into()
        })
    }

    fn read(targets: &str) -> Option<Self> {
        let of = |wanted: &str| {
            targets.lines().find_map(|line| {
                let mut fields = line.split('|');
                let (origin, label, uri) = (fields.next()?, fields.next()?, fields.next()?);
                (origin == "Debian" && label == wanted).then(|| uri.to_owned())
            })
        };
        Some(Self { main: of("Debian")?, security: of("Debian-Security") })
    }

    /// The sources of a release, as `sources.list(5)` has them.
    fn sources(&self, suite: &str, options: &str) -> String {
        let released = format!("deb {options}{} {suite} main\n", self.main);
        // What is not released has no updates of its own.
        match self.security.as_ref().filter(|_| suite != "sid") {
            Some(security) => {
                format!("{released}deb {options}{security} {suite}-security main\n")
            }
            None => released,
        }
    }
}

impl Suite {
    /// Reads the lists of a release into a folder below `cache`, unless they have been read lately. Those of an earlier day
    /// do where they cannot be had anew: what was unpacked then is found by them.
    pub(super) fn open(
        archive: &Archive,
        name: &'static str,
        cache: &Path,
    ) -> anyhow::Result<Self> {
        let mut suite = Self { name, folder: cache.join("apt").join(name), stale: None };
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.folder.join(below))?;
        }
        let options =
            if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
        let (sources, list) = (archive.sources(name, &options), suite.folder.join("sources.list"));
        // Written when they have been read from there.
        let read = suite.folder.join("read");
        let is_known = fs::read_to_string(&read).is_ok_and(|before| before == sources);
        let is_fresh =
            is_known && fs::metadata(&read)?.modified()?.elapsed().is_ok_and(|age| age < FRESH);
        if is_fresh {
            return Ok(suite);
        }
        fs::write(&list, &sources)?;
        match ask(suite.apt("apt-get").arg("update")) {
            Ok(_) => fs::write(&read, &sources)?,
            Err(error) => {
                let error = error.context(format!("failed to read the packages of {name}"));
                if !is_known || !error.is::<NotOffered>() {
                    return Err(error);
                }
                suite.stale = Some(error);
            }
        }
        Ok(suite)
    }

    /// The packages in which the kernel is that a package stands for, the one with its version first.
    pub(super) fn parts(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let mut parts = Vec::new();
        let mut open = vec![package.to_owned()];
        while let Some(package) = open.pop() {
            let asked = ask(self.apt("apt-cache").args(["depends", &package]))?;
            for part in depends(&asked)
                .into_iter()
                .filter(|part| !parts.contains(part))
                .collect::<BTreeSet<_>>()
            {
                parts.push(part.clone());
                open.push(part);
            }
        }
        anyhow::ensure!(!parts.is_empty(), "{package} of {} leads to no kernel", self.name);
        Ok(parts)
    }

    /// Downloads packages into a folder.
    pub(super) fn download(&self, packages: &[String], into: &Path) -> anyhow::Result<()> {
        let mut apt = self.apt("apt-get");
        ask(apt.arg("download").args(packages).current_dir(into)).map(drop)
    }

    /// A program of apt that knows this release only.
    fn apt(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        let folder = self.folder.display();
        for option in [
            format!("Dir::Etc::SourceList={folder}/sources.list"),
            "Dir::Etc::SourceParts=/dev/null".to_owned(),
            format!("Dir::State::Lists={folder}/lists"),
            format!("Dir::Cache={folder}/cache"),
            "Acquire::Languages=none".to_owned(),
            "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false".to_owned(),
            // The folder is root's.
            "APT::Sandbox::User=root".to_owned(),
            "APT::Update::Post-Invoke-Success=".to_owned(),
            // Otherwise a list that cannot be had is a warning, and an old one is used in silence.
            "APT::Update::Error-Mode=any".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command
    }
}

/// Parts of kernels among what `apt-cache depends` says that a package depends on.
fn depends(said: &str) -> Vec<String> {
    let named = said
        .lines()
        .filter_map(|line| line.trim_start_matches([' ', '|']).strip_prefix("Depends: "));
    let is_part = |name: &&str| {
        PARTS.iter().any(|part| {
            name.strip_prefix(part)
                .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
    };
    named.filter(is_part).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use std::{fs::File, time::SystemTime};

    use super::*;

    #[test]
    fn the_archive_is_the_one_this_host_uses() {
        let targets = "Nodesource|Node|https://node/|x\nDebian|Debian|http://mirror/debian/|x\n\
                       Debian|Debian-Security|http://mirror/security/|x\n";
        let archive = Archive::read(targets).unwrap();
        let lines = archive.sources("bullseye", "");
        assert_eq!(
            lines,
            "deb http://mirror/debian/ bullseye main\ndeb http://mirror/security/ bullseye-security main\n"
        );
        assert_eq!(archive.sources("sid", "").lines().count(), 1);
        assert_eq!(Archive::read("Ubuntu|Ubuntu|http://mirror/ubuntu/|x\n"), None);
    }

    #[test]
    fn a_mirror_that_is_not_there_is_told_from_what_is_wrong_and_lists_of_an_earlier_day_do() {
        if Command::new("apt-get").arg("--version").output().is_err() {
            eprintln!("skipped: there is no apt here");
            return;
        }
        let cache = tempfile::tempdir().unwrap();
        // Nobody listens there.
        let nowhere = Archive { main: "http://127.0.0.1:9/debian".to_owned(), security: None };
        let open = || Suite::open(&nowhere, "sid", cache.path());
        let error = open().err().unwrap();
        assert!(error.is::<NotOffered>(), "{error:#}");

        let (folder, list) = (cache.path().join("apt/sid"), "sources.list");
        fs::copy(folder.join(list), folder.join("read")).unwrap();
        let old = SystemTime::now() - 2 * FRESH;
        File::options().write(true).open(folder.join("read")).unwrap().set_modified(old).unwrap();
        assert!(open().unwrap().stale.unwrap().is::<NotOffered>());

        // A file is where a folder is to be.
        fs::remove_dir_all(folder.join("lists")).unwrap();
        fs::create_dir_all(folder.join("lists")).unwrap();
        fs::write(folder.join("lists/partial"), "").unwrap();
        assert!(!open().err().unwrap().is::<NotOffered>());
    }

    #[test]
    fn what_apt_says_of_what_is_absent_is_known() {
        for absent in [
            "E: Failed to fetch http://x/InRelease  Temporary failure resolving 'x'",
            "W: Failed to fetch http://x/Release  404  Not Found [IP: 1.2.3.4 80]",
            "N: Unable to locate package linux-image-cloud-amd64\nE: No packages found",
        ] {
            assert!(is_absent(absent), "{absent}");
        }
        for wrong in [
            "W: GPG error: http://x sid InRelease: NO_PUBKEY 123",
            "E: Write error - write (28: No space left on device)",
            "E: Malformed entry 1 in list file",
        ] {
            assert!(!is_absent(wrong), "{wrong}");
        }
    }

    #[test]
    fn a_kernel_is_followed_to_its_parts() {
        let said = "linux-image-7.2.13-cloud-amd64\n  PreDepends: linux-base\n |Depends: dracut\n  \
                    Depends: linux-base-7.2.13-cloud-amd64\n  Depends: linux-binary-7.2.13-cloud-amd64\n  \
                    Depends: linux-modules-7.2.13-cloud-amd64\n  Suggests: linux-doc-7.2\n";
        let parts = depends(said);
        assert_eq!(parts, ["linux-binary-7.2.13-cloud-amd64", "linux-modules-7.2.13-cloud-amd64"]);
        assert_eq!(depends("  Depends: linux-image-cloud-amd64\n"), [""; 0]);
    }
}
