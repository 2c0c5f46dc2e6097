//! The bpf(2) calls that are needed here, each as one safe function over descriptors.
//!
//! aya's own loader reads the kernel's whole type information first (50 ms and 20 MB here), and its socket
//! array has values of four bytes, from which no cookie can be read back. Hence these few calls.

use std::{
    ffi::CStr,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
};

use aya_obj::generated::{bpf_cmd, bpf_insn};

use super::verifier::{
    BPF_LOG_LEVEL1, BPF_LOG_STATS, LOG_BYTES, NO_LOG, Refused, STATISTICS_BYTES, text,
};

/// Length of a name in the kernel, with its final zero (`BPF_OBJ_NAME_LEN`).
const NAME: usize = 16;

/// What a map is made of.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct MapShape {
    /// `BPF_MAP_TYPE_…`
    pub(super) map_type: u32,
    /// Bytes of a key.
    pub(super) key_size: u32,
    /// Bytes of a value.
    pub(super) value_size: u32,
    /// Entries; bytes of a ring buffer.
    pub(super) max_entries: u32,
    /// `BPF_F_…`
    pub(super) flags: u32,
}

/// What a program is made of.
#[derive(Clone, Copy, Debug)]
pub(super) struct ProgramShape<'a> {
    /// What the kernel shows it as; cut to 15 bytes.
    pub(super) name: &'a str,
    /// `BPF_PROG_TYPE_…`
    pub(super) program_type: u32,
    /// `BPF_…`, the attach type the verifier expects.
    pub(super) attach_type: u32,
    /// The kernel's number of the type that describes what it is attached to; 0 for most kinds.
    pub(super) target: u32,
    /// With the descriptors of its maps in place.
    pub(super) instructions: &'a [bpf_insn],
    /// Decides which helpers it may call.
    pub(super) license: &'a CStr,
}

#[repr(C)]
struct MapCreate {
    map_type: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    flags: u32,
    inner_map: u32,
    numa_node: u32,
    name: [u8; NAME],
    interface: u32,
    types: RawFd,
    key_type: u32,
    value_type: u32,
}

#[repr(C)]
struct TypesLoad {
    types: u64,
    log: u64,
    size: u32,
    log_size: u32,
    log_level: u32,
    padding: u32,
}

#[repr(C)]
struct ProgramAttach {
    target: RawFd,
    program: RawFd,
    attach_type: u32,
    flags: u32,
}

#[repr(C)]
struct Element {
    map: RawFd,
    padding: u32,
    key: u64,
    value: u64,
    flags: u64,
}

#[repr(C)]
struct ProgramLoad {
    program_type: u32,
    instruction_count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; NAME],
    interface: u32,
    attach_type: u32,
    types: RawFd,
    function_size: u32,
    functions: u64,
    function_count: u32,
    line_size: u32,
    lines: u64,
    line_count: u32,
    target: u32,
}

#[repr(C)]
struct LinkCreate {
    program: RawFd,
    target: RawFd,
    attach_type: u32,
    flags: u32,
    target_btf: u32,
    padding: u32,
}

/// What `BPF_OBJ_GET_INFO_BY_FD` takes.
#[repr(C)]
pub(super) struct ObjectInfo {
    pub(super) object: RawFd,
    /// Bytes of the description.
    pub(super) length: u32,
    /// Address of the description.
    pub(super) info: u64,
}

/// Makes a map.
///
/// # Errors
/// `EPERM` without `CAP_BPF`, `EINVAL` for a type or flag this kernel does not know.
pub(super) fn create_map(name: &str, shape: MapShape) -> io::Result<OwnedFd> {
    create(name, shape, None)
}

