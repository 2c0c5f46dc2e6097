//! Imports of whole files, and that what they come to loads.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::config::file::{Loaded, Select, read};

#[test]
fn instances_are_grouped_and_what_is_pm2s_or_the_shells_is_dropped() {
    let folder = Folder::new();
    let instance = |id: u32| {
        let mut app = folder.app("web", "api.js");
        let more = json!({
            "exec_mode": "cluster_mode", "INST": id, "instance_var": "INST", "args": ["a", "b c"],
            "node_args": ["--no-warnings"], "kill_timeout": 3000, "max_restarts": 3, "pm_id": id,
            "pm_out_log_path": format!("/var/log/web-out-{id}.log"),
            "env": { "PATH": "/own/bin", "HOME": "/root", "SECRET": "s\n3", "PM2_HOME": "/x", "web": "{}",
                "unique_id": "1", "INST": id, "SSH_TTY": "/dev/pts/1", "SHLVL": "1", "PORT": 8080 }
        });
        extend(&mut app, more);
        app
    };
    let mut stopped = folder.app("worker", "work.py");
    extend(&mut stopped, json!({ "exec_interpreter": "python", "status": "stopped" }));
    let mut line = folder.app("line", "/usr/bin/bash");
    extend(&mut line, json!({ "exec_interpreter": "none", "args": ["-c", "sleep 1000"] }));
    line["pm_exec_path"] = "/usr/bin/bash".into();
    folder.dump(&json!([instance(0), stopped, instance(1), line]));
    let (imported, loaded) = folder.import("dump.pm2");
    let cwd = folder.0.path().to_str().unwrap();
    assert_eq!(
        keys(&loaded),
        json!([
            { "name": "web", "script": "api.js", "args": ["a", "b c"], "instances": "2", "cwd": cwd,
              "instance_var": "INST", "interpreter_args": ["--no-warnings"], "kill_signal": "SIGINT", "kill_timeout": "3s",
              "max_restarts": 3, "out_file": "/var/log/web-out.log", "env": { "PATH": "/own/bin", "SECRET": "s\n3", "PORT": "8080" } },
            { "name": "worker", "script": "work.py", "autostart": false, "cwd": cwd, "kill_signal": "SIGINT",
              "optional_port": true },
            { "name": "line", "script": "sleep 1000", "cwd": cwd, "kill_signal": "SIGINT", "optional_port": true },
        ])
    );
    let differences = format!("{:?}", imported.differences);
    assert!(differences.contains("1 variables are those of this shell too"), "{differences}");
    assert!(differences.contains("it was stopped"), "{differences}");
    assert!(imported.is_private);
    assert!(!imported.text.contains("unique_id") && !imported.text.contains("SSH_TTY"));
}

#[test]
fn two_apps_of_one_name_get_names_of_their_own() {
    let folder = Folder::new();
    folder.dump(&json!([folder.app("web", "a.js"), folder.app("web", "b.js")]));
    let (imported, loaded) = folder.import("dump.pm2");
    assert_eq!(keys(&loaded)[1]["name"], "web-2");
    assert_eq!(imported.names[1], ("web".to_owned(), "web-2".to_owned()));
    assert!(format!("{:?}", imported.differences).contains("it is called `web` there"));
}

#[test]
fn a_configuration_of_pm2_is_imported_with_its_environments() {
    let folder = Folder::new();
    let text = "module.exports = { apps: [{ name: 'my app', script: 'a.js', env: { A: 1 }, env_prod: { 'B.C': 'x\"y' },
        listen_timeout: 60000, trace: true, exec_mode: 'cluster' }], deploy: {} }";
    folder.write("ecosystem.config.js", text);
    let (imported, loaded) = folder.import("ecosystem.config.js");
    let cwd = folder.0.path().to_str().unwrap();
    assert_eq!(
        keys(&loaded),
        json!([{ "name": "my app", "script": "a.js", "cwd": cwd, "kill_signal": "SIGINT",
            "listen_timeout": "1m", "env": { "A": "1" } }])
    );
    assert!(
        imported.text.contains("[apps.\"my app\".env_prod]\n\"B.C\" = 'x\"y'\n"),
        "{}",
        imported.text
    );
    for what in
        ["# `deploy` is left out", "# `trace` has no effect", "# `listen_timeout`: here a worker"]
    {
        assert!(imported.text.contains(what), "{what}: {}", imported.text);
    }
    assert!(!imported.is_private);
    folder.write("own.toml", &imported.text);
    let refusal = import(&folder.0.path().join("own.toml"), &folder.around()).unwrap_err();
    assert!(refusal.message.contains("is in the own form already"));
}

