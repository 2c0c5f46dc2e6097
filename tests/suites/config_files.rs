//! Files of apps: real set-ups of PM2 as they are, and files that are wrong, which change nothing.

use std::{fs, io::Write as _, process::Stdio};

use cluster_tests::{
    command,
    host::Host,
    http::{self, local},
    in_both_modes, wait,
};

/// Answers with what it was given.
const API: &str = "
const http = require('node:http');
http.createServer((request, response) => {
  response.end(`pid ${process.pid} instance ${process.env.NODE_APP_INSTANCE} ${process.env.STAGE}\\n`);
}).listen(Number(process.env.PORT || 8080));
";

/// Serves no port.
const WORK: &str = "
require('node:fs').writeFileSync('stage', String(process.env.STAGE));
setInterval(() => {}, 1000);
";

const ECOSYSTEM: &str = "
module.exports = {
  apps: [
    {
      name: 'api',
      script: './api.js',
      instances: 2,
      exec_mode: 'cluster',
      env: { PORT: 8080, STAGE: 'development' },
      env_production: { STAGE: 'production' },
    },
    {
      name: 'work',
      script: './work.js',
      exec_mode: 'fork',
      watch: true,
      ignore_watch: ['node_modules', 'stage'],
      env_production: { STAGE: 'production' },
    },
  ],
};
";

in_both_modes!(
    an_ecosystem_file_with_two_apps_works_as_it_is,
    a_json_file_with_one_app_per_cpu_works_as_it_is,
    a_file_comes_through_standard_input,
    no_malformed_file_changes_anything,
);

fn an_ecosystem_file_with_two_apps_works_as_it_is(host: &Host) {
    host.write("api.js", API);
    host.write("work.js", WORK);
    host.write("ecosystem.config.js", ECOSYSTEM);

    host.cluster(&["start", "--env", "production"]).ok();

    host.assert_balanced(local(8080), 2);
    assert!(http::get(local(8080)).contains(" production"));
    let stage = host.work().join("stage");
    let written = || fs::read_to_string(&stage).is_ok_and(|stage| stage == "production");
    wait::until_true("the other one has its variable", written);
    let before = host.until_online("work", 1).workers[0].pid;

    host.write("work.js", &format!("{WORK}// changed\n"));

    host.until("work", "another worker runs after a change", |app| {
        app.online == 1 && app.workers.iter().all(|worker| worker.pid != before)
    });
    host.assert_balanced(local(8080), 2);
}

fn a_json_file_with_one_app_per_cpu_works_as_it_is(host: &Host) {
    host.write("api.js", API);
    host.write("pm2.json", r#"{"apps":[{"script":"api.js","instances":0,"exec_mode":"cluster"}]}"#);

    host.cluster(&["start", "pm2.json"]).ok();

    let cpus = std::thread::available_parallelism().unwrap().get();
    host.assert_balanced(local(8080), u32::try_from(cpus).unwrap());
}

fn a_file_comes_through_standard_input(host: &Host) {
    host.write("api.js", API);
    let mut start = host.command("cluster");
    start.args(["start", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = start.spawn().unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"[apps.web]\nscript = 'api.js'\ninstances = 2\n").unwrap();
    drop(stdin);
    assert!(child.wait().unwrap().success());
    host.assert_balanced(local(8080), 2);
    assert_eq!(host.app("web").online, 2);
}

fn no_malformed_file_changes_anything(host: &Host) {
    host.write("api.js", API);
    host.cluster(&["start", "api.js", "-i", "2"]).ok();
    let before = host.pids("api");
    let large = format!("// {}\n", "x".repeat(100 << 20));
    for (name, text, complaint) in [
        ("a.config.js", "module.exports = {\n apps: [\n  { script: ]", "a.config.js:3:"),
        (
            "b.config.js",
            "\nthrow new Error('no database')",
            "b.config.js:2:7: throws Error: no database",
        ),
        (
            "c.config.js",
            "const a = {}; a.a = a; module.exports = a",
            "c.config.js: throws a contains itself",
        ),
        (
            "e.json",
            "{ \"apps\": [{ \"script\": \"api.js\", \"instances\": [] }] }",
            "e.json:1:47: app `api`: instances: ",
        ),
        (
            "f.json",
            "{ \"apps\": [{ \"script\": \"api.js\", \"instnces\": 2 }] }",
            "did you mean `instances`?",
        ),
        ("g.yml", "apps: &a\n  - *a\n", "g.yml:2:5: "),
        ("h.toml", "[apps.web]\nscript = \n", "h.toml:2:10: "),
        ("i.toml", "", "i.toml: is empty"),
        ("j.json", &large, "j.json: is larger than 4 MiB"),
        ("k.json", "{ \"apps\": [{ \"script\": \"gone.js\" }] }", "gone.js"),
    ] {
        host.write(name, text);
        host.cluster(&["start", name]).fails().complains(complaint);
    }
    fs::write(host.work().join("l.json"), b"{\n\xff}").unwrap();
    host.cluster(&["start", "l.json"]).fails().complains("l.json:2:1: is no UTF-8 text");
    fs::create_dir(host.work().join("m.json")).unwrap();
    host.cluster(&["start", "m.json"]).fails().complains("is a folder");
    assert_eq!(host.pids("api"), before);
    assert_eq!(host.apps().len(), 1);
}

#[test]
fn a_reload_is_refused_as_a_whole_when_this_host_cannot_do_what_the_file_wants() {
    let host = Host::plain();
    host.write("cluster.toml", "[apps.web]\nscript = 'app'\n");
    host.cluster(&["start", "cluster.toml"]).ok();
    let before = (host.pids("web"), host.app("web").spec);
    fs::create_dir(host.work().join("folder")).unwrap();
    for wrong in ["out_file = 'folder'", "require_kernel = true"] {
        host.write("cluster.toml", &format!("[apps.web]\nscript = 'app'\n{wrong}\n"));
        host.cluster(&["reload", "cluster.toml"]).fails();
        assert_eq!((host.pids("web"), host.app("web").spec), before, "{wrong}");
        assert!(host.history("web").is_empty(), "nothing was begun");
    }
}

#[test]
fn a_file_that_loops_for_ever_is_ended_and_nothing_is_started() {
    let host = Host::plain();
    host.write("a.config.js", "for (;;);");
    host.cluster(&["start", "a.config.js"]).fails().complains("has not ended after 10 s");
    assert!(!host.home().join("cluster.sock").exists());
}

#[test]
fn an_example_is_written_once_and_loads() {
    let host = Host::plain();
    host.write("server.js", API);
    host.cluster(&["init"]).ok().says("wrote cluster.toml");
    host.cluster(&["init"]).fails().code(1).complains("is there already");
    host.cluster(&["start"]).ok();
    assert!(http::get(local(8080)).contains(" development") || host.app("web").online > 0);
    let schema = host.cluster(&["schema"]).ok().json();
    assert_eq!(schema["title"], "cluster.toml");
    command::run(host.command("cluster").args(["pm2"])).ok().says("max_memory_restart");
}
