//! Finds a compiler and a linker for BPF, installing what it may, and runs them so that the result is reproducible.
//!
//! Two things are hard to come by: a `core` library for BPF, and a linker whose LLVM is the compiler's. Debian has the
//! first compiled, in `libstd-rust-web-dev-bpf`; a nightly toolchain of rustup compiles its own from `rust-src`. The
//! linker is installed by cargo in one pinned version and loads the LLVM library that it finds.

use std::{
    env,
    ffi::OsStr,
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail, ensure};

use super::say;

const TARGET: &str = "bpfel-unknown-none";

/// Another version may give other bytes.
const LINKER_VERSION: &str = "0.10.3";

/// Debian's compiler, and where its `core` for BPF is.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";
const DEBIAN_CORE: &str = "/usr/lib/rustlib/bpfel-unknown-none/lib";
const DEBIAN_PACKAGES: [&str; 2] = ["rustc-web", "libstd-rust-web-dev-bpf"];

const HINT: &str = "hint: on Debian install rustc-web and libstd-rust-web-dev-bpf; elsewhere run \
                    rustup toolchain install nightly --component rust-src";

/// A compiler, its version, and the linker that goes with it.
pub(crate) struct Toolchain {
    cargo: PathBuf,
    rustc: PathBuf,
    release: String,
    llvm: String,
    /// `core` has to be compiled, too.
    build_core: bool,
    linker: PathBuf,
    /// A folder with nothing but the compiler's LLVM library.
    llvm_folder: PathBuf,
}

impl Toolchain {
    /// Finds what is needed; what it installs or prepares goes to `scratch`.
    pub(crate) fn find(scratch: &Path) -> Result<Self> {
        fs::create_dir_all(scratch)
            .with_context(|| format!("failed to create {}", scratch.display()))?;
        let host_cargo: PathBuf = env::var_os("CARGO").unwrap_or_else(|| "cargo".into()).into();
        let (cargo, rustc, build_core) = match debian()? {
            Some(rustc) => (host_cargo.clone(), rustc, false),
            None => nightly()?,
        };
        let version = output(Command::new(&rustc).arg("-vV"))?;
        let field = |name: &str| {
            let value = version.lines().find_map(|line| line.strip_prefix(name));
            value
                .map(|value| value.trim().to_owned())
                .with_context(|| format!("failed to read {name} of {}", rustc.display()))
        };
        let (release, llvm) = (field("release:")?, field("LLVM version:")?);
        let llvm_folder = scratch.join("llvm");
        let library = llvm_library(&rustc, &llvm)?;
        link_alone(&library, &llvm_folder)?;
        let linker = linker(&host_cargo, scratch)?;
        let toolchain = Self { cargo, rustc, release, llvm, build_core, linker, llvm_folder };
        say(&format!("compiling with {}: {}", toolchain.rustc.display(), toolchain.describe()));
        Ok(toolchain)
    }

    /// What decides about the bytes.
    pub(crate) fn describe(&self) -> String {
        format!("rustc {}, LLVM {}, bpf-linker {LINKER_VERSION}", self.release, self.llvm)
    }

    /// Compiles `cluster-ebpf` of `workspace` and returns the folder with its programs.
    pub(crate) fn build(&self, workspace: &Path, target: &Path) -> Result<PathBuf> {
        let mut cargo = self.cargo(workspace, target)?;
        cargo
            .args(["--locked", "--package", "cluster-ebpf"])
            // The loader needs neither debug information nor BTF. Link-time optimization is what bpf-linker does anyway.
            .args(["--config", "profile.release.package.cluster-ebpf.debug=0"]);
        run(&mut cargo)?;
        Ok(target.join(TARGET).join("release"))
    }

    /// Compiles the programs in a folder of somebody else's and returns the folder with them.
    pub(crate) fn build_other(&self, folder: &Path) -> Result<PathBuf> {
        let target = folder.join("target");
        run(&mut self.cargo(folder, &target)?)?;
        Ok(target.join(TARGET).join("release"))
    }

    /// A build for BPF in a folder, all but what is to be built.
    fn cargo(&self, folder: &Path, target: &Path) -> Result<Command> {
        let registry = cargo_home()?.join("registry/src");
        let flags = [
            // Only programs that look into registers need to know the machine: this object is for all little-endian ones.
            "--cfg=bpf_target_arch=\"x86_64\"".to_owned(),
            "-Ctarget-cpu=v3".to_owned(),
            format!("-Clinker={}", self.linker.display()),
            // No byte of the object may depend on where it was built.
            format!("--remap-path-prefix={}=/cluster", folder.display()),
            format!("--remap-path-prefix={}=/registry", registry.display()),
        ];
        let mut cargo = Command::new(&self.cargo);
        cargo
            .current_dir(folder)
            .args(["build", "--quiet", "--release", "--bins", "--target", TARGET])
            .args(["--config", "profile.release.debug=0"])
            .args(["--config", "profile.release.lto=\"off\""])
            // The program itself is made for size; these are run for each connection.
            .args(["--config", "profile.release.opt-level=3"])
            .args(["--config", "profile.release.package.\"*\".opt-level=\"s\""])
            .args(["--config", "profile.release.panic=\"abort\""])
            .args(["--config", "profile.release.codegen-units=1"])
            .env("CARGO_TARGET_DIR", target)
            .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
            .env("LD_LIBRARY_PATH", &self.llvm_folder)
            .env("RUSTC", &self.rustc)
            // Assembly for BPF is unstable, in Debian's stable compiler as well.
            .env("RUSTC_BOOTSTRAP", "1")
            // Empty instead of removed: a wrapper may also come from a configuration file, which this overrides.
            .env("RUSTC_WRAPPER", "")
            .env("RUSTC_WORKSPACE_WRAPPER", "")
            .env_remove("RUSTFLAGS");
        for (name, _) in env::vars_os().filter(|(name, _)| changes_builds(name)) {
            cargo.env_remove(name);
        }
        if self.build_core {
            cargo.args(["-Z", "build-std=core"]);
        }
        Ok(cargo)
    }
}

