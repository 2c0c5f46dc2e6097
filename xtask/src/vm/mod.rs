//! `xtask vm`: boots the kernels people have in QEMU, and runs the kernel tests and the real program in each.
//!
//! Kernels are Debian's packages, unpacked and not installed. A machine has no disk: its first process is this program,
//! in an image of what it tests, which it writes its report about to a serial port.

mod kernel;
mod suite;
mod image;
mod contents;
mod plan;
mod machine;
mod guest;
mod report;
mod alarm;
mod complexity;
mod matrix;
mod verdict;

use std::{fs, path::Path, process::Command, time::Duration};

use anyhow::Context as _;
use nix::unistd::geteuid;

pub(crate) use self::guest::{run as guest, work};
use self::{
    complexity::{Comparison, Program, Record},
    contents::Built,
    guest::TESTS_LIMIT,
    kernel::{Kernel, Wanted},
    matrix::Matrix,
    plan::{Depth, Plan},
    suite::{Archive, NotOffered},
    verdict::Verdict,
};
use crate::{process, step, tools};

/// Longest run of a machine: what its tests may take, and the trial of the program.
const LIMIT: Duration = TESTS_LIMIT.saturating_add(Duration::from_mins(10));

/// How a line begins that says what could not be had: `.ci/run` looks for it.
const NOT_TESTED: &str = "vm: NOT TESTED: ";

#[derive(clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is a flag on the command line")]
pub(crate) struct Args {
    /// Which kernels (5.10, 6.1, 6.12, newest); all by default
    kernels: Vec<String>,
    /// Keep what each machine was booted with and what it said, below target/vm
    #[arg(long)]
    keep: bool,
    /// Only load the kernel programs and look at their complexity, which takes seconds
    #[arg(long, conflicts_with = "filters")]
    programs: bool,
    /// Run the tests of the library only on the oldest kernel of each mode; all else on all
    #[arg(long, conflicts_with_all = ["filters", "programs"])]
    quick: bool,
    /// Say what cannot be had on this host instead of failing because of it
    #[arg(long)]
    offered: bool,
    /// Write down what is found (docs/kernels.md, complexity of the kernel programs) instead of comparing it
    #[arg(long)]
    update: bool,
    /// Only tests whose names contain one of these
    #[arg(last = true)]
    filters: Vec<String>,
}

impl Args {
    /// How much is tried on a kernel.
    fn depth(&self, wanted: Wanted) -> Depth {
        match (self.programs, self.quick) {
            (true, _) => Depth::Verifier,
            (false, true) => wanted.quick,
            (false, false) => Depth::Tests,
        }
    }
}

/// Runs every kernel that can be had; an error says what does not hold on which.
pub(crate) fn run(args: &Args) -> anyhow::Result<()> {
    anyhow::ensure!(
        geteuid().is_root(),
        "the same programs are loaded on this host, too, which needs root\n\
         hint: sudo env \"PATH=$PATH\" cargo xtask vm"
    );
    let wanted = Wanted::named(&args.kernels)?;
    if let Err(error) = here() {
        if !args.offered {
            return Err(error);
        }
        println!("{NOT_TESTED}all kernels: {error:#}");
        return Ok(());
    }
    let cache = step::target().join("vm");
    fs::create_dir_all(&cache)?;
    let archive = match Archive::of_this_host() {
        Ok(archive) => Ok(archive),
        Err(error) => Err(error.downcast::<NotOffered>()?),
    };
    let mut kernels = Vec::new();
    for wanted in wanted {
        let archive = archive.as_ref().map_err(|error| error.again().into());
        let kernel = match archive.and_then(|archive| wanted.download(archive, &cache)) {
            Ok(packages) => Ok(packages.unpack()?),
            Err(error) if error.is::<NotOffered>() => Err(error),
            // That is no reason to do without it.
            Err(error) => {
                return Err(error.context(format!("failed to get kernel {}", wanted.name)));
            }
        };
        match &kernel {
            Ok(kernel) => println!("vm: {} is {}", wanted.name, kernel.package),
            Err(error) => println!("vm: {} cannot be had: {error:#}", wanted.name),
        }
        kernels.push((wanted, kernel));
    }

    let built = Built::all(&cache, !args.programs)?;
    let base = cache.join("base.cpio");
    built.image()?.write(&mut fs::File::create(&base)?)?;
    let mut verdicts = Vec::new();
    for (wanted, kernel) in kernels {
        let verdict = match kernel {
            Ok(kernel) => boot(wanted, &kernel, &base, &cache, args)?,
            Err(error) => Verdict::not_had(wanted, args.depth(wanted), &error),
        };
        println!("{}", verdict.show());
        verdicts.push(verdict);
    }
    if !args.keep {
        fs::remove_file(&base)?;
    }
    let mut problems: Vec<String> = verdicts.iter().flat_map(Verdict::problems).collect();
    if args.filters.is_empty() {
        problems.extend(compare(&built, &verdicts, args.update)?);
        problems.extend(look_up(&verdicts, args.update)?);
    }
    println!("\n{}", verdict::table(&verdicts));
    for why in verdicts.iter().filter_map(Verdict::why_not_had) {
        if args.offered {
            println!("{NOT_TESTED}{why}");
        } else {
            problems.push(format!("not tested: {why}"));
        }
    }
    for problem in &problems {
        println!("vm: {problem}");
    }
    anyhow::ensure!(problems.is_empty(), "{} things do not hold", problems.len());
    Ok(())
}

