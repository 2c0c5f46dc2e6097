//! Whole files: what they come to, and how the bad ones are refused.

use std::fs;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

#[test]
fn the_first_of_the_known_names_is_found() {
    let folder = Folder::new();
    assert_eq!(find(folder.0.path()), None);
    for name in NAMES.iter().rev() {
        folder.write(name, "");
        assert_eq!(find(folder.0.path()).unwrap().file_name().unwrap(), *name);
    }
    assert!(NAMES.iter().all(|name| is_config(Path::new(name))));
}

#[test]
fn a_file_of_pm2_is_understood_as_it_is() {
    let folder = Folder::new();
    folder.write("api.js", "");
    let text = "module.exports = { apps: [
        { name: 'web', script: 'api.js', instances: 'max', exec_mode: 'cluster', args: 'a \"b c\"',
          port: 8080, env: { A: 1, O: { x: 1 }, N: null }, env_production: { A: 'p' }, killTimeout: 3000,
          node_args: ['--no-warnings'], listen_timeout: 3000, vizion: false, wait_ready: true },
        { name: 'work', script: 'api.js', exec_mode: 'fork', autorestart: false, min_uptime: '5s', user: 'root' },
      ], deploy: { production: { env: { A: 'low', B: 'low' } } } }";
    let loaded = folder.load("ecosystem.config.js", text).unwrap();
    let cwd = folder.0.path().to_str().unwrap();
    assert_eq!(
        keys(&loaded),
        json!([
            { "name": "web", "script": "api.js", "instances": "max", "args": ["a", "b c"], "cwd": cwd,
              "env": { "A": "1", "O": "{\"x\":1}", "PORT": "8080" }, "kill_timeout": "3s",
              "interpreter_args": ["--no-warnings"], "kill_signal": "SIGINT", "wait_ready": true },
            { "name": "work", "script": "api.js", "autorestart": false, "min_uptime": "5s", "uid": "root",
              "cwd": cwd, "kill_signal": "SIGINT" },
        ])
    );
    assert!(loaded.notices[0].starts_with("ecosystem.config.js: `deploy` is left out"));
    assert_eq!(loaded.notices.len(), 1, "{:?}", loaded.notices);
    let production = Select { env: Some("production".into()), ..Select::default() };
    let loaded = folder.select("ecosystem.config.js", &production).unwrap();
    assert_eq!(keys(&loaded)[0]["env"]["A"], "p");
    assert_eq!(keys(&loaded)[1]["env"], json!({ "A": "low", "B": "low" }));
}

#[test]
fn every_shape_and_format_says_the_same() {
    let folder = Folder::new();
    folder.write("a.js", "");
    let cwd = folder.0.path().to_str().unwrap();
    for (name, text) in [
        ("a.json", "{\"apps\":[{\"script\":\"a.js\",\"instances\":0,\"exec_mode\":\"cluster\"}]}"),
        ("a.json", "// one\n[{ script: 'a.js', instances: 0, },]"),
        ("a.json", "{\"script\":\"a.js\",\"instances\":0}"),
        ("a.json", "{\"pm2\":{\"exec\":\"a.js\",\"instances\":0}}"),
        ("a.yml", "apps:\n  - script: a.js\n    instances: 0\n"),
        ("a.yaml", "x-all: &all { instances: 0 }\napps:\n  - script: a.js\n    <<: *all\n"),
        ("a.config.mjs", "export default [{ cmd: 'a.js', instances: 0 }]"),
    ] {
        let loaded = folder.load(name, text).unwrap();
        let expected =
            json!([{ "script": "a.js", "instances": "max", "cwd": cwd, "kill_signal": "SIGINT" }]);
        assert_eq!(keys(&loaded), expected, "{text}");
        assert!(loaded.notices.is_empty(), "{text}: {:?}", loaded.notices);
    }
}

#[test]
fn the_own_form_is_relative_to_its_folder() {
    let folder = Folder::new();
    let text = "[apps.web]\nscript = 'a.js'\ncwd = 'sub'\nenv = { A = 1 }\nenv_test = { A = 2 }\n\n\
                [apps.'b c']\nscript = 'b'\n";
    folder.write("cluster.toml", text);
    let around = Surroundings { cwd: "/".into(), ..folder.around() };
    let source = Source::File(folder.0.path().join("cluster.toml"));
    let test = Select { env: Some("test".into()), ..Select::default() };
    let loaded = read(&source, &around, &test).unwrap();
    let cwd = folder.0.path();
    assert_eq!(
        keys(&loaded),
        json!([
            { "name": "web", "script": "a.js", "cwd": cwd.join("sub"), "env": { "A": "2" } },
            { "name": "b c", "script": "b", "cwd": cwd },
        ])
    );
    let same = "{ apps: { web: { script: 'a.js', cwd: 'sub', env: { A: 1 } } } }";
    assert_eq!(keys(&folder.load("cluster.json", same).unwrap())[0]["name"], "web");
}

