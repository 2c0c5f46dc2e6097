//! Depth: how far below the real top of the cgroup tree the top is that a process can see.
//!
//! Inside a cgroup namespace, as containers have one, the tree begins at the namespace's top (`cgroup_namespaces(7)`), while
//! programs in the kernel count from the real one. No file says how far apart they are; a program that compares does.

use std::{
    fs, io,
    os::{fd::AsRawFd as _, unix::fs::MetadataExt as _},
    path::Path,
};

use aya_obj::generated::{bpf_attach_type, bpf_cmd, bpf_func_id, bpf_insn, bpf_prog_type};

use super::{
    bpf::{self, ProgramShape},
    probe::instruction,
    room::Room,
};

/// Deeper than containers are nested.
const DEEPEST: u64 = 32;

/// Whether the ancestor of the caller's cgroup at level `ctx[0]` has the id `ctx[1]`.
#[expect(clippy::as_conversions, reason = "the numbers of the kernel's functions are small")]
const COMPARE: [[u8; 8]; 7] = [
    instruction(0x79, 0x16, 8, 0),
    instruction(0x79, 0x11, 0, 0),
    instruction(0x85, 0, 0, bpf_func_id::BPF_FUNC_get_current_ancestor_cgroup_id as i32),
    instruction(0xbf, 0x01, 0, 0),
    instruction(0xb7, 0, 0, 0),
    instruction(0x5d, 0x61, 1, 0),
    instruction(0xb7, 0, 0, 1),
];
const EXIT: [u8; 8] = instruction(0x95, 0, 0, 0);

/// What `BPF_PROG_TEST_RUN` takes.
#[derive(Default)]
#[repr(C)]
struct TestRun {
    program: i32,
    returned: u32,
    data_in_size: u32,
    data_out_size: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context_in_size: u32,
    context_out_size: u32,
    context_in: u64,
    context_out: u64,
    flags: u32,
    cpu: u32,
    batch_size: u32,
    padding: u32,
}

/// Depth of `top`, a cgroup, below the real top of the tree: 0 for that itself, and where it cannot be told because this
/// process is not below it.
///
/// # Errors
/// When no program can be run, which needs `CAP_PERFMON` and a Linux later than 5.10, which has no such function for it.
pub fn depth(top: &Path) -> io::Result<u32> {
    let _room = Room::make();
    // The number of a cgroup's folder is its id (kernfs).
    let id = fs::metadata(top)?.ino();
    let code: Vec<u8> = COMPARE.iter().chain([&EXIT]).flatten().copied().collect();
    let instructions: Vec<bpf_insn> =
        aya_obj::obj::copy_instructions(&code).map_err(io::Error::other)?;
    let program = bpf::load_program(&ProgramShape {
        name: "cluster_depth",
        program_type: bpf_prog_type::BPF_PROG_TYPE_RAW_TRACEPOINT as u32,
        attach_type: bpf_attach_type::BPF_CGROUP_INET_INGRESS as u32,
        target: 0,
        instructions: &instructions,
        license: c"GPL",
    })?;
    for level in 0..DEEPEST {
        let context = [level, id];
        let mut run = TestRun {
            program: program.as_raw_fd(),
            context_in_size: 16,
            context_in: context.as_ptr().expose_provenance() as u64,
            ..TestRun::default()
        };
        bpf::call_mut(bpf_cmd::BPF_PROG_TEST_RUN, &mut run)?;
        if run.returned == 1 {
            return u32::try_from(level).map_err(io::Error::other);
        }
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use std::{env, process::Command, thread};

    use super::*;

    /// Where the test below finds itself anew, inside of that cgroup.
    const WITHIN: &str = "CLUSTER_TEST_WITHIN";

    #[test]
    fn a_cgroup_knows_how_deep_it_is_only_from_within() {
        if let Ok(cgroup) = env::var(WITHIN) {
            fs::write(Path::new(&cgroup).join("cgroup.procs"), "0").unwrap();
            assert_eq!(depth(Path::new(&cgroup)).unwrap(), 1 + own_depth());
            return;
        }
        let cgroup = super::super::probe::own_cgroup().unwrap().join("cluster-depth-test");
        fs::create_dir(&cgroup).unwrap();
        assert_eq!(depth(&cgroup).unwrap(), 0, "this process is not in there");
        let this = thread::current().name().unwrap().to_owned();
        let mut again = Command::new(env::current_exe().unwrap());
        let ended = again.args(["--exact", &this]).env(WITHIN, &cgroup).output().unwrap();
        fs::remove_dir(&cgroup).unwrap();
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stdout));
    }

    /// Of the cgroup that the parent of this process is in.
    fn own_depth() -> u32 {
        let parent = std::os::unix::process::parent_id();
        let seen = fs::read_to_string(format!("/proc/{parent}/cgroup")).unwrap();
        let path = seen.lines().find_map(|line| line.strip_prefix("0::/")).unwrap();
        let levels = path.split('/').filter(|part| !part.is_empty()).count();
        u32::try_from(levels).unwrap()
    }
}
