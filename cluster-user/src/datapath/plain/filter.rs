//! The seccomp filter: `bind` and `listen` wait for the supervisor, everything else runs untouched.
//!
//! It only looks at architecture and number of a call. That lets the kernel work out beforehand which
//! calls it allows, and not run it for them at all (kernel: `seccomp_cache_prepare`, Linux 5.11).

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W, SECCOMP_RET_ALLOW,
    SECCOMP_RET_USER_NOTIF, sock_filter,
};

/// `AUDIT_ARCH_*` of include/uapi/linux/audit.h: machine, 64 bits, little endian.
#[cfg(target_arch = "x86_64")]
const ARCH: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCH: u32 = 0xc000_00b7;

/// Offsets of `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;

/// Numbers of the two calls. Those of the x32 ABI have a bit set and so are others.
const BIND: u32 = number(libc::SYS_bind);
const LISTEN: u32 = number(libc::SYS_listen);

/// The program, for the process that is to be seen. Calls of another architecture, such as those of a
/// 32-bit program, are allowed.
pub const PROGRAM: [sock_filter; 7] = [
    statement(BPF_LD | BPF_W | BPF_ABS, ARCHITECTURE),
    jump(ARCH, 0, 3),
    statement(BPF_LD | BPF_W | BPF_ABS, NUMBER),
    jump(BIND, 2, 0),
    jump(LISTEN, 1, 0),
    statement(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    statement(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
];

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "they count from 0")]
const fn number(call: libc::c_long) -> u32 {
    call as u32
}

#[expect(clippy::cast_possible_truncation, reason = "opcodes of classic BPF are one byte long")]
const fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Compares; both distances count from the next instruction.
const fn jump(k: u32, if_equal: u8, otherwise: u8) -> sock_filter {
    let sock_filter { code, .. } = statement(BPF_JMP | BPF_JEQ | BPF_K, k);
    sock_filter { code, jt: if_equal, jf: otherwise, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_two_calls_are_stopped() {
        let stopped: Vec<u32> =
            (0..1 << 16).filter(|number| run(ARCH, *number) == SECCOMP_RET_USER_NOTIF).collect();
        let mut wanted = [BIND, LISTEN];
        wanted.sort_unstable();
        assert_eq!(stopped, wanted);
        assert!(
            (0..1 << 16).all(|number| {
                stopped.contains(&number) || run(ARCH, number) == SECCOMP_RET_ALLOW
            })
        );
    }

    #[test]
    fn other_architectures_and_abis_are_left_alone() {
        /// `AUDIT_ARCH_I386`
        const I386: u32 = 0x4000_0003;
        /// `__X32_SYSCALL_BIT`
        const X32: u32 = 0x4000_0000;
        for number in [BIND, LISTEN, 361, 363] {
            assert_eq!(run(I386, number), SECCOMP_RET_ALLOW);
            assert_eq!(run(ARCH, number | X32), SECCOMP_RET_ALLOW);
        }
    }

    /// What the program says of a call: classic BPF as far as it is used here.
    fn run(arch: u32, number: u32) -> u32 {
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = PROGRAM[at];
            at += 1;
            match u32::from(instruction.code) {
                code if code == BPF_LD | BPF_W | BPF_ABS => {
                    accumulator = if instruction.k == NUMBER { number } else { arch };
                }
                code if code == BPF_JMP | BPF_JEQ | BPF_K => {
                    let equal = accumulator == instruction.k;
                    at += usize::from(if equal { instruction.jt } else { instruction.jf });
                }
                _ => return instruction.k,
            }
        }
    }
}
