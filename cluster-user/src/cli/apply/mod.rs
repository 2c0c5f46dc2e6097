//! Files of apps: what they define, against what runs, and what follows.

mod change;
mod plan;

use std::path::{Path, PathBuf};

pub(super) use self::plan::{Plan, Wish};
use super::{
    error::Error,
    human, list, output,
    session::{Doing, Session},
};
use crate::{
    api::message::{
        AppView, Detail, Notice, PolicyRequest, ReloadRequest, Request, ScaleRequest, StartRequest,
        TargetsRequest,
    },
    config::{
        change::Change,
        definition::Definition,
        file::{self, Select, Source},
        instances::Scale,
        pace::Pace,
        refusal::Refusal,
        resolve::{Surroundings, resolve},
        scheduling::Switch,
        spec::AppSpec,
    },
};

/// A file, and what the command line says besides.
#[derive(Clone, Debug)]
pub(super) struct File {
    pub(super) source: Source,
    pub(super) select: Select,
    /// Goes over what the file says of each app.
    pub(super) said: Definition,
    /// Whether workers get the environment of this command instead of that of the one that started them.
    pub(super) update_env: bool,
}

impl File {
    /// The file of a path as typed; `-` is standard input.
    pub(super) fn new(typed: &str) -> Self {
        let source = if typed == "-" { Source::Stdin } else { Source::File(PathBuf::from(typed)) };
        let (select, said) = (Select::default(), Definition::default());
        Self { source, select, said, update_env: false }
    }

    /// What each app of it is, against what there is. The daemon is asked, nothing is changed.
    ///
    /// # Errors
    /// When the file, or one of its apps, makes no sense: then nothing is planned at all.
    pub(super) async fn plans(
        &self,
        session: &Session,
        around: &Surroundings,
        wish: Wish,
    ) -> Result<Vec<Plan>, Error> {
        let loaded = file::read(&self.source, around, &self.select)?;
        loaded.notices.into_iter().for_each(tell);
        if self.said.run.name.is_some() && loaded.apps.len() > 1 {
            return Err(Error::usage("--name is for one app, and the file has several")
                .hint("--only picks one of them"));
        }
        let known = session.apps(&[], Detail::Usual).await?.unwrap_or_default();
        let mut plans = Vec::new();
        for (app, places) in loaded.apps.iter().zip(&loaded.places) {
            let meaning = self.meaning(app, loaded.path.as_deref(), around, &known);
            let (spec, known) = meaning.map_err(|refusal| {
                let place = refusal.about.filter(|key| !self.says(key));
                let place = place.and_then(|key| places.get(key));
                let error = match &app.run.name {
                    Some(name) => of_app(name.as_str(), refusal.into()),
                    None => Error::from(refusal),
                };
                match place {
                    Some(place) => {
                        Error { message: format!("{place}: {}", error.message), ..error }
                    }
                    None => error,
                }
            })?;
            plans.push(Plan::new(spec, known, wish));
        }
        Ok(plans)
    }

    /// Whether the command line has a key of scheduling, which goes over that of the file.
    fn says(&self, key: &str) -> bool {
        let said = serde_json::to_value(&self.said.scheduling).unwrap_or_default();
        said.get(key).is_some()
    }

    /// What an app of the file means here, and the app of that name that is there already.
    fn meaning<'a>(
        &self,
        app: &Definition,
        path: Option<&Path>,
        around: &Surroundings,
        known: &'a [AppView],
    ) -> Result<(AppSpec, Option<&'a AppView>), Refusal> {
        let definition = self.said.over(app);
        let named = |name: &str| known.iter().find(|known| known.name == name);
        let mut resolved = resolve(&definition, around)?;
        let known = named(resolved.spec.name.as_str());
        if let Some(known) = known.filter(|_| !self.update_env) {
            // What the shell of this command has is not what the file says.
            let env = known.spec.inherited.iter();
            let env = env.map(|(key, value)| (key.into(), value.into())).collect();
            resolved = resolve(&definition, &Surroundings { env, ..around.clone() })?;
        }
        resolved.notices.into_iter().for_each(tell);
        resolved.spec.source = path.map(Path::to_owned);
        Ok((resolved.spec, known))
    }
}

/// The file of apps in the current folder.
///
/// # Errors
/// When there is none.
pub(super) fn here(around: &Surroundings) -> Result<File, Error> {
    let path = file::find(&around.cwd).ok_or_else(|| {
        let names = file::NAMES.join(", ");
        Refusal::usage("nothing is named, and there is no file of apps in this folder")
            .hint(format!("name a script or a file of apps, or make one of {names}"))
    })?;
    let name = path.file_name().map(PathBuf::from).unwrap_or(path);
    Ok(File { source: Source::File(name), ..File::new("-") })
}

/// The names of a file's apps.
///
/// # Errors
/// When the file makes no sense.
pub(super) fn names(typed: &str, around: &Surroundings) -> Result<Vec<String>, Error> {
    let file = File::new(typed);
    let loaded = file::read(&file.source, around, &file.select)?;
    let name = |app: &Definition| match &app.run.name {
        Some(name) => Ok(name.to_string()),
        None => Ok(resolve(app, around)?.spec.name.to_string()),
    };
    loaded.apps.iter().map(name).collect()
}

