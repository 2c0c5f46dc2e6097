//! Compiles the kernel programs, and checks that the objects in the tree are what their sources give.
//!
//! The objects are checked in, so that building cluster needs no compiler for BPF. This task must not depend on
//! `cluster-user`, whose build script sends people here.

#[path = "../../../cluster-ebpf/object/fingerprint.rs"]
mod fingerprint;
mod toolchain;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, bail, ensure};
use fingerprint::{RECORD, fingerprint};
use toolchain::Toolchain;

/// The programs, each a binary of `cluster-ebpf`.
const PROGRAMS: [&str; 3] = ["select", "join", "drain"];

/// What a copy of the workspace needs for `cargo build -p cluster-ebpf --locked`, beside the members.
const WORKSPACE_FILES: [&str; 2] = ["Cargo.toml", "Cargo.lock"];

/// Compiles the objects into the tree, or, to check, in a copy elsewhere to compare them.
pub(crate) fn run(check: bool) -> Result<()> {
    let workspace = workspace()?;
    let scratch = workspace.join("target/ebpf");
    let toolchain = Toolchain::find(&scratch)?;
    if check {
        return self::check(&workspace, &scratch, &toolchain);
    }
    for (program, object) in compile(&workspace, &scratch, &toolchain)? {
        let path = workspace.join(object_path(program));
        fs::write(&path, &object).with_context(|| format!("failed to write {}", path.display()))?;
        say(&format!("{}: {} bytes", object_path(program), object.len()));
    }
    let record = format!("{}\nby {}\n", fingerprint(&workspace)?, toolchain.describe());
    fs::write(workspace.join(RECORD), record).with_context(|| format!("failed to write {RECORD}"))
}

/// Compiles a program of somebody else's. Returns the folder with what came of it.
pub(crate) fn build_other(folder: &Path) -> Result<PathBuf> {
    let toolchain = Toolchain::find(&workspace()?.join("target/ebpf"))?;
    toolchain.build_other(folder)
}

/// Compiles a copy of the sources in another folder and compares every byte.
fn check(workspace: &Path, scratch: &Path, toolchain: &Toolchain) -> Result<()> {
    let record = fs::read_to_string(workspace.join(RECORD))
        .with_context(|| format!("failed to read {RECORD}"))?;
    let (sources, built_by) = record.split_once('\n').unwrap_or((&record, ""));
    ensure!(
        sources == fingerprint(workspace)?,
        "the sources are not those of the checked-in objects\nhint: run cargo xtask ebpf"
    );
    let elsewhere = Elsewhere::new()?;
    copy_workspace(workspace, &elsewhere.0)?;
    // The sources are elsewhere; what is downloaded and what the compiler writes may be shared with the first build only
    // as far as neither shows in the object, so the target folder is another one, too.
    let objects = compile(&elsewhere.0, &elsewhere.0.join("target"), toolchain)?;
    let mut differing = Vec::new();
    for (program, object) in objects {
        let path = object_path(program);
        let present =
            fs::read(workspace.join(&path)).with_context(|| format!("failed to read {path}"))?;
        if let Some(difference) = difference(&present, &object) {
            let kept = scratch.join(format!("{program}.check.o"));
            fs::write(&kept, &object)
                .with_context(|| format!("failed to write {}", kept.display()))?;
            differing.push(format!("{path}: {difference} (see {})", kept.display()));
        }
    }
    if differing.is_empty() {
        say("the objects are what their sources give");
        return Ok(());
    }
    bail!(
        "the checked-in objects differ from a fresh build\n{}\nchecked in: {}\nfresh:      by {}\nhint: run cargo xtask ebpf \
         with the compiler that is recorded",
        differing.join("\n"),
        built_by.trim_end(),
        toolchain.describe()
    )
}

fn compile(
    workspace: &Path,
    target: &Path,
    toolchain: &Toolchain,
) -> Result<Vec<(&'static str, Vec<u8>)>> {
    let folder = toolchain.build(workspace, target)?;
    PROGRAMS
        .into_iter()
        .map(|program| {
            let path = folder.join(program);
            let object =
                fs::read(&path).with_context(|| format!("failed to read {}", path.display()))?;
            Ok((program, object))
        })
        .collect()
}

/// Where two objects differ, if they do.
fn difference(present: &[u8], fresh: &[u8]) -> Option<String> {
    if present.len() != fresh.len() {
        return Some(format!("{} bytes, a fresh build has {}", present.len(), fresh.len()));
    }
    let at = present.iter().zip(fresh).position(|(one, other)| one != other)?;
    Some(format!("differs from byte {at} on"))
}

fn object_path(program: &str) -> String {
    format!("cluster-ebpf/object/{program}.bpf.o")
}

fn workspace() -> Result<PathBuf> {
    // Asked at run time first: copies of the tree that share a target folder share this binary as well, and what was
    // compiled into it may name another copy.
    let xtask = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| env!("CARGO_MANIFEST_DIR").into(), PathBuf::from);
    Ok(xtask.parent().context("xtask lies outside of its workspace")?.to_owned())
}

