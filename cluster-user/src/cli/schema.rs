//! `cluster schema`.

use clap::Args;

use super::{error::Error, output};
use crate::config::file;

/// Prints the JSON Schema of cluster.toml, for editors that complete and check
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster schema >cluster.schema.json

Editors with TOML support (taplo, Even Better TOML) use it when the first line of cluster.toml is
  #:schema ./cluster.schema.json")]
pub(super) struct Schema {}

impl Schema {
    pub(super) fn run() -> Result<(), Error> {
        Ok(output::json(&file::schema())?)
    }
}
