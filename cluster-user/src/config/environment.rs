//! The environment of a worker: the calling command's, less what is not the worker's business.

use std::{collections::BTreeMap, ffi::OsString, path::Path};

use super::{refusal::Refusal, user::Account};

/// Variables that mean something to one process only, or are given to each worker anew.
const KEPT_OUT: [&str; 15] = [
    "_",
    "INVOCATION_ID",
    "JOURNAL_STREAM",
    "LISTEN_FDNAMES",
    "LISTEN_FDS",
    "LISTEN_PID",
    "MAINPID",
    "NODE_APP_INSTANCE",
    "NODE_CHANNEL_FD",
    "NODE_CHANNEL_SERIALIZATION_MODE",
    "NODE_UNIQUE_ID",
    "NOTIFY_SOCKET",
    "OLDPWD",
    "WATCHDOG_PID",
    "WATCHDOG_USEC",
];

/// What the environment became.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment {
    /// What comes from the calling command, and from whom and where the worker runs.
    pub inherited: BTreeMap<String, String>,
    /// What was said of it; goes before what is inherited.
    pub variables: BTreeMap<String, String>,
    /// Names of those that were dropped because they are no UTF-8 text.
    pub dropped: Vec<String>,
}

impl Environment {
    /// The value of a variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.variables.get(name).or_else(|| self.inherited.get(name)).map(String::as_str)
    }
}

/// Builds the environment: `inherited`, then what follows from `account` and `cwd`, then what was `said`.
///
/// # Errors
/// When a variable was said that each worker is given anew, or one that no program could be given.
pub fn build(
    inherited: &[(OsString, OsString)],
    account: Option<&Account>,
    cwd: &Path,
    said: &BTreeMap<String, String>,
) -> Result<Environment, Refusal> {
    let mut environment = Environment::default();
    for (key, value) in inherited {
        match (key.to_str(), value.to_str()) {
            (Some(key), _) if ours(key) => {}
            (Some(key), Some(value)) => {
                environment.inherited.insert(key.to_owned(), value.to_owned());
            }
            (_, _) => environment.dropped.push(key.to_string_lossy().into_owned()),
        }
    }
    let mut set = |key: &str, value: String| environment.inherited.insert(key.to_owned(), value);
    if let Some(cwd) = cwd.to_str() {
        set("PWD", cwd.to_owned());
    }
    if let Some(account) = account {
        set("HOME", account.home.clone());
        set("USER", account.name.clone());
        set("LOGNAME", account.name.clone());
    }
    for (key, value) in said {
        let given = ["NODE_APP_INSTANCE", "CLUSTER_INSTANCE", "CLUSTER_APP", "NODE_CHANNEL_FD"];
        if given.contains(&key.as_str()) {
            return Err(Refusal::usage(format!("variable {key} is given to each worker"))
                .hint("leave it out, or use another name"));
        }
        if key.is_empty() || key.contains(['=', '\0']) || value.contains('\0') {
            let shown: String = key.escape_default().take(40).collect();
            return Err(Refusal::new(format!(
                "variable `{shown}` cannot be given to a program: its name is empty or has an equals sign, or there is a NUL in it"
            )));
        }
        environment.variables.insert(key.clone(), value.clone());
    }
    Ok(environment)
}

fn ours(key: &str) -> bool {
    key.is_empty() || key.starts_with("CLUSTER_") || KEPT_OUT.contains(&key)
}

#[cfg(test)]
mod tests {
    use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _};

    use super::*;

    #[test]
    fn a_worker_inherits_the_command_less_what_is_not_its_business() {
        let inherited = pairs(&[
            ("PATH", "/bin"),
            ("CLUSTER_HOME", "/x"),
            ("NOTIFY_SOCKET", "/run/x"),
            ("LISTEN_FDS", "3"),
            ("A", "1"),
        ]);
        let said = [("A".to_owned(), "2".to_owned())].into();
        let built = build(&inherited, None, Path::new("/srv"), &said).unwrap();
        let shown: Vec<_> = built.inherited.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(shown, ["A=1", "PATH=/bin", "PWD=/srv"]);
        assert_eq!(built.variables, said);
        assert_eq!(built.variable("A"), Some("2"));
    }

    #[test]
    fn what_is_no_utf8_is_dropped_and_named() {
        let mut inherited = pairs(&[("GOOD", "1")]);
        inherited.push(("BAD".into(), OsStr::from_bytes(b"\xff").to_owned()));
        let built = build(&inherited, None, Path::new("/"), &BTreeMap::new()).unwrap();
        assert_eq!(built.dropped, ["BAD"]);
        assert!(!built.inherited.contains_key("BAD"));
    }

    #[test]
    fn an_instance_number_cannot_be_typed() {
        for key in ["NODE_APP_INSTANCE", "", "A=B", "A\0"] {
            let said = [(key.to_owned(), "3".to_owned())].into();
            assert!(build(&[], None, Path::new("/"), &said).is_err(), "{key}");
        }
    }

    fn pairs(texts: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        texts.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }
}
