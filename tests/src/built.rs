//! Built: where the programs under test and the fixtures are.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

/// The folder of the built programs: where this test was built.
pub fn programs() -> PathBuf {
    let this = env::current_exe().expect("a test has a path");
    let built = this.ancestors().nth(2).expect("tests are built in `deps`").to_owned();
    assert!(
        built.join("cluster").exists() && built.join("examples/app").exists(),
        "`cluster` and its examples are not built in {}: run `cargo xtask test`",
        built.display()
    );
    built
}

/// Where a fixture is.
pub fn fixture(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures").join(name);
    assert!(path.exists(), "no fixture {}", path.display());
    path.into_os_string().into_string().expect("fixtures have plain names")
}

/// Where the system's own programs are.
pub const SYSTEM_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The Go fixture as a static program, compiled once.
pub fn static_go_server() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| go_program("server"))
}

/// The Go server of pages as a static program, compiled once.
pub fn static_go_pages() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| go_program("pages"))
}

/// The Go server that takes its sockets from whoever starts it, as a static program, compiled once.
pub fn static_go_given() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| go_program("given"))
}

fn go_program(name: &str) -> PathBuf {
    let folder = programs().join("fixtures");
    let program = folder.join(format!("{name}-go"));
    let built = Command::new("go")
        .args(["build", "-o"])
        .arg(&program)
        .arg(fixture(&format!("{name}.go")))
        .envs([
            ("CGO_ENABLED", "0"),
            ("GO111MODULE", "off"),
            ("GOFLAGS", ""),
            ("PATH", SYSTEM_PATH),
        ])
        .env("GOCACHE", folder.join("go-cache"))
        .output()
        .expect("failed to run `go`");
    assert!(built.status.success(), "go build: {}", String::from_utf8_lossy(&built.stderr));
    program
}
