//! Programs of users that pick workers: reading one, joining it to the program of ours that calls it, and telling what the
//! kernel thinks of it.

use std::{
    fs::{self, File},
    io::Read as _,
    os::{fd::OwnedFd, unix::fs::OpenOptionsExt as _},
    panic,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, anyhow, bail, ensure};
use aya_obj::{
    EbpfSectionKind, Object, ProgramSection,
    generated::{bpf_attach_type as attach, bpf_prog_type as program},
};
use cluster_common::{abi, custom, names};
use object::{
    Architecture, Endianness, Object as _, ObjectSection as _, ObjectSymbol as _, read::elf,
};

use super::{
    Kernel,
    ids::Program,
    load::Select,
    object::{Prepared, Wanted},
    verifier::Refused,
};
use crate::{config::scheduling::Policy, datapath::Slow, id::GroupId};

/// Bytes of an object. Programs have some ten thousand, debug information some hundred thousand more.
const LONGEST: u64 = 16 << 20;

/// What the kernel did with a program of the user's that it took.
#[derive(Clone, Debug)]
pub struct Verified {
    /// Its name in the object.
    pub program: String,
    /// Its instructions, those of its functions included.
    pub instructions: usize,
    /// All instructions of what it was joined to and itself.
    pub together: usize,
    /// What the verifier said, in lines: how many instructions it walked, and how much stack is needed.
    pub statistics: String,
}

/// A program of the user's, read.
#[derive(Debug)]
pub(super) struct Custom {
    name: String,
    prepared: Prepared,
}

/// A program of the user's that was loaded for a group, with the maps that were made for it; or why it was not.
#[derive(Debug)]
pub struct Loaded(pub(super) anyhow::Result<(Program, Vec<(String, OwnedFd)>)>);

impl Loaded {
    /// What could not even be tried.
    pub fn failed(why: anyhow::Error) -> Self {
        Self(Err(why))
    }
}

impl Kernel {
    /// See [`DataPath::verification`](crate::datapath::DataPath::verification).
    pub(super) fn verification_of(
        &self,
        app: &str,
        policy: &Policy,
    ) -> Option<Slow<anyhow::Result<()>>> {
        let Policy::Custom(path) = policy else { return None };
        let (path, select, log) = (path.clone(), self.spare.share(), self.policy_log(app));
        Some(Box::new(move || {
            let loaded = select.load_custom(&path, &[]);
            loaded.map(drop).map_err(|error| keep_log(error, &log))
        }))
    }

    /// See [`DataPath::loading`](crate::datapath::DataPath::loading).
    pub(super) fn loading_for(&self, group: GroupId, policy: &Policy) -> Option<Slow<Loaded>> {
        let Policy::Custom(path) = policy else { return None };
        // When descriptors run out that is found again by whoever schedules, and said.
        let maps = self.groups.get(&group)?.share_maps().ok()?;
        let (path, select) = (path.clone(), self.spare.share());
        Some(Box::new(move || Loaded(select.load_custom(&path, &maps))))
    }

    /// Where the kernel's reasoning about the program of an app's policy is kept.
    pub(super) fn policy_log(&self, app: &str) -> PathBuf {
        self.logs.join(format!("{app}-policy.log"))
    }
}

/// Loads a program of the user's as it would be for a group, and lets it go again.
///
/// # Errors
/// When it is no such program, and what the kernel said if it refuses it: [`log_of`] has all of it.
pub fn verify(path: &Path) -> anyhow::Result<Verified> {
    let custom = Custom::read(path)?;
    let (program, instructions) = (custom.name.clone(), custom.prepared.size());
    let joined = Select::new(Vec::new())?.joined(custom)?;
    let statistics = joined.count_one(names::CUSTOM).with_context(|| place(path, &joined))?;
    Ok(Verified { program, instructions, together: joined.size(), statistics })
}

/// The verifier's log, if an error is that it refused a program.
pub fn log_of(error: &anyhow::Error) -> Option<&str> {
    let mut causes = error.chain().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    causes.find_map(|error| Some(&*error.get_ref()?.downcast_ref::<Refused>()?.log))
}

/// Keeps the verifier's log, if an error is that it refused a program, and says where it is.
pub(super) fn keep_log(error: anyhow::Error, file: &Path) -> anyhow::Error {
    let Some(log) = log_of(&error) else { return error };
    match fs::write(file, log) {
        Ok(()) => error.context(format!(
            "the kernel refuses the policy's program (its whole reasoning is in {})",
            file.display()
        )),
        Err(_) => error.context("the kernel refuses the policy's program"),
    }
}

