//! What is in the kernel already: programs found again by their number, their maps, and what hangs on a cgroup.
//!
//! Nothing is pinned. A program lives for as long as something uses it (a group's sockets, a cgroup), its maps live for
//! as long as it does, and whoever has `CAP_SYS_ADMIN` gets descriptors of them by number.

use std::{
    ffi::CStr,
    io,
    mem::MaybeUninit,
    os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd, RawFd},
};

use anyhow::Context as _;
use aya_obj::generated::{BPF_F_ALLOW_MULTI, bpf_cmd, bpf_map_info, bpf_prog_info};

use super::bpf::{self, call, descriptor};

/// Maps a program of ours can have, with room for later versions.
const MAPS: usize = 64;
/// Programs looked at on one cgroup: the kernel allows 64 (`BPF_CGROUP_MAX_PROGS`).
const ATTACHED: usize = 64;

/// A loaded program, and what the kernel tells of it.
#[derive(Debug)]
pub(super) struct Program {
    fd: OwnedFd,
    /// The kernel's number of it.
    pub(super) id: u32,
    /// `BPF_PROG_TYPE_…`
    pub(super) kind: u32,
    /// Its name, cut to 15 bytes.
    pub(super) name: String,
    /// A hash of its instructions in which maps do not count.
    pub(super) tag: [u8; 8],
    /// Its instructions as the kernel has rewritten them; 0 without `CAP_BPF`.
    pub(super) instructions: u32,
    /// When it was loaded, in nanoseconds since boot.
    pub(super) loaded: u64,
    /// Numbers of its maps.
    maps: Vec<u32>,
}

impl Program {
    /// Finds a program by its number.
    ///
    /// # Errors
    /// `ENOENT` when there is none, `EPERM` without `CAP_SYS_ADMIN`.
    pub(super) fn open(id: u32) -> io::Result<Self> {
        Self::of(by_id(bpf_cmd::BPF_PROG_GET_FD_BY_ID, id)?)
    }

    /// Asks the kernel about a program.
    ///
    /// # Errors
    /// When it is no program.
    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        let mut maps = [0_u32; MAPS];
        // SAFETY: plain numbers; zero asks for nothing.
        let mut info: bpf_prog_info = unsafe { MaybeUninit::zeroed().assume_init() };
        info.nr_map_ids = u32::try_from(MAPS).unwrap_or(0);
        info.map_ids = maps.as_mut_ptr().expose_provenance() as u64;
        describe(fd.as_fd(), &mut info)?;
        let count = usize::try_from(info.nr_map_ids).unwrap_or(MAPS).min(MAPS);
        Ok(Self {
            fd,
            id: info.id,
            kind: info.type_,
            name: text(&info.name),
            tag: info.tag,
            instructions: info.xlated_prog_len / 8,
            loaded: info.load_time,
            maps: maps[..count].to_vec(),
        })
    }

    /// How often it ran and the nanoseconds that took, while the kernel counted that (`kernel.bpf_stats_enabled`); zeros
    /// when it never did.
    pub(super) fn runs(&self) -> (u64, u64) {
        // SAFETY: plain numbers; zero asks for nothing.
        let mut info: bpf_prog_info = unsafe { MaybeUninit::zeroed().assume_init() };
        // A program that is there can be asked.
        drop(describe(self.fd.as_fd(), &mut info));
        (info.run_cnt, info.run_time_ns)
    }

    /// A descriptor of one of its maps.
    ///
    /// # Errors
    /// When it has no such map, or the values of that do not have `value` bytes.
    pub(super) fn map(&self, name: &str, value: usize) -> anyhow::Result<OwnedFd> {
        let (map, info) = self.find_map(name)?;
        anyhow::ensure!(
            usize::try_from(info.value_size).is_ok_and(|size| size == value),
            "the values of map {name} have {} bytes, not {value}",
            info.value_size
        );
        Ok(map)
    }

    /// All of its maps, by name.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub(super) fn all_maps(&self) -> anyhow::Result<Vec<(String, OwnedFd)>> {
        let open = |&id: &u32| {
            let map = by_id(bpf_cmd::BPF_MAP_GET_FD_BY_ID, id).context("open a map by its id")?;
            let name = text(&map_info(map.as_fd())?.name);
            Ok((name, map))
        };
        self.maps.iter().map(open).collect()
    }

    /// Whether another program does the same with maps of the same names and shapes.
    ///
    /// # Errors
    /// Without `CAP_SYS_ADMIN`.
    pub(super) fn is_like(&self, other: &Self) -> io::Result<bool> {
        Ok(self.tag == other.tag && self.name == other.name && self.shapes()? == other.shapes()?)
    }

    /// Names and shapes of its maps, in an order of their own.
    fn shapes(&self) -> io::Result<Vec<(String, [u32; 4])>> {
        let shape = |&id: &u32| {
            let info = map_info(by_id(bpf_cmd::BPF_MAP_GET_FD_BY_ID, id)?.as_fd())?;
            let shape = [info.type_, info.key_size, info.value_size, info.max_entries];
            Ok((text(&info.name), shape))
        };
        let mut shapes = self.maps.iter().map(shape).collect::<io::Result<Vec<_>>>()?;
        shapes.sort();
        Ok(shapes)
    }

    /// The value of one entry of one of its maps, however long.
    ///
    /// # Errors
    /// When it has no such map.
    pub(super) fn value(&self, map: &str, key: u32) -> anyhow::Result<Vec<u8>> {
        Ok(value(self.find_map(map)?.0.as_fd(), key)?)
    }

    /// The kernel's number of one of its maps.
    pub(super) fn map_id(&self, name: &str) -> Option<u32> {
        self.find_map(name).ok().map(|(_, info)| info.id)
    }

    fn find_map(&self, name: &str) -> anyhow::Result<(OwnedFd, bpf_map_info)> {
        for &id in &self.maps {
            let map = by_id(bpf_cmd::BPF_MAP_GET_FD_BY_ID, id).context("open a map by its id")?;
            let info = map_info(map.as_fd())?;
            if text(&info.name) == name {
                return Ok((map, info));
            }
        }
        anyhow::bail!("program {} ({}) has no map {name}", self.id, self.name)
    }
}

