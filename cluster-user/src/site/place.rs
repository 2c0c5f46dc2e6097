//! What a path of a request means within the folder, and what it may mean.

use std::{
    fs,
    path::{Component, Path, PathBuf},
};

use percent_encoding::percent_decode_str;

/// The one hidden folder that is for the public (RFC 8615).
const WELL_KNOWN: &str = ".well-known";

/// What a path means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// A file.
    File,
    /// A folder, with its real path.
    Folder(PathBuf),
    /// Nothing that is shown: it is not there, is hidden, is no file, or is elsewhere.
    Nothing,
}

/// Looks up the path of a request.
pub(super) fn find(root: &Path, path: &str, follow: bool) -> Place {
    let Some(relative) = relative(path) else { return Place::Nothing };
    let Ok(real) = fs::canonicalize(root.join(relative)) else { return Place::Nothing };
    if !follow && !real.starts_with(root) {
        return Place::Nothing;
    }
    match fs::metadata(&real) {
        Ok(metadata) if metadata.is_file() => Place::File,
        Ok(metadata) if metadata.is_dir() => Place::Folder(real),
        // Reading a pipe or a device might never end.
        Ok(_) | Err(_) => Place::Nothing,
    }
}

/// Whether a name is shown: `.git` and `.env` are in many a folder that is served.
pub(super) fn is_shown(name: &str) -> bool {
    !name.starts_with('.') || name == WELL_KNOWN
}

/// The path as one within the folder, decoded; `None` if it leads out of it, or is hidden.
fn relative(path: &str) -> Option<PathBuf> {
    let decoded = percent_decode_str(path.trim_start_matches('/')).decode_utf8().ok()?;
    if decoded.contains('\0') {
        return None;
    }
    let path = PathBuf::from(decoded.as_ref());
    for component in path.components() {
        match component {
            Component::Normal(name) if is_shown(name.to_str()?) => {}
            Component::CurDir => {}
            Component::Normal(_)
            | Component::ParentDir
            | Component::RootDir
            | Component::Prefix(_) => return None,
        }
    }
    Some(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn nothing_outside_and_nothing_hidden_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let outer = fs::canonicalize(folder.path()).unwrap();
        let root = outer.join("site");
        for name in ["site/a b", "site/.git", "site/.well-known"] {
            fs::create_dir_all(outer.join(name)).unwrap();
        }
        for name in ["secret", "site/x.txt", "site/.env", "site/.git/config", "site/a b/y"] {
            fs::write(outer.join(name), "").unwrap();
        }
        symlink(outer.join("secret"), root.join("out")).unwrap();
        symlink("x.txt", root.join("in")).unwrap();
        symlink("/", root.join("slash")).unwrap();
        nix::unistd::mkfifo(&root.join("pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let found = |path: &str| find(&root, path, false);
        for path in ["/x.txt", "/in", "/./x.txt", "//x.txt", "/%78.txt", "/a%20b/y"] {
            assert_eq!(found(path), Place::File, "{path}");
        }
        for path in ["/", "/.well-known", "/a%20b/"] {
            assert!(matches!(found(path), Place::Folder(_)), "{path}");
        }
        for path in [
            "/../secret",
            "/%2e%2e/secret",
            "/..%2fsecret",
            "/a%20b/../../secret",
            "/out",
            "/slash/etc/passwd",
            "/.env",
            "/%2eenv",
            "/.git/config",
            "/x.txt%00",
            "/%ff",
            "/pipe",
            "/no",
            "/x.txt/y",
        ] {
            assert_eq!(found(path), Place::Nothing, "{path}");
        }
        assert_eq!(find(&root, "/out", true), Place::File);
        assert_eq!(find(&root, "/../secret", true), Place::Nothing);
    }
}
