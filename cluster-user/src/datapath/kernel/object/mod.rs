//! A compiled object, read once and kept as what loading needs: map shapes, instructions, and which refers to which.

mod splice;

use std::{
    collections::HashSet,
    ffi::CString,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use anyhow::{Context as _, anyhow};
use aya_obj::{
    EbpfSectionKind, Object,
    generated::{BPF_PSEUDO_MAP_FD, BPF_PSEUDO_MAP_VALUE, bpf_insn, bpf_map_type},
};

use super::bpf::{self, MapShape, ProgramShape};

/// First opcode of the two-instruction load of a 64-bit constant (`BPF_LD | BPF_DW | BPF_IMM`), the one
/// instruction that can refer to a map.
const LOAD_WIDE: u8 = 0x18;

/// A program wanted of an object: its name, its type, and the attach type it is verified for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    /// As in [`cluster_common::names`].
    pub(super) name: &'static str,
    /// `BPF_PROG_TYPE_…`
    pub(super) program_type: u32,
    /// `BPF_…`
    pub(super) attach_type: u32,
    /// The kernel's number of the type that describes what it is attached to; 0 for most kinds.
    pub(super) target: u32,
}

/// An object that can be loaded any number of times.
#[derive(Debug)]
pub(super) struct Prepared {
    license: CString,
    maps: Vec<MapPlan>,
    programs: Vec<ProgramPlan>,
    /// Where what was spliced in begins.
    joint: usize,
}

#[derive(Debug)]
struct MapPlan {
    name: String,
    shape: MapShape,
    /// Contents of a section of constants or variables; empty for a map proper.
    data: Vec<u8>,
    constant: bool,
    /// Made anew for each load, whatever maps are given.
    own: bool,
}

#[derive(Debug)]
struct ProgramPlan {
    wanted: Wanted,
    /// Where a map's descriptor belongs there is the map's index.
    instructions: Vec<bpf_insn>,
    /// Instructions that refer to maps.
    references: Vec<usize>,
}

/// A program that was loaded to be looked at, and what the verifier said.
pub(super) type Counted = io::Result<(OwnedFd, String)>;

/// What was loaded: descriptors by name. Dropping it frees everything that is not attached.
#[derive(Debug)]
pub(super) struct Loaded {
    maps: Vec<(String, OwnedFd)>,
    programs: Vec<(Wanted, OwnedFd)>,
}

impl Prepared {
    /// Reads an object, replacing the values of some of its constants.
    ///
    /// # Errors
    /// When it is no such object, or lacks a program or a constant.
    pub(super) fn new(
        bytes: &[u8],
        globals: &[(&str, &[u8])],
        wanted: &[Wanted],
    ) -> anyhow::Result<Self> {
        let mut object = Object::parse(bytes)?;
        object.patch_map_data(globals.iter().map(|&(n, value)| (n, (value, true))).collect())?;
        let planned: Vec<_> = wanted.iter().map(|&wanted| (wanted.name, wanted)).collect();
        Self::of(object, &planned)
    }

    /// Plans these programs of an object, by the names that they have in it.
    fn of(mut object: Object, wanted: &[(&str, Wanted)]) -> anyhow::Result<Self> {
        let maps: Vec<(String, aya_obj::Map)> = object.maps.drain().collect();
        let text: HashSet<usize> = object.functions.keys().map(|&(section, _)| section).collect();
        // Indices stand in for descriptors, so that the instructions serve for every load.
        object.relocate_maps(
            (0..).zip(&maps).map(|(index, (name, map))| (name.as_str(), index, map)),
            &text,
        )?;
        object.relocate_calls(&text)?;

        let programs = wanted.iter().map(|&(name, wanted)| plan(&object, name, wanted));
        let programs = programs.collect::<anyhow::Result<_>>()?;
        let maps = maps.into_iter().map(|(name, map)| MapPlan::new(name, &map)).collect();
        Ok(Self { license: object.license, maps, programs, joint: 0 })
    }