/// Makes a map whose keys are descriptors and whose values are kept with sockets (`BPF_MAP_TYPE_SK_STORAGE`). The kernel
/// wants to be told of what type they are (`bpf_local_storage_map_alloc_check`).
///
/// # Errors
/// As [`create_map`].
pub(super) fn create_storage(name: &str, shape: MapShape) -> io::Result<OwnedFd> {
    const INT: u32 = 1;
    const ARRAY: u32 = 3;
    let (signed_32_bits, kind) = (1 << 24 | 32, |kind: u32| kind << 24);
    let descriptions = [
        // A key: `int`.
        [1, kind(INT), 4, signed_32_bits, 0, 0],
        // A value: an array of the type below.
        [0, kind(ARRAY), 0, 3, 1, shape.value_size],
        // `u8`
        [5, kind(INT), 1, 8, 0, 0],
    ];
    // An integer has one word behind the common three, an array three.
    let words = descriptions.iter().zip([4, 6, 4]).flat_map(|(words, count)| &words[..count]);
    let types = load_types(&words.copied().collect::<Vec<_>>(), b"\0int\0u8\0")?;
    create(name, shape, Some((types.as_fd(), 1, 2)))
}

/// Loads a description of types: the words of the types, and the names they refer to.
fn load_types(types: &[u32], names: &[u8]) -> io::Result<OwnedFd> {
    const HEADER: u32 = 24;
    // Magic number, version 1, no flags.
    const MAGIC: u32 = 0x0001_eb9f;
    let size = |length: usize| u32::try_from(length).map_err(io::Error::other);
    let (types_size, names_size) = (size(types.len() * 4)?, size(names.len())?);
    let header = [MAGIC, HEADER, 0, types_size, types_size, names_size];
    let mut bytes: Vec<u8> =
        header.iter().chain(types).flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend(names);
    descriptor(
        bpf_cmd::BPF_BTF_LOAD,
        &TypesLoad {
            types: bytes.as_ptr().expose_provenance() as u64,
            log: 0,
            size: size(bytes.len())?,
            log_size: 0,
            log_level: 0,
            padding: 0,
        },
    )
}

/// Makes a map, with its types and the numbers of those of its keys and values if they are to be told.
fn create(
    name: &str,
    shape: MapShape,
    types: Option<(BorrowedFd<'_>, u32, u32)>,
) -> io::Result<OwnedFd> {
    let (types, key_type, value_type) =
        types.map_or((0, 0, 0), |(types, key, value)| (types.as_raw_fd(), key, value));
    let MapShape { map_type, key_size, value_size, max_entries, flags } = shape;
    let name = object_name(name);
    let (inner_map, numa_node) = (0, 0);
    descriptor(
        bpf_cmd::BPF_MAP_CREATE,
        &MapCreate {
            map_type,
            key_size,
            value_size,
            max_entries,
            flags,
            inner_map,
            numa_node,
            name,
            interface: 0,
            types,
            key_type,
            value_type,
        },
    )
}

/// Makes a map read-only for user space, so that the verifier can take its contents as constants.
pub(super) fn freeze_map(map: BorrowedFd<'_>) -> io::Result<()> {
    call(bpf_cmd::BPF_MAP_FREEZE, &element(map, 0, 0)).map(drop)
}

/// Writes one element. `value` must have the size of the map's values.
pub(super) fn update(map: BorrowedFd<'_>, key: u32, value: &[u8]) -> io::Result<()> {
    call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &element(map, address(&key), value.as_ptr().addr() as u64))
        .map(drop)
}

/// Puts a connection into a map of sockets by cookie.
///
/// # Errors
/// `EOPNOTSUPP` for a socket that is not connected, `EINVAL` for one that has another protocol on top of TCP, `E2BIG` when
/// the map is full.
pub(super) fn insert_connection(
    map: BorrowedFd<'_>,
    cookie: u64,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    let (key, value) = (&raw const cookie, socket.as_raw_fd());
    let value = (&raw const value).expose_provenance() as u64;
    call(bpf_cmd::BPF_MAP_UPDATE_ELEM, &element(map, key.expose_provenance() as u64, value))
        .map(drop)
}

/// Takes a connection out again.
///
/// # Errors
/// `ENOENT` when it is not in there.
pub(super) fn remove_connection(map: BorrowedFd<'_>, cookie: u64) -> io::Result<()> {
    let key = (&raw const cookie).expose_provenance() as u64;
    call(bpf_cmd::BPF_MAP_DELETE_ELEM, &element(map, key, 0)).map(drop)
}

