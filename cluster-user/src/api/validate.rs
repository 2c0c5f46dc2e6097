//! What a specification from outside must fulfil; the command's own always does.

use super::message::ReloadRequest;
use crate::config::{
    duration,
    instances::{MAX_INSTANCES, Scale},
    listen, readiness, signal,
    spec::{AppSpec, watch::Watch},
};

/// Checks a specification.
///
/// # Errors
/// A lowercase fragment that names the field.
pub fn spec(spec: &AppSpec) -> Result<(), String> {
    if !(1..=MAX_INSTANCES).contains(&spec.instances) {
        return Err(format!("instances is {}, not 1 to {MAX_INSTANCES}", spec.instances));
    }
    for (name, path) in [("program", &spec.program), ("cwd", &spec.cwd)] {
        if !path.is_absolute() {
            return Err(format!("{name} is not an absolute path"));
        }
        nul(name, &path.to_string_lossy())?;
    }
    for arg in &spec.args {
        nul("args", arg)?;
    }
    for (key, value) in spec.inherited.iter().chain(&spec.env) {
        if key.is_empty() || key.contains('=') {
            return Err("env has a name that is empty or contains an equals sign".to_owned());
        }
        nul("env", key)?;
        nul("env", value)?;
    }
    if spec.ports.contains(&0) {
        return Err("ports contains 0".to_owned());
    }
    if !(1..=signal::MAX).contains(&spec.stop.signal) {
        return Err(format!("stop.signal is {}, not 1 to {}", spec.stop.signal, signal::MAX));
    }
    readiness::consistent(spec)?;
    spec.watch.as_ref().map_or(Ok(()), Watch::check)?;
    spec.recycle.check()?;
    spec.hooks.check()?;
    spec.identity.check()?;
    listen::check(&spec.listen, &spec.ports)?;
    spec.resources.check()?;
    spec.scheduling.check(spec.instances)?;
    for (name, value) in [
        ("listen_timeout", spec.listen_timeout),
        ("restart.min_uptime", spec.restart.min_uptime),
        ("restart.restart_delay", spec.restart.restart_delay),
        ("stop.drain_timeout", spec.stop.drain_timeout),
        ("stop.kill_timeout", spec.stop.kill_timeout),
        ("wait_timeout", spec.wait_timeout),
    ] {
        if value > duration::MAX {
            return Err(format!("{name} is longer than a year"));
        }
    }
    Ok(())
}

/// Checks the number of a signal.
///
/// # Errors
/// A lowercase fragment that names the field.
pub fn signal(number: i32) -> Result<(), String> {
    if (1..=signal::MAX).contains(&number) {
        return Ok(());
    }
    Err(format!("signal is {number}, not 1 to {}", signal::MAX))
}

/// Checks a reload.
///
/// # Errors
/// A lowercase fragment that names the field.
pub fn reload(request: &ReloadRequest) -> Result<(), String> {
    if request.targets.is_empty() {
        return Err("targets is empty".to_owned());
    }
    if request.pace.soak > duration::MAX {
        return Err("pace.soak is longer than a year".to_owned());
    }
    match &request.change.spec {
        Some(new) => spec(new),
        None => Ok(()),
    }
}

/// Checks a change of the number of workers.
///
/// # Errors
/// A lowercase fragment.
pub fn scale(to: Scale) -> Result<(), String> {
    let (to, by) = match to {
        Scale::To(to) => (to, 0),
        Scale::By(by) => (1, by.unsigned_abs()),
    };
    if (1..=MAX_INSTANCES).contains(&to) && by <= MAX_INSTANCES {
        return Ok(());
    }
    Err(format!("to is out of range: an app has 1 to {MAX_INSTANCES} workers"))
}

fn nul(name: &str, text: &str) -> Result<(), String> {
    if text.contains('\0') { Err(format!("{name} contains a NUL")) } else { Ok(()) }
}