    /// Changes the number of entries of a map (bytes, for a ring buffer) in later loads.
    pub(super) fn resize(&mut self, name: &str, entries: u32) {
        for map in self.maps.iter_mut().filter(|map| map.name == name) {
            map.shape.max_entries = entries;
        }
    }

    /// Creates the maps and loads the programs.
    ///
    /// # Errors
    /// What the kernel said to the map or program that is named.
    pub(super) fn load(&self) -> anyhow::Result<Loaded> {
        let maps = self.create_maps()?;
        let mut programs = Vec::with_capacity(self.programs.len());
        for program in &self.programs {
            let fd = program
                .load(&self.license, &maps)
                .with_context(|| format!("load program {}", program.wanted.name))?;
            programs.push((program.wanted, fd));
        }
        Ok(Loaded { maps, programs })
    }
}

impl Prepared {
    /// Creates the maps, and loads each program in turn to see what the kernel makes of it: the program, and what the
    /// verifier says about its work.
    ///
    /// # Errors
    /// What the kernel said to a map.
    pub(super) fn count(&self) -> anyhow::Result<Vec<(Wanted, Counted)>> {
        let maps = self.create_maps()?;
        let counted = |program: &ProgramPlan| {
            let map = |index: usize| maps[index].1.as_raw_fd();
            let counted = program.load_with(&self.license, map, bpf::load_counted);
            (program.wanted, counted)
        };
        Ok(self.programs.iter().map(counted).collect())
    }

    fn create_maps(&self) -> anyhow::Result<Vec<(String, OwnedFd)>> {
        let create = |map: &MapPlan| {
            let fd = map.create().with_context(|| format!("create map {}", map.name))?;
            Ok((map.name.clone(), fd))
        };
        self.maps.iter().map(create).collect()
    }

    /// Loads one of the programs with the maps that are `given`, by name, and makes those that are not. Says which it made.
    ///
    /// # Errors
    /// What the kernel said to the map or program that is named.
    pub(super) fn load_one(
        &self,
        name: &str,
        given: &[(String, OwnedFd)],
    ) -> anyhow::Result<(OwnedFd, Vec<(String, OwnedFd)>)> {
        self.load_one_with(name, given, bpf::load_program)
    }

    /// As [`Self::load_one`], to be looked at: says what the verifier says about its work.
    ///
    /// # Errors
    /// As there.
    pub(super) fn count_one(&self, name: &str) -> anyhow::Result<String> {
        let ((_, said), _) = self.load_one_with(name, &[], bpf::load_counted)?;
        Ok(said)
    }

    fn load_one_with<T>(
        &self,
        name: &str,
        given: &[(String, OwnedFd)],
        load: fn(&ProgramShape<'_>) -> io::Result<T>,
    ) -> anyhow::Result<(T, Vec<(String, OwnedFd)>)> {
        let program = self.programs.iter().find(|program| program.wanted.name == name);
        let program = program.with_context(|| format!("the object has no program {name}"))?;
        let mut made = Vec::new();
        // Kept by the program alone, as soon as there is one.
        let mut own = Vec::new();
        let mut numbers = vec![None; self.maps.len()];
        for &place in &program.references {
            let index = program.instructions[place].imm.cast_unsigned() as usize;
            if numbers[index].is_some() {
                continue;
            }
            let plan = &self.maps[index];
            let given = given.iter().find(|(other, _)| !plan.own && *other == plan.name);
            let number = if let Some((_, map)) = given {
                map.as_raw_fd()
            } else {
                let map = plan.create().with_context(|| format!("create map {}", plan.name))?;
                let number = map.as_raw_fd();
                if plan.own {
                    own.push(map);
                } else {
                    made.push((plan.name.clone(), map));
                }
                number
            };
            numbers[index] = Some(number);
        }
        let map = |index: usize| numbers[index].unwrap_or(-1);
        let loaded = program.load_with(&self.license, map, load);
        let loaded = loaded.with_context(|| format!("load program {name}"))?;
        Ok((loaded, made))
    }
}

impl MapPlan {
    fn new(name: String, map: &aya_obj::Map) -> Self {
        let shape = MapShape {
            map_type: map.map_type(),
            key_size: map.key_size(),
            value_size: map.value_size(),
            max_entries: map.max_entries(),
            flags: map.map_flags(),
        };
        let constant = map.section_kind() == EbpfSectionKind::Rodata;
        Self { name, shape, data: map.data().to_vec(), constant, own: false }
    }

