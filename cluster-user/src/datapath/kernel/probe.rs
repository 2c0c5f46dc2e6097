//! What this host can do of what cluster needs, each found out by trying it.

use std::{
    collections::BTreeSet,
    fs, io,
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya_obj::generated::{
    bpf_attach_type as attach, bpf_insn, bpf_map_type as map, bpf_prog_type as program,
};

use super::{
    bpf::{self, MapShape, ProgramShape},
    drain::Programs,
    ids,
    room::Room,
    selftest::{self, Moved},
    tracepoint, types,
};
use crate::datapath::{diag, feature::Feature, socket};

/// [`Feature::needed_for`] of what kernel mode cannot do without.
pub const KERNEL_MODE: &str = "kernel mode";
/// [`Feature::needed_for`] of what plain mode cannot do without.
pub const PLAIN_MODE: &str = "plain mode";

const PRIVILEGES: &str = "run the daemon as root, or give it CAP_BPF and CAP_NET_ADMIN";

/// Everything, for `doctor`. `root` is the daemon's cgroup if there is one; otherwise the hierarchy's root serves.
pub fn features(root: Option<&Path>) -> Vec<Feature> {
    let _room = Room::make();
    let mut features = needs_of_kernel_mode(root);
    features.push(migration());
    features.push(tried(
        "counting a worker's connections (sock_diag, by cgroup)",
        "draining",
        diag::traffic(1, &BTreeSet::new(), &BTreeSet::new()).map(drop).map_err(Into::into),
        |_| "Linux 5.9 or later, built with INET_DIAG".to_owned(),
    ));
    features.push(tried(
        "telling kept connections to close (sk_msg, cgroup_skb, kernel types)",
        "draining without waiting for clients",
        Programs::load().map(drop),
        |error| {
            privileges_or(
                error,
                "5.14, built with BPF_STREAM_PARSER and DEBUG_INFO_BTF, and CAP_PERFMON",
            )
        },
    ));
    features.push(tried(
        "looking at accept queues (kernel types)",
        "the guard against stalled workers, and policy queue",
        types::layout().map(drop),
        |error| privileges_or(error, "6.1, built with DEBUG_INFO_BTF, and CAP_PERFMON"),
    ));
    features.push(tried(
        "seeing when connections are taken up (tp_btf)",
        "telling how long they wait",
        types::reads().and_then(on_tracepoint),
        |error| privileges_or(error, "5.11, built with DEBUG_INFO_BTF, and CAP_PERFMON"),
    ));
    features.push(tried(
        "finding programs in the kernel again by their number",
        "taking over from a daemon that died",
        found_again(),
        |_| "run the daemon as root, or give it CAP_SYS_ADMIN".to_owned(),
    ));
    features.push(tried(
        "notifications of system calls (seccomp)",
        PLAIN_MODE,
        notifications().map_err(Into::into),
        |_| "Linux 5.0 or later, built with SECCOMP_FILTER".to_owned(),
    ));
    features
}

/// What kernel mode needs and this host lacks.
pub fn missing(root: &Path) -> Vec<Feature> {
    let _room = Room::make();
    needs_of_kernel_mode(Some(root)).into_iter().filter(|feature| !feature.ok).collect()
}

fn needs_of_kernel_mode(root: Option<&Path>) -> Vec<Feature> {
    let cgroup = ProbeCgroup::new(root);
    let hooks = hook_program();
    // Not the one above: what it does is another question.
    let attached = match (&cgroup, &plain_hook()) {
        (Ok(cgroup), Ok(hook)) => cgroup.attach(hook),
        (Err(_), _) => Err(anyhow::anyhow!("there is no cgroup to try it on")),
        (_, Err(_)) => Err(anyhow::anyhow!("there is no program to try it with")),
    };
    let kill =
        cgroup.as_ref().map_err(|_elsewhere| anyhow::anyhow!("there is no cgroup to try it on"));
    let kill = kill.and_then(ProbeCgroup::can_kill);
    vec![
        tried("cgroup v2, writable", KERNEL_MODE, cgroup.map(drop), |_| {
            "mount it (mount -t cgroup2 none /sys/fs/cgroup), and run the daemon as root; in a container, \
             let it have a cgroup of its own"
                .to_owned()
        }),
        tried("ending a whole cgroup (cgroup.kill)", "ending workers at one stroke", kill, |_| {
            "Linux 5.14 or later".to_owned()
        }),
        tried(
            "choosing sockets, migration included (sk_reuseport)",
            KERNEL_MODE,
            select(&READ_MIGRATING),
            |error| privileges_or(error, "5.14"),
        ),
        tried("taking turns (atomic addition)", KERNEL_MODE, select(&TAKE_TURN), |error| {
            privileges_or(error, "5.12")
        }),
        tried("a socket array with cookies", KERNEL_MODE, socket_array(), |error| {
            privileges_or(error, "4.19")
        }),
        tried("memory shared with programs", KERNEL_MODE, shared_array(), |error| {
            privileges_or(error, "5.5")
        }),
        tried("a ring buffer", KERNEL_MODE, ring_buffer(), |error| privileges_or(error, "5.8")),
        tried(
            "setting SO_REUSEPORT when a worker binds (cgroup/bind4)",
            KERNEL_MODE,
            hooks.map(drop),
            |error| privileges_or(error, "5.13"),
        ),
        tried("attaching programs to a cgroup", KERNEL_MODE, attached, |error| {
            privileges_or(error, "5.7")
        }),
        tried(
            "seeing workers listen (sock_ops)",
            KERNEL_MODE,
            tiny(program::BPF_PROG_TYPE_SOCK_OPS, attach::BPF_CGROUP_SOCK_OPS),
            |error| privileges_or(error, "4.15"),
        ),
        tried(
            "duplicating a worker's sockets (pidfd_getfd)",
            KERNEL_MODE,
            duplicate().map_err(Into::into),
            |_| {
                "Linux 5.6 or later, and a seccomp profile that allows pidfd_getfd; for workers of other users \
                 CAP_SYS_PTRACE"
                    .to_owned()
            },
        ),
    ]
}

fn migration() -> Feature {
    let name = "moving queued connections when a worker dies";
    let needed_for = "losing no connection in a crash";
    let hint = |_: &anyhow::Error| "Linux 6.1.175, 6.12.86, 6.18 or later".to_owned();
    match selftest::migration() {
        Ok(Moved::Yes) => tried(name, needed_for, Ok(()), hint),
        Ok(Moved::Silently) => {
            let error = anyhow::anyhow!("connections move, but their new listener is not woken");
            tried(name, needed_for, Err(error), hint)
        }
        Ok(Moved::No) => {
            tried(name, needed_for, Err(anyhow::anyhow!("connections are closed")), hint)
        }
        Err(error) => tried(name, needed_for, Err(error), hint),
    }
}

fn tried(
    name: &str,
    needed_for: &str,
    result: anyhow::Result<()>,
    hint: impl FnOnce(&anyhow::Error) -> String,
) -> Feature {
    let error = result.err();
    Feature {
        name: name.to_owned(),
        ok: error.is_none(),
        detail: error.as_ref().map(|error| format!("{error:#}")),
        hint: error.as_ref().map(hint),
        needed_for: needed_for.to_owned(),
    }
}

/// `EPERM` is a matter of privileges, anything else of the kernel's age.
fn privileges_or(error: &anyhow::Error, version: &str) -> String {
    let error = error.downcast_ref::<io::Error>();
    // The verifier says EACCES, which is of the same kind, of what it does not allow anybody.
    let denied = error.is_some_and(|error| error.raw_os_error() == Some(libc::EPERM));
    if denied {
        PRIVILEGES.to_owned()
    } else {
        let running = nix::sys::utsname::uname().map_or_else(
            |_| "unknown".to_owned(),
            |name| name.release().to_string_lossy().into_owned(),
        );
        format!("Linux {version} or later; this is {running}")
    }
}

/// A cgroup to try things on, removed when dropped.
struct ProbeCgroup(PathBuf);

impl ProbeCgroup {
    fn new(root: Option<&Path>) -> anyhow::Result<Self> {
        let parent = match root {
            Some(root) => root.to_owned(),
            None => cgroup_mount()?,
        };
        let path = parent.join(format!("cluster-probe-{}", std::process::id()));
        // One left behind by a killed process with our pid is as good.
        match fs::create_dir(&path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(error).with_context(|| format!("make {}", path.display()));
            }
            _ => {}
        }
        let made = Self(path);
        // In a plain folder one can make folders too.
        if !made.0.join("cgroup.procs").exists() {
            anyhow::bail!("{} is no cgroup", parent.display());
        }
        Ok(made)
    }

    fn can_kill(&self) -> anyhow::Result<()> {
        fs::write(self.0.join("cgroup.kill"), "1").context("write to cgroup.kill")
    }

    fn attach(&self, hook: &OwnedFd) -> anyhow::Result<()> {
        let cgroup = fs::File::open(&self.0)?;
        let attach_type = attach::BPF_CGROUP_INET4_BIND as u32;
        ids::attach(hook.as_fd(), cgroup.as_fd(), attach_type)?;
        Ok(())
    }
}

