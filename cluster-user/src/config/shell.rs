//! What users of PM2 have in their shell: variables that say what is usual.

use std::{ffi::OsString, time::Duration};

use super::{
    definition::{
        Definition,
        value::{Switch, Time},
    },
    duration,
    refusal::Refusal,
    signal::StopSignal,
};

/// Fills in what was not said and the shell has a word about.
///
/// # Errors
/// A variable with a value that it cannot have.
pub fn fill_in(said: &mut Definition, env: &[(OsString, OsString)]) -> Result<(), Refusal> {
    let variable = |name: &str| {
        let value =
            env.iter().find(|(key, _)| key == name).map(|(_, value)| value.to_string_lossy());
        value.filter(|value| !value.is_empty())
    };
    let unfit = |name: &str, value: &str, why: &str| {
        let value: String = value.escape_debug().take(40).collect();
        Refusal::usage(format!("variable {name} is `{value}`: {why}"))
            .hint(format!("unset {name}, or say it with an option"))
    };
    let time = |name: &str| match variable(name) {
        None => Ok(None),
        // Milliseconds, if it says nothing else, in both.
        Some(value) => match value.parse::<Time>() {
            Ok(Time(time)) if time <= duration::MAX && time > Duration::ZERO => {
                Ok(Some(Time(time)))
            }
            Ok(_) => Err(unfit(name, &value, "not a length of time that can be waited for")),
            Err(error) => Err(unfit(name, &value, &error.to_string())),
        },
    };
    let stopping = &mut said.stopping;
    if stopping.kill_timeout.is_none() {
        // The second is PM2's word for the same wait in its graceful reload.
        stopping.kill_timeout = match time("PM2_KILL_TIMEOUT")? {
            None => time("PM2_GRACEFUL_TIMEOUT")?,
            some => some,
        };
    }
    if stopping.kill_signal.is_none()
        && let Some(value) = variable("PM2_KILL_SIGNAL")
    {
        stopping.kill_signal = match value.parse::<StopSignal>() {
            Ok(signal) => Some(signal),
            Err(error) => return Err(unfit("PM2_KILL_SIGNAL", &value, &error.to_string())),
        };
    }
    if stopping.shutdown_with_message.is_none()
        && let Some(value) = variable("PM2_KILL_USE_MESSAGE")
    {
        stopping.shutdown_with_message = match value.parse::<Switch>() {
            Ok(switch) => Some(switch),
            Err(error) => return Err(unfit("PM2_KILL_USE_MESSAGE", &value, &error)),
        };
    }
    if said.readiness.listen_timeout.is_none() {
        said.readiness.listen_timeout = time("PM2_GRACEFUL_LISTEN_TIMEOUT")?;
    }
    if said.identity.instance_var.is_none() {
        said.identity.instance_var = variable("PM2_PROCESS_INSTANCE_VAR").map(Into::into);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shell_says_what_is_usual_and_options_go_before_it() {
        let mut said = Definition::default();
        said.stopping.kill_timeout = Some(Time(Duration::from_secs(1)));
        fill_in(
            &mut said,
            &env(&[
                ("PM2_KILL_TIMEOUT", "5000"),
                ("PM2_KILL_SIGNAL", "SIGINT"),
                ("PM2_GRACEFUL_LISTEN_TIMEOUT", "7000"),
                ("PM2_PROCESS_INSTANCE_VAR", "NUMBER"),
            ]),
        )
        .unwrap();
        assert_eq!(said.stopping.kill_timeout, Some(Time(Duration::from_secs(1))));
        assert_eq!(said.stopping.kill_signal, Some(StopSignal(2)));
        assert_eq!(said.readiness.listen_timeout, Some(Time(Duration::from_secs(7))));
        assert_eq!(said.identity.instance_var.as_deref(), Some("NUMBER"));
    }

    #[test]
    fn the_kill_timeout_goes_before_that_of_the_graceful_reload() {
        for (variables, seconds) in [
            (&[("PM2_GRACEFUL_TIMEOUT", "8000")][..], 8),
            (&[("PM2_GRACEFUL_TIMEOUT", "8000"), ("PM2_KILL_TIMEOUT", "3s")], 3),
        ] {
            let mut said = Definition::default();
            fill_in(&mut said, &env(variables)).unwrap();
            assert_eq!(said.stopping.kill_timeout, Some(Time(Duration::from_secs(seconds))));
        }
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        for (name, value) in [
            ("PM2_KILL_TIMEOUT", "soon"),
            ("PM2_KILL_TIMEOUT", "0"),
            ("PM2_KILL_SIGNAL", "SIGNONE"),
            ("PM2_KILL_USE_MESSAGE", "perhaps"),
            ("PM2_GRACEFUL_LISTEN_TIMEOUT", "-1"),
        ] {
            let refusal = fill_in(&mut Definition::default(), &env(&[(name, value)])).unwrap_err();
            assert!(refusal.message.contains(name), "{}", refusal.message);
        }
        fill_in(&mut Definition::default(), &env(&[("PM2_KILL_TIMEOUT", "")])).unwrap();
    }

    fn env(variables: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        variables.iter().map(|(key, value)| ((*key).into(), (*value).into())).collect()
    }
}
