//! `cluster init`.

use std::{
    fs::OpenOptions,
    io::{self, Write as _},
    path::PathBuf,
};

use clap::Args;

use super::{error::Error, output};
use crate::config::file;

/// Writes an example of a configuration, with every key there is
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster init              writes cluster.toml; what is there is never overwritten
  cluster init -            prints it

cluster import turns a configuration of PM2 into one instead; cluster schema is for editors.")]
pub(super) struct Init {
    /// Where to write it
    #[arg(default_value = "cluster.toml", value_name = "FILE")]
    file: PathBuf,
}

impl Init {
    pub(super) fn run(self) -> Result<(), Error> {
        let example = file::example();
        if self.file.as_os_str() == "-" {
            return Ok(output::answer(&example)?);
        }
        let path = if self.file.is_dir() { self.file.join("cluster.toml") } else { self.file };
        create(&path, &example, 0o644)?;
        output::answer(&format!("wrote {}", path.display()))?;
        output::quiet("next: change its script, then: cluster start");
        Ok(())
    }
}

/// Writes a new file; one that is there is left as it is.
pub(super) fn create(path: &std::path::Path, text: &str, mode: u32) -> Result<(), Error> {
    use std::os::unix::fs::OpenOptionsExt as _;

    let shown = path.display();
    let created = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = created.map_err(|error| {
        if error.kind() == io::ErrorKind::AlreadyExists {
            return Error::failed(format!("`{shown}` is there already"))
                .hint("it is left as it is: remove it, or name another file");
        }
        Error::failed(format!("failed to write `{shown}`: {error}"))
    })?;
    file.write_all(text.as_bytes())
        .map_err(|error| Error::failed(format!("failed to write `{shown}`: {error}")))
}
