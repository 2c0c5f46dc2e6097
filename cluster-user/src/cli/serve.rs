//! `cluster serve`, which starts an app of this very program, and `cluster serve-files`, which that app is.

use std::{
    env, fs,
    net::{IpAddr, SocketAddr},
    os::unix::process::CommandExt as _,
    path::PathBuf,
    process::Command,
};

use clap::{Args, builder::FalseyValueParser};

use super::{error::Error, human, output};
use crate::{
    site::{self, Options, guard::Guard},
    supervisor::succession,
};

/// The password reaches the server through this alone: arguments are for everybody to see.
const PASSWORD: &str = "PM2_SERVE_BASIC_AUTH_PASSWORD";

/// Serves the files of a folder, as an app
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster serve                        this folder on port 8080
  cluster serve dist 80 --spa -i max   an application with pages of its own
  PM2_SERVE_BASIC_AUTH_PASSWORD=… cluster serve docs --basic-auth-username ada

Hidden files, and links that lead out of the folder, are not there; 404.html is the page for what is
not there; app.js.gz is sent for app.js to who understands that.")]
pub(super) struct Serve {
    #[command(flatten)]
    what: What,

    /// Name of the app; by default static-page-server-PORT
    #[arg(short, long)]
    name: Option<String>,

    /// How many workers: a number, or `max` for one per CPU
    #[arg(short, long, value_name = "N", default_value = "1", allow_hyphen_values = true)]
    instances: String,

    /// The password; better in `PM2_SERVE_BASIC_AUTH_PASSWORD`, or in a file
    #[arg(long, value_name = "PASSWORD", requires = "basic_auth_username")]
    basic_auth_password: Option<String>,

    /// A file with the password in its first line
    #[arg(
        long,
        value_name = "FILE",
        requires = "basic_auth_username",
        conflicts_with = "basic_auth_password"
    )]
    basic_auth_password_file: Option<PathBuf>,

    /// Print the app as JSON, in the shape of `cluster list --json`
    #[arg(long)]
    json: bool,
}

/// Serves files in the foreground: what a worker of `cluster serve` runs
#[derive(Args, Debug)]
pub(super) struct ServeFiles {
    #[command(flatten)]
    what: What,
}

/// What is served, as PM2's options and variables have it.
#[derive(Args, Debug)]
struct What {
    /// The folder
    #[arg(
        value_name = "FOLDER",
        env = "PM2_SERVE_PATH",
        hide_env_values = true,
        default_value = "."
    )]
    folder: PathBuf,

    /// The port
    #[arg(value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..))]
    number: Option<u16>,

    /// The port, as an option
    #[arg(long, value_name = "PORT", env = "PM2_SERVE_PORT", hide_env_values = true, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,

    /// The address
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "PM2_SERVE_HOST",
        hide_env_values = true,
        default_value = "0.0.0.0"
    )]
    host: String,

    /// A page that is not there is one of an application that finds its own way: the homepage is sent
    #[arg(long, env = "PM2_SERVE_SPA", hide_env_values = true, value_parser = FalseyValueParser::new())]
    spa: bool,

    /// The file that is sent for a folder
    #[arg(
        long,
        value_name = "FILE",
        env = "PM2_SERVE_HOMEPAGE",
        hide_env_values = true,
        default_value = "/index.html"
    )]
    homepage: String,

    /// Show a folder without homepage as a list of its files
    #[arg(long, visible_alias = "listing", env = "PM2_SERVE_FTP", hide_env_values = true, value_parser = FalseyValueParser::new())]
    ftp: bool,

    /// Let links lead out of the folder
    #[arg(long)]
    follow_links: bool,

    /// Let in only who knows this name and the password
    #[arg(
        long,
        value_name = "NAME",
        env = "PM2_SERVE_BASIC_AUTH_USERNAME",
        hide_env_values = true
    )]
    basic_auth_username: Option<String>,
}

