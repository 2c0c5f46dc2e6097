//! `cluster start`.

use std::collections::BTreeMap;

use clap::Args;

use super::{
    apply::{self, How, Wish},
    describe,
    error::Error,
    human, list, output, policy,
    session::{Doing, Session, block_on},
    table::Table,
};
use crate::{
    api::message::{AppView, Detail, Notice, Request, StartRequest, TargetsRequest},
    config::{
        change::Change,
        definition::Definition,
        environment,
        file::Select,
        pace::Pace,
        resolve::{Surroundings, resolve},
        script, secret,
        spec::AppSpec,
        typed::StartArgs,
    },
    datapath::Protocol,
};

/// Starts an app: a script, a program or a command line, as many workers on one port
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster start app.js -i 8                  eight workers, on the port that app.js listens on
  cluster start api.py -i max -- --port 80   one per CPU; what follows -- is for the script
  cluster start \"node app.js --port 80\"      a command line; only | & ; < > ( ) $ ` need a shell
  cluster start web                          an app that was stopped
  cluster start ecosystem.config.js --env production --only web,api
  cluster start                              the cluster.toml or ecosystem file of this folder

Of a file's apps those that run and are defined otherwise now are reloaded, and those that run as
they are defined are left alone: cluster diff FILE shows it. Options go over what the file says of
each app.

TIME is 1600 (milliseconds), 500ms, 10s, 1m or 2h.

A script is run by what its first line (#!) names, else by its extension (js mjs cjs ts py rb
php pl sh), else it is executed. Its workers get the environment of this command, and keep it:
`restart`, and `start` of a stopped app, keep them; to a stopped one -i, --env KEY=VALUE and
--update-env apply, and `reload --update-env` gives those that run the environment of its own shell.

An app that serves no port needs --no-port; otherwise its start fails after --listen-timeout.

With --json: an array with the app, in the shape of `cluster list --json`")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct Start {
    /// Return at once, without waiting for the workers to be ready
    #[arg(long)]
    no_wait: bool,

    /// Show what would be started, and start nothing
    #[arg(long)]
    dry_run: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,

    /// Stay in the foreground until the app is done: see cluster help runtime
    #[arg(long, conflicts_with_all = ["dry_run", "no_wait"])]
    no_daemon: bool,

    /// Give apps that are known already the environment of this command
    #[arg(short = 'a', long)]
    update_env: bool,

    #[command(flatten)]
    typed: StartArgs,
}

/// What one of the scripts came to mean.
enum Plan {
    Start(Box<AppSpec>),
    /// Known apps by their ids.
    Restart(Vec<String>),
}

impl Start {
    /// Whether the one script that it names could be started that way.
    pub(super) fn check(&self, around: &Surroundings) -> Result<(), Error> {
        let [script] = self.typed.scripts.as_slice() else {
            return Err(Error::usage(format!("{} scripts are named", self.typed.scripts.len())));
        };
        Ok(resolve(&self.typed.definition_of(script), around).map(drop)?)
    }

    pub(super) fn run(self) -> Result<(), Error> {
        if self.no_daemon {
            return super::runtime::instead_of_start(std::env::args_os());
        }
        let around = Surroundings::here()?;
        let said = self.typed.definition();
        let is_file =
            |typed: &String| said.run.interpreter.is_none() && apply::is_file(typed, &around);
        if self.typed.scripts.is_empty() || self.typed.scripts.iter().any(is_file) {
            return self.run_files(said, &around);
        }
        if let Some(name) = self.typed.environment() {
            return Err(Error::usage(format!(
                "`{name}` is no variable: expected KEY=VALUE after --env"
            ))
            .hint("the name of an environment goes with a file of apps"));
        }
        if !self.typed.only.is_empty() {
            return Err(Error::usage("--only picks apps of a file, and no file is named"));
        }
        if self.typed.scripts.len() > 1 && said.run.name.is_some() {
            return Err(Error::usage("--name is for one script")
                .hint("arguments of the script come after --"));
        }
        let session = Session::new()?;
        block_on(async {
            // All of them make sense before the first one is started.
            let mut plans = Vec::new();
            for script in &self.typed.scripts {
                plans.extend(self.plan(&session, script, &around).await?);
            }
            if self.dry_run {
                return self.show_plans(plans);
            }
            let mut apps = Vec::new();
            for plan in plans {
                apps.extend(self.carry_out(&session, plan).await?);
            }
            self.show(apps)
        })
    }

    /// Starts what files define.
    fn run_files(&self, said: Definition, around: &Surroundings) -> Result<(), Error> {
        let files = match self.typed.scripts.as_slice() {
            [] => vec![apply::here(around)?],
            typed
                if let Some(other) = typed.iter().find(|typed| !apply::is_file(typed, around)) =>
            {
                return Err(apply::mixed(other));
            }
            typed => typed.iter().map(|typed| apply::File::new(typed)).collect(),
        };
        let select = Select {
            only: self.typed.only.clone(),
            env: self.typed.environment().map(str::to_owned),
        };
        let session = Session::new()?;
        block_on(async {
            let mut plans = Vec::new();
            for file in files {
                let (select, said) = (select.clone(), said.clone());
                let file = apply::File { select, said, update_env: self.update_env, ..file };
                plans.extend(file.plans(&session, around, Wish::Start).await?);
            }
            if self.dry_run {
                let shown: String = plans.iter().map(apply::Plan::shown).collect();
                return Ok(output::answer(&shown)?);
            }
            let how = How { wait: !self.no_wait, pace: Pace::default(), force: false };
            self.show(apply::carry_out(&session, plans, how).await?)
        })
    }

