//! `cluster reload`.

use std::{collections::BTreeMap, time::Duration};

use clap::Args;

use super::{
    apply::{self, File, How, Wish},
    error::Error,
    list, output,
    selection::Selection,
    session::{Doing, Session, block_on},
    start_or,
};
use crate::{
    api::message::{AppView, Notice, ReloadRequest, Request},
    config::{
        change::Change,
        definition::{Definition, value::Words},
        duration, environment,
        file::Select,
        pace::{Batch, Canary, Pace},
        resolve::Surroundings,
        typed::EnvArg,
    },
    datapath::Mode,
};

/// Replaces workers by new ones without losing a connection; rolls back if a new one fails
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster reload web                          after the code has changed
  cluster reload web --soak 10s               10 s without a failure before they serve
  cluster reload web --update-env             with the environment as it is here
  cluster reload web --env MODE=b -- --fast   with another variable and other arguments
  cluster reload cluster.toml                 as the file defines its apps now; starts the missing
                                              (cluster start FILE spares what has not changed)
  cluster reload web --canary 5% --soak 60s   5% of the connections for a minute, then all
  cluster reload web --canary 1/16            until cluster promote web or cluster rollback web

New workers start beside the old ones and take over, a batch at a time, when they are ready: see
--probe, --notify and --wait-ready of start. Old ones finish what they have, up to --drain-timeout.

Exit code 1: a new worker failed, and everything is back as it was; or somebody rolled it back.
Files on disk are yours: an old worker that has to be started again runs the code that is there.
With --json each step is a line: {\"type\": \"rolling\", app, instance, generation, step, detail},
{\"type\": \"notice\", message, hint}, and at the end {\"type\": \"done\", apps} or {\"type\": \"failed\",
reason, message, hint, output}. step: starting | probing | soaking | ready | canary | serving |
draining | stopping | gone.")]
#[expect(clippy::struct_excessive_bools, reason = "each is one option of the command line")]
pub(super) struct Reload {
    /// Names, ids, namespaces, `all`, /REGEX/, or a file of apps
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,

    /// Workers replaced at once, as a number or a share
    #[arg(long, value_name = "N|P%", default_value = "25%")]
    batch: Batch,

    /// How long a new worker has to stay healthy before the next step: before it gets connections, or as a canary
    #[arg(long, value_name = "TIME", default_value = "0", value_parser = duration::parse)]
    soak: Duration,

    /// Give the new workers this share of the connections first: 5%, 1/16, or a number of workers
    #[arg(long, value_name = "SHARE", allow_hyphen_values = true)]
    canary: Option<Canary>,

    /// Give the new workers the environment that this command has
    #[arg(short = 'a', long)]
    update_env: bool,

    /// Variable for the new workers' environment; repeatable. With a file also the NAME of one of its environments
    #[arg(long = "env", value_name = "KEY=VALUE|NAME")]
    variables: Vec<EnvArg>,

    /// Only these apps of a file
    #[arg(long, value_name = "APP,…", value_delimiter = ',')]
    only: Vec<String>,

    /// Take over from a reload that is under way
    #[arg(short, long)]
    force: bool,

    /// Return at once
    #[arg(long)]
    no_wait: bool,

    /// Print each step as a line of JSON
    #[arg(long)]
    json: bool,

    /// Arguments for the script, instead of those it has
    #[arg(last = true, value_name = "ARGS")]
    args: Option<Vec<String>>,
}

impl Reload {
    pub(super) fn run(self) -> Result<(), Error> {
        let files = apply::only_files(&self.targets)?;
        if !files.is_empty() {
            return self.run_files(&files);
        }
        if let Some(name) = self.variables.iter().find_map(EnvArg::name) {
            return Err(Error::usage(format!(
                "`{name}` is no variable: expected KEY=VALUE after --env"
            ))
            .hint("the name of an environment goes with a file of apps"));
        }
        Selection::parse(&self.targets)?.whole()?;
        let session = Session::new()?;
        let json = self.json;
        let request = Request::Reload(Box::new(ReloadRequest {
            change: Change {
                inherited: self.inherited()?,
                env: self.env(),
                args: self.args,
                spec: None,
            },
            targets: self.targets,
            pace: Pace { batch: self.batch, soak: self.soak, canary: self.canary },
            force: self.force,
            wait: !self.no_wait,
        }));
        carry_out(&session, &request, "reloading", json)
    }

    /// Has files of apps applied, and all of their apps reloaded.
    fn run_files(&self, files: &[&String]) -> Result<(), Error> {
        let mut said = Definition { env: self.env(), ..Definition::default() };
        said.run.args = self.args.clone().map(Words);
        let env = self.variables.iter().find_map(EnvArg::name).map(str::to_owned);
        let select = Select { only: self.only.clone(), env };
        let file = |typed: &&String| File {
            select: select.clone(),
            said: said.clone(),
            update_env: self.update_env,
            ..File::new(typed)
        };
        let files: Vec<_> = files.iter().map(file).collect();
        let pace = Pace { batch: self.batch, soak: self.soak, canary: self.canary };
        let how = How { wait: !self.no_wait, pace, force: self.force };
        start_or::run(&files, Wish::Reload, how, self.json)
    }

    fn env(&self) -> BTreeMap<String, String> {
        let typed = self.variables.iter().filter_map(EnvArg::variable);
        typed.map(|typed| (typed.key.clone(), typed.value.clone())).collect()
    }

    /// The environment of this command, if it is asked for. What is no UTF-8 text was left out at the start too, and said.
    fn inherited(&self) -> Result<Option<BTreeMap<String, String>>, Error> {
        if !self.update_env {
            return Ok(None);
        }
        let around = Surroundings::here()?;
        let built = environment::build(&around.env, None, &around.cwd, &BTreeMap::new())?;
        Ok(Some(built.inherited))
    }
}

/// Has a reload, or what becomes of one, carried out, and shows its steps.
pub(super) fn carry_out(
    session: &Session,
    request: &Request,
    verb: &'static str,
    json: bool,
) -> Result<(), Error> {
    block_on(async {
        let mut client = session.connect().await?;
        if json {
            return session.stream(&mut client, request).await;
        }
        let doing = Doing { verb, reached: "serving" };
        let done = session.carry_out(&mut client, request, doing).await?;
        output::answer(&list::table(&done.apps, false))?;
        for app in &done.apps {
            next(app);
        }
        Ok(())
    })
}

/// What can be done about a reload that waits for a word.
fn next(app: &AppView) {
    let Some(reload) = &app.reload else { return };
    let name = super::human::plain(&app.name);
    if let Some(canary) = &reload.canary {
        let generation = reload.generation;
        output::quiet(&format!(
            "generation {generation} of {name} is a canary ({canary}): cluster promote {name}   cluster rollback {name}"
        ));
        if app.mode == Mode::Plain {
            output::notice(&Notice {
                message:
                    "plain mode knows no shares: a new worker gets as many connections as any other"
                        .to_owned(),
                hint: Some("cluster doctor says what kernel mode needs".to_owned()),
            });
        }
    }
}