impl Serve {
    pub(super) fn run(self) -> Result<(), Error> {
        let What { folder, .. } = &self.what;
        let folder = folder.canonicalize().map_err(|error| {
            let shown = human::plain(&folder.to_string_lossy());
            Error::failed(format!("failed to find folder `{shown}`: {error}"))
        })?;
        if !folder.is_dir() {
            return Err(Error::usage(format!("`{}` is no folder", folder.display())));
        }
        self.what.host()?;
        let password = match (&self.basic_auth_password, &self.basic_auth_password_file) {
            (Some(password), _) => Some(password.clone()),
            (None, Some(file)) => Some(first_line(file)?),
            (None, None) => env::var(PASSWORD).ok(),
        };
        if self.what.basic_auth_username.is_some() && password.is_none() {
            return Err(no_password());
        }
        let port = self.what.port();
        let name = self.name.unwrap_or_else(|| format!("static-page-server-{port}"));
        let program = succession::own_program();
        let mut command = Command::new(&program);
        command.arg("start").arg(&program).args(["--interpreter", "none", "--name", &name]);
        command.arg("--cwd").arg(&folder).arg(format!("--instances={}", self.instances));
        if self.json {
            command.arg("--json");
        }
        command.arg("--").arg("serve-files").arg(&folder);
        command.args(["--port", &port.to_string(), "--host", &self.what.host]);
        command.args(["--homepage", &self.what.homepage]);
        for (given, option) in [
            (self.what.spa, "--spa"),
            (self.what.ftp, "--ftp"),
            (self.what.follow_links, "--follow-links"),
        ] {
            if given {
                command.arg(option);
            }
        }
        if let Some(username) = &self.what.basic_auth_username {
            command.args(["--basic-auth-username", username]);
        }
        if let Some(password) = password {
            command.env(PASSWORD, password);
        }
        // What `start` says, and its exit code, are what there is to say.
        let error = command.exec();
        Err(Error::failed(format!("failed to start `{}`: {error}", program.display())))
    }
}

impl ServeFiles {
    pub(super) fn run(self) -> Result<(), Error> {
        let off = env::var("PM2_SERVE_BASIC_AUTH").is_ok_and(|value| value == "false");
        let guard = match self.what.basic_auth_username.clone() {
            None => None,
            Some(_) if off => None,
            Some(username) => {
                let password = env::var(PASSWORD).map_err(|_absent| no_password())?;
                Some(Guard::new(username, password))
            }
        };
        let address = SocketAddr::new(self.what.host()?, self.what.port());
        let shown = self.what.folder.display().to_string();
        let options = Options {
            folder: self.what.folder,
            address,
            spa: self.what.spa,
            homepage: self.what.homepage,
            listing: self.what.ftp,
            follow: self.what.follow_links,
            guard,
        };
        let ready = || {
            // Nobody reads it, and that is no reason not to serve.
            drop(output::answer(&format!("serving {shown} on {address}")));
        };
        site::run(options, ready).map_err(|error| {
            Error::failed(format!("failed to serve `{shown}` on {address}: {error}"))
        })
    }
}

impl What {
    fn port(&self) -> u16 {
        self.number.or(self.port).unwrap_or(8080)
    }

    fn host(&self) -> Result<IpAddr, Error> {
        let host = if self.host == "localhost" { "127.0.0.1" } else { &self.host };
        host.parse().map_err(|_name| {
            Error::usage(format!("`{}` is no address", human::plain(&self.host))).hint(
                "0.0.0.0 is every IPv4 address of this host, [::] without brackets every address",
            )
        })
    }
}

fn no_password() -> Error {
    Error::usage("there is a name for basic authentication, and no password")
        .hint(format!("set {PASSWORD}, or give --basic-auth-password-file"))
}

fn first_line(file: &PathBuf) -> Result<String, Error> {
    let shown = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Error::failed(format!("failed to read `{shown}`: {error}")))?;
    let line = text.lines().next().filter(|line| !line.is_empty());
    line.map(str::to_owned).ok_or_else(|| Error::failed(format!("`{shown}` has no password")))
}
