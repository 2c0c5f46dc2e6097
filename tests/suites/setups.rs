//! Set-ups as people have them, from their own files and with the frameworks they use: nothing in them knows of `cluster`.

use std::fs;

use cluster_tests::{
    built::{fixture, static_go_server},
    host::Host,
    http::{self, local},
    load::Load,
    wait,
};
use cluster_user::api::message::Status;

/// Where Debian puts Node's packages.
const MODULES: &str = "/usr/share/nodejs";

#[test]
fn an_ecosystem_file_with_a_cluster_and_a_watched_fork() {
    let host = Host::kernel();
    host.write("api.js", &node_server(8080));
    host.write("jobs.js", &node_server(8081));
    host.write(
        "ecosystem.config.js",
        "module.exports = {
  apps: [
    { name: 'api', script: './api.js', instances: 3, exec_mode: 'cluster', env_production: { NODE_ENV: 'production' } },
    {
      name: 'jobs', script: 'jobs.js', exec_mode: 'fork', watch: true, ignore_watch: ['data'],
      env: { NODE_ENV: 'development', QUEUE: 'a' }, env_production: { NODE_ENV: 'production' },
    },
  ],
};
",
    );
    host.cluster(&["start", "ecosystem.config.js", "--env", "production"]).ok();
    http::assert_exact(local(8080), 30, 3);
    let before = host.pids("jobs");
    assert_eq!(before.len(), 1);
    host.cluster(&["env", "jobs"]).ok().says("NODE_ENV=production").says("QUEUE=a");

    fs::create_dir(host.work().join("data")).unwrap();
    host.write("data/ignored", "");
    host.write("jobs.js", &format!("console.log('second');{}", node_server(8081)));
    wait::until_true("a change reloads it", || {
        let app = host.app("jobs");
        app.status == Status::Online && app.generation.0 == 2 && host.pids("jobs") != before
    });
    assert_eq!(host.app("api").generation.0, 1, "what is not watched is left alone");
    host.cluster(&["stop", "ecosystem.config.js"]).ok();
    host.cluster(&["delete", "ecosystem.config.js"]).ok().says("api").says("jobs");
}

#[test]
fn a_json_file_with_a_worker_for_each_cpu() {
    let host = Host::kernel();
    host.write("api.js", &node_server(8080));
    host.write("pm2.json", r#"{"apps":[{"script":"api.js","instances":0,"exec_mode":"cluster"}]}"#);
    host.cluster(&["start", "pm2.json"]).ok();
    let cpus = u32::try_from(std::thread::available_parallelism().unwrap().get()).unwrap();
    assert_eq!(host.app("api").instances, cpus);
    http::assert_exact(local(8080), 10 * cpus, cpus);
}

#[test]
fn an_express_app_that_says_ready_and_leaves_when_told() {
    let host = Host::kernel();
    host.write(
        "server.js",
        "const express = require('express');
const app = express();
app.get('/', (request, response) => response.send(`pid ${process.pid}`));
const server = app.listen(8080, () => process.send('ready'));
process.on('message', message => {
    if (message === 'shutdown') {
        console.log('closing');
        server.close(() => process.exit(0));
    }
});
",
    );
    let file = format!(
        "module.exports = {{ apps: [{{ name: 'web', script: 'server.js', instances: 2, exec_mode: 'cluster',
  wait_ready: true, listen_timeout: 10000, shutdown_with_message: true, kill_timeout: 5000,
  env: {{ NODE_PATH: '{MODULES}' }} }}] }};\n"
    );
    host.write("ecosystem.config.cjs", &file);
    serves(&host, "ecosystem.config.cjs", "web");
    host.cluster(&["logs", "web", "--nostream"]).ok().says("closing");
}

#[test]
fn flask_under_plain_python() {
    let host = Host::kernel();
    host.write(
        "shop.py",
        "import os
from flask import Flask
app = Flask(__name__)
@app.get('/')
def index():
    return f'pid {os.getpid()}'
app.run(port=8080)
",
    );
    python(&host, "shop.py", "");
}

#[test]
fn fastapi_under_plain_python() {
    let host = Host::kernel();
    host.write("shop.py", &format!("{FASTAPI}uvicorn.run(app, port=8080, log_level='warning')\n"));
    python(&host, "shop.py", "");
}

#[test]
fn uvicorn_with_one_process() {
    let host = Host::kernel();
    host.write("shop.py", FASTAPI);
    python(&host, "/usr/bin/uvicorn", "shop:app --port 8080");
}

#[test]
fn gunicorn_with_one_process() {
    let host = Host::kernel();
    host.write(
        "shop.py",
        "import os
def app(environ, start):
    start('200 OK', [('Content-Type', 'text/plain')])
    return [f'pid {os.getpid()}'.encode()]
",
    );
    python(&host, "/usr/bin/gunicorn", "shop:app -w 1 -b 0.0.0.0:8080");
}

#[test]
fn a_server_in_go() {
    let host = Host::kernel();
    let program = static_go_server();
    host.write(
        "cluster.toml",
        &format!("[apps.web]\nscript = '{}'\ninstances = 2\n", program.display()),
    );
    serves(&host, "cluster.toml", "web");
}

#[test]
fn an_nginx() {
    let host = Host::kernel();
    host.open_to_all();
    let (work, conf) = (host.work().display().to_string(), fixture("nginx.conf"));
    host.write(
        "cluster.yml",
        &format!("apps:\n  - name: web\n    script: nginx\n    interpreter: none\n    args: [-p, {work}, -c, {conf}]\n    instances: 2\n"),
    );
    serves(&host, "cluster.yml", "web");
}

const FASTAPI: &str = "import os
import uvicorn
from fastapi import FastAPI
app = FastAPI()
@app.get('/')
def index():
    return f'pid {os.getpid()}'
";

fn node_server(port: u16) -> String {
    format!(
        "require('http').createServer((q, r) => r.end(`pid ${{process.pid}}`)).listen({port});\n"
    )
}

/// Two workers of a Python program, from a file as PM2's users write it.
#[track_caller]
fn python(host: &Host, script: &str, args: &str) {
    // The system's own, which has the system's packages.
    let file = format!(
        r#"{{ "apps": [{{ "name": "web", "script": "{script}", "args": "{args}", "interpreter": "/usr/bin/python3",
            "exec_mode": "fork", "instances": 2, /* as it is */ }}] }}"#
    );
    host.write("ecosystem.json", &file);
    serves(host, "ecosystem.json", "web");
}

/// Two workers of a file's app have one port, and a reload of the file under load loses nothing.
#[track_caller]
fn serves(host: &Host, file: &str, app: &str) {
    host.cluster(&["start", file]).ok();
    // A program of PM2's fork mode may serve no port: one that takes its time counts as ready before it listens.
    wait::until_true("both listen", || host.app(app).ports.iter().any(|port| port.workers == 2));
    http::assert_exact(local(8080), 20, 2);
    let before = host.pids(app);
    let load = Load::start(local(8080), 3);
    host.cluster(&["reload", file]).ok();
    let score = load.stop();
    assert!(score.answered() > 0);
    assert_eq!(score.failed(), 0, "{score:?}");
    assert!(host.pids(app).iter().all(|pid| !before.contains(pid)));
    http::assert_exact(local(8080), 20, 2);
}