    async fn plan(
        &self,
        session: &Session,
        script: &str,
        around: &Surroundings,
    ) -> Result<Vec<Plan>, Error> {
        let known = self.known(session, script, around).await?;
        let ids = |apps: &[AppView]| apps.iter().map(|app| app.id.to_string()).collect();
        if known.iter().any(idle) {
            return self.again(&known, around);
        }
        match resolve(&self.typed.definition_of(script), around) {
            Ok(resolved) => {
                for message in resolved.notices {
                    output::notice(&Notice { message, hint: None });
                }
                Ok(vec![Plan::Start(Box::new(resolved.spec))])
            }
            Err(_) if !known.is_empty() => {
                if self.typed.definition().scheduling != Definition::default().scheduling {
                    let name = human::plain(script);
                    let message = format!("`{name}` keeps how it is scheduled");
                    let hint = Some(format!("cluster policy {name} POLICY KEY=VALUE changes that"));
                    output::notice(&Notice { message, hint });
                }
                Ok(vec![Plan::Restart(ids(&known))])
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// How apps of which one is stopped start again: a stopped one with what is said of it now.
    fn again(&self, known: &[AppView], around: &Surroundings) -> Result<Vec<Plan>, Error> {
        let said = self.typed.definition();
        let built = environment::build(&around.env, None, &around.cwd, &said.env)?;
        let inherited = self.update_env.then_some(built.inherited);
        let change = Change { inherited, env: said.env.clone(), ..Change::default() };
        let instances = said.run.instances.map(|instances| instances.resolve(around.cpus));
        let mut rest = Definition { env: BTreeMap::new(), ..said };
        rest.run.instances = None;
        let (mut plans, mut same) = (Vec::new(), Vec::new());
        for app in known {
            let name = human::plain(&app.name);
            let mut spec = change.apply(&app.spec);
            spec.instances = instances.unwrap_or(spec.instances);
            let fits = spec.scheduling.resize(spec.instances);
            fits.map_err(|why| Error::usage(format!("app `{name}`: {why}")))?;
            let is_changed = spec != app.spec;
            if is_changed && idle(app) {
                plans.push(Plan::Start(Box::new(spec)));
            } else {
                same.push(app.id.to_string());
            }
            let hint = if is_changed && !idle(app) {
                format!("it runs: cluster scale {name} N, cluster reload {name} --env KEY=VALUE")
            } else if rest.scheduling != Definition::default().scheduling {
                format!("cluster policy {name} POLICY KEY=VALUE changes how it is scheduled")
            } else if rest != Definition::default() {
                format!(
                    "cluster delete {name}, then start the script; or keep it in a cluster.toml"
                )
            } else {
                continue;
            };
            let message = format!("app `{name}` keeps the options that it was started with");
            output::notice(&Notice { message, hint: Some(hint) });
        }
        if !same.is_empty() {
            plans.push(Plan::Restart(same));
        }
        Ok(plans)
    }

    /// The apps that `script` is a target for, if it can be one.
    async fn known(
        &self,
        session: &Session,
        script: &str,
        around: &Surroundings,
    ) -> Result<Vec<AppView>, Error> {
        let said = self.typed.definition();
        let new = said.run.name.is_some() || said.run.args.is_some();
        if new || script.is_empty() || script::is_path(script, &around.cwd) {
            return Ok(Vec::new());
        }
        match session.apps(&[script.to_owned()], Detail::Usual).await {
            Ok(apps) => Ok(apps.unwrap_or_default()),
            Err(error) if error.exit == super::exit::Exit::Failed => Ok(Vec::new()),
            Err(error) => Err(error),
        }
    }

    async fn carry_out(&self, session: &Session, plan: Plan) -> Result<Vec<AppView>, Error> {
        let wait = !self.no_wait;
        let request = match plan {
            Plan::Start(spec) => {
                Request::Start(Box::new(StartRequest { spec: *spec, idle: false, wait }))
            }
            Plan::Restart(targets) => Request::Restart(TargetsRequest { targets, wait }),
        };
        let mut client = session.connect_or_launch().await?;
        let doing = Doing { verb: "starting", reached: "ready" };
        Ok(session.carry_out(&mut client, &request, doing).await?.apps)
    }

    fn show(&self, apps: Vec<AppView>) -> Result<(), Error> {
        if self.json {
            return Ok(output::json(&list::shared(apps))?);
        }
        output::answer(&list::table(&apps, false))?;
        if let Some(app) = apps.first() {
            output::quiet(&format!("next: {}", next(app).join("   ")));
        }
        Ok(())
    }

    fn show_plans(&self, plans: Vec<Plan>) -> Result<(), Error> {
        if self.json {
            let specs: Vec<_> = plans
                .into_iter()
                .filter_map(|plan| match plan {
                    Plan::Start(mut spec) => {
                        secret::hide(&mut spec);
                        Some(spec)
                    }
                    Plan::Restart(_) => None,
                })
                .collect();
            return Ok(output::json(&specs)?);
        }
        for plan in plans {
            match plan {
                Plan::Restart(ids) => {
                    output::answer(&format!("would start again: {}", ids.join(", ")))?;
                }
                Plan::Start(spec) => {
                    let mut table = Table::pairs();
                    table.row(vec!["name".into(), spec.name.as_str().into()]);
                    table.row(vec!["namespace".into(), spec.namespace.as_str().into()]);
                    table.row(vec!["instances".into(), spec.instances.into()]);
                    for (name, value) in policy::settings(&spec.scheduling) {
                        table.row(vec![name.into(), value.into()]);
                    }
                    for (name, value) in describe::settings(&spec) {
                        table.row(vec![name.into(), value.into()]);
                    }
                    let variables = format!("{} variables", spec.environment().len());
                    table.row(vec!["environment".into(), variables.into()]);
                    output::answer(&table.render(None, output::colour()))?;
                }
            }
        }
        Ok(())
    }
}

/// Whether nothing of an app runs, so that it can be defined anew.
fn idle(app: &AppView) -> bool {
    app.status.is_down()
}

/// What to try after a start.
const NEXT: [&str; 3] = ["cluster list", "cluster logs NAME", "cluster reload NAME"];

fn next(app: &AppView) -> Vec<String> {
    let name = shell_words::quote(&app.name);
    let name = human::plain(&name);
    let curl = app.ports.iter().find(|port| port.protocol == Protocol::Tcp).map(|port| {
        let port_number = port.address.port();
        if port.address.ip().is_unspecified() {
            let host = if port.address.is_ipv4() { "127.0.0.1" } else { "localhost" };
            return format!("curl http://{host}:{port_number}/");
        }
        format!("curl http://{}/", port.address)
    });
    curl.into_iter().chain(NEXT.iter().map(|text| text.replace("NAME", &name))).collect()
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::config::definition::value::Switch;

    use super::{
        super::{
            command::{Cli, Command},
            sample,
        },
        *,
    };

    #[test]
    fn what_comes_next_uses_the_real_port_and_name() {
        let mut app = sample::app();
        assert_eq!(next(&app)[0], "curl http://127.0.0.1:8080/");
        app.ports.remove(0);
        assert_eq!(next(&app)[0], "curl http://localhost:8080/");
        app.ports.clear();
        app.name = "my app".to_owned();
        assert_eq!(
            next(&app),
            ["cluster list", "cluster logs 'my app'", "cluster reload 'my app'"]
        );
    }

    #[test]
    fn pm2_habits_are_understood() {
        let start = parse("cluster start app.js -i -1 -k 1600 --node-args=--inspect -- -p 1");
        let said = start.typed.definition();
        assert_eq!(said.run.instances.unwrap().resolve(4), 3);
        assert_eq!(said.stopping.kill_timeout.unwrap().0.as_millis(), 1600);
        assert_eq!(said.run.interpreter_args.unwrap().0, ["--inspect"]);
        assert_eq!(said.run.args.unwrap().0, ["-p", "1"]);
        let said = |line| parse(line).typed.definition();
        assert_eq!(said("cluster start app.js -i max").run.instances.unwrap().resolve(4), 4);
        assert_eq!(said("cluster start a --port 80,443 --port 53").ports.port, [80, 443, 53]);
        let off = said("cluster start a --no-autorestart --no-autostart").restarting;
        assert_eq!([off.autorestart, off.autostart], [Some(Switch(false)); 2]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_before_anything_is_done() {
        for line in [
            "cluster start a -i 0.5",
            "cluster start a -i 99999999",
            "cluster start a -i abc",
            "cluster start a --env =x",
            "cluster start a --env x/y",
            "cluster start a --port 0",
            "cluster start a --port 65536",
            "cluster start a --kill-signal NOPE",
            "cluster start a --kill-timeout 10x",
            "cluster start a --stop-exit-codes 256",
            "cluster start a --name all",
            "cluster start a --name a/b",
            "cluster start a --probe https://:443/",
            "cluster start a --probe http://:0/",
            "cluster start a --probe http://:80/#a",
            "cluster start a --probe 8080",
            "cluster start a --probe tcp --probe-successes 0",
            "cluster start a --probe tcp --probe-failures 10001",
            "cluster start a --liveness tcp://localhost:80",
            "cluster start a --watchdog x",
            "cluster start a --overlap maybe",
        ] {
            let error = Cli::try_parse_from(line.split(' ')).unwrap_err();
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    fn parse(line: &str) -> Start {
        let Command::Start(start) = Cli::try_parse_from(line.split(' ')).unwrap().command else {
            panic!("{line} is no start");
        };
        *start
    }
}
