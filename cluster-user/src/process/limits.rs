//! The daemon's limit of open descriptors, raised for itself and not for its workers.

use std::{io, sync::OnceLock};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// What the daemon was started with.
static ORIGINAL: OnceLock<libc::rlimit> = OnceLock::new();

/// Raises this process' soft limit of open descriptors to the hard one: 500 workers need some 3,000.
///
/// Workers spawned later still get the limit from before.
///
/// # Errors
/// When `setrlimit(2)` refuses.
pub fn raise_descriptors() -> io::Result<()> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    ORIGINAL.get_or_init(|| libc::rlimit { rlim_cur: soft, rlim_max: hard });
    Ok(setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?)
}

/// The limit that workers are to have; `None` when it was never raised.
pub(super) fn for_workers() -> Option<libc::rlimit> {
    ORIGINAL.get().copied()
}
