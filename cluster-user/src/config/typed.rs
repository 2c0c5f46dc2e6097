//! What was typed after `start`, word for word: no file, clock or environment was looked at.

use std::str::FromStr;

use clap::Args;

use super::definition::{
    Definition,
    value::{Switch, Words},
};

/// What was typed after `start`.
#[derive(Args, Clone, Debug)]
pub struct StartArgs {
    /// Script, binary, "command line", file of apps, `-` for one on standard input, or the name or id of a stopped app;
    /// by default the file of apps in this folder
    #[arg(value_name = "SCRIPT|FILE|NAME")]
    pub scripts: Vec<String>,

    /// Variable for the workers' environment; repeatable. With a file of apps also the NAME of one of its environments
    #[arg(long, value_name = "KEY=VALUE|NAME")]
    pub env: Vec<EnvArg>,

    /// Only these apps of a file
    #[arg(long, value_name = "APP,…", value_delimiter = ',')]
    pub only: Vec<String>,

    /// The same as --autorestart off
    #[arg(long, hide = true, conflicts_with = "autorestart")]
    no_autorestart: bool,

    /// The same as --autostart off
    #[arg(long, hide = true, conflicts_with = "autostart")]
    no_autostart: bool,

    #[command(flatten)]
    options: Definition,

    /// Arguments for the script
    #[arg(last = true, value_name = "ARGS")]
    pub args: Vec<String>,
}

impl StartArgs {
    /// What was said about each app.
    pub fn definition(&self) -> Definition {
        let mut definition = self.options.clone();
        let off = |said: bool| said.then_some(Switch(false));
        definition.restarting.autorestart =
            definition.restarting.autorestart.or(off(self.no_autorestart));
        definition.restarting.autostart =
            definition.restarting.autostart.or(off(self.no_autostart));
        if !self.args.is_empty() {
            definition.run.args = Some(Words(self.args.clone()));
        }
        for Variable { key, value } in self.env.iter().filter_map(EnvArg::variable) {
            definition.env.insert(key.clone(), value.clone());
        }
        definition
    }

    /// The same about one script.
    pub fn definition_of(&self, script: &str) -> Definition {
        let mut definition = self.definition();
        definition.run.script = Some(script.to_owned());
        definition
    }

    /// Which of a file's environments is meant.
    pub fn environment(&self) -> Option<&str> {
        self.env.iter().rev().find_map(EnvArg::name)
    }
}

/// What was typed after `--env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EnvArg {
    /// A variable.
    Variable(Variable),
    /// One of a file's environments: `production` for what is under `env_production`.
    Name(String),
}

impl EnvArg {
    /// The name of an environment, if it is one.
    pub fn name(&self) -> Option<&str> {
        match self {
            Self::Name(name) => Some(name),
            Self::Variable(_) => None,
        }
    }

    /// The variable, if it is one.
    pub fn variable(&self) -> Option<&Variable> {
        match self {
            Self::Variable(variable) => Some(variable),
            Self::Name(_) => None,
        }
    }
}

impl FromStr for EnvArg {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.contains('=') {
            return text.parse().map(Self::Variable);
        }
        let fits = |c: char| c.is_alphanumeric() || "_-.".contains(c);
        if text.is_empty() || !text.chars().all(fits) {
            let shown: String = text.escape_default().take(40).collect();
            return Err(format!("`{shown}` is neither KEY=VALUE nor the name of an environment"));
        }
        Ok(Self::Name(text.to_owned()))
    }
}

/// A variable as typed after `--env`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Variable {
    /// Its name, not empty.
    pub key: String,
    /// Its value.
    pub value: String,
}

impl FromStr for Variable {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let shown = || text.escape_default().take(40).collect::<String>();
        match text.split_once('=') {
            None => Err(format!("`{}` is not of the form KEY=VALUE", shown())),
            Some(("", _)) => Err(format!("`{}` has no name before the equals sign", shown())),
            Some(_) if text.contains('\0') => Err(format!("`{}` contains a NUL", shown())),
            Some((key, value)) => Ok(Self { key: key.to_owned(), value: value.to_owned() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_variable_ends_at_its_first_equals_sign() {
        let variable: Variable = "A=b=c".parse().unwrap();
        assert_eq!((variable.key.as_str(), variable.value.as_str()), ("A", "b=c"));
        assert_eq!("A=".parse::<Variable>().unwrap().value, "");
    }

    #[test]
    fn a_variable_without_name_or_with_nul_is_refused() {
        for text in ["", "A", "=b", "A=\0"] {
            assert!(text.parse::<Variable>().is_err(), "{text:?}");
        }
    }
}
