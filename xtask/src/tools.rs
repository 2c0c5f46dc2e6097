//! Tools: programs that tests and benchmarks start, and the packages they come in.

use std::process::Command;

use nix::unistd::geteuid;

use crate::step;

/// A program and the Debian package that has it.
#[derive(Clone, Copy)]
pub(crate) struct Tool {
    program: &'static str,
    package: &'static str,
}

/// What the tests start.
pub(crate) const FOR_TESTS: &[Tool] = &[
    tool("node", "nodejs"),
    tool("npm", "npm"),
    tool("python3", "python3"),
    tool("ruby", "ruby"),
    tool("php", "php-cli"),
    tool("go", "golang-go"),
    tool("nginx", "nginx"),
    tool("wrk", "wrk"),
    tool("curl", "curl"),
    tool("ip", "iproute2"),
    tool("setpriv", "util-linux"),
];

/// What the benchmarks start.
pub(crate) const FOR_BENCHMARKS: &[Tool] = &[
    tool("node", "nodejs"),
    tool("python3", "python3"),
    tool("wrk", "wrk"),
    tool("ip", "iproute2"),
];

/// What chaos starts.
pub(crate) const FOR_CHAOS: &[Tool] = &[
    tool("node", "nodejs"),
    tool("python3", "python3"),
    tool("go", "golang-go"),
    tool("ip", "iproute2"),
];

/// What virtual machines are made with. Their kernels are no tools: they are unpacked and not installed.
pub(crate) const FOR_MACHINES: &[Tool] = &[
    tool("qemu-system-x86_64", "qemu-system-x86"),
    tool("python3", "python3"),
    tool("ip", "iproute2"),
    tool("strip", "binutils"),
    tool("xz", "xz-utils"),
];

/// Installs what is missing when that is possible; otherwise an error names it.
pub(crate) fn ensure(tools: &[Tool]) -> anyhow::Result<()> {
    let missing: Vec<Tool> = tools.iter().copied().filter(|tool| !tool.is_installed()).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let programs = join(&missing, |tool| tool.program);
    let packages: Vec<&str> = missing.iter().map(|tool| tool.package).collect();
    let can_install = geteuid().is_root() && which::which("apt-get").is_ok();
    anyhow::ensure!(
        can_install,
        "{programs} not found on PATH\nhint: install {}",
        join(&missing, |tool| tool.package)
    );
    eprintln!("{programs} not found on PATH: installing");
    step::run(
        Command::new("apt-get")
            .args(["install", "--yes", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )?;
    let still: Vec<Tool> = missing.into_iter().filter(|tool| !tool.is_installed()).collect();
    anyhow::ensure!(still.is_empty(), "{} still not on PATH", join(&still, |tool| tool.program));
    Ok(())
}

impl Tool {
    fn is_installed(self) -> bool {
        which::which(self.program).is_ok()
    }
}

const fn tool(program: &'static str, package: &'static str) -> Tool {
    Tool { program, package }
}

fn join(tools: &[Tool], word: impl Fn(&Tool) -> &'static str) -> String {
    tools.iter().map(word).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_every_host_has_is_not_installed() {
        ensure(&[tool("sh", "no-such-package")]).unwrap();
    }

    #[test]
    fn a_missing_program_is_seen() {
        assert!(!tool("no-such-program", "no-such-package").is_installed());
    }
}