#[test]
fn a_script_of_pm2s_form_may_be_in_the_current_folder_or_beside_the_file() {
    let folder = Folder::new();
    fs::create_dir(folder.0.path().join("etc")).unwrap();
    folder.write("etc/pm2.json", "[{ script: 'x.js' }]");
    folder.write("etc/x.js", "");
    let cwd = |loaded: &Loaded| keys(loaded)[0]["cwd"].as_str().unwrap().to_owned();
    let beside = folder.select("etc/pm2.json", &Select::default()).unwrap();
    assert_eq!(Path::new(&cwd(&beside)), folder.0.path().join("etc"));
    assert!(beside.notices[0].contains("is not in the current folder"), "{:?}", beside.notices);
    folder.write("x.js", "");
    let here = folder.select("etc/pm2.json", &Select::default()).unwrap();
    assert_eq!(Path::new(&cwd(&here)), folder.0.path());
    assert!(here.notices.is_empty());
}

#[test]
fn apps_are_picked_by_name_and_environments_by_theirs() {
    let folder = Folder::new();
    let text = "[{ name: 'web', script: 'a', append_env_to_name: true, env_prod: { A: 1 } }, { script: 'work.js' }]";
    folder.write("a.json", text);
    let select = |only: &[&str], env: Option<&str>| {
        let only = only.iter().map(|name| (*name).to_owned()).collect();
        let loaded = folder.select("a.json", &Select { only, env: env.map(str::to_owned) })?;
        let names = keys(&loaded);
        let name = |app: &Value| app.get("name").or(app.get("script")).unwrap().clone();
        let names: Vec<Value> = names.as_array().unwrap().iter().map(name).collect();
        Ok::<_, Refusal>((Value::Array(names), loaded.notices))
    };
    assert_eq!(select(&["work"], None).unwrap().0, json!(["work.js"]));
    assert_eq!(select(&["web"], Some("prod")).unwrap(), (json!(["web-prod"]), vec![]));
    let refusal = select(&["wbe"], None).unwrap_err();
    assert_eq!(refusal.message, "a.json: has no app `wbe`");
    assert_eq!(refusal.hint.unwrap(), "did you mean `web`?");
    let (_, notices) = select(&[], Some("test")).unwrap();
    assert_eq!(notices, ["a.json: no app has `env_test`, only env_prod"]);
    let (_, notices) = select(&["work"], Some("test")).unwrap();
    assert_eq!(notices, ["a.json: no app has `env_test`: --env changes nothing"]);
}

#[test]
fn what_has_no_effect_is_said_with_the_reason() {
    let folder = Folder::new();
    let text = "[{ script: 'a', vizion: true, treekill: false, trace: true, pmx: false, instances: 2, exec_mode: 'fork' }]";
    let notices = folder.load("a.json", text).unwrap().notices;
    assert_eq!(
        notices,
        [
            "a.json: app `a`: `treekill` has no effect: everything a worker started is ended with it",
            "a.json: app `a`: `trace` has no effect: it is for PM2's paid monitoring, which is not part of this",
            "a.json: app `a`: its workers share its port: `fork` does not mean one port for each here",
        ]
    );
}

#[test]
fn folders_to_serve_become_apps() {
    let text = "{ apps: [], static: [{ path: 'public', port: 9000, spa: true, basic_auth: { username: 'u', password: 'p' } }] }";
    let loaded = Folder::new().load("a.json", text).unwrap();
    let app = &keys(&loaded)[0];
    assert_eq!(app["name"], "static-page-server-9000");
    assert_eq!(app["env"]["PM2_SERVE_SPA"], "true");
    assert_eq!(app["env"]["PM2_SERVE_BASIC_AUTH_USERNAME"], "u");
    assert_eq!(app["args"], json!(["serve-files"]));
    let text = "[{ name: 'docs', script: 'serve', env: { PM2_SERVE_PATH: '.' } }]";
    assert_eq!(keys(&Folder::new().load("a.json", text).unwrap())[0]["args"], app["args"]);
}