/// Whether machines can be made on this host.
fn here() -> anyhow::Result<()> {
    // What runs inside is what was built for this host.
    anyhow::ensure!(
        cfg!(target_arch = "x86_64"),
        "the kernels are for x86-64, and this host is not"
    );
    tools::ensure(tools::FOR_MACHINES)
}

/// Boots one kernel, and judges what came of it.
fn boot(
    wanted: Wanted,
    kernel: &Kernel,
    base: &Path,
    cache: &Path,
    args: &Args,
) -> anyhow::Result<Verdict> {
    let folder =
        tempfile::Builder::new().prefix(&format!("run-{}-", wanted.name)).tempdir_in(cache)?;
    let left_out = plan::left_out(wanted.promise);
    let plan = Plan {
        promise: wanted.promise,
        depth: args.depth(wanted),
        filters: args.filters.clone(),
        left_out: left_out.iter().map(|(name, _)| (*name).to_owned()).collect(),
    };
    let image = folder.path().join("image.cpio");
    fs::copy(base, &image).context("failed to copy the image")?;
    contents::of_one(kernel, &plan)?.write(&mut fs::File::options().append(true).open(&image)?)?;
    println!("\nvm: {}: booting {}", wanted.name, kernel.package);
    let said = machine::run(kernel, &image, folder.path(), LIMIT)?;
    let verdict = Verdict::of(wanted, plan.depth, said, &left_out);
    if args.keep || !verdict.problems().is_empty() {
        let kept = folder.keep();
        if !args.keep {
            fs::remove_file(kept.join("image.cpio"))?;
        }
        println!("vm: {}: what it said is in {}", wanted.name, kept.display());
    }
    Ok(verdict)
}

/// Compares the complexity of the kernel programs on all kernels, this host's included, with what is recorded.
fn compare(built: &Built, verdicts: &[Verdict], update: bool) -> anyhow::Result<Vec<String>> {
    let host = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let said = process::run(&mut Command::new(built.verifier()))?;
    let here: Vec<Program> =
        serde_json::from_str(&said).context("the verifier's example prints no programs")?;
    let measured =
        verdicts.iter().filter_map(Verdict::programs).chain([(host.trim(), here.as_slice())]);
    let (mut record, mut comparison) = (Record::read()?, Comparison::default());
    for (release, programs) in measured {
        if update {
            record.replace(release, programs);
        }
        comparison.add(&record, release, programs);
    }
    println!("\n{}", comparison.show());
    if update {
        println!("vm: recorded in {}", record.write()?.display());
    }
    let problems = comparison.problems();
    if !problems.is_empty() {
        println!(
            "vm: complexity is not as recorded\nhint: if this is meant: cargo xtask vm --update"
        );
    }
    Ok(problems)
}

/// Compares what each kernel can do with what is documented.
fn look_up(verdicts: &[Verdict], update: bool) -> anyhow::Result<Vec<String>> {
    let mut matrix = Matrix::read()?;
    let found = verdicts.iter().filter_map(Verdict::features);
    if update {
        found.for_each(|(kernel, features)| matrix.replace(kernel, features));
        println!("vm: written to {}", matrix.write()?.display());
        return Ok(Vec::new());
    }
    Ok(found.flat_map(|(kernel, features)| matrix.differences(kernel, features)).collect())
}