/// Where a program of the user's is in what the kernel was given.
pub(super) fn place(path: &Path, joined: &Prepared) -> String {
    format!("policy {}, which begins at instruction {}", path.display(), joined.joint())
}

impl Custom {
    /// Reads an object.
    ///
    /// # Errors
    /// When there is none, it has no program that picks workers, or it was made for another version.
    pub(super) fn read(path: &Path) -> anyhow::Result<Self> {
        let shown = path.display();
        let mut bytes = Vec::new();
        // Without it a FIFO keeps whoever opens it until somebody writes to it.
        let file = File::options().read(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.with_context(|| format!("read policy {shown}"))?;
        ensure!(file.metadata().is_ok_and(|file| file.is_file()), "policy {shown} is not a file");
        file.take(LONGEST + 1).read_to_end(&mut bytes).with_context(|| format!("read {shown}"))?;
        ensure!(bytes.len() as u64 <= LONGEST, "policy {shown} is longer than any program");
        // The reader is made for what compilers write and does not bear everything.
        let read = panic::catch_unwind(|| Self::of(&bytes));
        let read = read.unwrap_or_else(|_| Err(anyhow!("it is damaged")));
        read.with_context(|| format!("policy {shown} cannot be used"))
    }

    fn of(bytes: &[u8]) -> anyhow::Result<Self> {
        let file = elf::ElfFile64::<Endianness>::parse(bytes)
            .map_err(|error| anyhow!("it is not a compiled object: {error}"))?;
        ensure!(
            matches!(file.architecture(), Architecture::Bpf | Architecture::Unknown)
                && file.is_little_endian() == cfg!(target_endian = "little"),
            "it is compiled for another machine than the kernel's (BPF, {} endian)",
            if cfg!(target_endian = "little") { "little" } else { "big" }
        );
        match version(&file) {
            Some(abi::VERSION) => {}
            Some(version) => bail!(
                "it was made for ABI {version}, and this version of cluster has ABI {}: build it again with this version's \
                 cluster-common",
                abi::VERSION
            ),
            None => bail!(
                "it does not say for which ABI it was made, and this version of cluster has ABI {}: it needs a global {}, a \
                 u32, with that number",
                abi::VERSION,
                custom::ABI
            ),
        }
        let object = Object::parse(bytes).context("it is not a compiled object of BPF programs")?;
        let name = only_program(&object)?;
        let wanted = Wanted {
            name: names::CUSTOM,
            program_type: program::BPF_PROG_TYPE_SK_REUSEPORT as u32,
            attach_type: attach::BPF_SK_REUSEPORT_SELECT_OR_MIGRATE as u32,
            target: 0,
        };
        let unusable = object.maps.iter().find(|(_, map)| {
            map.section_kind() == EbpfSectionKind::Undefined && map.map_type() == 0
        });
        if let Some((name, _)) = unusable {
            bail!("its map {name} has no type");
        }
        let prepared = Prepared::of_other(object, &name, wanted)?;
        Ok(Self { name, prepared })
    }

    /// Joins it to the program of ours that calls it.
    ///
    /// # Errors
    /// When a map that both have is of another shape.
    pub(super) fn join(self, frame: Prepared) -> anyhow::Result<Prepared> {
        frame.splice(self.prepared, custom::PICK)
    }
}

/// The name of the only program that picks workers.
fn only_program(object: &Object) -> anyhow::Result<String> {
    let picks = |section: &ProgramSection| matches!(section, ProgramSection::SkReuseport { .. });
    let programs = object.programs.iter().filter(|(_, program)| picks(&program.section));
    let mut names: Vec<&str> = programs.map(|(name, _)| name.as_str()).collect();
    names.sort_unstable();
    match *names {
        [name] => Ok(name.to_owned()),
        [] => bail!("it has no program of type sk_reuseport"),
        _ => bail!(
            "it has {} programs of type sk_reuseport ({}), and a policy is one",
            names.len(),
            names.join(", ")
        ),
    }
}

/// The version of the ABI that an object was made for.
fn version(file: &elf::ElfFile64<'_, Endianness>) -> Option<u32> {
    let symbol = file.symbols().find(|symbol| symbol.name() == Ok(custom::ABI))?;
    let section = file.section_by_index(symbol.section_index()?).ok()?;
    let at = usize::try_from(symbol.address().checked_sub(section.address())?).ok()?;
    let data = section.data().ok()?;
    Some(u32::from_ne_bytes(*data.get(at..)?.first_chunk()?))
}