/// How many elements a map with keys of 8 bytes has.
#[cfg(test)]
pub(super) fn count(map: BorrowedFd<'_>) -> usize {
    let mut key = 0_u64;
    let place = (&raw mut key).expose_provenance() as u64;
    // Without a key the first one is asked for; then each is overwritten by the next.
    let next = |from| call(bpf_cmd::BPF_MAP_GET_NEXT_KEY, &element(map, from, place)).is_ok();
    let mut count = 0;
    while next(if count == 0 { 0 } else { place }) {
        count += 1;
    }
    count
}

/// Makes a program see what happens to the sockets of a map that are put in from now on.
pub(super) fn attach_to_sockets(
    program: BorrowedFd<'_>,
    map: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<()> {
    let (target, program) = (map.as_raw_fd(), program.as_raw_fd());
    call(bpf_cmd::BPF_PROG_ATTACH, &ProgramAttach { target, program, attach_type, flags: 0 })
        .map(drop)
}

/// Puts a socket into one element of a socket array whose values have 8 bytes.
///
/// # Errors
/// `EBUSY` when the socket is in a slot already, `EINVAL` when it does not listen or shares no port.
pub(super) fn update_socket(
    map: BorrowedFd<'_>,
    key: u32,
    socket: BorrowedFd<'_>,
) -> io::Result<()> {
    update(map, key, &i64::from(socket.as_raw_fd()).to_ne_bytes())
}

/// Reads one element, whose value consists of `WORDS` words; of a socket array, that is the socket's cookie.
///
/// # Errors
/// `ENOENT` when there is none.
pub(super) fn lookup<const WORDS: usize>(
    map: BorrowedFd<'_>,
    key: u32,
) -> io::Result<[u64; WORDS]> {
    let mut value = [0_u64; WORDS];
    let written = value.as_mut_ptr().expose_provenance() as u64;
    call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &element(map, address(&key), written))?;
    Ok(value)
}

/// Reads one element. `value` must have the size of the map's values.
///
/// # Errors
/// `ENOENT` when there is none.
pub(super) fn read(map: BorrowedFd<'_>, key: u32, value: &mut [u8]) -> io::Result<()> {
    let written = value.as_mut_ptr().expose_provenance() as u64;
    call(bpf_cmd::BPF_MAP_LOOKUP_ELEM, &element(map, address(&key), written)).map(drop)
}

/// Removes one element.
///
/// # Errors
/// `ENOENT` when there is none.
pub(super) fn delete(map: BorrowedFd<'_>, key: u32) -> io::Result<()> {
    call(bpf_cmd::BPF_MAP_DELETE_ELEM, &element(map, address(&key), 0)).map(drop)
}

/// Loads a program.
///
/// # Errors
/// What the kernel said; when it was the verifier, it is a [`Refused`] that has its last words.
pub(super) fn load_program(shape: &ProgramShape<'_>) -> io::Result<OwnedFd> {
    // Without a log first: writing one costs more than verifying.
    let error = match load_logged(shape, NO_LOG, &mut []) {
        Ok(program) => return Ok(program),
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => return Err(error),
        Err(error) => error,
    };
    // Without instructions the reason is all there is, beside numbers.
    let mut reason = vec![0; STATISTICS_BYTES];
    if let Ok(program) = load_logged(shape, BPF_LOG_STATS, &mut reason) {
        return Ok(program);
    }
    // What does not fit is cut off: its beginning, or the end before Linux 6.4. Pages that are not written to cost nothing.
    let mut log = vec![0; LOG_BYTES];
    if let Ok(program) = load_logged(shape, BPF_LOG_LEVEL1, &mut log) {
        return Ok(program);
    }
    // The first error is the real one.
    Err(io::Error::new(error.kind(), Refused::new(error, &reason, &log)))
}

