//! `cluster policy`.

use std::env;

use clap::Args;
use serde_json::{Value, json};

use super::{
    error::Error,
    human, list, output,
    selection::Selection,
    session::{Doing, Session, block_on},
    table::{Column, KEEP, Table},
};
use crate::{
    api::message::{AppView, Detail, PolicyRequest, Request},
    config::scheduling::{
        Guard, Policy as Rule, Scheduling, Shed, Switch, known::POLICIES, resolve,
    },
    datapath::Mode,
};

/// Shows by which rule workers are picked, or switches to another, live
#[derive(Args, Debug)]
#[command(after_help = "Examples:
  cluster policy web                                   what web has, and what there is
  cluster policy web least-conn                        from the next connection on
  cluster policy web least-conn guard=off shed=200     with other settings, too
  cluster policy web sticky prefix=24                  with a key of the policy
  cluster policy web weights=3,1,1                     shares of the workers, by their numbers
  cluster policy web class 10.0.0.0/8=0-1 '*=2'        clients of one network to the first two
  cluster policy web class dscp:46=2 '*=0-1:hash'      what is marked as urgent to the third
  cluster policy web ./mine.bpf.o                      a program of your own
  cluster policy --list                                every policy, and what it picks

What is not said stays. Settings go with every policy but none, weights with round-robin alone:
  guard=on | off | KEY=VALUE,…   whom connections are kept away from; keys: stalled=TIME,
                                 heartbeat=TIME, queue=N, slow-start=TIME; what is said
                                 is all of it
  shed=N | off                   refuse, when every worker has N
  weights=N,… | off              shares, each 1 to 1000

sticky: prefix (1 to 32) and prefix6 (1 to 128) are the bits of an address that count; quic is the
length of connection ids by which datagrams are known, too.
class: rules WHOM=WORKERS[:POLICY], of which the first that fits holds. WHOM is a network, dscp:N,
bytes:HEX (what is sent first), several of them with commas, or * for the rest; WORKERS is 0-1,3;
POLICY is round-robin, least-conn, random or hash. Whom none fits reaches all workers in turn, and
so do clients of a class of whose workers none is there.

The same words are --policy, --weights, --guard and --shed of start, and keys of files; the last
three are options here, too.

With --json: an array with one object per app: id, name, mode, policy, weights, guard, shed (null
for never); after a switch in the shape of `cluster list --json`; with --list an object per policy:
name, keys, picks")]
pub(super) struct Policy {
    /// Name, id or namespace of apps, `all`, or /REGEX/; all of them when left out
    #[arg(value_name = "TARGET")]
    target: Option<String>,

    /// Name of a policy and its keys, or settings
    #[arg(value_name = "POLICY|KEY=VALUE")]
    words: Vec<String>,

    /// The same as weights=N,…
    #[arg(long, value_name = "N,…", requires = "target")]
    weights: Option<String>,

    /// The same as guard=…
    #[arg(long, value_name = "GUARD", requires = "target")]
    guard: Option<String>,

    /// The same as shed=…
    #[arg(long, value_name = "N|off", requires = "target")]
    shed: Option<String>,

