//! Who each worker is: its number in the environment, its port, and the file with its process id.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::{
    config::instances::MAX_INSTANCES,
    id::{AppId, Instance},
};

/// Who each worker is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Identity {
    /// Variable with the worker's number; `NODE_APP_INSTANCE` when absent.
    pub instance_var: Option<String>,
    /// Variable whose number is raised by the worker's: the first worker has it as it is.
    pub increment_var: Option<String>,
    /// What `PORT` is, when no variable of that name was said.
    pub port: Option<u16>,
    /// File for the process id of the first worker; the others have their number before its extension.
    pub pid_file: Option<PathBuf>,
}

/// The usual variable with a worker's number.
pub const INSTANCE_VAR: &str = "NODE_APP_INSTANCE";

impl Identity {
    /// Checks what its types leave open.
    ///
    /// # Errors
    /// A lowercase fragment that names the field.
    pub fn check(&self) -> Result<(), String> {
        for (field, name) in
            [("instance_var", &self.instance_var), ("increment_var", &self.increment_var)]
        {
            let Some(name) = name else { continue };
            if name.is_empty() || name.contains(['=', '\0']) {
                return Err(format!("{field} `{}` is no name of a variable", name.escape_debug()));
            }
            if name.starts_with("CLUSTER_") {
                return Err(format!("{field} `{name}` is given to each worker in any case"));
            }
        }
        match &self.pid_file {
            Some(path) if !path.is_absolute() || path.file_name().is_none() => {
                Err(format!("pid_file {} is no absolute path of a file", path.display()))
            }
            Some(_) | None => Ok(()),
        }
    }

    /// Where the process id of a worker is written.
    pub fn pid_file_of(&self, instance: u32) -> Option<PathBuf> {
        let path = self.pid_file.as_ref()?;
        if instance == 0 {
            return Some(path.clone());
        }
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        let extension = path.extension().map(|end| format!(".{}", end.to_string_lossy()));
        Some(path.with_file_name(format!("{stem}-{instance}{}", extension.unwrap_or_default())))
    }
}

/// A number that no other worker of a daemon has, the same for every worker of a seat: PM2's `pm_id`. For the workers of
/// the first app it is their instance, as it is there.
pub fn pm_id(app: AppId, instance: Instance) -> u64 {
    u64::from(app.0) * u64::from(MAX_INSTANCES) + u64::from(instance.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_worker_has_a_file_of_its_own() {
        let identity = |path: &str| Identity { pid_file: Some(path.into()), ..Identity::default() };
        let of = |path: &str, instance| identity(path).pid_file_of(instance).unwrap();
        assert_eq!(of("/run/web.pid", 0), PathBuf::from("/run/web.pid"));
        assert_eq!(of("/run/web.pid", 2), PathBuf::from("/run/web-2.pid"));
        assert_eq!(of("/run/web", 2), PathBuf::from("/run/web-2"));
        assert!(identity("web.pid").check().is_err());
    }

    #[test]
    fn a_name_that_is_none_is_refused() {
        for name in ["", "A=B", "CLUSTER_APP"] {
            let identity = Identity { instance_var: Some(name.into()), ..Identity::default() };
            assert!(identity.check().is_err(), "{name}");
        }
    }
}
