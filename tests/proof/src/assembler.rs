//! Objects as compilers write them, of programs that are written down instruction by instruction.

use cluster_common::{abi, custom};
use object::{
    Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope,
    elf::R_BPF_64_64,
    write::{self, Relocation, SectionId, Symbol, SymbolSection},
};

/// What a helper or the program answers.
pub const R0: u8 = 0;
/// The first argument.
pub const R1: u8 = 1;
/// The second argument.
pub const R2: u8 = 2;
/// The third argument.
pub const R3: u8 = 3;
/// The fourth argument.
pub const R4: u8 = 4;
/// Left alone by calls.
pub const R6: u8 = 6;
/// The stack.
const R10: u8 = 10;

/// A place on the stack that a word is kept at.
const WORD: i16 = -4;

/// One step of a program.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// A register becomes a number.
    Set(u8, i32),
    /// A register becomes what another is.
    Copy(u8, u8),
    /// Adds to a register.
    Add(u8, i32),
    /// Shifts a register to the right.
    Shift(u8, i32),
    /// Keeps some bits of a register.
    Mask(u8, i32),
    /// A register becomes a word of 4 bytes behind another, so many bytes away.
    Word(u8, u8, i16),
    /// The same of 8 bytes.
    Long(u8, u8, i16),
    /// Writes 8 bytes behind a register.
    Store(u8, u8),
    /// Keeps a register on the stack, 4 bytes of it.
    Keep(u8),
    /// A register becomes the address of what was kept.
    Kept(u8),
    /// A register becomes a map.
    Map(u8, &'static str),
    /// Calls a helper of the kernel.
    Helper(i32),
    /// Skips so many instructions if a register is zero.
    SkipIfZero(u8, i16),
    /// Skips so many instructions, or goes back.
    Go(i16),
    /// Returns.
    Exit,
}

/// `bpf_map_lookup_elem`
pub const LOOK_UP: i32 = 1;
/// `bpf_get_prandom_u32`
pub const RANDOM: i32 = 7;
/// `bpf_sk_select_reuseport`
pub const SELECT: i32 = 82;

/// An object in the making.
#[derive(Debug)]
#[must_use]
pub struct Assembly {
    object: write::Object<'static>,
    code: SectionId,
    /// Only if there are any.
    maps: Option<SectionId>,
}

impl Assembly {
    /// One without anything in it.
    pub fn empty() -> Self {
        let (elf, little) = (BinaryFormat::Elf, Endianness::Little);
        let mut object = write::Object::new(elf, Architecture::Bpf, little);
        let code =
            object.add_section(Vec::new(), b"sk_reuseport/migrate".to_vec(), SectionKind::Text);
        Self { object, code, maps: None }
    }

    /// One for the ABI there is now.
    pub fn current() -> Self {
        Self::empty().version(abi::VERSION)
    }

    /// Says for which ABI it is.
    pub fn version(mut self, version: u32) -> Self {
        let values =
            self.object.add_section(Vec::new(), b".rodata".to_vec(), SectionKind::ReadOnlyData);
        let at = self.object.append_section_data(values, &version.to_le_bytes(), 4);
        self.symbol(custom::ABI, SymbolKind::Data, values, at, 4);
        self
    }

    /// Declares a map with entries of this type, and keys and values of these sizes.
    pub fn map(mut self, name: &str, kind: u32, key: u32, value: u32) -> Self {
        let words = [kind, key, value, 8, 0, 0, 0];
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
        let maps = *self.maps.get_or_insert_with(|| {
            self.object.add_section(Vec::new(), b"maps".to_vec(), SectionKind::Data)
        });
        let at = self.object.append_section_data(maps, &bytes, 4);
        self.symbol(name, SymbolKind::Data, maps, at, bytes.len() as u64);
        self
    }

    /// Adds a program.
    pub fn program(mut self, name: &str, steps: &[Step]) -> Self {
        let begin = self.object.section_mut(self.code).data().len() as u64;
        let mut code = Vec::new();
        for step in steps {
            if let Step::Map(_, map) = step {
                let symbol = self.object.symbol_id(map.as_bytes()).expect("a map that is declared");
                let offset = begin + code.len() as u64 * 8;
                let flags = object::RelocationFlags::Elf { r_type: R_BPF_64_64 };
                let relocation = Relocation { offset, symbol, addend: 0, flags };
                self.object.add_relocation(self.code, relocation).expect("it fits");
            }
            code.extend(encode(*step));
        }
        let bytes = code.concat();
        let at = self.object.append_section_data(self.code, &bytes, 8);
        self.symbol(name, SymbolKind::Text, self.code, at, bytes.len() as u64);
        self
    }

    /// The bytes of the file.
    pub fn finish(self) -> Vec<u8> {
        self.object.write().expect("an object that can be written")
    }

    fn symbol(&mut self, name: &str, kind: SymbolKind, section: SectionId, value: u64, size: u64) {
        self.object.add_symbol(Symbol {
            name: name.as_bytes().to_vec(),
            value,
            size,
            kind,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
}

/// One instruction, as `bpf(2)` lays it out; `registers` is the source's number times 16 and the target's.
fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> [u8; 8] {
    let [offset_low, offset_high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    [code, registers, offset_low, offset_high, a, b, c, d]
}

/// The instructions of a step.
fn encode(step: Step) -> Vec<[u8; 8]> {
    let one = |code, to: u8, from: u8, offset, value| {
        vec![instruction(code, from << 4 | to, offset, value)]
    };
    match step {
        Step::Set(to, value) => one(0xb4, to, 0, 0, value),
        Step::Copy(to, from) => one(0xbf, to, from, 0, 0),
        Step::Add(to, value) => one(0x07, to, 0, 0, value),
        Step::Shift(to, value) => one(0x77, to, 0, 0, value),
        Step::Mask(to, value) => one(0x57, to, 0, 0, value),
        Step::Word(to, from, offset) => one(0x61, to, from, offset, 0),
        Step::Long(to, from, offset) => one(0x79, to, from, offset, 0),
        Step::Store(to, from) => one(0x7b, to, from, 0, 0),
        Step::Keep(from) => one(0x63, R10, from, WORD, 0),
        Step::Kept(to) => [one(0xbf, to, R10, 0, 0), one(0x07, to, 0, 0, WORD.into())].concat(),
        Step::Map(to, _) => [one(0x18, to, 0, 0, 0), one(0, 0, 0, 0, 0)].concat(),
        Step::Helper(number) => one(0x85, 0, 0, 0, number),
        Step::SkipIfZero(register, skip) => one(0x15, register, 0, skip, 0),
        Step::Go(skip) => one(0x05, 0, 0, skip, 0),
        Step::Exit => one(0x95, 0, 0, 0, 0),
    }
}
