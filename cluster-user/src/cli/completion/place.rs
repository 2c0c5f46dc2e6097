//! Where each shell looks for files that complete.

use std::{ffi::OsString, fs, io, path::PathBuf};

use super::Shell;
use crate::cli::{error::Error, output};

/// What a file of ours has in it, and a stranger's has not.
const OURS: &str = super::VARIABLE;

/// A file for one shell.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Place {
    file: PathBuf,
    /// What is left to be done by hand.
    next: Option<String>,
}

impl Place {
    /// Where a shell looks: for everybody's completions, or one user's.
    ///
    /// # Errors
    /// When nothing says where a user's files are.
    pub(super) fn of(
        shell: Shell,
        everybody: bool,
        var: impl Fn(&str) -> Option<OsString>,
    ) -> Result<Self, Error> {
        if everybody {
            return Ok(Self {
                file: match shell {
                    Shell::Bash => "/usr/local/share/bash-completion/completions/cluster",
                    Shell::Zsh => "/usr/local/share/zsh/site-functions/_cluster",
                    Shell::Fish => "/etc/fish/completions/cluster.fish",
                }
                .into(),
                next: (shell == Shell::Bash).then(|| BASH.to_owned()),
            });
        }
        let absolute = |key: &str| var(key).map(PathBuf::from).filter(|path| path.is_absolute());
        let home = |within: &str| {
            absolute("HOME").map(|home| home.join(within)).ok_or_else(|| {
                Error::failed("HOME says no folder where a shell could look")
                    .hint("cluster completion bash prints what would be in the file")
            })
        };
        let data = || absolute("XDG_DATA_HOME").map_or_else(|| home(".local/share"), Ok);
        Ok(match shell {
            Shell::Bash => Self {
                file: data()?.join("bash-completion/completions/cluster"),
                next: Some(BASH.to_owned()),
            },
            Shell::Zsh => {
                let folder = data()?.join("zsh/site-functions");
                let line = format!("fpath+=({})", folder.display());
                let next = format!("zsh looks there when ~/.zshrc has, before compinit: {line}");
                Self { file: folder.join("_cluster"), next: Some(next) }
            }
            Shell::Fish => Self {
                file: absolute("XDG_CONFIG_HOME")
                    .map_or_else(|| home(".config"), Ok)?
                    .join("fish/completions/cluster.fish"),
                next: None,
            },
        })
    }

    /// Writes the file.
    ///
    /// # Errors
    /// When another program's is there, or it cannot be written.
    pub(super) fn install(&self, script: &str) -> Result<(), Error> {
        let shown = self.file.display();
        if self.is_strange()? {
            return Err(Error::failed(format!("`{shown}` is there and is none of cluster's"))
                .hint("move it away first"));
        }
        let folder = self.file.parent().map_or(Ok(()), fs::create_dir_all);
        folder
            .and_then(|()| fs::write(&self.file, script))
            .map_err(|error| Error::failed(format!("failed to write `{shown}`: {error}")))?;
        output::answer(&format!("wrote {shown}; it works in the next shell"))?;
        if let Some(next) = &self.next {
            output::quiet(next);
        }
        Ok(())
    }

    /// Removes the file.
    ///
    /// # Errors
    /// When it is another program's, or cannot be removed.
    pub(super) fn uninstall(&self) -> Result<(), Error> {
        let shown = self.file.display();
        if self.is_strange()? {
            return Err(Error::failed(format!("`{shown}` is none of cluster's: it stays")));
        }
        let said = match fs::remove_file(&self.file) {
            Ok(()) => format!("removed {shown}"),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                format!("there is no {shown}")
            }
            Err(error) => {
                return Err(Error::failed(format!("failed to remove `{shown}`: {error}")));
            }
        };
        Ok(output::answer(&said)?)
    }

    fn is_strange(&self) -> Result<bool, Error> {
        match fs::read(&self.file) {
            Ok(text) => Ok(!String::from_utf8_lossy(&text).contains(OURS)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => {
                let shown = self.file.display();
                Err(Error::failed(format!("failed to read `{shown}`: {error}")))
            }
        }
    }
}

const BASH: &str = "bash looks there if the package bash-completion is installed";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_shell_has_its_place_for_everybody_and_for_one() {
        let place = |shell, everybody| {
            let var = |key: &str| (key == "HOME").then(|| "/home/u".into());
            Place::of(shell, everybody, var).unwrap().file.display().to_string()
        };
        assert_eq!(
            place(Shell::Bash, false),
            "/home/u/.local/share/bash-completion/completions/cluster"
        );
        assert_eq!(place(Shell::Zsh, true), "/usr/local/share/zsh/site-functions/_cluster");
        assert_eq!(place(Shell::Fish, false), "/home/u/.config/fish/completions/cluster.fish");
        assert!(Place::of(Shell::Fish, false, |_| None).is_err());
    }

    #[test]
    fn a_file_of_somebody_else_stays() {
        let folder = tempfile::tempdir().unwrap();
        let place = Place { file: folder.path().join("a/cluster"), next: None };
        place.install(&Shell::Bash.script().unwrap()).unwrap();
        place.install(&Shell::Bash.script().unwrap()).unwrap();
        place.uninstall().unwrap();
        assert!(!place.file.exists());
        place.uninstall().unwrap();
        fs::write(&place.file, "complete -F _mine cluster").unwrap();
        assert!(place.install("x").is_err() && place.uninstall().is_err());
        assert!(place.file.exists());
    }
}