impl Drop for ProbeCgroup {
    fn drop(&mut self) {
        drop(fs::remove_dir(&self.0));
    }
}

/// Where the cgroup v2 hierarchy is: not always at the top, on hybrid hosts in `unified`.
/// The cgroup that this process is in.
///
/// # Errors
/// Where there is no cgroup v2.
pub(super) fn own_cgroup() -> anyhow::Result<PathBuf> {
    let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
    let path = own.lines().find_map(|line| line.strip_prefix("0::/"));
    Ok(cgroup_mount()?.join(path.context("it is in no cgroup")?))
}

fn cgroup_mount() -> anyhow::Result<PathBuf> {
    let mounts = fs::read_to_string("/proc/mounts").context("read /proc/mounts")?;
    let mut mounts = mounts.lines().map(|line| line.split(' '));
    let mount = mounts.find_map(|mut fields| {
        let path = fields.nth(1)?;
        (fields.next() == Some("cgroup2")).then(|| PathBuf::from(path))
    });
    mount.context("it is not mounted")
}

/// One instruction, as `bpf(2)` lays it out; `registers` is the source's number times 16 and the target's.
pub(super) const fn instruction(code: u8, registers: u8, offset: i16, value: i32) -> [u8; 8] {
    let [offset_low, offset_high] = offset.to_le_bytes();
    let [a, b, c, d] = value.to_le_bytes();
    [code, registers, offset_low, offset_high, a, b, c, d]
}

