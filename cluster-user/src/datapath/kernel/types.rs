//! Where this kernel has the fields of its structures: its own description of its types (`CONFIG_DEBUG_INFO_BTF`).
//!
//! aya would read the whole of it into a tree, for 50 ms and 20 MB; here one pass is made for one structure.

use std::{fs, sync::OnceLock};

use anyhow::{Context as _, ensure};
use cluster_common::{abi::Layout, exchange::TcpSock};

const PATH: &str = "/sys/kernel/btf/vmlinux";
/// The tracepoint that tells that something was read from a TCP socket.
const READ_FROM: &str = "tcp_rcv_space_adjust";

// linux/btf.h
const MAGIC: u32 = 0xeb9f;
const STRUCT: u32 = 4;
const TYPEDEF: u32 = 8;
/// Bytes of `struct btf_type` and of `struct btf_member`.
const TYPE: usize = 12;
const MEMBER: usize = 12;
/// Bits of a member's offset, where the rest is the width of a bit field.
const OFFSET_BITS: u32 = 0x00ff_ffff;

/// What is looked for, or why it was not found.
struct Found {
    tcp_sock: Result<TcpSock, String>,
    layout: Result<Layout, String>,
    reads: Result<u32, String>,
}

/// Where `struct tcp_sock` has what the programs read.
///
/// # Errors
/// When this kernel does not describe its types, or has no such fields.
pub(super) fn tcp_sock() -> anyhow::Result<TcpSock> {
    found().tcp_sock.clone().map_err(anyhow::Error::msg)
}

/// Where the kernel has what the programs of groups read.
///
/// # Errors
/// As [`tcp_sock`].
pub(super) fn layout() -> anyhow::Result<Layout> {
    found().layout.clone().map_err(anyhow::Error::msg)
}

/// The number of the type by which the tracepoint [`READ_FROM`] is known (`btf_trace_…`, a `typedef`).
///
/// # Errors
/// When this kernel does not describe its types, or has no such tracepoint.
pub(super) fn reads() -> anyhow::Result<u32> {
    found().reads.clone().map_err(anyhow::Error::msg)
}

/// Everything, looked for once: the kernel stays the same. The description has some megabytes, and reading it a second time
/// would leave the heap that large, because the allocator takes a size that comes again for one to keep.
fn found() -> &'static Found {
    static FOUND: OnceLock<Found> = OnceLock::new();
    FOUND.get_or_init(|| match fs::read(PATH) {
        Ok(bytes) => Found::of(&bytes),
        Err(error) => {
            let why = format!("read {PATH}: {error}");
            Found { tcp_sock: Err(why.clone()), layout: Err(why.clone()), reads: Err(why) }
        }
    })
}

impl Found {
    fn of(bytes: &[u8]) -> Self {
        let tcp_sock = || {
            let [rcv_nxt, snd_nxt, copied_seq, write_seq] =
                offsets(bytes, "tcp_sock", ["rcv_nxt", "snd_nxt", "copied_seq", "write_seq"])?;
            anyhow::Ok(TcpSock { rcv_nxt, snd_nxt, copied_seq, write_seq })
        };
        let layout = || {
            let [selected] = offsets(bytes, "sk_reuseport_kern", ["selected_sk"])?;
            let [backlog] = offsets(bytes, "sock", ["sk_ack_backlog"])?;
            anyhow::Ok(Layout { selected, backlog })
        };
        let why = |error| format!("{error:#}");
        Self {
            tcp_sock: tcp_sock().map_err(why),
            layout: layout().map_err(why),
            reads: tracepoint(bytes, READ_FROM).map_err(why),
        }
    }
}

fn tracepoint(bytes: &[u8], name: &str) -> anyhow::Result<u32> {
    let types = Types::new(bytes).context("the kernel's description of its types is damaged")?;
    let wanted = format!("btf_trace_{name}");
    let (mut rest, mut number) = (types.types, 0);
    while let Some(size) = size_of_type(rest) {
        let (this, others) = rest.split_at_checked(size).context("a type is cut off")?;
        rest = others;
        // The first one has the number 1; 0 is `void`, which is not described.
        number += 1;
        if kind(this) == Some(TYPEDEF) && types.name(this) == Some(wanted.as_bytes()) {
            return Ok(number);
        }
    }
    anyhow::bail!("the kernel has no tracepoint {name}")
}

