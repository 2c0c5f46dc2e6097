//! Deploys: a server of pages in one file, which good versions and broken ones replace.

use std::fs;

use cluster_user::api::message::DeploymentView;
use serde_json::Value;

use crate::{built::fixture, command::Output, host::Host};

/// Name of the app.
pub const NAME: &str = "web";

/// A version that works.
pub fn good() -> String {
    fs::read_to_string(fixture("pages.js")).expect("the fixture can be read")
}

/// A version that works, once this has been done.
pub fn after(first: &str) -> String {
    format!("{first}\n{}", good())
}

/// A version that listens when [`Host::let_go`] was called, and not before.
pub fn held() -> String {
    after(
        "const never = new Int32Array(new SharedArrayBuffer(4));
        while (!require('node:fs').existsSync('go')) {
          Atomics.wait(never, 0, 0, 10);
        }",
    )
}

impl Host {
    /// Makes this the version that starts from now on. In one step, as a deploy should be.
    pub fn deploy(&self, version: &str) {
        let aside = self.write("web.new", version);
        fs::rename(aside, self.work().join("web.js")).expect("a file can be renamed");
    }

    /// Starts that many workers of a version that works, on 8080.
    #[track_caller]
    pub fn start_web(&self, workers: u32, options: &[&str]) -> Vec<u32> {
        self.deploy(&good());
        let workers = workers.to_string();
        self.cluster(&[&["start", "web.js", "-i", &workers], options].concat()).ok();
        self.pids(NAME)
    }

    /// Lets the workers of [`held`] listen.
    pub fn let_go(&self) {
        self.write("go", "");
    }

    /// What was deployed of an app.
    #[track_caller]
    pub fn history(&self, name: &str) -> Vec<DeploymentView> {
        let mut shown = self.cluster(&["history", name, "--json"]).ok().json();
        serde_json::from_value(shown[0]["history"].take()).expect("as `cluster history` documents")
    }
}

/// Checks that a failure is told as it should be: a lowercase fragment, and a hint.
#[track_caller]
pub fn assert_well_told(output: &Output) {
    let told = output.stderr.lines().find_map(|line| line.strip_prefix("error: "));
    let told = told.unwrap_or_else(|| panic!("no error: {output:?}"));
    assert!(told.starts_with(|first: char| !first.is_uppercase()), "{told}");
    assert!(!told.ends_with('.'), "{told}");
    assert!(output.stderr.contains("\nhint: "), "no next step: {output:?}");
}

/// The steps of a reload that was run with `--json`: every line but the last, which is of this type.
#[track_caller]
pub fn steps(output: &Output, last: &str) -> Vec<Value> {
    let lines = output
        .stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")));
    let mut lines: Vec<Value> = lines.collect();
    let end = lines.pop().unwrap_or_else(|| panic!("nothing was said: {output:?}"));
    assert_eq!(end["type"], last, "{output:?}");
    let is_step = |line: &Value| line["type"] == "rolling" || line["type"] == "notice";
    assert!(lines.iter().all(is_step), "{lines:#?}");
    lines
}
