//! `cluster completion`: what Tab offers in bash, zsh and fish.
//!
//! The shell's part is a few lines that call this program; what is offered is decided here, so that it cannot fall
//! behind the commands, and names of apps are those that run.

mod offer;
mod place;

use std::{env, io, path::Path};

use clap::{Args, ValueEnum};
use clap_complete::env::{Bash, CompleteEnv, EnvCompleter, Fish, Zsh};

use super::{error::Error, output};

/// The variable by which a shell asks this program what to offer.
const VARIABLE: &str = "CLUSTER_COMPLETE";
/// What the shell calls, and completes for.
const PROGRAM: &str = "cluster";

/// Completes commands, options and names of apps in bash, zsh and fish
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster completion install          for the shell in $SHELL
  cluster completion install zsh      for another one
  cluster completion uninstall
  eval \"$(cluster completion bash)\"   in ~/.bashrc, where bash-completion is not installed
  cluster completion fish | source    for this shell only

install puts a file where the shell looks for it: for everybody as root, else for this user.")]
pub(super) struct Completion {
    /// Print the lines for this shell, or put them in place, or remove them
    #[arg(value_enum, value_name = "bash|zsh|fish|install|uninstall", hide_possible_values = true)]
    action: Option<Action>,

    /// For install and uninstall; by default the shell in $SHELL
    #[arg(value_enum)]
    shell: Option<Shell>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Action {
    Bash,
    Zsh,
    Fish,
    Install,
    Uninstall,
}

/// A shell that this works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Shell {
    Bash,
    Zsh,
    Fish,
}

impl Completion {
    pub(super) fn run(self) -> Result<(), Error> {
        let printed = match self.action {
            Some(Action::Bash) => Some(Shell::Bash),
            Some(Action::Zsh) => Some(Shell::Zsh),
            Some(Action::Fish) => Some(Shell::Fish),
            None => Some(Shell::current()?),
            Some(Action::Install | Action::Uninstall) => None,
        };
        if let Some(shell) = printed {
            if self.shell.is_some() {
                return Err(Error::usage("one shell at a time"));
            }
            return Ok(output::answer(&shell.script()?)?);
        }
        let shell = self.shell.map_or_else(Shell::current, Ok)?;
        let place = place::Place::of(shell, nix::unistd::Uid::effective().is_root(), |key| {
            env::var_os(key)
        })?;
        if self.action == Some(Action::Install) {
            place.install(&shell.script()?)
        } else {
            place.uninstall()
        }
    }
}

impl Shell {
    fn current() -> Result<Self, Error> {
        let shell = env::var_os("SHELL").unwrap_or_default();
        let name = Path::new(&shell).file_name().unwrap_or_default().to_string_lossy();
        Self::from_str(&name, false).map_err(|_other| {
            Error::usage(format!(
                "the shell `{}` is none of bash, zsh and fish",
                super::human::plain(&name)
            ))
            .hint("name one: cluster completion bash")
        })
    }

    /// The lines that tell the shell whom to ask.
    fn script(self) -> io::Result<String> {
        let adapter: &dyn EnvCompleter = match self {
            Self::Bash => &Bash,
            Self::Zsh => &Zsh,
            Self::Fish => &Fish,
        };
        let mut script = Vec::new();
        adapter.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
        let mut script = String::from_utf8_lossy(&script).trim().to_owned();
        if self == Self::Zsh {
            // As a file in $fpath it is read at the first Tab, which is then answered, too.
            script.push_str(
                "\nif [[ ${funcstack[1]} = _cluster ]]; then\n    _clap_dynamic_completer_cluster \"$@\"\nfi",
            );
        }
        script.push('\n');
        Ok(script)
    }
}

/// Answers a shell that asks what to offer; whether this is what the program was called for.
///
/// # Errors
/// What is wrong with the question; nobody sees it but who tries it by hand.
pub(super) fn answer(args: &[std::ffi::OsString]) -> Result<bool, clap::Error> {
    // Without a question after `--`, clap would print its own idea of the script.
    if !args.iter().any(|arg| arg == "--") {
        return Ok(false);
    }
    CompleteEnv::with_factory(|| offer::prepare(super::command()))
        .var(VARIABLE)
        .bin(PROGRAM)
        .try_complete(args.iter().cloned(), env::current_dir().ok().as_deref())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_shell_is_told_to_ask_this_program() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let script = shell.script().unwrap();
            assert!(script.contains(VARIABLE) && script.contains("cluster"), "{script}");
        }
        // As a file in $fpath its first line says what it is for.
        assert!(Shell::Zsh.script().unwrap().starts_with("#compdef cluster\n"));
    }
}
