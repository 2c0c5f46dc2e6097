//! The fingerprint of everything the kernel objects are compiled from.
//!
//! `cargo xtask ebpf` stores it beside the objects, and the build script of `cluster-user` compares: an object that is
//! older than its source does not get into a supervisor. Both include this file.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// What the objects are compiled from, relative to the workspace.
pub(crate) const INPUTS: [&str; 4] = [
    "cluster-common/Cargo.toml",
    "cluster-common/src",
    "cluster-ebpf/Cargo.toml",
    "cluster-ebpf/src",
];

/// Where the fingerprint of the objects' sources is kept, relative to the workspace: on the first line.
pub(crate) const RECORD: &str = "cluster-ebpf/object/sources.sha256";

/// The fingerprint of the sources in `workspace`, in hexadecimal. It does not depend on where the workspace lies.
pub(crate) fn fingerprint(workspace: &Path) -> io::Result<String> {
    let mut files = Vec::new();
    for input in INPUTS {
        collect(workspace, PathBuf::from(input), &mut files)?;
    }
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        let content = fs::read(workspace.join(&file))?;
        // With their lengths, so that moving a byte from one file to the next changes the result.
        for part in [file.as_os_str().as_encoded_bytes(), &content] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
    }
    let digits: Vec<String> = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(digits.concat())
}

fn collect(workspace: &Path, path: PathBuf, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !workspace.join(&path).is_dir() {
        files.push(path);
        return Ok(());
    }
    for entry in fs::read_dir(workspace.join(&path))? {
        collect(workspace, path.join(entry?.file_name()), files)?;
    }
    Ok(())
}
