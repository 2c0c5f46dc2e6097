//! Refuses to build a supervisor around kernel objects that are older than their source.

#[path = "../cluster-ebpf/object/fingerprint.rs"]
mod fingerprint;

use std::{env, error::Error, fs, path::Path};

use fingerprint::{INPUTS, RECORD, fingerprint};

fn main() -> Result<(), Box<dyn Error>> {
    let here = env::var("CARGO_MANIFEST_DIR")?;
    let workspace = Path::new(&here).parent().ok_or("the crate lies outside of its workspace")?;
    for input in INPUTS.into_iter().chain([RECORD]) {
        println!("cargo::rerun-if-changed={}", workspace.join(input).display());
    }
    let sources = fingerprint(workspace)?;
    let record = fs::read_to_string(workspace.join(RECORD))?;
    if record.lines().next() != Some(&sources) {
        println!("cargo::error=kernel program source is newer than its object");
        println!("cargo::error=hint: run cargo xtask ebpf");
    }
    Ok(())
}