/// Loads a program and returns what the verifier says about its own work.
///
/// # Errors
/// As [`load_program`].
pub(super) fn load_counted(shape: &ProgramShape<'_>) -> io::Result<(OwnedFd, String)> {
    let mut log = vec![0; STATISTICS_BYTES];
    match load_logged(shape, BPF_LOG_STATS, &mut log) {
        Ok(program) => Ok((program, text(&log))),
        // This one has the reason.
        Err(_) => load_program(shape).map(|program| (program, String::new())),
    }
}

/// Attaches a program to a cgroup; closing the descriptor detaches it.
pub(super) fn link_to_cgroup(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    attach_type: u32,
) -> io::Result<OwnedFd> {
    descriptor(
        bpf_cmd::BPF_LINK_CREATE,
        &LinkCreate {
            program: program.as_raw_fd(),
            target: cgroup.as_raw_fd(),
            attach_type,
            flags: 0,
            target_btf: 0,
            padding: 0,
        },
    )
}

/// Attaches a program to the reuseport group of a socket, in place of whatever program it had.
pub(super) fn attach_to_group(program: BorrowedFd<'_>, socket: BorrowedFd<'_>) -> io::Result<()> {
    const LENGTH: libc::socklen_t = 4;
    let value: i32 = program.as_raw_fd();
    // SAFETY: `value` is an int that lives through the call, and its length is given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_EBPF,
            std::ptr::from_ref(&value).cast(),
            LENGTH,
        )
    };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

fn load_logged(shape: &ProgramShape<'_>, log_level: u32, log: &mut [u8]) -> io::Result<OwnedFd> {
    let count = u32::try_from(shape.instructions.len()).map_err(io::Error::other)?;
    descriptor(
        bpf_cmd::BPF_PROG_LOAD,
        &ProgramLoad {
            program_type: shape.program_type,
            instruction_count: count,
            instructions: shape.instructions.as_ptr().expose_provenance() as u64,
            license: shape.license.as_ptr().expose_provenance() as u64,
            log_level,
            log_size: u32::try_from(log.len()).map_err(io::Error::other)?,
            log: if log.is_empty() { 0 } else { log.as_mut_ptr().expose_provenance() as u64 },
            kernel_version: 0,
            flags: 0,
            name: object_name(shape.name),
            interface: 0,
            attach_type: shape.attach_type,
            types: 0,
            function_size: 0,
            functions: 0,
            function_count: 0,
            line_size: 0,
            lines: 0,
            line_count: 0,
            target: shape.target,
        },
    )
}

fn object_name(name: &str) -> [u8; NAME] {
    let mut bytes = [0; NAME];
    let allowed = name.bytes().filter(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.'));
    // The last byte stays zero.
    for (place, byte) in bytes[..NAME - 1].iter_mut().zip(allowed) {
        *place = byte;
    }
    bytes
}

fn element(map: BorrowedFd<'_>, key: u64, value: u64) -> Element {
    Element { map: map.as_raw_fd(), padding: 0, key, value, flags: 0 }
}

fn address(key: &u32) -> u64 {
    std::ptr::from_ref(key).expose_provenance() as u64
}

/// Makes a call that returns a descriptor.
pub(super) fn descriptor<T>(command: bpf_cmd, attributes: &T) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the commands used with this function return a new descriptor that nobody else has.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Makes a call. `T` must be laid out as the beginning of `union bpf_attr` for this command.
pub(super) fn call<T>(command: bpf_cmd, attributes: &T) -> io::Result<RawFd> {
    raw(command, std::ptr::from_ref(attributes).cast_mut())
}

/// As [`call`], for commands that write into their attributes.
pub(super) fn call_mut<T>(command: bpf_cmd, attributes: &mut T) -> io::Result<RawFd> {
    raw(command, std::ptr::from_mut(attributes))
}

fn raw<T>(command: bpf_cmd, attributes: *mut T) -> io::Result<RawFd> {
    // SAFETY: `attributes` is one of the structs above, laid out as the beginning of `union bpf_attr`; the
    // kernel takes what is beyond its size as zero. Addresses in it outlive the call.
    let result = unsafe {
        libc::syscall(libc::SYS_bpf, command as libc::c_long, attributes, size_of::<T>())
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        RawFd::try_from(result).map_err(io::Error::other)
    }
}
