//! Files with the process id of a worker, for tools that watch them.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::FileTypeExt as _,
    path::{Path, PathBuf},
};

/// A file with a process id is no longer than this.
const LONGEST: u64 = 32;

/// Writes a process id, in one step. A file with another process id that is there is replaced.
///
/// # Errors
/// When the folder is missing or cannot be written to, or something else is there: see [`check`].
pub fn write(path: &Path, pid: u32) -> io::Result<()> {
    check(path)?;
    let aside = beside(path);
    // There may be one that a daemon of the same number has left. It is made anew, for in a folder of somebody else it
    // could be a link to anywhere.
    fs::remove_file(&aside).unwrap_or_default();
    let written = fs::File::create_new(&aside)
        .and_then(|mut file| file.write_all(format!("{pid}\n").as_bytes()))
        .and_then(|()| fs::rename(&aside, path));
    if written.is_err() {
        // There may be none.
        fs::remove_file(&aside).unwrap_or_default();
    }
    written
}

/// Whether a process id may be written there: only where there is nothing, or such a file already. By mistake any file
/// may be named, and one that is replaced is lost.
///
/// # Errors
/// What is there instead; a lowercase fragment.
pub fn check(path: &Path) -> io::Result<()> {
    let Ok(there) = fs::symlink_metadata(path) else { return Ok(()) };
    let kind = there.file_type();
    let what = if kind.is_dir() {
        "a folder"
    } else if kind.is_symlink() {
        "a symbolic link"
    } else if kind.is_char_device() || kind.is_block_device() {
        "a device"
    } else if !kind.is_file() {
        "no regular file"
    } else if there.len() > LONGEST || !is_number(&fs::read_to_string(path)?) {
        "a file with something else in it than a process id"
    } else {
        return Ok(());
    };
    Err(io::Error::new(io::ErrorKind::AlreadyExists, format!("there is {what}")))
}

/// Whether it is empty, or a number.
fn is_number(text: &str) -> bool {
    text.trim().bytes().all(|byte| byte.is_ascii_digit())
}

/// Removes the file if it has this process id.
pub fn remove(path: &Path, pid: u32) {
    let is_its = check(path).is_ok()
        && fs::read_to_string(path).is_ok_and(|text| text.trim().parse() == Ok(pid));
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

    #[test]
    fn what_is_no_pid_file_is_neither_replaced_nor_removed() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("users"), "root:x:0:0:root:/root:/bin/sh\n").unwrap();
        fs::write(path("digits"), "7".repeat(100)).unwrap();
        fs::write(path("other"), "7\n").unwrap();
        std::os::unix::fs::symlink(path("other"), path("link")).unwrap();
        for (name, content) in [("users", "root:x"), ("digits", "777"), ("link", "7")] {
            let error = write(&path(name), 8).unwrap_err();
            assert!(error.to_string().starts_with("there is a"), "{error}");
            remove(&path(name), 7);
            assert!(fs::read_to_string(path(name)).unwrap().starts_with(content), "{name}");
        }
        assert!(write(Path::new("/dev/null"), 8).is_err());
        fs::write(path("empty.pid"), "").unwrap();
        write(&path("empty.pid"), 8).unwrap();
    }

    #[test]
    fn a_link_that_somebody_laid_is_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("web.pid"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        std::os::unix::fs::symlink(&victim, beside(&path)).unwrap();
        write(&path, 8).unwrap();
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
        assert_eq!(fs::read_to_string(&path).unwrap(), "8\n");
    }
}