/// `r0 = 1; exit`
const ALLOW: [[u8; 8]; 2] = [instruction(0xb7, 0, 0, 1), instruction(0x95, 0, 0, 0)];

/// `bpf_setsockopt(ctx, SOL_SOCKET, SO_REUSEPORT, &1, 4)`, then [`ALLOW`].
const SHARE: [[u8; 8]; 9] = [
    instruction(0x62, 0x0a, -4, 1),
    instruction(0xb7, 2, 0, libc::SOL_SOCKET),
    instruction(0xb7, 3, 0, libc::SO_REUSEPORT),
    instruction(0xbf, 0xa4, 0, 0),
    instruction(0x07, 4, 0, -4),
    instruction(0xb7, 5, 0, 4),
    instruction(0x85, 0, 0, aya_obj::generated::bpf_func_id::BPF_FUNC_setsockopt as i32),
    ALLOW[0],
    ALLOW[1],
];

/// `r2 = ctx->migrating_sk`, then [`ALLOW`]. Before 5.14 the kernel takes the attach type for any other, and has no such field.
const READ_MIGRATING: [[u8; 8]; 3] = [instruction(0x79, 0x12, MIGRATING_SK, 0), ALLOW[0], ALLOW[1]];

/// Place of the field in `struct sk_reuseport_md` of `linux/bpf.h`.
const MIGRATING_SK: i16 = 48;

/// `r2 = atomic_fetch_add(&0, r2)`, then [`ALLOW`].
const TAKE_TURN: [[u8; 8]; 5] = [
    instruction(0xb7, 2, 0, 1),
    instruction(0x7a, 0x0a, -8, 0),
    instruction(0xdb, 0x2a, -8, ATOMIC_FETCH_ADD),
    ALLOW[0],
    ALLOW[1],
];

/// `BPF_ADD | BPF_FETCH` of `linux/bpf.h`.
const ATOMIC_FETCH_ADD: i32 = 1;