/// Whether something typed is a file of apps rather than a target.
pub(super) fn is_file(typed: &str, around: &Surroundings) -> bool {
    typed == "-" || (file::is_config(Path::new(typed)) && around.cwd.join(typed).is_file())
}

/// Targets with files of apps replaced by the names of those.
///
/// # Errors
/// When a file makes no sense.
pub(super) fn targets(typed: &[String]) -> Result<Vec<String>, Error> {
    let around = Surroundings::here()?;
    let mut targets = Vec::new();
    for text in typed {
        if is_file(text, &around) {
            targets.extend(names(text, &around)?);
        } else {
            targets.push(text.clone());
        }
    }
    Ok(targets)
}

/// The files of apps among what was typed, which then are all of it; none for a command about targets.
///
/// # Errors
/// When files and targets are named together.
pub(super) fn only_files(typed: &[String]) -> Result<Vec<&String>, Error> {
    let around = Surroundings::here()?;
    let (files, others): (Vec<_>, Vec<_>) = typed.iter().partition(|typed| is_file(typed, &around));
    match others.first() {
        Some(other) if !files.is_empty() => Err(mixed(other)),
        Some(_) | None => Ok(files),
    }
}

/// Why a file and a target cannot be named together.
pub(super) fn mixed(target: &str) -> Error {
    let target = human::plain(target);
    Error::usage(format!("`{target}` is no file of apps, and another one is"))
        .hint("one command for the files, and one for the others")
}

/// How plans are carried out.
#[derive(Clone, Copy, Debug)]
pub(super) struct How {
    pub(super) wait: bool,
    pub(super) pace: Pace,
    pub(super) force: bool,
}

/// Carries plans out, one after the other, and says which are left alone; the apps they are about, as they are then.
///
/// # Errors
/// Those of the steps that failed, all of them in one: what is wrong with one app keeps no other from being started.
pub(super) async fn carry_out(
    session: &Session,
    plans: Vec<Plan>,
    how: How,
) -> Result<Vec<AppView>, Error> {
    let mut names = Vec::new();
    let mut failed: Vec<Error> = Vec::new();
    for plan in plans {
        let name = plan.name().to_owned();
        if let Plan::Keep { why, .. } = &plan {
            output::quiet(&format!("{}: {why}", human::plain(&name)));
        }
        match one(session, plan, how).await {
            Ok(()) => names.push(name),
            Err(error) => failed.push(of_app(&name, error)),
        }
    }
    let apps = if names.is_empty() { None } else { session.apps(&names, Detail::Usual).await? };
    let Some(last) = failed.pop() else { return Ok(apps.unwrap_or_default()) };
    failed.iter().for_each(output::error);
    if let Some(apps) = apps.filter(|apps| !apps.is_empty()) {
        output::answer(&list::table(&apps, false))?;
    }
    Err(last)
}

/// The error with the app that it is about, of the several in a file.
fn of_app(name: &str, error: Error) -> Error {
    let name = human::plain(name);
    if error.message.contains(&format!("`{name}`")) {
        return error;
    }
    Error { message: format!("app `{name}`: {}", error.message), ..error }
}

async fn one(session: &Session, plan: Plan, how: How) -> Result<(), Error> {
    for (request, verb, reached) in requests(plan, how) {
        let doing = Doing { verb, reached };
        let mut client = session.connect_or_launch().await?;
        session.carry_out(&mut client, &request, doing).await?;
    }
    Ok(())
}

/// What the daemon is asked for, in this order, and how to speak of it.
fn requests(plan: Plan, how: How) -> Vec<(Request, &'static str, &'static str)> {
    let How { wait, pace, force } = how;
    match plan {
        Plan::Keep { .. } => Vec::new(),
        Plan::Start { spec } | Plan::Define { spec, .. } => {
            let start = StartRequest { spec: *spec, idle: false, wait };
            vec![(Request::Start(Box::new(start)), "starting", "ready")]
        }
        Plan::Restart { name } => {
            let restart = TargetsRequest { targets: vec![name], wait };
            vec![(Request::Restart(restart), "starting", "ready")]
        }
        Plan::Change { spec, change } => {
            let target = spec.name.to_string();
            let switch = Switch::to(&spec.scheduling);
            let reload = change.reloads().then(|| {
                let (targets, spec) = (vec![target.clone()], Some(spec));
                let change = Change { spec, ..Change::default() };
                let reload = ReloadRequest { targets, change, pace, force, wait };
                (Request::Reload(Box::new(reload)), "reloading", "serving")
            });
            let scale = change.instances.map(|(_, to)| {
                let scale = ScaleRequest { target: target.clone(), to: Scale::To(to), wait };
                (Request::Scale(scale), "scaling", "there")
            });
            // When there are as many workers as the weights are for.
            let policy = change.reschedules().then(|| {
                let policy = PolicyRequest { targets: vec![target], switch };
                (Request::Policy(Box::new(policy)), "switching", "switched")
            });
            reload.into_iter().chain(scale).chain(policy).collect()
        }
    }
}

fn tell(message: String) {
    output::notice(&Notice { message, hint: None });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_once_which_app_of_the_file_it_is_about() {
        let said = |message| of_app("web", Error::failed(message)).message;
        assert_eq!(said("there is no script `a.js`"), "app `web`: there is no script `a.js`");
        assert_eq!(said("app `web` is being reloaded"), "app `web` is being reloaded");
    }
}
