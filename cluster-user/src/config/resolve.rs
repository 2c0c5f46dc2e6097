//! From what was typed, the current folder, the environment and the host to a specification.

use std::{
    env,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    thread,
};

use super::{
    definition::{
        Definition, Run,
        value::{Switch, Time, Words},
    },
    environment, identity,
    instances::{Instances, MAX_INSTANCES},
    interpreter::Interpreting,
    limits, logging,
    name::Name,
    readiness::{self, time},
    refusal::Refusal,
    scheduling,
    script::{self, Lookup},
    shell,
    spec::{AppSpec, RestartPolicy, StopPolicy},
    upkeep, user,
};

/// What a specification depends on besides what was typed.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// The current folder.
    pub cwd: PathBuf,
    /// The environment.
    pub env: Vec<(OsString, OsString)>,
    /// Available CPUs.
    pub cpus: u32,
}

impl Surroundings {
    /// Those of this process.
    ///
    /// # Errors
    /// When the current folder is gone.
    pub fn here() -> Result<Self, Refusal> {
        let cwd = env::current_dir().map_err(|error| {
            Refusal::new(format!("failed to read the current folder: {error}")).hint("cd elsewhere")
        })?;
        Ok(Self { cwd, env: env::vars_os().collect(), cpus: cpus() })
    }

    /// The value of `PATH`.
    pub(super) fn path(&self) -> Option<OsString> {
        self.env.iter().find(|(key, _)| key == "PATH").map(|(_, value)| value.clone())
    }
}

/// A specification, and what the user should know about it.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// The specification.
    pub spec: AppSpec,
    /// Lowercase fragments.
    pub notices: Vec<String>,
}

/// Available CPUs of this process, its cgroup's quota included.
pub fn cpus() -> u32 {
    thread::available_parallelism()
        .map_or(1, |count| u32::try_from(count.get()).unwrap_or(u32::MAX))
}

/// Works out what was said about an app means here.
///
/// # Errors
/// [`Refusal`], with the next step.
pub fn resolve(said: &Definition, around: &Surroundings) -> Result<Resolved, Refusal> {
    let mut said = said.clone();
    shell::fill_in(&mut said, &around.env)?;
    let said = &said;
    let Definition {
        run, ports, identity, readiness, restarting, stopping, logs, kernel, env, ..
    } = said;
    let script = run.script.as_deref().unwrap_or_default();
    let args = run.args.as_ref().map_or(&[][..], |Words(args)| args);
    let cwd = working_folder(run.cwd.as_deref(), &around.cwd)?;
    let found = user::find(run.uid.as_deref(), run.gid.as_deref())?;
    let (user, account) = found.map_or((None, None), |(user, account)| (Some(user), account));
    let environment = environment::build(
        &environment::filtered(&around.env, &run.filter_env),
        account.as_ref(),
        &cwd,
        env,
    )?;
    let path = environment.variable("PATH").map(OsString::from).or_else(|| around.path());
    let lookup = Lookup { folders: vec![cwd.clone(), around.cwd.clone()], path };
    let variables = ["PM2_SERVE_PATH", "PM2_SERVE_PORT"];
    let asked = variables.iter().any(|name| environment.variable(name).is_some());
    let located = match script::server(script, args, asked, &lookup) {
        Some(located) => located,
        None => script::locate(script, args, &interpreting(run), &lookup)?,
    };
    let name = match &run.name {
        Some(name) => name.clone(),
        None => located.stem.parse::<Name>().map_err(|error| {
            Refusal::new(error.to_string()).hint("give the app a name with --name")
        })?,
    };
    if located.program.to_str().is_none() {
        let path = located.program.display();
        return Err(Refusal::new(format!("path `{path}` is no UTF-8 text")));
    }
    let mut notices = Vec::new();
    if !environment.dropped.is_empty() {
        let names = environment.dropped.join(", ").escape_debug().to_string();
        notices.push(format!("variables that are no UTF-8 text are left out: {names}"));
    }
    let (who, balanced) = identity::identity(identity, &ports.port, &cwd)?;
    let listen = identity::sockets(&identity.listen, &cwd, user.as_ref())?;
    let watch = upkeep::watch(&said.watching, &cwd)?;
    let usual = AppSpec::usual(name);
    let is_on = |switch: Option<Switch>, usual: bool| switch.map_or(usual, |Switch(on)| on);
    let logs = logging::resolve(logs, &cwd)?;
    let instances = instances(run.instances.unwrap_or(Instances::Exactly(1)), around.cpus);
    let scheduling = scheduling::resolve::resolve(&said.scheduling, &cwd, instances)?;
    let spec = AppSpec {
        namespace: run.namespace.clone().unwrap_or(usual.namespace),
        script: script.to_owned(),
        program: located.program,
        leading_args: located.args.len().saturating_sub(args.len()),
        args: located.args,
        cwd,
        inherited: environment.inherited,
        env: environment.variables,
        user,
        instances,
        autostart: is_on(restarting.autostart, usual.autostart),
        ports: balanced,
        identity: who,
        listen,
        readiness: readiness::sign(said),
        listen_timeout: time(readiness.listen_timeout, usual.listen_timeout),
        probe: readiness::probe(readiness),
        liveness: readiness::liveness(readiness),
        watchdog: readiness.watchdog.map(|Time(watchdog)| watchdog),
        overlap: is_on(readiness.overlap, usual.overlap),
        restart: RestartPolicy {
            autorestart: is_on(restarting.autorestart, usual.restart.autorestart),
            max_restarts: restarting.max_restarts.unwrap_or(usual.restart.max_restarts),
            min_uptime: time(restarting.min_uptime, usual.restart.min_uptime),
            restart_delay: time(restarting.restart_delay, usual.restart.restart_delay),
            exp_backoff: restarting.exp_backoff_restart_delay.map(|Time(first)| first),
            stop_exit_codes: restarting.stop_exit_codes.clone(),
        },
        stop: StopPolicy {
            signal: stopping.kill_signal.map_or(usual.stop.signal, |signal| signal.0),
            with_message: is_on(stopping.shutdown_with_message, usual.stop.with_message),
            drain_timeout: time(stopping.drain_timeout, usual.stop.drain_timeout),
            kill_timeout: time(stopping.kill_timeout, usual.stop.kill_timeout),
        },
        logs,
        watch,
        recycle: upkeep::recycle(&said.recycling)?,
        hooks: upkeep::hooks(&said.hooks, &lookup)?,
        resources: upkeep::resources(&said.resources)?,
        wait_timeout: time(ports.wait_timeout, usual.wait_timeout),
        scheduling,
        trace: is_on(kernel.trace, usual.trace),
        require_kernel: is_on(kernel.require_kernel, usual.require_kernel),
        ..usual
    };
    limits::check(&spec.args, &spec.environment())?;
    identity::check(&spec)?;
    notices.extend(readiness::check(said, &spec, &lookup)?);
    Ok(Resolved { spec, notices })
}