fn select(code: &[[u8; 8]]) -> anyhow::Result<()> {
    let kind = program::BPF_PROG_TYPE_SK_REUSEPORT;
    load(kind, attach::BPF_SK_REUSEPORT_SELECT_OR_MIGRATE, 0, code).map(drop)
}

fn tiny(program_type: program, attach_type: attach) -> anyhow::Result<()> {
    load(program_type, attach_type, 0, &ALLOW).map(drop)
}

fn hook_program() -> anyhow::Result<OwnedFd> {
    load(program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET4_BIND, 0, &SHARE)
}

/// A program for the same hook that does nothing.
fn plain_hook() -> anyhow::Result<OwnedFd> {
    load(program::BPF_PROG_TYPE_CGROUP_SOCK_ADDR, attach::BPF_CGROUP_INET4_BIND, 0, &ALLOW)
}

fn on_tracepoint(target: u32) -> anyhow::Result<()> {
    let program = load(program::BPF_PROG_TYPE_TRACING, attach::BPF_TRACE_RAW_TP, target, &ALLOW)?;
    Ok(tracepoint::link(program.as_fd()).map(drop)?)
}

fn load(
    program_type: program,
    attach_type: attach,
    target: u32,
    code: &[[u8; 8]],
) -> anyhow::Result<OwnedFd> {
    let bytes = code.concat();
    let instructions: Vec<bpf_insn> = aya_obj::obj::copy_instructions(&bytes)?;
    Ok(bpf::load_program(&ProgramShape {
        name: "cluster_probe",
        program_type: program_type as u32,
        attach_type: attach_type as u32,
        target,
        instructions: &instructions,
        license: c"GPL",
    })?)
}

fn found_again() -> anyhow::Result<()> {
    let program = ids::Program::of(plain_hook()?)?;
    Ok(ids::Program::open(program.id).map(drop)?)
}

fn socket_array() -> anyhow::Result<()> {
    create(map::BPF_MAP_TYPE_REUSEPORT_SOCKARRAY, 4, 8, 8, 0)
}

fn shared_array() -> anyhow::Result<()> {
    create(map::BPF_MAP_TYPE_ARRAY, 4, 8, 1, aya_obj::generated::BPF_F_MMAPABLE)
}

fn ring_buffer() -> anyhow::Result<()> {
    create(map::BPF_MAP_TYPE_RINGBUF, 0, 0, 4096, 0)
}

fn create(kind: map, key: u32, value: u32, entries: u32, flags: u32) -> anyhow::Result<()> {
    let shape = MapShape {
        map_type: kind as u32,
        key_size: key,
        value_size: value,
        max_entries: entries,
        flags,
    };
    bpf::create_map("cluster_probe", shape).map(drop)?;
    Ok(())
}

fn duplicate() -> io::Result<()> {
    let me = socket::pidfd_open(std::process::id())?;
    let file = fs::File::open("/dev/null")?;
    let copy = socket::pidfd_getfd(me.as_fd(), file.as_raw_fd())?;
    let (file, copy) = (file.metadata()?, fs::File::from(copy).metadata()?);
    if file.ino() == copy.ino() { Ok(()) } else { Err(io::Error::other("it is another file")) }
}

fn notifications() -> io::Result<()> {
    // linux/seccomp.h
    const GET_ACTION_AVAIL: libc::c_long = 2;
    const NO_FLAGS: libc::c_long = 0;
    let action: u32 = libc::SECCOMP_RET_USER_NOTIF;
    // SAFETY: the kernel reads one u32, which outlives the call.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, GET_ACTION_AVAIL, NO_FLAGS, &raw const action) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_runs_these_tests_can_do_everything() {
        for feature in features(None) {
            assert!(feature.ok, "{feature:?}");
        }
    }

    #[test]
    fn a_folder_that_is_no_cgroup_is_reported_with_a_way_out() {
        for folder in ["/proc/nonexistent", "/tmp"] {
            let missing = missing(Path::new(folder));

            let mut missing = missing.iter();
            let cgroup = missing.find(|feature| feature.name.starts_with("cgroup v2")).unwrap();
            assert!(cgroup.detail.as_ref().unwrap().contains(folder), "{cgroup:?}");
            assert!(cgroup.hint.is_some());
        }
    }
}
