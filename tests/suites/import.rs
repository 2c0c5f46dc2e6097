//! Moving over from a real PM2: what it saved becomes a file, and its apps are taken over one by one.

use std::{fs, os::unix::fs::PermissionsExt as _};

use cluster_tests::{
    command,
    host::Host,
    http::{self, local},
    pm2::{self, Pm2},
    wait,
};

const API: &str = "
const http = require('node:http');
http.createServer((request, response) => {
  response.end(`pid ${process.pid} instance ${process.env.NODE_APP_INSTANCE} ${process.env.SECRET} ${process.env.PM2_HOME}\\n`);
}).listen(8080);
";

const ECOSYSTEM: &str = "
module.exports = { apps: [
  { name: 'api', script: 'api.js', instances: 2, exec_mode: 'cluster', env: { SECRET: 'swordfish' } },
  { name: 'work', script: 'work.js' },
] };
";

fn running(host: &Host) -> Pm2<'_> {
    host.write("api.js", API);
    host.write("work.js", "setInterval(() => {}, 1000)");
    host.write("ecosystem.config.js", ECOSYSTEM);
    let pm2 = Pm2::on(host);
    pm2.run(&["start", "ecosystem.config.js"]).ok();
    wait::until_true("PM2 serves it", || http::try_get(local(8080)).is_ok());
    pm2
}

#[test]
fn apps_are_taken_over_one_by_one() {
    pm2::install();
    let host = Host::kernel();
    let pm2 = running(&host);
    let import = || command::run(pm2.command("cluster").args(["import", "--takeover"]));
    import().fails().code(1).complains("pm2 save");
    pm2.run(&["save"]).ok();

    import().ok().says("app `api` runs here").says("app `work` runs here");

    host.assert_balanced(local(8080), 2);
    let answer = http::get(local(8080));
    assert!(answer.contains(" swordfish undefined"), "{answer}");
    assert_eq!(host.app("work").online, 1);
    assert_eq!(pm2.run(&["jlist"]).ok().json(), serde_json::json!([]));
    let file = host.work().join("cluster.toml");
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&file).unwrap();
    assert!(text.contains("SECRET = \"swordfish\"") && !text.contains("PM2_HOME"), "{text}");
    import().fails().complains("is there already");
}

#[test]
fn an_app_that_does_not_come_up_here_is_started_there_again() {
    pm2::install();
    let host = Host::plain();
    let pm2 = running(&host);
    host.write("api.js", &format!("if (!process.env.PM2_HOME) process.exit(3);\n{API}"));
    pm2.run(&["save"]).ok();

    let import = command::run(pm2.command("cluster").args(["import", "--takeover"]));

    import.fails().complains("PM2 started it again").complains("PM2 runs as before: api, work");
    assert!(host.apps().is_empty(), "nothing is left of it here");
    wait::until_true("PM2 serves it", || http::try_get(local(8080)).is_ok());
}

#[test]
fn what_is_imported_starts() {
    let host = Host::kernel();
    host.write("api.js", API);
    host.write("work.js", "setInterval(() => {}, 1000)");
    host.write("ecosystem.config.js", ECOSYSTEM);

    host.cluster(&["import", "ecosystem.config.js"]).ok().says("wrote cluster.toml with api, work");
    host.cluster(&["start", "cluster.toml"]).ok();

    host.assert_balanced(local(8080), 2);
    host.cluster(&["import", "cluster.toml", "-o", "x.toml"]).fails().complains("in the own form");
    host.write(
        "dump.pm2",
        "[{\"name\": \"web\", \"pm_exec_path\": \"/x\", \"_pm2_version\": \"9.0.0\"}]",
    );
    host.cluster(&["import", "dump.pm2", "-o", "y.toml"]).fails().complains("written by PM2 9.0.0");
    assert!(!host.work().join("x.toml").exists() && !host.work().join("y.toml").exists());
}