/// Copies the manifests and members of a workspace.
fn copy_workspace(from: &Path, to: &Path) -> Result<()> {
    for file in WORKSPACE_FILES {
        copy(&from.join(file), &to.join(file))?;
    }
    for entry in fs::read_dir(from)? {
        let member = entry?.file_name();
        if from.join(&member).join("Cargo.toml").exists() {
            copy(&from.join(&member), &to.join(&member))?;
        }
    }
    Ok(())
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    if !from.is_dir() {
        fs::copy(from, to).with_context(|| format!("failed to copy {}", from.display()))?;
        return Ok(());
    }
    fs::create_dir_all(to).with_context(|| format!("failed to create {}", to.display()))?;
    for entry in fs::read_dir(from)? {
        let name = entry?.file_name();
        if name != "target" {
            copy(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// A folder with a name of another length than any other, deleted in the end.
struct Elsewhere(PathBuf);

impl Elsewhere {
    fn new() -> Result<Self> {
        let path = env::temp_dir().join(format!("cluster-ebpf-check-{}", std::process::id()));
        fs::create_dir_all(&path)
            .with_context(|| format!("failed to create {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            say(&format!("failed to remove {}: {error}", self.0.display()));
        }
    }
}

#[expect(clippy::print_stderr, reason = "a developer is watching")]
fn say(line: &str) {
    eprintln!("ebpf: {line}");
}

#[cfg(test)]
mod tests {
    use object::{Object as _, ObjectSection as _, ObjectSymbol as _};

    use super::*;

    /// `BPF_STX | BPF_ATOMIC | BPF_DW`, from the kernel's `bpf.h`.
    const ATOMIC: u8 = 0xdb;
    /// `BPF_ADD | BPF_FETCH`, in the immediate of such an instruction.
    const FETCH_ADD: i32 = 0x01;
    /// `BPF_LD | BPF_DW | BPF_IMM`, the only instruction of twice the length.
    const LOAD_IMMEDIATE: u8 = 0x18;

    /// The programs that take turns, which all others do without.
    const TAKE_TURNS: [&str; 7] = [
        "cluster_class",
        "cluster_cpu",
        "cluster_custom",
        "cluster_least",
        "cluster_queue",
        "cluster_select",
        "cluster_traced",
    ];

    #[test]
    fn the_cursor_is_moved_by_a_fetching_addition() {
        let programs = programs("select", "sk_reuseport/migrate");
        let taking = programs.iter().filter(|(_, code)| {
            code.iter().any(|(code, immediate)| *code == ATOMIC && *immediate == FETCH_ADD)
        });
        let mut taking: Vec<&str> = taking.map(|(name, _)| name.as_str()).collect();
        taking.sort_unstable();

        // The compiler may turn a relaxed fetching addition into one that only adds; every worker but one would starve.
        assert_eq!(taking, TAKE_TURNS, "of {} programs", programs.len());
    }

    #[test]
    fn the_objects_are_compiled_from_these_sources() {
        let workspace = workspace().unwrap();
        let record = fs::read_to_string(workspace.join(RECORD)).unwrap();

        assert_eq!(
            record.lines().next(),
            Some(fingerprint(&workspace).unwrap().as_str()),
            "run cargo xtask ebpf"
        );
    }

    #[test]
    fn a_difference_is_named() {
        assert_eq!(difference(b"same", b"same"), None);
        assert_eq!(difference(b"some", b"same").as_deref(), Some("differs from byte 1 on"));
        assert_eq!(
            difference(b"short", b"longer").as_deref(),
            Some("5 bytes, a fresh build has 6")
        );
    }

    /// The programs in a section of a checked-in object: the name of each, and operation code and immediate of each of
    /// its instructions.
    fn programs(object: &str, section: &str) -> Vec<(String, Vec<(u8, i32)>)> {
        let bytes = fs::read(workspace().unwrap().join(object_path(object))).unwrap();
        let file = object::File::parse(&*bytes).unwrap();
        let section = file.section_by_name(section).unwrap();
        let code = section.data().unwrap();
        let here = file
            .symbols()
            .filter(|symbol| symbol.section_index() == Some(section.index()) && symbol.size() > 0);
        let program = |symbol: object::Symbol<'_, '_>| {
            let from = usize::try_from(symbol.address()).unwrap();
            let length = usize::try_from(symbol.size()).unwrap();
            (symbol.name().unwrap().to_owned(), instructions(&code[from..from + length]))
        };
        here.map(program).collect()
    }

    /// Operation code and immediate of each instruction.
    fn instructions(code: &[u8]) -> Vec<(u8, i32)> {
        let mut found = Vec::new();
        let mut words = code.chunks_exact(8);
        while let Some(&[code, _, _, _, a, b, c, d]) = words.next() {
            found.push((code, i32::from_le_bytes([a, b, c, d])));
            if code == LOAD_IMMEDIATE {
                words.next();
            }
        }
        found
    }
}