/// Whether a variable changes how cargo builds, and with that perhaps the bytes.
fn changes_builds(name: &OsStr) -> bool {
    const PREFIXES: [&str; 3] = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_BPF"];
    let name = name.to_string_lossy();
    PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Debian's compiler, if it has `core` for BPF. Root installs it where that is possible.
fn debian() -> Result<Option<PathBuf>> {
    let complete = || Path::new(DEBIAN_RUSTC).exists() && Path::new(DEBIAN_CORE).exists();
    if complete() {
        return Ok(Some(DEBIAN_RUSTC.into()));
    }
    let root = output(Command::new("id").arg("-u"))?.trim() == "0";
    let known = || output(Command::new("apt-cache").args(["show", DEBIAN_PACKAGES[1]])).is_ok();
    if !root || !known() {
        return Ok(None);
    }
    say(&format!("installing {} with apt-get", DEBIAN_PACKAGES.join(" and ")));
    let install = ["install", "--yes", "--no-install-recommends"];
    run(Command::new("apt-get").args(install).args(DEBIAN_PACKAGES))?;
    ensure!(
        complete(),
        "failed to find {DEBIAN_CORE} after installing {}",
        DEBIAN_PACKAGES.join(" and ")
    );
    Ok(Some(DEBIAN_RUSTC.into()))
}

/// Cargo and compiler of rustup's nightly, if it has the source of `core`.
fn nightly() -> Result<(PathBuf, PathBuf, bool)> {
    let which =
        |tool| output(Command::new("rustup").args(["which", "--toolchain", "nightly", tool]));
    let (Ok(cargo), Ok(rustc)) = (which("cargo"), which("rustc")) else {
        bail!("failed to find a compiler for BPF\n{HINT}");
    };
    let rustc = PathBuf::from(rustc.trim());
    let source = sysroot(&rustc)?.join("lib/rustlib/src/rust/library/core");
    ensure!(source.exists(), "failed to find rust-src of the nightly toolchain\n{HINT}");
    Ok((cargo.trim().into(), rustc, true))
}

/// The linker in its pinned version: the one in the path, or one installed under `scratch`.
fn linker(cargo: &Path, scratch: &Path) -> Result<PathBuf> {
    let tools = scratch.join("tools");
    let own = tools.join("bin/bpf-linker");
    let pinned = |linker: &Path| {
        let version = output(Command::new(linker).arg("--version"));
        version.is_ok_and(|version| version.trim() == format!("bpf-linker {LINKER_VERSION}"))
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let mut candidates =
        env::split_paths(&path).map(|folder| folder.join("bpf-linker")).chain([own.clone()]);
    if let Some(linker) = candidates.find(|candidate| candidate.exists() && pinned(candidate)) {
        return Ok(linker);
    }
    say(&format!("installing bpf-linker {LINKER_VERSION} into {}", tools.display()));
    run(Command::new(cargo)
        .args(["install", "bpf-linker", "--locked", "--version", LINKER_VERSION, "--root"])
        .arg(&tools)
        .env_remove("CARGO_TARGET_DIR"))?;
    Ok(own)
}

/// The LLVM library of this compiler: beside it, or where Debian has libraries.
fn llvm_library(rustc: &Path, version: &str) -> Result<PathBuf> {
    let release = version.rsplit_once('.').map_or(version, |(release, _)| release);
    let mut folders = vec![sysroot(rustc)?.join("lib")];
    folders
        .extend(fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path()));
    let mut libraries: Vec<PathBuf> = folders
        .iter()
        .flat_map(|folder| fs::read_dir(folder).into_iter().flatten().flatten())
        .map(|entry| entry.path())
        .filter(|path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            name.starts_with("libLLVM") && name.contains(release)
        })
        .collect();
    libraries.sort();
    libraries
        .into_iter()
        .next()
        .with_context(|| format!("failed to find the library of LLVM {version}\n{HINT}"))
}

/// Makes `library` the only one in `folder`: the linker loads the first LLVM that it finds.
fn link_alone(library: &Path, folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)
            .with_context(|| format!("failed to remove {}", folder.display()))?;
    }
    fs::create_dir_all(folder).with_context(|| format!("failed to create {}", folder.display()))?;
    symlink(library, folder.join("libLLVM.so"))
        .with_context(|| format!("failed to link {}", library.display()))
}

fn sysroot(rustc: &Path) -> Result<PathBuf> {
    Ok(output(Command::new(rustc).args(["--print", "sysroot"]))?.trim().into())
}

fn cargo_home() -> Result<PathBuf> {
    if let Some(home) = env::var_os("CARGO_HOME") {
        return Ok(home.into());
    }
    Ok(PathBuf::from(env::var_os("HOME").context("failed to find a home folder: HOME is not set")?)
        .join(".cargo"))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let status = command.status().with_context(|| format!("failed to run {program}"))?;
    ensure!(status.success(), "{program} failed: {status}");
    Ok(())
}

fn output(command: &mut Command) -> Result<String> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("failed to run {program}"))?;
    ensure!(
        output.status.success(),
        "{program} failed: {}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim_end()
    );
    String::from_utf8(output.stdout)
        .with_context(|| format!("failed to read what {program} answered"))
}
