//! Room: as much locked memory as the kernel wants to see before it takes programs and maps.
//!
//! Until 5.11 (`bpf: Eliminate rlimit-based memory accounting`) it counts them against a limit of 64 KiB, and says `EPERM`
//! when that is used up, as it does where privileges are missing.

use nix::sys::resource::{Resource, getrlimit, rlim_t, setrlimit};

/// While it lives, the limit is as high as may be. Nobody is started meanwhile who would inherit it.
pub(super) struct Room(Option<(rlim_t, rlim_t)>);

impl Room {
    /// Raises the limit: without `CAP_SYS_RESOURCE`, up to the hard one.
    pub(super) fn make() -> Self {
        let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_MEMLOCK) else { return Self(None) };
        let raised = setrlimit(Resource::RLIMIT_MEMLOCK, libc::RLIM_INFINITY, libc::RLIM_INFINITY)
            .or_else(|_not_permitted| setrlimit(Resource::RLIMIT_MEMLOCK, hard, hard));
        Self(raised.ok().map(|()| (soft, hard)))
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        if let Some((soft, hard)) = self.0 {
            // What could be raised can be lowered.
            setrlimit(Resource::RLIMIT_MEMLOCK, soft, hard).unwrap_or_default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_is_as_before_afterwards() {
        let before = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        let room = Room::make();
        let meanwhile = getrlimit(Resource::RLIMIT_MEMLOCK).unwrap();
        drop(room);

        assert!(meanwhile.0 >= before.1, "{meanwhile:?}");
        assert_eq!(getrlimit(Resource::RLIMIT_MEMLOCK).unwrap(), before);
    }
}