#[test]
fn every_malformed_file_is_refused_with_file_line_and_reason() {
    for (name, text, message, hint) in [
        ("a.toml", "[apps.web\n", "a.toml:1:10: ", ""),
        (
            "a.toml",
            "[apps.web]\nscript = 'a'\nkill_timout = 1\n",
            "a.toml:3:1: app `web`: there is no key `kill_timout`",
            "did you mean `kill_timeout`?",
        ),
        (
            "a.toml",
            "[apps.web]\nscript = 'a'\nkill_timeout = 'soon'\n",
            "a.toml:3:16: app `web`: kill_timeout: `soon` is no duration",
            "",
        ),
        (
            "a.toml",
            "[apps.web]\nexec = 'a'\n",
            "a.toml:2:1: app `web`: there is no key `exec`",
            "it is `script` here",
        ),
        (
            "a.toml",
            "[apps.web]\nscript = 'a'\nenv = { A = [1] }\n",
            "a.toml:3:13: app `web`: env.A: ",
            "",
        ),
        (
            "a.toml",
            "[apps.web]\nscript = 'a'\n[apps.api]\nenv_x = 1\n",
            "a.toml:4:9: app `api`: `env_x` is a number, not a table",
            "",
        ),
        (
            "a.toml",
            "[apps.web]\ninstances = 2\n",
            "a.toml:1:7: app `web` has no script",
            "script = ",
        ),
        ("a.toml", "[[apps]]\nscript = 'a'\n", "`apps` is a list", "[apps.web]"),
        (
            "a.toml",
            "script = 'a'\n",
            "a.toml:1:1: `script` stands outside of an app",
            "[apps.NAME]",
        ),
        ("a.toml", "# nothing\n", "a.toml: has no apps", ""),
        (
            "a.toml",
            "[app.web]\nscript = 'a'\n",
            "a.toml:1:2: `app` stands outside of an app",
            "did you mean `apps`?",
        ),
        (
            "a.json",
            "{ apps: [{ script: 'a', instnces: 2 }] }",
            "a.json:1:25: app `a`: there is no attribute `instnces`",
            "did you mean `instances`?",
        ),
        (
            "a.json",
            "{ apps: [\n{ script: 'a',\n instances: [] }] }",
            "a.json:3:13: app `a`: instances: ",
            "",
        ),
        (
            "a.json",
            "{ apps: [{ script: 'a', exec_mode: 'many' }] }",
            "a.json:1:36: app `a`: `exec_mode` is neither",
            "",
        ),
        (
            "a.json",
            "{ apps: [{ script: ['a'] }] }",
            "a.json:1:20: app `number 1`: `script` is a list",
            "",
        ),
        ("a.json", "{ apps: [{ name: 'x' }] }", "a.json:1:10: app `x` has no script", ""),
        ("a.json", "{ apps: [{ script: 'a', exec: 'b' }] }", "`exec` is said twice", ""),
        ("a.json", "{ apps: [{ script: 'a', env: 'b' }] }", "`env` is a text, not a table", ""),
        (
            "a.json",
            "{ apps: [{ script: 'a', port: 'http' }] }",
            "`port` is a text, not the number of a port",
            "",
        ),
        (
            "a.json",
            "{ apps: [{ script: 'a' }, { script: './a.js' }] }",
            "two apps are called `a`",
            "name of its own",
        ),
        ("a.json", "{ apps: 3 }", "a.json:1:9: `apps` is a number", ""),
        (
            "a.json",
            "{ apps: [], deplyo: {} }",
            "there is no section `deplyo`",
            "did you mean `deploy`?",
        ),
        (
            "a.json",
            "{ \"dependencies\": {} }",
            "there is no section `dependencies`",
            "a list of them",
        ),
        ("a.json", "3", "a.json:1:1: is a number", ""),
        ("a.json", "{}", "a.json: has no apps", ""),
        ("a.json", "[]", "a.json: has no apps", ""),
        ("a.yml", "apps:\n  - script: a\n   x: 1\n", "a.yml:3:", ""),
        (
            "a.yml",
            "apps:\n  - script: a\n    instnces: 1\n",
            "a.yml:3:5: app `a`: there is no attribute `instnces`",
            "",
        ),
        (
            "a.yml",
            "apps: &a\n  - *a\n",
            "a.yml:2:5: an alias stands within what it is an alias of",
            "",
        ),
        ("a.config.js", "module.exports = {\n apps: [\n", "a.config.js:3:", ""),
        ("a.config.js", "", "a.config.js: is empty", ""),
        (
            "a.config.js",
            "module.exports = { apps: [{ script: 'a', kill_timeout: 'x' }] }",
            "a.config.js: app `a`: kill_timeout: `x` is no duration",
            "",
        ),
    ] {
        let refusal = Folder::new().load(name, text).unwrap_err();
        assert!(refusal.message.contains(message), "{text}: {}", refusal.message);
        let found = refusal.hint.unwrap_or_default();
        assert!(found.contains(hint), "{text}: {found}");
    }
}

fn keys(loaded: &Loaded) -> Value {
    loaded.apps.iter().map(|app| Value::Object(app.to_keys())).collect()
}

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.path().join(name), text).unwrap();
    }

    fn around(&self) -> Surroundings {
        let env = vec![("PATH".into(), std::env::var_os("PATH").unwrap())];
        Surroundings { cwd: self.0.path().to_owned(), env, cpus: 4 }
    }

    fn select(&self, name: &str, select: &Select) -> Result<Loaded, Refusal> {
        read(&Source::File(name.into()), &self.around(), select)
    }

    fn load(&self, name: &str, text: &str) -> Result<Loaded, Refusal> {
        self.write(name, text);
        self.select(name, &Select::default())
    }
}