    /// Every policy there is
    #[arg(long, conflicts_with_all = ["target", "words"])]
    list: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Policy {
    pub(super) fn run(self) -> Result<(), Error> {
        if self.list {
            return if self.json {
                Ok(output::json(&POLICIES)?)
            } else {
                Ok(output::answer(&policies(output::width(), output::colour()))?)
            };
        }
        let targets: Vec<_> = self.target.iter().cloned().collect();
        Selection::parse(&targets)?;
        let words = self.words();
        if words.is_empty() { self.show(&targets) } else { self.switch(targets, &words) }
    }

    /// What is asked for, as words.
    fn words(&self) -> Vec<String> {
        let options = [("weights", &self.weights), ("guard", &self.guard), ("shed", &self.shed)];
        let options = options
            .into_iter()
            .filter_map(|(key, value)| value.as_ref().map(|value| format!("{key}={value}")));
        self.words.iter().cloned().chain(options).collect()
    }

    fn show(&self, targets: &[String]) -> Result<(), Error> {
        let session = Session::new()?;
        let apps = match targets {
            [] => block_on(session.apps(targets, Detail::Usual))?.unwrap_or_default(),
            targets => block_on(session.needed_apps(targets, Detail::Usual))?,
        };
        if self.json {
            return Ok(output::json(&apps.iter().map(shown).collect::<Vec<_>>())?);
        }
        let (width, colour) = (output::width(), output::colour());
        if !apps.is_empty() {
            output::answer(&table(&apps, width, colour))?;
        }
        Ok(output::answer(&policies(width, colour))?)
    }

    fn switch(&self, targets: Vec<String>, words: &[String]) -> Result<(), Error> {
        let switch = Switch::of_words(words).map_err(|error| Error::usage(error.to_string()))?;
        let switch = located(switch)?;
        let session = Session::new()?;
        let request = Request::Policy(Box::new(PolicyRequest { targets, switch }));
        let done = block_on(async {
            let mut client = session.connect().await?;
            let doing = Doing { verb: "switching", reached: "switched" };
            session.carry_out(&mut client, &request, doing).await
        })?;
        if self.json {
            return Ok(output::json(&list::shared(done.apps))?);
        }
        Ok(output::answer(&table(&done.apps, output::width(), output::colour()))?)
    }
}

/// A switch with a path that means the same to the daemon, and that is there.
fn located(switch: Switch) -> Result<Switch, Error> {
    let Some(policy) = switch.policy else { return Ok(switch) };
    let here = env::current_dir()
        .map_err(|error| Error::failed(format!("failed to read the current folder: {error}")))?;
    let policy = resolve::located(policy, &here);
    resolve::is_there(&policy)?;
    Ok(Switch { policy: Some(policy), ..switch })
}

fn shown(app: &AppView) -> Value {
    let Scheduling { policy, weights, guard, shed } = &app.spec.scheduling;
    json!({
        "id": app.id,
        "name": app.name,
        "mode": app.mode,
        "policy": policy.to_string(),
        "weights": weights,
        "guard": effective_guard(policy, *guard).to_string(),
        "shed": shed,
    })
}

/// The guard that there is: the kernel's hash knows none, whatever it would be with another policy.
fn effective_guard(policy: &Rule, guard: Guard) -> Guard {
    if *policy == Rule::None { Guard::OFF } else { guard }
}

/// What an app has, by name of the setting.
pub(super) fn settings(scheduling: &Scheduling) -> [(&'static str, String); 4] {
    let Scheduling { policy, weights, guard, shed } = scheduling;
    let weights: Vec<_> = weights.iter().map(u32::to_string).collect();
    let weights = if weights.is_empty() { "equal".to_owned() } else { weights.join(",") };
    [
        ("policy", policy.to_string()),
        ("weights", weights),
        ("guard", guard.to_string()),
        ("shed", Shed::of(*shed).to_string()),
    ]
}

/// The same, for an app: in plain mode they are wishes.
pub(super) fn settings_of(app: &AppView) -> [(&'static str, String); 4] {
    let mut scheduling = app.spec.scheduling.clone();
    scheduling.guard = effective_guard(&scheduling.policy, scheduling.guard);
    let mut settings = settings(&scheduling);
    if app.mode == Mode::Plain {
        settings[0].1.push_str(" (plain mode: the kernel's hash decides)");
    } else if app.policy != app.spec.scheduling.policy.name() {
        settings[0].1.push_str(" (in turns as long as the canary has its share)");
    }
    if let Some(why) = &app.unscheduled {
        settings[0].1 = format!("{} (not to be had: {})", settings[0].1, human::plain(why));
    }
    settings
}

fn table(apps: &[AppView], width: Option<usize>, colour: bool) -> String {
    let column = |title| Column { title, importance: KEEP, right: false, cut: false };
    let cut = |title| Column { cut: true, ..column(title) };
    let mut table = Table::new(&[
        column("id"),
        cut("name"),
        cut("policy"),
        cut("weights"),
        cut("guard"),
        column("shed"),
    ]);
    for app in apps {
        let mut row = vec![app.id.into(), human::plain(&app.name).into()];
        row.extend(settings_of(app).into_iter().map(|(_, value)| value.into()));
        table.row(row);
    }
    table.render(width, colour)
}

/// Every policy, and what it picks.
fn policies(width: Option<usize>, colour: bool) -> String {
    let column = |title| Column { title, importance: KEEP, right: false, cut: false };
    let mut table = Table::new(&[
        column("policy"),
        Column { importance: 1, ..column("keys") },
        Column { cut: true, ..column("picks") },
    ]);
    for known in POLICIES {
        table.row(vec![known.name.into(), known.keys.into(), known.picks.into()]);
    }
    table.render(width, colour)
}

#[cfg(test)]
mod tests {
    use super::{super::sample::app, *};

    #[test]
    fn what_an_app_has_is_shown() {
        let mut web = app();
        web.spec.scheduling = Switch::of_words(&["weights=3,1".to_owned(), "shed=200".to_owned()])
            .unwrap()
            .apply(&web.spec.scheduling);
        let mut plain = app();
        plain.mode = Mode::Plain;
        let text = table(&[web.clone(), plain], None, false);
        let cells = |nth: usize| -> Vec<String> {
            let line = text.lines().nth(nth).unwrap();
            line.split('│')
                .map(|cell| cell.trim().to_owned())
                .filter(|cell| !cell.is_empty())
                .collect()
        };
        assert_eq!(cells(1), ["id", "name", "policy", "weights", "guard", "shed"]);
        assert_eq!(cells(3), ["0", "web", "round-robin", "3,1", "on", "200"]);
        assert_eq!(cells(4)[2], "round-robin (plain mode: the kernel's hash decides)");
        let expected = json!({
            "id": 0, "name": "web", "mode": "kernel", "policy": "round-robin", "weights": [3, 1], "guard": "on",
            "shed": 200
        });
        assert_eq!(shown(&web), expected);
        web.spec.scheduling = Scheduling { policy: Rule::None, ..Scheduling::default() };
        web.policy = "none".to_owned();
        let line = table(&[web.clone()], None, false).lines().nth(3).unwrap().to_owned();
        assert!(
            line.contains(" none ") && line.contains(" off ") && !line.contains(" on "),
            "{line}"
        );
        assert_eq!(shown(&web)["guard"], "off", "the kernel's hash knows none");
    }

    #[test]
    fn every_policy_has_a_line_that_fits_a_screen() {
        let text = policies(Some(80), false);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        for known in POLICIES {
            assert!(text.contains(&format!("│ {} ", known.name)), "{text}");
        }
    }
}
