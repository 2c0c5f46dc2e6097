//! Names of log files.

use crate::id::Instance;

/// Which of a worker's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Standard output.
    Out,
    /// Standard error.
    Error,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Self::Out => "out",
            Self::Error => "error",
        }
    }
}

/// `<app>-out-<instance>.log` or `<app>-error-<instance>.log`, as PM2 names them.
pub(super) fn file_name(app: &str, kind: Kind, instance: Instance) -> String {
    format!("{app}-{}-{instance}.log", kind.word())
}

/// Whether `name` is a log file of `app`, and if so, whether it is a rotated one.
pub(super) fn belongs(name: &str, app: &str, instance: Option<Instance>) -> Option<Age> {
    let rest = name.strip_prefix(app)?;
    let rest = rest.strip_prefix("-out-").or_else(|| rest.strip_prefix("-error-"))?;
    let (number, rest) = rest.split_once(".log")?;
    let number: u32 = number.parse().ok()?;
    if instance.is_some_and(|instance| instance.0 != number) {
        return None;
    }
    match rest.strip_prefix('.') {
        None if rest.is_empty() => Some(Age::Current),
        None => None,
        Some(age) => age.parse::<u32>().ok().map(|_| Age::Rotated),
    }
}

/// What becomes of a file when logs are flushed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Age {
    Current,
    Rotated,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_recognised_as_it_was_made() {
        let name = file_name("my app", Kind::Error, Instance(3));
        assert_eq!(name, "my app-error-3.log");
        assert_eq!(belongs(&name, "my app", None), Some(Age::Current));
        assert_eq!(belongs(&name, "my app", Some(Instance(3))), Some(Age::Current));
        assert_eq!(belongs(&name, "my app", Some(Instance(30))), None);
        assert_eq!(belongs("my app-out-3.log.12", "my app", None), Some(Age::Rotated));
    }

    #[test]
    fn files_of_other_apps_are_left_alone() {
        for other in ["a-out-1.log-out-0.log", "ab-out-0.log", "a-out-0.log.old", "a-out-.log", "a"]
        {
            assert_eq!(belongs(other, "a", None), None, "{other}");
        }
    }
}
