//! Kernel: one of Debian's, unpacked, with the modules that the tests need.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::{
    plan::Depth,
    suite::{Archive, Suite},
};
use crate::process;

/// Modules that Debian's kernels load by themselves when a program asks for what is in them; in the order in which they
/// depend on each other.
const MODULES: [&str; 4] = ["inet_diag", "tcp_diag", "udp_diag", "tls"];

/// A kernel that people have, and where its package is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// As it is asked for on the command line.
    pub(super) name: &'static str,
    suite: &'static str,
    /// Stands for the latest build of it.
    package: &'static str,
    /// What `cluster` does on it.
    pub(super) promise: Promise,
    /// What is tried on it when there is little time.
    pub(super) quick: Depth,
}

/// What `cluster` does on a kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Promise {
    /// Everything.
    Everything,
    /// Plain mode: the kernel's hash.
    Plain,
}

/// The packages of a kernel, or what has been unpacked of them.
pub(super) struct Packages {
    /// The one with its version in its name.
    name: String,
    /// Where it is once it is unpacked.
    folder: PathBuf,
    /// What was downloaded; nothing when it is unpacked.
    files: Option<TempDir>,
}

/// A kernel that can be booted.
pub(super) struct Kernel {
    /// Its package, which has its version in its name.
    pub(super) package: String,
    /// What QEMU boots.
    pub(super) image: PathBuf,
    /// Files to be loaded, in this order.
    pub(super) modules: Vec<PathBuf>,
}

/// All of them, oldest first. Those for virtual machines are the smallest.
pub(super) const WANTED: [Wanted; 4] = [
    wanted("5.10", "bullseye", Promise::Plain, Depth::Tests),
    wanted("6.1", "bookworm", Promise::Everything, Depth::Tests),
    wanted("6.12", "trixie", Promise::Everything, Depth::Program),
    wanted("newest", "sid", Promise::Everything, Depth::Program),
];

const fn wanted(name: &'static str, suite: &'static str, promise: Promise, quick: Depth) -> Wanted {
    Wanted { name, suite, package: "linux-image-cloud-amd64", promise, quick }
}

impl Wanted {
    /// Those with these names; all when there are none.
    pub(super) fn named(names: &[String]) -> anyhow::Result<Vec<Self>> {
        if names.is_empty() {
            return Ok(WANTED.to_vec());
        }
        let find = |name: &String| {
            let found = WANTED.iter().find(|wanted| wanted.name == name).copied();
            found.with_context(|| {
                let known = WANTED.map(|wanted| wanted.name).join(", ");
                format!("unknown kernel {name}\nhint: {known}")
            })
        };
        names.iter().map(find).collect()
    }

    /// Downloads it, unless that has been done.
    ///
    /// # Errors
    /// [`NotOffered`](super::suite::NotOffered) when it cannot be had, and whatever goes wrong.
    pub(super) fn download(self, archive: &Archive, cache: &Path) -> anyhow::Result<Packages> {
        let mut suite = Suite::open(archive, self.suite, cache)?;
        let stale = suite.stale.take();
        let parts = match (suite.parts(self.package), stale) {
            // It is so because they are old.
            (Err(_), Some(why)) => return Err(why),
            (parts, None) => parts?,
            (Ok(parts), Some(why)) => {
                println!("vm: {}: what is known of its packages is old: {why:#}", self.name);
                parts
            }
        };
        let name = parts.first().context("a kernel has parts")?.clone();
        let parent = cache.join("kernels");
        let folder = parent.join(&name);
        if folder.exists() {
            return Ok(Packages { name, folder, files: None });
        }
        fs::create_dir_all(&parent)?;
        let aside = tempfile::Builder::new().prefix("unpacking-").tempdir_in(&parent)?;
        suite.download(&parts, aside.path())?;
        Ok(Packages { name, folder, files: Some(aside) })
    }
}

impl Packages {
    /// Unpacks them, unless that has been done.
    ///
    /// # Errors
    /// When what is needed is not in them.
    pub(super) fn unpack(self) -> anyhow::Result<Kernel> {
        let Self { name, folder, files } = self;
        if let Some(files) = files {
            unpack(files.path()).with_context(|| format!("failed to unpack {name}"))?;
            fs::rename(files.path().join("kernel"), &folder)?;
        }
        Ok(Kernel::in_folder(name, &folder))
    }
}

impl Kernel {
    fn in_folder(package: String, folder: &Path) -> Self {
        let modules = MODULES.map(|name| folder.join(format!("{name}.ko")));
        let modules = modules.into_iter().filter(|path| path.exists()).collect();
        Self { package, image: folder.join("vmlinuz"), modules }
    }
}

/// Takes what is needed out of the packages in a folder, to a folder `kernel` below it.
fn unpack(folder: &Path) -> anyhow::Result<()> {
    let (all, kernel) = (folder.join("all"), folder.join("kernel"));
    fs::create_dir(&kernel)?;
    for entry in fs::read_dir(folder)?.collect::<Result<Vec<_>, _>>()? {
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            process::run(Command::new("dpkg-deb").arg("-x").arg(entry.path()).arg(&all))?;
        }
    }
    let mut files = Vec::new();
    list(&all, &mut files)?;
    let named = |path: &Path, name: &str| {
        path.file_name().is_some_and(|found| found.to_string_lossy().starts_with(name))
    };
    let image =
        files.iter().find(|path| named(path, "vmlinuz")).context("the packages have no kernel")?;
    fs::copy(image, kernel.join("vmlinuz"))?;
    for module in MODULES {
        // Some are compressed. One that is missing is built in, or not offered.
        let Some(path) = files.iter().find(|path| named(path, &format!("{module}.ko"))) else {
            continue;
        };
        let to = kernel.join(format!("{module}.ko"));
        if path.extension().is_some_and(|extension| extension == "xz") {
            let unpacked = Command::new("xz").args(["--decompress", "--stdout"]).arg(path).output();
            let unpacked = unpacked.context("failed to run `xz`\nhint: install xz-utils")?;
            anyhow::ensure!(unpacked.status.success(), "`xz` cannot read {}", path.display());
            fs::write(to, unpacked.stdout)?;
        } else {
            fs::copy(path, to)?;
        }
    }
    Ok(())
}

/// Every file below a folder.
fn list(folder: &Path, files: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            list(&entry.path(), files)?;
        } else {
            files.push(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_asked_for_by_name() {
        assert_eq!(Wanted::named(&[]).unwrap().len(), WANTED.len());
        assert_eq!(Wanted::named(&["6.1".to_owned()]).unwrap(), [WANTED[1]]);
        let error = Wanted::named(&["2.4".to_owned()]).unwrap_err();
        assert_eq!(error.to_string(), "unknown kernel 2.4\nhint: 5.10, 6.1, 6.12, newest");
    }
}
