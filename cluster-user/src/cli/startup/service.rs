//! Service: whose it is, what it is called, and the program that it runs.

use std::{env, path::PathBuf};

use nix::unistd::{Uid, User};

use super::{super::error::Error, not_permitted};
use crate::{
    api::message::Notice,
    config::home::{self, Home},
    supervisor::succession,
};

/// Where a user's daemon keeps everything, below the home folder.
const STATE: &str = ".local/state/cluster";

/// Folders that programs do not stay in.
const PASSING: [(&str, &str); 8] = [
    ("/target/debug/", "a build of yours"),
    ("/target/release/", "a build of yours"),
    ("/.nvm/", "one version of Node.js"),
    ("/.fnm/", "one version of Node.js"),
    ("/.asdf/", "one version of a tool"),
    ("/mise/installs/", "one version of a tool"),
    ("/node_modules/", "one project"),
    ("/tmp/", "files that do not stay"),
];

/// Whose service it is.
#[derive(Clone, Debug)]
pub(super) enum Owner {
    /// Root's own.
    Root,
    /// Another user's, on behalf of whom root acts.
    Other(String),
    /// A user's own, without root.
    Own,
}

/// The daemon as a service.
#[derive(Clone, Debug)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) owner: Owner,
    /// The program, by a path that lasts.
    pub(super) program: PathBuf,
    pub(super) home: Home,
    /// Where programs are looked for.
    pub(super) path: String,
}

impl Service {
    pub(super) fn new(
        user: Option<&str>,
        name: Option<&str>,
        folder: Option<PathBuf>,
    ) -> Result<Self, Error> {
        let (owner, home) = owner(user)?;
        let home = match folder {
            Some(folder) => Home::at(folder.join(STATE))?,
            None => home,
        };
        let name = match (name, &owner) {
            (Some(name), _) => checked(name)?,
            (None, Owner::Other(user)) => format!("cluster-{user}"),
            (None, Owner::Root | Owner::Own) => "cluster".to_owned(),
        };
        let path = env::var("PATH").unwrap_or_default();
        Ok(Self { name, owner, program: program(), home, path })
    }

    /// Makes the folder that everything is kept in, for whose it is.
    pub(super) fn create_home(&self) -> Result<(), Error> {
        match &self.owner {
            // Its own daemon does that as that user.
            Owner::Other(_) => Ok(()),
            Owner::Root | Owner::Own => Ok(self.home.create()?),
        }
    }

    /// What to think of if the program is not where programs stay.
    pub(super) fn doubt_of_program(&self) -> Option<Notice> {
        let shown = self.program.display().to_string();
        let (_, whose) = PASSING.iter().find(|(part, _)| shown.contains(part))?;
        Some(Notice {
            message: format!("the service runs {shown}, which is in a folder of {whose}"),
            hint: Some(
                "install cluster where it stays, /usr/local/bin for example, and run that one's startup"
                    .to_owned(),
            ),
        })
    }

    /// The variables of the service.
    pub(super) fn variables(&self) -> [(&'static str, String); 2] {
        [(home::VARIABLE, self.home.path().display().to_string()), ("PATH", self.path.clone())]
    }
}

/// Whose service it is, and where they keep what is theirs.
fn owner(user: Option<&str>) -> Result<(Owner, Home), Error> {
    let own = Uid::effective();
    let caller = if own.is_root() { Owner::Root } else { Owner::Own };
    let Some(user) = user else { return Ok((caller, Home::from_env()?)) };
    let found = User::from_name(user).ok().flatten().ok_or_else(|| {
        Error::failed(format!("there is no user `{}`", user.escape_debug()))
            .hint("getent passwd shows those that there are")
    })?;
    if found.uid == own {
        return Ok((caller, Home::from_env()?));
    }
    if !own.is_root() {
        return Err(not_permitted(&format!("make a service of user `{user}`"))
            .hint(format!("sudo cluster startup -u {user}")));
    }
    // CLUSTER_HOME, if somebody set it, is that of whoever runs this.
    Ok((Owner::Other(found.name), Home::at(found.dir.join(STATE))?))
}

/// The path by which this was called if that is a link to it, since an upgrade changes where a link leads; else the
/// real one.
fn program() -> PathBuf {
    let real = succession::own_program();
    let typed = env::args_os().next().unwrap_or_default();
    let found = which::which(typed).ok().and_then(|path| std::path::absolute(path).ok());
    let leads_here = |path: &PathBuf| path.canonicalize().is_ok_and(|path| path == real);
    found.filter(leads_here).unwrap_or(real)
}

fn checked(name: &str) -> Result<String, Error> {
    let name = name.strip_suffix(".service").unwrap_or(name);
    let plain = |character: char| character.is_ascii_alphanumeric() || "-_.@".contains(character);
    if name.is_empty()
        || name.starts_with(['-', '.'])
        || !name.chars().all(plain)
        || name.len() > 200
    {
        return Err(Error::usage(format!("`{}` is no name of a service", name.escape_debug()))
            .hint("letters, digits, - _ . and @ make one"));
    }
    Ok(name.to_owned())
}

/// One for tests.
#[cfg(test)]
pub(super) fn sample() -> Service {
    Service {
        name: "cluster".to_owned(),
        owner: Owner::Root,
        program: "/usr/local/bin/cluster".into(),
        home: Home::at("/var/lib/cluster").unwrap(),
        path: "/usr/local/bin:/usr/bin:/bin".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_part_of_a_path_and_of_a_command_line() {
        assert_eq!(checked("web.service").unwrap(), "web");
        for name in ["", "../x", "a b", "-x", "a/b", "a\n", "a%n", "é"] {
            assert!(checked(name).is_err(), "{name}");
        }
    }

    #[test]
    fn a_program_that_will_not_stay_is_doubted() {
        let mut service = sample();
        assert!(service.doubt_of_program().is_none());
        service.program = "/home/u/cluster/target/debug/cluster".into();
        assert!(service.doubt_of_program().unwrap().message.contains("a build of yours"));
    }
}
