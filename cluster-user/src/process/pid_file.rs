//! Files with the process id of a worker, for tools that watch them.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// Writes a process id, in one step. A file that is there is replaced.
///
/// # Errors
/// When the folder is missing or cannot be written to, or the path is a folder.
pub fn write(path: &Path, pid: u32) -> io::Result<()> {
    let aside = beside(path);
    let written = fs::write(&aside, format!("{pid}\n")).and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // There may be none.
        fs::remove_file(&aside).unwrap_or_default();
    }
    written
}

/// Removes the file if it has this process id.
pub fn remove(path: &Path, pid: u32) {
    let is_its = fs::read_to_string(path).is_ok_and(|text| text.trim().parse() == Ok(pid));
    if is_its {
        // Whoever removed it meanwhile wanted the same.
        fs::remove_file(path).unwrap_or_default();
    }
}

fn beside(path: &Path) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", std::process::id()));
    path.with_file_name(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_removed_by_the_worker_it_names_only() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("web.pid");
        write(&path, 7).unwrap();
        write(&path, 8).unwrap();
        remove(&path, 7);
        assert_eq!(fs::read_to_string(&path).unwrap(), "8\n");
        remove(&path, 8);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_folder_in_its_place_is_an_error_and_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert!(write(folder.path(), 7).is_err());
        assert!(write(Path::new("/no/where/web.pid"), 7).is_err());
        assert!(folder.path().is_dir());
    }
}