impl AsFd for Program {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Numbers of all programs in the kernel, ascending; empty without `CAP_SYS_ADMIN`.
pub(super) fn all_programs() -> impl Iterator<Item = u32> {
    #[repr(C)]
    struct Next {
        after: u32,
        found: u32,
        flags: u32,
    }
    let next = |after: &u32| {
        let mut next = Next { after: *after, found: 0, flags: 0 };
        bpf::call_mut(bpf_cmd::BPF_PROG_GET_NEXT_ID, &mut next).ok().map(|_| next.found)
    };
    std::iter::successors(next(&0), next)
}

/// Attaches a program to a cgroup, beside others, until it is detached or the cgroup removed.
///
/// # Errors
/// What the kernel said.
pub(super) fn attach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let attach = Attach::new(program, cgroup, attach_type, BPF_F_ALLOW_MULTI);
    call(bpf_cmd::BPF_PROG_ATTACH, &attach).map(drop)
}

/// Takes a program off a cgroup.
///
/// # Errors
/// `ENOENT` when it is not attached there.
pub(super) fn detach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    call(bpf_cmd::BPF_PROG_DETACH, &Attach::new(program, cgroup, attach_type, 0)).map(drop)
}

/// The programs that are attached to a cgroup itself for one attach type.
///
/// # Errors
/// `EPERM` without `CAP_NET_ADMIN` or `CAP_SYS_ADMIN`.
pub(super) fn attached(cgroup: BorrowedFd<'_>, attach_type: u32) -> io::Result<Vec<Program>> {
    #[repr(C)]
    struct Query {
        cgroup: RawFd,
        kind: u32,
        asked: u32,
        attach_flags: u32,
        programs: u64,
        count: u32,
        padding: u32,
        /// Kernels that have more to tell write here, however little they were given (6.17, `revision`).
        rest: [u64; 4],
    }
    let mut ids = [0_u32; ATTACHED];
    let mut query = Query {
        cgroup: cgroup.as_raw_fd(),
        kind: attach_type,
        asked: 0,
        attach_flags: 0,
        programs: ids.as_mut_ptr().expose_provenance() as u64,
        count: u32::try_from(ATTACHED).unwrap_or(0),
        padding: 0,
        rest: [0; 4],
    };
    bpf::call_mut(bpf_cmd::BPF_PROG_QUERY, &mut query)?;
    let count = usize::try_from(query.count).unwrap_or(0).min(ATTACHED);
    let mut programs = Vec::with_capacity(count);
    for &id in &ids[..count] {
        match Program::open(id) {
            Ok(program) => programs.push(program),
            // Detached and gone meanwhile.
            Err(error) if error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(programs)
}

#[repr(C)]
struct Attach {
    cgroup: RawFd,
    program: RawFd,
    kind: u32,
    flags: u32,
    replaced: u32,
}

impl Attach {
    fn new(program: BorrowedFd<'_>, cgroup: BorrowedFd<'_>, attach_type: u32, flags: u32) -> Self {
        let (program, cgroup) = (program.as_raw_fd(), cgroup.as_raw_fd());
        Self { cgroup, program, kind: attach_type, flags, replaced: 0 }
    }
}

/// The value of one entry of a map, however long.
///
/// # Errors
/// `ENOENT` when there is none.
pub(super) fn value(map: BorrowedFd<'_>, key: u32) -> io::Result<Vec<u8>> {
    let length = map_info(map)?.value_size;
    let mut value = vec![0; usize::try_from(length).map_err(io::Error::other)?];
    bpf::read(map, key, &mut value)?;
    Ok(value)
}

/// The kernel's number of a map.
///
/// # Errors
/// When it is no map.
pub(super) fn number(map: BorrowedFd<'_>) -> io::Result<u32> {
    Ok(map_info(map)?.id)
}

fn map_info(map: BorrowedFd<'_>) -> io::Result<bpf_map_info> {
    // SAFETY: plain numbers; zero asks for nothing.
    let mut info: bpf_map_info = unsafe { MaybeUninit::zeroed().assume_init() };
    describe(map, &mut info)?;
    Ok(info)
}

fn by_id(command: bpf_cmd, id: u32) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct ById {
        id: u32,
        next: u32,
        flags: u32,
    }
    descriptor(command, &ById { id, next: 0, flags: 0 })
}

/// Lets the kernel fill in a description; it writes as much of it as it knows.
fn describe<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let length = u32::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let info = std::ptr::from_mut(info).expose_provenance() as u64;
    let request = bpf::ObjectInfo { object: object.as_raw_fd(), length, info };
    call(bpf_cmd::BPF_OBJ_GET_INFO_BY_FD, &request).map(drop)
}

fn text(name: &[libc::c_char; 16]) -> String {
    let bytes = name.map(libc::c_char::cast_unsigned);
    let text = CStr::from_bytes_until_nul(&bytes).unwrap_or_default();
    text.to_string_lossy().into_owned()
}
