//! Policies of one's own: beginning one, and what is done with it, one command each.

mod skeleton;
mod refusal;

use std::{
    env, fs,
    path::{Path, PathBuf, absolute},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail, ensure};
use clap::{Args, Subcommand};

use crate::{ebpf, process, step};

#[derive(Args)]
pub(crate) struct New {
    /// What it is called: small letters, digits and hyphens
    name: String,
    /// The folder in which its own is made
    #[arg(long = "in", value_name = "FOLDER", default_value = ".")]
    beside: PathBuf,
}

#[derive(Subcommand)]
pub(crate) enum Task {
    /// Compiles a policy into NAME.bpf.o in its folder
    Build {
        /// The policy's folder
        folder: PathBuf,
    },
    /// Shows what the kernel says about a compiled policy
    Verify {
        /// The compiled object
        object: PathBuf,
    },
    /// Runs a policy's tests on this host
    Test {
        /// The policy's folder
        folder: PathBuf,
    },
    /// Measures how long a compiled policy takes to decide, beside round robin
    Bench {
        /// The compiled object
        object: PathBuf,
        /// Workers in the route
        #[arg(long, default_value_t = 64)]
        workers: u16,
        /// Decisions of each
        #[arg(long, default_value_t = 200_000)]
        decisions: u32,
    },
}

/// Begins a policy.
pub(crate) fn new(args: &New) -> Result<()> {
    let beside = absolute(&args.beside).context("failed to find the folder")?;
    let folder = skeleton::write(&args.name, &beside)?;
    let (folder, name) = (folder.display(), &args.name);
    println!("{folder} is a policy that works; what it decides is in src/lib.rs\n");
    println!("  cargo xtask policy test {folder}");
    println!("  cargo xtask policy build {folder}");
    println!("  cargo xtask policy verify {folder}/{name}.bpf.o");
    println!("  cargo xtask policy bench {folder}/{name}.bpf.o");
    println!("  cluster start APP -i 4 --policy {folder}/{name}.bpf.o");
    Ok(())
}

/// Does one of the others.
pub(crate) fn run(task: &Task) -> Result<()> {
    match task {
        Task::Build { folder } => build(folder),
        Task::Test { folder } => {
            let folder = folder_of(folder)?;
            let mut cargo = step::cargo(["test", "--lib"]);
            step::run(cargo.current_dir(folder))
        }
        Task::Verify { object } => verify(object),
        Task::Bench { object, workers, decisions } => {
            let mut cargo =
                example("bench", object, &[workers.to_string(), decisions.to_string()])?;
            let status = cargo.status();
            let status =
                status.with_context(|| format!("failed to run `{}`", step::show(&cargo)))?;
            // It has said why.
            ensure!(status.success(), "the policy cannot be used as it is");
            Ok(())
        }
    }
}

fn build(folder: &Path) -> Result<()> {
    let folder = folder_of(folder)?;
    let program = program_of(&folder)?;
    let built = ebpf::build_other(&folder)?.join(&program);
    let object = folder.join(format!("{program}.bpf.o"));
    fs::copy(&built, &object)
        .with_context(|| format!("failed to copy {} to {}", built.display(), object.display()))?;
    println!("{}", object.display());
    Ok(())
}

/// The name of the only program in a folder.
fn program_of(folder: &Path) -> Result<String> {
    let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    cargo.args(["metadata", "--no-deps", "--format-version=1"]).current_dir(folder);
    let metadata: serde_json::Value = serde_json::from_str(&process::run(&mut cargo)?)?;
    let all = metadata["packages"].as_array().into_iter().flatten();
    let targets = all.flat_map(|package| package["targets"].as_array().into_iter().flatten());
    let programs: Vec<&str> = targets
        .filter(|target| target["kind"][0] == "bin")
        .filter_map(|target| target["name"].as_str())
        .collect();
    match *programs {
        [program] => Ok(program.to_owned()),
        [] => bail!("there is no program in {}", folder.display()),
        _ => bail!(
            "there are {} programs in {}, and a policy is one",
            programs.len(),
            folder.display()
        ),
    }
}

/// Shows what the kernel says, what it means first. The whole of its log is kept where the policy is built.
fn verify(object: &Path) -> Result<()> {
    let mut cargo = example("verify", object, &[])?;
    let folder = refusal::folder(&absolute(object).context("failed to find the object")?);
    fs::create_dir_all(&folder)
        .with_context(|| format!("failed to create {}", folder.display()))?;
    // It leaves its log in the temporary folder, which is everybody's.
    let aside = tempfile::tempdir_in(&folder).context("failed to make a folder")?;
    let output = cargo.env("TMPDIR", aside.path()).stderr(Stdio::piped()).output();
    let output = output.with_context(|| format!("failed to run `{}`", step::show(&cargo)))?;
    print!("{}", String::from_utf8_lossy(&output.stdout));
    let said = String::from_utf8_lossy(&output.stderr);
    if output.status.success() {
        eprint!("{said}");
        return Ok(());
    }
    let Some(log) = refusal::keep(aside.path(), &folder)? else {
        // It was not the kernel who refused it.
        eprint!("{said}");
        bail!("the policy cannot be used as it is");
    };
    eprint!("{}", refusal::told(&said, &log));
    bail!("the kernel refuses the policy's program")
}

/// What does something with an object in the kernel, by the code that `cluster` itself has for that: built, and not run yet.
fn example(task: &str, object: &Path, arguments: &[String]) -> Result<Command> {
    let object = absolute(object).context("failed to find the object")?;
    ensure!(
        object.exists(),
        "there is no {}\nhint: cargo xtask policy build FOLDER",
        object.display()
    );
    let which = ["--quiet", "--package", "cluster-user", "--example", "policy"];
    let mut build = step::cargo(["build"]);
    let built = build.args(which).status();
    let built = built.with_context(|| format!("failed to run `{}`", step::show(&build)))?;
    ensure!(built.success(), "`{}` failed: {built}", step::show(&build));
    let mut cargo = step::cargo(["run"]);
    cargo.args(which).args(["--", task]).arg(object).args(arguments);
    Ok(cargo)
}

fn folder_of(folder: &Path) -> Result<PathBuf> {
    let folder = absolute(folder).context("failed to find the folder")?;
    ensure!(
        folder.join("Cargo.toml").is_file(),
        "{} is no folder of a policy: it has no Cargo.toml\nhint: cargo xtask new-policy NAME",
        folder.display()
    );
    Ok(folder)
}
