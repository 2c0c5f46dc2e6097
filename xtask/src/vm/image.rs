//! Image: what a machine finds when it boots: files of this host in an archive that the kernel unpacks into memory.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;

use crate::process;

// Types of files, from `stat.h`.
const FOLDER: u32 = 0o040_755;
const FILE: u32 = 0o100_000;
const LINK: u32 = 0o120_777;
/// The kernel looks for a second archive at a multiple of 4; so many bytes are what `cpio` fills up to.
const BLOCK: usize = 512;

/// What is to be in the archive, by path without its first slash.
#[derive(Default)]
pub(super) struct Image {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug, PartialEq, Eq)]
enum Entry {
    Folder,
    File { from: PathBuf, mode: u32 },
    Text(Vec<u8>),
    Link(String),
}

impl Image {
    /// An empty folder.
    pub(super) fn folder(&mut self, at: &str) {
        self.put(at, Entry::Folder);
    }

    /// A file with this content.
    pub(super) fn text(&mut self, at: &str, text: impl Into<Vec<u8>>) {
        self.put(at, Entry::Text(text.into()));
    }

    /// A symbolic link.
    pub(super) fn link(&mut self, at: &str, to: &str) {
        self.put(at, Entry::Link(to.to_owned()));
    }

    /// A file of this host.
    pub(super) fn file(&mut self, at: &str, from: &Path) -> anyhow::Result<()> {
        let about =
            fs::metadata(from).with_context(|| format!("failed to find {}", from.display()))?;
        let mode = about.permissions().mode() & 0o777;
        self.put(at, Entry::File { from: from.to_owned(), mode });
        Ok(())
    }

    /// A program of this host, and the libraries that it is linked with.
    pub(super) fn program(&mut self, at: &str, from: &Path) -> anyhow::Result<()> {
        self.file(at, from)?;
        self.libraries(&[from.to_owned()])
    }

    /// A folder of this host and all below, but for what has one of these names.
    pub(super) fn tree(&mut self, from: &Path, without: &[&str]) -> anyhow::Result<()> {
        let mut open = vec![from.to_owned()];
        let mut libraries = Vec::new();
        while let Some(folder) = open.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
                // A link that leads nowhere is of no use there either.
                let Ok(about) = fs::metadata(&path) else { continue };
                if without.contains(&name.as_str()) {
                    continue;
                }
                if about.is_dir() {
                    open.push(path);
                } else {
                    if path.extension().is_some_and(|extension| extension == "so") {
                        libraries.push(path.clone());
                    }
                    self.file(&path.to_string_lossy(), &path)?;
                }
            }
        }
        self.libraries(&libraries)
    }

    fn libraries(&mut self, of: &[PathBuf]) -> anyhow::Result<()> {
        if of.is_empty() {
            return Ok(());
        }
        // A program without libraries makes it fail, and is fine.
        let said = process::run(Command::new("ldd").args(of)).unwrap_or_default();
        for library in linked(&said) {
            self.file(library, Path::new(library))?;
        }
        Ok(())
    }

    fn put(&mut self, at: &str, entry: Entry) {
        let path = at.trim_start_matches('/');
        let mut parent = Path::new(path);
        while let Some(folder) = parent.parent().filter(|folder| *folder != Path::new("")) {
            self.entries.entry(folder.to_string_lossy().into_owned()).or_insert(Entry::Folder);
            parent = folder;
        }
        self.entries.insert(path.to_owned(), entry);
    }

    /// Writes the archive, behind whatever has been written.
    pub(super) fn write(&self, to: &mut File) -> anyhow::Result<()> {
        let mut out = io::BufWriter::new(to);
        let mut length = 0;
        // The archive is in the order of paths, so that a folder is there before what is in it.
        for ((path, entry), number) in self.entries.iter().zip(1_u32..) {
            let (mode, bytes) = match entry {
                Entry::Folder => (FOLDER, Vec::new()),
                Entry::File { from, mode } => {
                    let bytes = fs::read(from)
                        .with_context(|| format!("failed to read {}", from.display()))?;
                    (FILE | mode, bytes)
                }
                Entry::Text(text) => (FILE | 0o644, text.clone()),
                Entry::Link(to) => (LINK, to.clone().into_bytes()),
            };
            let size = u32::try_from(bytes.len())?;
            let header = cpio::newc::Builder::new(path).ino(number).mode(mode).nlink(1);
            let mut writer = header.write(&mut out, size);
            writer.write_all(&bytes)?;
            writer.finish()?;
            length += bytes.len();
        }
        cpio::newc::trailer(&mut out)?;
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        let end = usize::try_from(io::Seek::stream_position(&mut file)?)?;
        file.write_all(&vec![0; end.next_multiple_of(BLOCK) - end])?;
        anyhow::ensure!(length > 0, "the image is empty");
        Ok(())
    }
}

/// Libraries in what `ldd` says.
fn linked(said: &str) -> impl Iterator<Item = &str> {
    said.lines().filter_map(|line| {
        let line = line.trim();
        let path = line.split_once(" => ").map_or(line, |(_, path)| path);
        let (path, _address) = path.split_once(" (0x")?;
        path.starts_with('/').then_some(path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_what_ldd_says() {
        let said = "/usr/bin/app:\n\tlinux-vdso.so.1 (0x00007fcd)\n\
                    \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007fcd)\n\
                    \tlibodd.so => not found\n\t/lib64/ld-linux-x86-64.so.2 (0x00007fcd)\n";
        let found: Vec<_> = linked(said).collect();
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
    }

    #[test]
    fn folders_come_before_what_is_in_them() {
        let mut image = Image::default();
        image.text("/etc/app/plan", "go");
        image.link("/bin/sh", "dash");
        let paths: Vec<_> = image.entries.keys().map(String::as_str).collect();
        assert_eq!(paths, ["bin", "bin/sh", "etc", "etc/app", "etc/app/plan"]);
        assert_eq!(image.entries["etc/app"], Entry::Folder);
    }

    #[test]
    fn archives_can_follow_each_other() {
        let mut image = Image::default();
        image.text("/a", "one");
        let mut file = tempfile::tempfile().unwrap();
        image.write(&mut file).unwrap();
        let first = file.metadata().unwrap().len();
        image.write(&mut file).unwrap();
        assert_eq!(first % 512, 0);
        assert_eq!(file.metadata().unwrap().len(), 2 * first);
    }
}