/// The offsets of fields in a structure, in bytes. Fields inside of unnamed ones are not found.
fn offsets<const COUNT: usize>(
    bytes: &[u8],
    structure: &str,
    fields: [&str; COUNT],
) -> anyhow::Result<[u32; COUNT]> {
    let types = Types::new(bytes).context("the kernel's description of its types is damaged")?;
    let mut rest = types.types;
    while let Some(size) = size_of_type(rest) {
        let (this, others) = rest.split_at_checked(size).context("a type is cut off")?;
        rest = others;
        if kind(this) == Some(STRUCT) && types.name(this) == Some(structure.as_bytes()) {
            let places = fields.map(|field| types.field(this, field));
            if places.iter().all(Option::is_some) {
                return Ok(places.map(Option::unwrap_or_default));
            }
        }
    }
    anyhow::bail!("the kernel has no {structure} with {}", fields.join(", "))
}

struct Types<'a> {
    types: &'a [u8],
    names: &'a [u8],
}

impl<'a> Types<'a> {
    fn new(bytes: &'a [u8]) -> anyhow::Result<Self> {
        let word =
            |at| u32_at(bytes, at).map(|word| word as usize).context("its header is cut off");
        ensure!(word(0)? & 0xffff == MAGIC as usize, "it does not begin as it should");
        let section = |offset: usize, length: usize| {
            let from = word(4)? + word(offset)?;
            bytes.get(from..from + word(length)?).context("a section is cut off")
        };
        Ok(Self { types: section(8, 12)?, names: section(16, 20)? })
    }

    /// The name of a type or member, both of which begin with its place.
    fn name(&self, of: &[u8]) -> Option<&'a [u8]> {
        let name = self.names.get(u32_at(of, 0)? as usize..)?;
        name.split(|&byte| byte == 0).next()
    }

    /// Offset of a field, in bytes.
    fn field(&self, structure: &[u8], name: &str) -> Option<u32> {
        let members = structure.get(TYPE..)?.chunks_exact(MEMBER);
        let mut found = members.filter(|member| self.name(member) == Some(name.as_bytes()));
        Some((u32_at(found.next()?, 8)? & OFFSET_BITS) / 8)
    }
}

fn kind(of: &[u8]) -> Option<u32> {
    Some(u32_at(of, 4)? >> 24 & 0x1f)
}

/// Bytes of the first type; `None` behind the last.
fn size_of_type(types: &[u8]) -> Option<usize> {
    let members = u32_at(types, 4)? as usize & 0xffff;
    Some(
        TYPE + match kind(types)? {
            // Integers, variables, and tags of declarations.
            1 | 14 | 17 => 4,
            // Arrays.
            3 => 12,
            // Structures, unions, sections, and enumerations of 64 bits.
            STRUCT | 5 | 15 | 19 => members * MEMBER,
            // Enumerations and prototypes.
            6 | 13 => members * 8,
            _ => 0,
        },
    )
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_kernel_has_what_the_programs_read() {
        let TcpSock { rcv_nxt, snd_nxt, copied_seq, write_seq } = tcp_sock().unwrap();
        let mut places = [rcv_nxt, snd_nxt, copied_seq, write_seq];
        places.sort_unstable();
        assert!(places.windows(2).all(|pair| pair[0] + 4 <= pair[1]), "{places:?}");
        assert!(places.iter().all(|place| place % 4 == 0 && *place > 500), "{places:?}");
    }

    #[test]
    fn what_the_kernel_does_not_have_is_not_found() {
        let bytes = fs::read(PATH).unwrap();
        assert!(offsets(&bytes, "tcp_sock", ["no_such_field"]).is_err());
        assert!(offsets(&bytes, "no_such_structure", ["rcv_nxt"]).is_err());
    }

    #[test]
    fn a_damaged_description_describes_nothing() {
        let bytes = fs::read(PATH).unwrap();
        for length in [0, 3, 23, 24, 1000, bytes.len() / 2] {
            assert!(offsets(&bytes[..length], "tcp_sock", ["rcv_nxt"]).is_err(), "{length}");
        }
        assert!(offsets(&[0; 4096], "tcp_sock", ["rcv_nxt"]).is_err());
    }
}
