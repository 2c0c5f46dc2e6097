//! Who each worker is, and its sockets: from what was said to what the daemon keeps.

use std::path::Path;

use nix::unistd::{Group, User as Entry};

use super::{
    definition,
    listen::{self, Listen, Place},
    refusal::Refusal,
    spec::{AppSpec, User, identity::Identity},
};

/// Who each worker is, and the ports to balance.
///
/// # Errors
/// A name or a path that is none.
pub(super) fn identity(
    said: &definition::Identity,
    ports: &[u16],
    cwd: &Path,
) -> Result<(Identity, Vec<u16>), Refusal> {
    let mut balanced = ports.to_vec();
    balanced.sort_unstable();
    balanced.dedup();
    let port = match balanced[..] {
        [port] => Some(port),
        _ => None,
    };
    if said.increment_var.as_deref() == Some("PORT") && port.is_some() {
        // It is that of the first worker only.
        balanced.clear();
    }
    let identity = Identity {
        instance_var: said.instance_var.clone(),
        increment_var: said.increment_var.clone(),
        port,
        pid_file: said.pid_file.as_ref().map(|path| cwd.join(path)),
    };
    identity.check().map_err(Refusal::usage)?;
    Ok((identity, balanced))
}

/// The sockets, with paths that mean the same everywhere and owners that exist.
///
/// # Errors
/// A path that is too long, an owner that is none.
pub(super) fn sockets(
    said: &[Listen],
    cwd: &Path,
    workers: Option<&User>,
) -> Result<Vec<Listen>, Refusal> {
    said.iter().map(|listen| socket(listen, cwd, workers)).collect()
}

fn socket(said: &Listen, cwd: &Path, workers: Option<&User>) -> Result<Listen, Refusal> {
    let place = match &said.place {
        Place::Inet { .. } => said.place.clone(),
        Place::Unix { path, mode, user, group } => {
            let path = cwd.join(path);
            listen::fits(&path).map_err(|error| {
                Refusal::usage(error.to_string()).hint("give it a shorter one, in /run say")
            })?;
            Place::Unix {
                path,
                mode: *mode,
                user: number(user.as_deref(), workers.map(|user| user.uid), "user", |name| {
                    Ok(Entry::from_name(name)?.map(|entry| entry.uid.as_raw()))
                })?,
                group: number(group.as_deref(), workers.map(|user| user.gid), "group", |name| {
                    Ok(Group::from_name(name)?.map(|entry| entry.gid.as_raw()))
                })?,
            }
        }
    };
    Ok(Listen { place, ..said.clone() })
}

fn number(
    said: Option<&str>,
    usual: Option<u32>,
    what: &str,
    find: impl Fn(&str) -> nix::Result<Option<u32>>,
) -> Result<Option<String>, Refusal> {
    let Some(name) = said else { return Ok(usual.map(|id| id.to_string())) };
    if name.parse::<u32>().is_ok() {
        return Ok(Some(name.to_owned()));
    }
    match find(name) {
        Ok(Some(id)) => Ok(Some(id.to_string())),
        Ok(None) => Err(Refusal::new(format!("there is no {what} `{}`", name.escape_debug()))
            .hint("getent passwd and getent group show them")),
        Err(error) => Err(Refusal::new(format!("failed to look up {what} `{name}`: {error}"))),
    }
}

/// Checks what the groups of a definition say together.
///
/// # Errors
/// A contradiction.
pub(super) fn check(spec: &AppSpec) -> Result<(), Refusal> {
    listen::check(&spec.listen, &spec.ports).map_err(Refusal::usage)?;
    let Some(name) = &spec.identity.increment_var else { return Ok(()) };
    let port = spec.identity.port.filter(|_| name == "PORT").map(|port| port.to_string());
    let value = spec.env.get(name).cloned().or(port);
    let value = value.or_else(|| spec.inherited.get(name).cloned());
    match value.map(|value| value.parse::<u32>().map_err(|_no_number| value)) {
        Some(Ok(_)) => Ok(()),
        Some(Err(value)) => {
            let value: String = value.escape_debug().take(40).collect();
            Err(Refusal::usage(format!(
                "increment_var {name} is `{value}`, no number to count from"
            )))
        }
        None => Err(Refusal::usage(format!("increment_var {name} is no variable of the app"))
            .hint(format!("say what the first worker has: --env {name}=3000"))),
    }
}
