//! Splicing: the program of another object becomes a function of ours.
//!
//! All instructions of the other one, its own functions included, are appended to ours as they are: calls are relative,
//! so that they stay right among themselves. The kernel verifies the whole as one program.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use anyhow::{Context as _, ensure};
use aya_obj::{
    Object,
    generated::{BPF_PSEUDO_CALL, bpf_insn},
};

use super::{MapPlan, Prepared, Wanted, references};

/// Opcode of a call (`BPF_JMP | BPF_CALL`).
const CALL: u8 = 0x85;

impl Prepared {
    /// Reads the program of somebody's object that has this name in it.
    ///
    /// # Errors
    /// When it cannot be relocated.
    pub(in super::super) fn of_other(
        object: Object,
        name: &str,
        wanted: Wanted,
    ) -> anyhow::Result<Self> {
        Self::of(object, &[(name, wanted)])
    }

    /// Puts the only program of `other` where the only one of this object calls the helper `marker`, which no kernel has.
    ///
    /// Maps of `other` with the name of one of ours are that one; the others are made anew for each load.
    ///
    /// # Errors
    /// When such a map is of another shape.
    pub(in super::super) fn splice(mut self, other: Self, marker: u32) -> anyhow::Result<Self> {
        let mut places = Vec::with_capacity(other.maps.len());
        for map in other.maps {
            places.push(self.place_of(map)?);
        }
        let ours = self.programs.first_mut().context("there is no program to be called from")?;
        let theirs = other.programs.into_iter().next().context("there is no program to call")?;
        let begin = ours.instructions.len();
        let mut found = false;
        for (place, instruction) in ours.instructions.iter_mut().enumerate() {
            if is_call(*instruction, marker) {
                call(instruction, begin - place - 1)?;
                found = true;
            }
        }
        ensure!(found, "program {} calls nothing", ours.wanted.name);
        ours.instructions.extend(theirs.instructions);
        ours.references = references(&ours.instructions);
        for &place in ours.references.iter().filter(|place| **place >= begin) {
            let index = &mut ours.instructions[place].imm;
            let map = places.get(usize::try_from(*index)?).context("a map that is not there")?;
            *index = i32::try_from(*map)?;
        }
        // What the helpers are lent for is now said by both; ours is one that may call all of them.
        self.license = other.license;
        self.joint = begin;
        Ok(self)
    }

    /// Puts a helper of the kernel's where programs call the helper `marker`, which no kernel has: to look at them alone.
    pub(in super::super) fn stand_in(&mut self, marker: u32, helper: i32) {
        let instructions = self.programs.iter_mut().flat_map(|program| &mut program.instructions);
        for instruction in instructions.filter(|instruction| is_call(**instruction, marker)) {
            instruction.imm = helper;
        }
    }

    /// The number of a map of another object among ours.
    fn place_of(&mut self, map: MapPlan) -> anyhow::Result<usize> {
        let same = |ours: &MapPlan| ours.name == map.name;
        if !map.data.is_empty() {
            // Values, not a map proper: told from those of ours, and from others of the same program.
            let mut hasher = DefaultHasher::new();
            map.data.hash(&mut hasher);
            let name = format!("{:08x}{}", hasher.finish() & 0xffff_ffff, map.name);
            self.maps.push(MapPlan { name, own: true, ..map });
        } else if let Some(place) = self.maps.iter().position(same) {
            let (ours, theirs) = (self.maps[place].shape, map.shape);
            let name = &map.name;
            ensure!(
                ours.map_type == theirs.map_type,
                "map {name} is of type {}, and this version's is of type {}",
                theirs.map_type,
                ours.map_type
            );
            ensure!(
                (ours.key_size, ours.value_size) == (theirs.key_size, theirs.value_size),
                "map {name} has keys of {} and values of {} bytes, and this version's has keys of {} and values of {} bytes: it \
                 was made for another ABI",
                theirs.key_size,
                theirs.value_size,
                ours.key_size,
                ours.value_size
            );
            return Ok(place);
        } else {
            self.maps.push(MapPlan { own: true, ..map });
        }
        Ok(self.maps.len() - 1)
    }

    /// The instruction at which the program of another object begins; 0 before it is spliced in.
    pub(in super::super) fn joint(&self) -> usize {
        self.joint
    }

    /// Instructions of its only program.
    pub(in super::super) fn size(&self) -> usize {
        self.programs.first().map_or(0, |program| program.instructions.len())
    }
}

/// Whether an instruction calls this helper.
fn is_call(instruction: bpf_insn, helper: u32) -> bool {
    instruction.code == CALL
        && instruction.src_reg() == 0
        && instruction.imm.cast_unsigned() == helper
}

/// Makes an instruction the call of a function that begins so many instructions after the next one.
fn call(instruction: &mut bpf_insn, distance: usize) -> anyhow::Result<()> {
    instruction.set_src_reg(u8::try_from(BPF_PSEUDO_CALL)?);
    instruction.imm = i32::try_from(distance)?;
    Ok(())
}
