//! `xtask test`: all tests, those that need root and BPF included; nothing is skipped.

use nix::unistd::geteuid;

use crate::{step, tools};

/// Tests that start real daemons share the CPUs with what they start.
const SYSTEM_TEST_THREADS: &str = "--test-threads=2";

/// Runs the tests whose names contain one of `filters`; all when there are none.
pub(crate) fn run(filters: &[String]) -> anyhow::Result<()> {
    anyhow::ensure!(
        geteuid().is_root(),
        "the tests load kernel programs and make network namespaces, which needs root\n\
         hint: sudo env \"PATH=$PATH\" cargo xtask test"
    );
    tools::ensure(tools::FOR_TESTS)?;
    step::run(&mut step::cargo(["build", "--package", "cluster-user", "--bins", "--examples"]))?;
    let units = ["test", "--workspace", "--exclude", "cluster-tests", "--exclude", "cluster-ebpf"];
    step::run(step::cargo(units).arg("--").args(filters))?;
    let system = ["test", "--package", "cluster-tests", "--", SYSTEM_TEST_THREADS];
    step::run(step::cargo(system).args(filters))
}
