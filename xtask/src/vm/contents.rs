//! Contents: what is built, and what of this host is put into an image.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::Context as _;
use serde::Deserialize;

use super::{
    guest::{APP, CLUSTER, MODULES, PAGES, PYTHON, TESTS, VERIFIER},
    image::Image,
    kernel::Kernel,
    plan::{self, Plan},
};
use crate::{process, step};

/// Programs of this host that tests start; one that is not here is looked for in vain there, too.
const PROGRAMS: [&str; 5] = ["ip", "setpriv", "sh", "sleep", "true"];
/// Parts of Python that servers do without.
const NOT_OF_PYTHON: [&str; 12] = [
    "test",
    "tests",
    "idlelib",
    "ensurepip",
    "lib2to3",
    "pydoc_data",
    "tkinter",
    "turtledemo",
    "distutils",
    "site-packages",
    "dist-packages",
    "unittest",
];
/// Whom tests become.
const PASSWD: &str =
    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/sh\n";
const GROUP: &str = "root:x:0:\nnogroup:x:65534:\n";

/// What was built for the machines, without what only debuggers read.
pub(super) struct Built {
    folder: PathBuf,
    /// Of this host, and where in the image they are.
    programs: Vec<(&'static str, &'static str)>,
}

impl Built {
    /// Builds it, and puts it below `cache`.
    pub(super) fn all(cache: &Path, with_tests: bool) -> anyhow::Result<Self> {
        let folder = cache.join("built");
        fs::create_dir_all(&folder)?;
        let mut programs = vec![
            ("/bin/xtask", "xtask"),
            (CLUSTER, "cluster"),
            (APP, "app"),
            (VERIFIER, "verifier"),
        ];
        programs.extend(with_tests.then_some((TESTS, "tests")));
        let built = Self { folder, programs };
        step::run(&mut step::cargo([
            "build",
            "--package",
            "cluster-user",
            "--bins",
            "--examples",
        ]))?;
        let debug = step::target().join("debug");
        built.take("cluster", &debug.join("cluster"))?;
        built.take("app", &debug.join("examples/app"))?;
        built.take("verifier", &debug.join("examples/verifier"))?;
        if with_tests {
            built.take("tests", &library_tests()?)?;
        }
        // This program is the first process of every machine.
        built.take("xtask", &env::current_exe().context("failed to find this program")?)?;
        Ok(built)
    }

    /// The program that measures the kernel programs.
    pub(super) fn verifier(&self) -> PathBuf {
        self.folder.join("verifier")
    }

    fn take(&self, name: &str, from: &Path) -> anyhow::Result<()> {
        let to = self.folder.join(name);
        process::run(Command::new("strip").arg("-o").arg(to).arg(from)).map(drop)
    }

    /// What is in the image of every machine.
    pub(super) fn image(&self) -> anyhow::Result<Image> {
        let mut image = Image::default();
        for (at, name) in &self.programs {
            image.program(at, &self.folder.join(name))?;
        }
        image.file(PAGES, &step::root().join("tests/fixtures/pages.py"))?;
        for program in PROGRAMS {
            if let Ok(path) = which::which(program) {
                image.program(&format!("/usr/bin/{program}"), &path)?;
            }
        }
        image.link("/bin/sh", "/usr/bin/sh");
        image.link("/bin/true", "/usr/bin/true");
        image.link("/bin/sleep", "/usr/bin/sleep");
        let library = "import sysconfig; print(sysconfig.get_path('stdlib'))";
        let library = process::run(Command::new(PYTHON).args(["-I", "-S", "-c", library]))?;
        image.program(PYTHON, Path::new(PYTHON))?;
        image.tree(Path::new(library.trim()), &NOT_OF_PYTHON)?;
        image.text("/etc/passwd", PASSWD);
        image.text("/etc/group", GROUP);
        image.text("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n");
        for folder in ["/proc", "/sys", "/dev", "/tmp", "/root", "/run", "/var/lib", MODULES] {
            image.folder(folder);
        }
        Ok(image)
    }
}

/// What is in the image of one machine only.
pub(super) fn of_one(kernel: &Kernel, plan: &Plan) -> anyhow::Result<Image> {
    let mut image = Image::default();
    for (module, number) in kernel.modules.iter().zip(0..) {
        let name = module.file_name().unwrap_or_default().to_string_lossy();
        image.file(&format!("{MODULES}/{number}-{name}"), module)?;
    }
    image.text(plan::PATH, serde_json::to_vec(plan)?);
    Ok(image)
}

/// The test program of the library, as cargo names it.
fn library_tests() -> anyhow::Result<PathBuf> {
    #[derive(Deserialize)]
    struct Message {
        executable: Option<PathBuf>,
        target: Option<Target>,
    }
    #[derive(Deserialize)]
    struct Target {
        name: String,
    }
    let mut cargo = step::cargo(["test", "--package", "cluster-user", "--lib", "--no-run"]);
    cargo.args(["--message-format", "json-render-diagnostics"]);
    eprintln!("▸ {}", step::show(&cargo));
    let output = cargo.stdin(Stdio::null()).stderr(Stdio::inherit()).output()?;
    anyhow::ensure!(output.status.success(), "the tests of the library do not compile");
    let said = String::from_utf8_lossy(&output.stdout);
    let messages = said.lines().filter_map(|line| serde_json::from_str::<Message>(line).ok());
    let ours = |message: Message| {
        let is_ours = message.target.is_some_and(|target| target.name == "cluster_user");
        message.executable.filter(|_| is_ours)
    };
    messages.rev().find_map(ours).context("cargo names no test program of the library")
}
