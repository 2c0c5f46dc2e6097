//! Where cgroups of ours may be made.

use std::{fs, path::PathBuf};

/// A cgroup below which the daemon may try to make its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Candidate {
    pub(super) path: PathBuf,
    /// Its depth below the top of the tree.
    pub(super) level: u32,
}

/// Tops of all cgroup v2 mounts, then this process' own cgroup in each: a user may write to the latter
/// where it was delegated.
pub(super) fn candidates() -> Vec<Candidate> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
    from(&mounts, &own)
}

fn from(mounts: &str, own: &str) -> Vec<Candidate> {
    let mounts: Vec<PathBuf> = mounts.lines().filter_map(mount_point).collect();
    // `0::/path` is the line of cgroup v2 (`cgroups(7)`); beyond a namespace's top it begins with `/..`.
    let own = own.lines().find_map(|line| line.strip_prefix("0::/"));
    let own = own.filter(|path| !path.is_empty() && !path.starts_with(".."));
    let tops = mounts.iter().map(|path| Candidate { path: path.clone(), level: 0 });
    let owns = mounts.iter().filter_map(|path| {
        let own = own?;
        let level = u32::try_from(own.split('/').count()).ok()?;
        Some(Candidate { path: path.join(own), level })
    });
    tops.chain(owns).collect()
}

/// The mount point of a line of `/proc/self/mounts` if it is of cgroup v2. It is not always at the top
/// of `/sys/fs/cgroup`: hybrid hosts have it in `unified`.
fn mount_point(line: &str) -> Option<PathBuf> {
    let mut fields = line.split(' ');
    let path = fields.nth(1)?;
    (fields.next()? == "cgroup2").then(|| PathBuf::from(unescape(path)))
}

/// Undoes the octal escapes of space, tab, newline and backslash (`fstab(5)`).
fn unescape(path: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(path.to_owned(), |path, (escape, character)| path.replace(escape, character))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mount_is_found_wherever_it_is() {
        let mounts = "tmpfs /sys/fs/cgroup tmpfs rw 0 0\n\
                      cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0\n\
                      none /mnt/a\\040b cgroup2 rw 0 0\n";
        let found = from(mounts, "1:cpu:/x\n0::/\n");
        let paths: Vec<_> = found.iter().map(|one| one.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["/sys/fs/cgroup/unified", "/mnt/a b"]);
    }

    #[test]
    fn the_own_cgroup_comes_second_with_its_depth() {
        let found = from("cgroup2 /c cgroup2 rw 0 0", "0::/user.slice/a.service\n");
        assert_eq!(found[1], Candidate { path: "/c/user.slice/a.service".into(), level: 2 });
        assert_eq!(from("cgroup2 /c cgroup2 rw 0 0", "0::/../other\n").len(), 1);
    }
}