fn instances(said: Instances, cpus: u32) -> u32 {
    said.resolve(cpus).clamp(1, MAX_INSTANCES)
}

fn interpreting(run: &Run) -> Interpreting {
    let args = run.interpreter_args.clone().unwrap_or_default();
    Interpreting { program: run.interpreter.clone(), args: args.0 }
}

fn working_folder(typed: Option<&str>, current: &Path) -> Result<PathBuf, Refusal> {
    let folder = typed.map_or_else(|| current.to_owned(), |typed| current.join(typed));
    let folder = std::path::absolute(&folder).unwrap_or(folder);
    let shown = folder.display();
    let refused = |message: String| {
        Err(Refusal::new(message).hint("make it first, or give another with --cwd"))
    };
    match folder.metadata() {
        Ok(metadata) if !metadata.is_dir() => refused(format!("`{shown}` is not a folder")),
        Ok(_) if folder.to_str().is_none() => refused(format!("path `{shown}` is no UTF-8 text")),
        Ok(_) => Ok(folder),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refused(format!("there is no folder `{shown}`"))
        }
        Err(error) => refused(format!("failed to look into folder `{shown}`: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use clap::{Args as _, Command, FromArgMatches as _};
    use tempfile::TempDir;

    use super::{super::typed::StartArgs, *};

    #[test]
    fn a_script_is_run_by_the_interpreter_of_its_extension() {
        let host = Host::new();
        host.program("node").file("app.js", "");
        let spec = host.resolve(&["app.js", "--interpreter-args=--inspect -r x", "--", "-p", "80"]);
        let spec = spec.unwrap();
        assert_eq!(spec.program, host.path("bin/node"));
        let script = host.shown("app.js");
        assert_eq!(spec.args, ["--inspect", "-r", "x", &script, "-p", "80"]);
        assert_eq!(spec.name.as_str(), "app");
        assert_eq!(spec.cwd, host.path(""));
        assert_eq!(spec.stop.kill_timeout.as_secs(), 10);
    }

    #[test]
    fn the_first_line_and_the_executable_bit_say_how_to_run_a_file() {
        let host = Host::new();
        host.program("python3").file("tool", "#!/usr/bin/env python3\n");
        let spec = host.resolve(&["tool"]).unwrap();
        assert_eq!(spec.program, host.path("bin/python3"));
        host.program("server");
        assert_eq!(host.resolve(&["./bin/server"]).unwrap().program, host.path("./bin/server"));
        assert_eq!(host.resolve(&["server"]).unwrap().program, host.path("bin/server"));
    }

    #[test]
    fn a_command_line_is_split_and_needs_a_shell_only_for_shell_syntax() {
        let host = Host::new();
        host.program("node").file("my app.js", "");
        let spec = host.resolve(&["node --flag 'my app.js'", "--", "x"]).unwrap();
        assert_eq!(spec.program, host.path("bin/node"));
        assert_eq!(spec.args, ["--flag", "my app.js", "x"]);
        assert_eq!(spec.name.as_str(), "my app");
        assert_eq!(host.resolve(&["my app.js"]).unwrap().args, [host.shown("my app.js")]);
        let spec = host.resolve(&["node $APP >&2", "--", "a b"]).unwrap();
        assert_eq!(spec.program, Path::new("/bin/sh"));
        assert_eq!(spec.args[0], "-c");
        assert!(host.resolve(&["node 'x"]).unwrap_err().message.contains("not closed"));
    }

    #[test]
    fn what_cannot_be_run_is_refused_with_the_next_step() {
        let host = Host::new();
        host.file("server.js", "").file("data", "").file("x.rb", "").file("y.ts", "");
        host.file("z", "#!/opt/none/python\n");
        fs::create_dir(host.path("folder")).unwrap();
        for (typed, message, hint) in [
            (
                &["servr.js"][..],
                "no script, program or app `servr.js`",
                "did you mean `server.js`?",
            ),
            (&["server.js"], "`node`, which runs", "install Node.js"),
            (&["data"], "is not executable", "chmod +x"),
            (&["x.rb"], "`ruby`, which runs", "apt install ruby"),
            (&["y.ts"], "runs TypeScript", "22.18"),
            (&["z"], "`/opt/none/python`, which runs", "--interpreter"),
            (&["folder"], "is a folder", "name the script"),
            (&["data", "--interpreter", "nope"], "`nope` is not installed", "PATH"),
            (&["data", "--interpreter", "none"], "is not executable", "chmod"),
            (&["data", "--cwd", "/no/where"], "no folder `/no/where`", "--cwd"),
            (&["no such thing"], "no script, program or app `no`", "PATH"),
            (&[""], "no script", "name a file"),
            (&["  "], "is empty", "name a file"),
            (&["data", "--uid", "no-such-user"], "no user", "getent"),
        ] {
            let refusal = host.resolve(typed).unwrap_err();
            assert!(refusal.message.contains(message), "{typed:?}: {}", refusal.message);
            let found = refusal.hint.unwrap_or_default();
            assert!(found.contains(hint), "{typed:?}: {found}");
        }
    }

    #[test]
    fn instances_depend_on_the_cpus_of_the_host() {
        let host = Host::new();
        host.program("s");
        for (typed, count) in [("max", 4), ("0", 4), ("-1", 3), ("-9", 1), ("7", 7)] {
            assert_eq!(host.resolve(&["s", "-i", typed]).unwrap().instances, count, "-i {typed}");
        }
    }

    #[test]
    fn a_name_that_is_none_asks_for_one() {
        let host = Host::new();
        host.program("12");
        assert_eq!(
            host.resolve(&["12"]).unwrap_err().hint.unwrap(),
            "give the app a name with --name"
        );
        assert_eq!(host.resolve(&["12", "-n", "twelve"]).unwrap().name.as_str(), "twelve");
    }

    struct Host(TempDir);

    impl Host {
        fn new() -> Self {
            let host = Self(tempfile::tempdir().unwrap());
            fs::create_dir(host.path("bin")).unwrap();
            host
        }

        fn file(&self, name: &str, text: &str) -> &Self {
            fs::write(self.path(name), text).unwrap();
            self
        }

        fn program(&self, name: &str) -> &Self {
            let path = self.path("bin").join(name);
            fs::write(&path, "\x7fELF").unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
            self
        }

        fn path(&self, name: &str) -> PathBuf {
            let path = self.0.path();
            if name.is_empty() { path.to_owned() } else { path.join(name) }
        }

        fn shown(&self, name: &str) -> String {
            self.path(name).display().to_string()
        }

        fn resolve(&self, typed: &[&str]) -> Result<AppSpec, Refusal> {
            let command = StartArgs::augment_args(Command::new("start").no_binary_name(true));
            let matches = command.try_get_matches_from(typed).unwrap();
            let typed = StartArgs::from_arg_matches(&matches).unwrap();
            let env = vec![("PATH".into(), self.path("bin").into_os_string())];
            let around = Surroundings { cwd: self.path(""), env, cpus: 4 };
            resolve(&typed.definition_of(&typed.scripts[0]), &around).map(|resolved| resolved.spec)
        }
    }
}
