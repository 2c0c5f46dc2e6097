//! Apps: unmodified servers in three languages, what they are asked, and the ways to break them.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::Context as _;
use cluster_proof::{load::Target, request::Kind};

use super::schedule::Fault;
use crate::{arena::Arena, process, step};

/// What a broken one binds instead of its port.
const OTHER_PORT: u16 = 1_000;

/// An app under test.
pub(crate) struct App {
    /// Its name.
    pub(crate) name: &'static str,
    /// Where it serves.
    pub(crate) port: u16,
    /// Workers at its start.
    pub(crate) workers: u32,
    /// Requests per second.
    rate: f64,
    language: Language,
    /// The file that is started and broken.
    file: PathBuf,
    /// The built program, of Go.
    program: PathBuf,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Node,
    Python,
    Go,
}

/// Name, language, port, workers, requests per second: about 40 % of two CPUs.
const APPS: [(&str, Language, u16, u32, f64); 4] = [
    ("node", Language::Node, 8001, 4, 100.0),
    ("python", Language::Python, 8002, 4, 40.0),
    ("go", Language::Go, 8003, 4, 120.0),
    ("single", Language::Node, 8004, 1, 60.0),
];

/// How often which manner of request is made.
const MIX: [(Kind, u32); 8] = [
    (Kind::Kept, 40),
    (Kind::Fresh, 26),
    (Kind::Large, 4),
    (Kind::Chunked, 10),
    (Kind::Echo, 8),
    (Kind::Late, 6),
    (Kind::SlowReader, 3),
    (Kind::SlowSender, 3),
];

/// All of them, their files written.
pub(super) fn all(arena: &Arena) -> anyhow::Result<Vec<App>> {
    let apps = APPS.iter().map(|(name, language, port, workers, rate)| {
        App::new(arena, name, *language, *port, *workers, *rate)
    });
    apps.collect()
}

impl App {
    /// One of them, its file written.
    pub(crate) fn new(
        arena: &Arena,
        name: &'static str,
        language: Language,
        port: u16,
        workers: u32,
        rate: f64,
    ) -> anyhow::Result<Self> {
        let folder = arena.path(name);
        fs::create_dir_all(&folder)?;
        let file = folder.join(match language {
            Language::Node => "pages.js",
            Language::Python => "pages.py",
            Language::Go => "pages",
        });
        let program = if language == Language::Go { go_program()? } else { PathBuf::new() };
        let app = Self { name, port, workers, rate, language, file, program };
        app.mend()?;
        Ok(app)
    }

    /// The command line that starts it.
    pub(crate) fn start(&self) -> anyhow::Result<Vec<String>> {
        let file = self.file.display().to_string();
        let (port, workers) = (format!("PORT={}", self.port), self.workers.to_string());
        let line = ["start", &file, "--name", self.name, "-i", &workers, "--env", &port];
        let mut line: Vec<String> = line.map(str::to_owned).to_vec();
        line.extend(["--listen-timeout", "8s", "--drain-timeout", "10s"].map(str::to_owned));
        if self.language == Language::Python {
            line.extend(["--interpreter".to_owned(), python()?]);
        }
        Ok(line)
    }

    /// The file that is started.
    pub(crate) fn file(&self) -> &Path {
        &self.file
    }

    /// What it is asked, with this many times the usual rate.
    pub(super) fn target(&self, factor: f64) -> Target {
        Target {
            name: self.name.to_owned(),
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, self.port)),
            rate: self.rate * factor,
            connections: 12,
            mix: MIX.to_vec(),
        }
    }

    /// Makes what starts from its file from now on fail like this.
    pub(crate) fn break_like(&self, fault: Fault) -> anyhow::Result<()> {
        let other = self.port + OTHER_PORT;
        let text = match self.language {
            Language::Node => {
                let good = source("pages.js")?;
                match fault {
                    Fault::Crash => "throw new Error('broken on purpose');\n".to_owned(),
                    Fault::Silent => "setInterval(() => {}, 1000);\n".to_owned(),
                    Fault::Leaves => format!("setTimeout(() => process.exit(3), 100);\n{good}"),
                    Fault::OtherPort => format!("process.env.PORT = '{other}';\n{good}"),
                }
            }
            Language::Python => {
                let good = source("pages.py")?;
                match fault {
                    Fault::Crash => "raise SystemExit('broken on purpose')\n".to_owned(),
                    Fault::Silent => "import time\n\ntime.sleep(3600)\n".to_owned(),
                    Fault::Leaves => format!(
                        "import os, threading\n\nthreading.Timer(0.1, lambda: os._exit(3)).start()\n{good}"
                    ),
                    Fault::OtherPort => {
                        format!("import os\n\nos.environ['PORT'] = '{other}'\n{good}")
                    }
                }
            }
            Language::Go => {
                let good = self.program.display();
                let line = match fault {
                    Fault::Crash => "echo broken on purpose >&2; exit 1".to_owned(),
                    Fault::Silent => "exec sleep 3600".to_owned(),
                    Fault::Leaves => format!("(sleep 0.1; kill -9 $$) & exec {good}"),
                    Fault::OtherPort => format!("export PORT={other}; exec {good}"),
                };
                format!("#!/bin/sh\n{line}\n")
            }
        };
        self.replace(text.as_bytes())
    }

    /// Makes what starts from its file from now on work.
    pub(crate) fn mend(&self) -> anyhow::Result<()> {
        let good = match self.language {
            Language::Node => source("pages.js")?.into_bytes(),
            Language::Python => source("pages.py")?.into_bytes(),
            Language::Go => fs::read(&self.program)?,
        };
        self.replace(&good)
    }

    /// In one step, as a deploy should; what runs keeps the file it was started from.
    fn replace(&self, contents: &[u8]) -> anyhow::Result<()> {
        let aside = self.file.with_extension("new");
        fs::write(&aside, contents)?;
        fs::set_permissions(&aside, fs::Permissions::from_mode(0o755))?;
        fs::rename(&aside, &self.file)
            .with_context(|| format!("failed to replace {}", self.file.display()))
    }
}

fn fixture(name: &str) -> PathBuf {
    step::root().join("tests/fixtures").join(name)
}

fn source(name: &str) -> anyhow::Result<String> {
    fs::read_to_string(fixture(name)).with_context(|| format!("failed to read {name}"))
}

/// Python itself: what is first on PATH may be a script that chooses one.
fn python() -> anyhow::Result<String> {
    let ask = ["-c", "import sys; print(sys.executable)"];
    Ok(process::run(Command::new("python3").args(ask))?.trim().to_owned())
}

/// The Go app, compiled once.
fn go_program() -> anyhow::Result<PathBuf> {
    let folder = step::target().join("chaos");
    fs::create_dir_all(&folder)?;
    let program = folder.join("pages-go");
    let is_newer = |than: &Path| {
        let changed = |path: &Path| fs::metadata(path).and_then(|about| about.modified()).ok();
        changed(&program) > changed(than)
    };
    if !is_newer(&fixture("pages.go")) {
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&program).arg(fixture("pages.go"));
        go.envs([("CGO_ENABLED", "0"), ("GO111MODULE", "off"), ("GOFLAGS", "")]);
        step::run(go.env("GOCACHE", folder.join("go-cache")))?;
    }
    Ok(program)
}