    fn create(&self) -> io::Result<OwnedFd> {
        let map = if self.shape.map_type == bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as u32 {
            bpf::create_storage(&self.name, self.shape)?
        } else {
            bpf::create_map(&self.name, self.shape)?
        };
        if !self.data.is_empty() {
            bpf::update(map.as_fd(), 0, &self.data)?;
        }
        if self.constant {
            bpf::freeze_map(map.as_fd())?;
        }
        Ok(map)
    }
}

impl ProgramPlan {
    fn load(&self, license: &CString, maps: &[(String, OwnedFd)]) -> io::Result<OwnedFd> {
        self.load_with(license, |index| maps[index].1.as_raw_fd(), bpf::load_program)
    }

    fn load_with<T>(
        &self,
        license: &CString,
        map: impl Fn(usize) -> RawFd,
        load: fn(&ProgramShape<'_>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut instructions = self.instructions.clone();
        for &place in &self.references {
            let index = instructions[place].imm.cast_unsigned() as usize;
            instructions[place].imm = map(index);
        }
        load(&ProgramShape {
            name: self.wanted.name,
            program_type: self.wanted.program_type,
            attach_type: self.wanted.attach_type,
            target: self.wanted.target,
            instructions: &instructions,
            license,
        })
    }
}

impl Loaded {
    /// A map that stays in.
    ///
    /// # Errors
    /// When the object has no such map.
    pub(super) fn map(&self, name: &str) -> anyhow::Result<BorrowedFd<'_>> {
        let found = self.maps.iter().find(|(other, _)| other == name);
        found.map(|(_, map)| map.as_fd()).ok_or_else(|| anyhow!("the object has no map {name}"))
    }

    /// Takes a map out.
    ///
    /// # Errors
    /// When the object has no such map.
    pub(super) fn take_map(&mut self, name: &str) -> anyhow::Result<OwnedFd> {
        let at = self.maps.iter().position(|(other, _)| other == name);
        at.map(|at| self.maps.swap_remove(at).1)
            .ok_or_else(|| anyhow!("the object has no map {name}"))
    }

    /// Takes all programs out, in the order they were wanted in.
    pub(super) fn take_programs(&mut self) -> Vec<(Wanted, OwnedFd)> {
        std::mem::take(&mut self.programs)
    }
}

fn plan(object: &Object, name: &str, wanted: Wanted) -> anyhow::Result<ProgramPlan> {
    let program =
        object.programs.get(name).with_context(|| format!("the object has no program {name}"))?;
    let function = object
        .functions
        .get(&program.function_key())
        .with_context(|| format!("the object has no code of {name}"))?;
    let instructions = function.instructions.clone();
    let references = references(&instructions);
    Ok(ProgramPlan { wanted, instructions, references })
}

/// Instructions that refer to maps.
fn references(instructions: &[bpf_insn]) -> Vec<usize> {
    let refers = |instruction: &bpf_insn| {
        let source = u32::from(instruction.src_reg());
        instruction.code == LOAD_WIDE
            && (source == BPF_PSEUDO_MAP_FD || source == BPF_PSEUDO_MAP_VALUE)
    };
    let all = instructions.iter().enumerate();
    all.filter(|(_, instruction)| refers(instruction)).map(|(place, _)| place).collect()
}
