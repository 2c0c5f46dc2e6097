//! Prints in JSON what the verifier of this kernel makes of each of the programs that `cluster` loads into it.

use std::io::{self, Write as _};

use cluster_user::datapath::kernel::measure;

fn main() -> anyhow::Result<()> {
    let programs = serde_json::to_string(&measure::programs()?)?;
    writeln!(io::stdout(), "{programs}")?;
    Ok(())
}
