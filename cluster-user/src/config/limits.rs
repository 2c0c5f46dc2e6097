//! What the kernel takes as arguments and environment of a program, checked before it refuses.

use std::collections::BTreeMap;

use nix::sys::resource::{Resource, getrlimit};

use super::refusal::Refusal;

/// Longest single string, less its NUL (kernel: `MAX_ARG_STRLEN`, 32 pages).
const ONE: usize = 32 * 4096 - 1;
/// All strings together are at least allowed this (kernel: `ARG_MAX`) …
const LEAST: u64 = 128 * 1024;
/// … and at most this, however large the stack (kernel: three quarters of `_STK_LIM`).
const MOST: u64 = 6 * 1024 * 1024;
/// What a worker's own variables, the program's path and the kernel's own table may take.
const RESERVE: u64 = 8 * 1024;

/// Checks that a program can be executed with these.
///
/// # Errors
/// When a string or all of them are too long, or there is a NUL in one.
pub fn check(args: &[String], variables: &BTreeMap<&str, &str>) -> Result<(), Refusal> {
    let stack = getrlimit(Resource::RLIMIT_STACK).map_or(LEAST * 4, |(soft, _)| soft);
    check_with(args, variables, (stack / 4).clamp(LEAST, MOST))
}

fn check_with(
    args: &[String],
    variables: &BTreeMap<&str, &str>,
    limit: u64,
) -> Result<(), Refusal> {
    let arguments = args
        .iter()
        .enumerate()
        .map(|(at, arg)| (format!("argument {}", at + 1), arg.len(), arg.contains('\0')));
    let environment = variables.iter().map(|(key, value)| {
        (
            format!("variable {key}"),
            key.len() + 1 + value.len(),
            key.contains('\0') || value.contains('\0'),
        )
    });
    let mut all = RESERVE;
    for (what, length, nul) in arguments.chain(environment) {
        let what: String = what.escape_debug().take(80).collect();
        if nul {
            return Err(Refusal::new(format!("{what} contains a NUL")));
        }
        if length > ONE {
            return Err(Refusal::new(format!(
                "{what} is {length} bytes long; Linux takes at most {ONE} (MAX_ARG_STRLEN)"
            ))
            .hint("pass it in a file"));
        }
        let pointer = size_of::<usize>();
        all += u64::try_from(length + 1 + pointer).unwrap_or(u64::MAX);
    }
    if all > limit {
        return Err(Refusal::new(format!(
            "arguments and environment are {all} bytes together; this system takes at most {limit} (ARG_MAX)"
        ))
        .hint("pass them in a file, or raise the limit with ulimit -s"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_beyond_the_kernels_limit_is_named() {
        let args = ["a".to_owned(), "x".repeat(ONE + 1)];
        let error = check_with(&args, &BTreeMap::new(), MOST).unwrap_err();
        assert!(error.message.starts_with("argument 2 is 131072 bytes long"), "{error}");
        assert!(check_with(&["x".repeat(ONE)], &BTreeMap::new(), MOST).is_ok());
    }

    #[test]
    fn a_megabyte_passes_when_the_system_takes_it() {
        let long = "x".repeat(100_000);
        let names: Vec<_> = (0..10).map(|n| format!("V{n}")).collect();
        let variables = names.iter().map(|name| (name.as_str(), long.as_str())).collect();
        assert!(check_with(&[], &variables, 2 * 1024 * 1024).is_ok());
        let error = check_with(&[], &variables, 1_000_000).unwrap_err();
        assert!(error.message.contains("at most 1000000"), "{error}");
    }

    #[test]
    fn a_nul_is_refused() {
        let variables = [("K", "a\0b")].into();
        assert!(check_with(&[], &variables, MOST).is_err());
    }
}
