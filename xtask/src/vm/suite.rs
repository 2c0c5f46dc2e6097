//! Suite: a release of Debian whose packages are read without installing any, beside what this host is set up for.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::Context as _;

use crate::process;

/// Debian's own keys, from its package `debian-archive-keyring`.
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// Age at which lists of packages are read anew.
const FRESH: Duration = Duration::from_hours(24);
/// What a kernel is spread over: until 2025 everything was in `linux-image-…`.
const PARTS: [&str; 3] = ["linux-image-", "linux-binary-", "linux-modules-"];

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
}

impl Archive {
    /// Asks this host's apt.
    pub(super) fn of_this_host() -> anyhow::Result<Self> {
        let format = "$(ORIGIN)|$(LABEL)|$(REPO_URI)";
        let mut ask = Command::new("apt-get");
        let targets = process::run(ask.args(["indextargets", "--format", format]))?;
        Self::read(&targets).context(
            "this host's apt knows no archive of Debian\nhint: apt-get update, on Debian 12 or later",
        )
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
    /// Reads the lists of a release into a folder below `cache`, unless they have been read lately.
    pub(super) fn open(
        archive: &Archive,
        name: &'static str,
        cache: &Path,
    ) -> anyhow::Result<Self> {
        let suite = Self { name, folder: cache.join("apt").join(name) };
        for below in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(suite.folder.join(below))?;
        }
        let options =
            if Path::new(KEYS).exists() { format!("[signed-by={KEYS}] ") } else { String::new() };
        let (sources, list) = (archive.sources(name, &options), suite.folder.join("sources.list"));
        let is_fresh = fs::read_to_string(&list).is_ok_and(|before| before == sources)
            && fs::metadata(&list)?.modified()?.elapsed().is_ok_and(|age| age < FRESH);
        if !is_fresh {
            fs::write(&list, sources)?;
            let updated = process::run(suite.apt("apt-get").arg("update"));
            if let Err(error) = updated {
                // Written again next time.
                fs::remove_file(&list)?;
                return Err(error.context(format!("failed to read the packages of {name}")));
            }
        }
        Ok(suite)
    }

    /// The packages in which the kernel is that a package stands for, the one with its version first.
    pub(super) fn parts(&self, package: &str) -> anyhow::Result<Vec<String>> {
        let mut parts = Vec::new();
        let mut open = vec![package.to_owned()];
        while let Some(package) = open.pop() {
            let asked = process::run(self.apt("apt-cache").args(["depends", &package]))?;
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
        process::run(apt.arg("download").args(packages).current_dir(into)).map(drop)
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
    fn a_kernel_is_followed_to_its_parts() {
        let said = "linux-image-7.2.13-cloud-amd64\n  PreDepends: linux-base\n |Depends: dracut\n  \
                    Depends: linux-base-7.2.13-cloud-amd64\n  Depends: linux-binary-7.2.13-cloud-amd64\n  \
                    Depends: linux-modules-7.2.13-cloud-amd64\n  Suggests: linux-doc-7.2\n";
        let parts = depends(said);
        assert_eq!(parts, ["linux-binary-7.2.13-cloud-amd64", "linux-modules-7.2.13-cloud-amd64"]);
        assert_eq!(depends("  Depends: linux-image-cloud-amd64\n"), [""; 0]);
    }
}
