//! The beginning of a policy of one's own: a crate that works, beside ours.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, Result, ensure};

use crate::step;

/// Longest name: the kernel shows 15 bytes of it.
const LONGEST: usize = 40;

const FILES: [(&str, &str); 4] = [
    ("Cargo.toml", include_str!("skeleton/manifest.toml")),
    ("src/lib.rs", include_str!("skeleton/lib.rs")),
    ("src/main.rs", include_str!("skeleton/main.rs")),
    (".gitignore", "/target\n*.bpf.o\n"),
];

/// Writes a crate that is called `name` into a folder of that name. Returns the folder.
pub(super) fn write(name: &str, beside: &Path) -> Result<PathBuf> {
    check_name(name)?;
    let folder = beside.join(name);
    ensure!(!folder.exists(), "{} is there already", folder.display());
    let common = step::root().join("cluster-common");
    let common = common.to_str().context("the path of cluster-common is not UTF-8")?;
    for (file, template) in FILES {
        let path = folder.join(file);
        let parent = path.parent().unwrap_or(&folder);
        fs::create_dir_all(parent)
            .with_context(|| format!("failed to create {}", parent.display()))?;
        fs::write(&path, fill(template, name, common))
            .with_context(|| format!("failed to write {}", path.display()))?;
    }
    Ok(folder)
}

fn fill(template: &str, name: &str, common: &str) -> String {
    let quoted = common.replace('\\', "\\\\").replace('"', "\\\"");
    template
        .replace("@NAME@", name)
        .replace("@CRATE@", &name.replace('-', "_"))
        .replace("@COMMON@", &quoted)
}

fn check_name(name: &str) -> Result<()> {
    let fits = name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
        && !name.ends_with('-');
    ensure!(
        fits && name.len() <= LONGEST,
        "`{name}` is no name for a policy: small letters, digits and hyphens, a letter first, at most {LONGEST}"
    );
    // The library is called like the folder, and these are called something else.
    ensure!(
        !["core", "std", "alloc", "test", "aya-ebpf", "cluster-common"].contains(&name),
        "`{name}` is the name of a crate that a policy needs"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_skeleton_has_all_its_names_filled_in() {
        let folder = tempfile::tempdir().unwrap();
        let written = write("my-policy", folder.path()).unwrap();
        for (file, _) in FILES {
            let text = fs::read_to_string(written.join(file)).unwrap();
            assert!(!text.contains('@'), "{file}: {text}");
        }
        let program = fs::read_to_string(written.join("src/main.rs")).unwrap();
        assert!(program.contains("fn my_policy(") && program.contains("use my_policy::pick"));
        assert!(write("my-policy", folder.path()).is_err(), "nothing is overwritten");
    }

    #[test]
    fn a_name_is_one_that_a_crate_can_have() {
        for name in ["mine", "least-busy", "p2c2"] {
            assert!(check_name(name).is_ok(), "{name}");
        }
        for name in ["", "Mine", "2nd", "a_b", "a/b", "../a", "a-", "core", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
    }
}