#[test]
fn a_dump_that_is_broken_or_of_a_newer_release_is_refused() {
    let folder = Folder::new();
    let mut newer = folder.app("web", "a.js");
    newer["_pm2_version"] = "8.1.0".into();
    for (text, message) in [
        (json!([newer]).to_string(), "was written by PM2 8.1.0, and dumps are known up to PM2 7"),
        ("[]".to_owned(), "has no apps"),
        (String::new(), "is empty"),
        ("[{\n  \"name\": \"web\",\n".to_owned(), "dump.pm2:1:2: unterminated object"),
        ("{\"apps\": []}".to_owned(), "is a table, not a dump of PM2"),
        ("[1]".to_owned(), "entry 1 is a number"),
        ("[{\"name\": \"web\"}]".to_owned(), "entry 1 has no `pm_exec_path`"),
        ("[{\"pm_exec_path\": \"/x\", \"name\": \"\"}]".to_owned(), "entry 1 has no `name`"),
    ] {
        folder.write("dump.pm2", &text);
        let refusal = import(&folder.0.path().join("dump.pm2"), &folder.around()).unwrap_err();
        assert!(refusal.message.contains(message), "{text}: {}", refusal.message);
    }
}

fn keys(loaded: &Loaded) -> Value {
    loaded.apps.iter().map(|app| Value::Object(app.to_keys())).collect()
}

fn extend(app: &mut Value, more: Value) {
    let Value::Object(more) = more else { panic!("more is a table") };
    app.as_object_mut().unwrap().extend(more);
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn dump(&self, entries: &Value) {
        self.write("dump.pm2", &entries.to_string());
    }

    /// What every entry of a dump has.
    fn app(&self, name: &str, script: &str) -> Value {
        let folder = self.0.path().to_str().unwrap();
        json!({
            "name": name, "namespace": "default", "vizion": true, "autostart": true, "autorestart": true,
            "instance_var": "NODE_APP_INSTANCE", "NODE_APP_INSTANCE": 0, "pmx": true, "automation": true,
            "treekill": true, "username": "root", "windowsHide": true, "kill_retry_time": 100, "node_args": [],
            "merge_logs": false, "exec_mode": "fork_mode", "status": "online", "exec_interpreter": "node",
            "pm_exec_path": format!("{folder}/{script}"), "pm_cwd": folder,
            "pm_err_log_path": format!("{folder}/logs/{name}-error.log"),
            "pm_pid_path": format!("{folder}/pids/{name}-0.pid"),
            "restart_time": 0, "_pm2_version": "7.0.4", "env": {},
        })
    }

    fn around(&self) -> Surroundings {
        let env = vec![
            ("PATH".into(), std::env::var_os("PATH").unwrap()),
            ("HOME".into(), "/root".into()),
        ];
        Surroundings { cwd: self.0.path().to_owned(), env, cpus: 4 }
    }

    /// Imports a file, and reads what it came to.
    fn import(&self, name: &str) -> (Imported, Loaded) {
        let imported = import(&self.0.path().join(name), &self.around()).unwrap();
        self.write("cluster.toml", &imported.text);
        let source = Source::File("cluster.toml".into());
        let loaded = read(&source, &self.around(), &Select::default());
        let loaded = loaded.unwrap_or_else(|refusal| panic!("{refusal}\n{}", imported.text));
        (imported, loaded)
    }
}
