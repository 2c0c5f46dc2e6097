//! How a process ended that is no child of this one.

use std::{
    fs,
    mem::MaybeUninit,
    os::fd::{AsRawFd as _, BorrowedFd},
};

use super::{proc, watch::ExitStatus};

/// `PIDFD_GET_INFO` of include/uapi/linux/pidfd.h, for the structure's first 64 bytes: `_IOWR(0xff, 11, 64)`.
const GET_INFO: libc::Ioctl = 0xc040_ff0b_u32 as libc::Ioctl;
/// `PIDFD_INFO_EXIT`, Linux 6.15: what is left of a process after its parent has reaped it.
const EXIT: u64 = 1 << 3;

/// `struct pidfd_info` as it was in its first version (Linux 6.13).
#[repr(C)]
struct Info {
    mask: u64,
    cgroup: u64,
    numbers: [u32; 11],
    exit_code: i32,
}

const _: () = assert!(size_of::<Info>() == 64);

/// How the process behind a pidfd has ended, which must have become readable before.
///
/// A zombie's status is in `/proc`, until its parent reaps it; from then on the kernel tells it to whoever holds a
/// pidfd, since Linux 6.15. Before that it is [`ExitStatus::Unknown`], if the parent was faster.
pub(super) fn status(process: BorrowedFd<'_>) -> ExitStatus {
    let raw = zombie(process).or_else(|| reaped(process));
    raw.map_or(ExitStatus::Unknown, ExitStatus::from_wait)
}

fn zombie(process: BorrowedFd<'_>) -> Option<i32> {
    let pid = pid_of(process)?;
    let status = proc::status_of_zombie(pid)?;
    // Not reaped meanwhile: then the number was not another's.
    (pid_of(process) == Some(pid)).then_some(status)
}

fn reaped(process: BorrowedFd<'_>) -> Option<i32> {
    // SAFETY: plain numbers; the mask says what is asked for.
    let mut info: Info = unsafe { MaybeUninit::zeroed().assume_init() };
    info.mask = EXIT;
    // SAFETY: the request is for a structure of this size, which outlives the call.
    let asked = unsafe { libc::ioctl(process.as_raw_fd(), GET_INFO, &raw mut info) };
    (asked == 0 && info.mask & EXIT != 0).then_some(info.exit_code)
}

/// Its number, as long as it has one (`pidfd_open(2)`).
fn pid_of(process: BorrowedFd<'_>) -> Option<u32> {
    let text = fs::read_to_string(format!("/proc/self/fdinfo/{}", process.as_raw_fd())).ok()?;
    text.lines().find_map(|line| line.strip_prefix("Pid:\t")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Write as _},
        os::fd::{AsFd as _, OwnedFd},
        process::{Child, Command, Stdio},
    };

    use rustix::process::{Pid, PidfdFlags, pidfd_open};

    use super::*;
    use crate::process::watch::ExitWatcher;

    #[test]
    fn the_end_of_anothers_child_is_told_after_it_was_reaped() {
        let (mut parent, grandchild) = family("exit 7", "wait; echo reaped; read more");
        let watcher = watch(&grandchild);
        let end = end(&mut parent, |out| {
            let mut said = String::new();
            out.read_line(&mut said).unwrap();
            assert_eq!(said, "reaped\n");
            watcher()
        });
        parent.wait().unwrap();
        let told = if tells_of_the_reaped() { ExitStatus::Code(7) } else { ExitStatus::Unknown };
        assert_eq!(end, told);
        drop(grandchild);
    }

    #[test]
    fn the_end_of_a_zombie_is_told_on_every_kernel() {
        let (mut parent, grandchild) =
            family("kill -9 $(cut -d' ' -f4 /proc/self/stat)", "exec sleep 100");
        let watcher = watch(&grandchild);
        let end = end(&mut parent, |_| watcher());
        assert_eq!(end, ExitStatus::Signal { signal: 9, core: false });
        assert_eq!(zombie(grandchild.as_fd()).map(ExitStatus::from_wait), Some(end));
        parent.kill().unwrap();
        parent.wait().unwrap();
    }

    /// Whether this kernel is 6.15 or later.
    fn tells_of_the_reaped() -> bool {
        let name = nix::sys::utsname::uname().unwrap();
        let mut numbers = name.release().to_str().unwrap().split(['.', '-']).map(str::parse);
        let mut next = || numbers.next().unwrap().unwrap();
        let version: (u32, u32) = (next(), next());
        version >= (6, 15)
    }

    /// A child that has a child, which does `end` when it is told to, and the pidfd of that.
    fn family(end: &str, then: &str) -> (Child, OwnedFd) {
        let script = format!("exec 3<&0; (read go; {end}) <&3 & echo $!; {then}");
        let mut parent = Command::new("/bin/sh")
            .args(["-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut byte = [0; 1];
        let mut line = String::new();
        let out = parent.stdout.as_mut().unwrap();
        while std::io::Read::read(out, &mut byte).unwrap() == 1 && byte != *b"\n" {
            line.push(char::from(byte[0]));
        }
        let pid = Pid::from_raw(line.parse().unwrap()).unwrap();
        (parent, pidfd_open(pid, PidfdFlags::empty()).unwrap())
    }

    fn watch(process: &OwnedFd) -> impl FnOnce() -> ExitStatus + use<> {
        let process = process.try_clone().unwrap();
        move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                ExitWatcher::new(process.as_fd()).unwrap().exit().await.unwrap()
            })
        }
    }

    fn end(
        parent: &mut Child,
        wait: impl FnOnce(&mut BufReader<&mut std::process::ChildStdout>) -> ExitStatus,
    ) -> ExitStatus {
        parent.stdin.as_mut().unwrap().write_all(b"go\n").unwrap();
        wait(&mut BufReader::new(parent.stdout.as_mut().unwrap()))
    }
}
