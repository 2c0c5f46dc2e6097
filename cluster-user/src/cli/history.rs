//! `cluster history`.

use std::time::Duration;

use clap::Args;

use super::{
    error::Error,
    human, output,
    selection::Selection,
    session::{Session, block_on},
    table::{Cell, Column, KEEP, Table},
};
use crate::api::message::{AppView, DeploymentView, Detail};

/// Shows what was deployed: when, by whom, and what came of it
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster history web

With --json: an array with one object per app: name, generation, and history [{generation, from,
kind (reload | rollback), outcome (done | failed | rolled_back | superseded), reason, who, began_ms,
took_ms, moved}], the latest last. moved: connections that went from the queue of a worker that left
to one that stayed.")]
pub(super) struct History {
    /// Names, ids, namespaces, `all`, or /REGEX/
    #[arg(required = true, value_name = "TARGET")]
    targets: Vec<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl History {
    pub(super) fn run(self) -> Result<(), Error> {
        Selection::parse(&self.targets)?;
        let session = Session::new()?;
        let apps = block_on(session.needed_apps(&self.targets, Detail::History))?;
        if self.json {
            let apps: Vec<_> = apps
                .into_iter()
                .map(|app| {
                    serde_json::json!({
                        "name": app.name,
                        "generation": app.generation,
                        "history": app.history.unwrap_or_default(),
                    })
                })
                .collect();
            return Ok(output::json(&apps)?);
        }
        for app in &apps {
            if app.history.as_ref().is_none_or(Vec::is_empty) {
                output::quiet(&format!(
                    "{} has not been reloaded since it was started",
                    human::plain(&app.name)
                ));
            } else {
                output::answer(&table(app))?;
            }
        }
        Ok(())
    }
}

fn table(app: &AppView) -> String {
    let column = |title, importance, right| Column { title, importance, right, cut: false };
    let mut table = Table::new(&[
        Column { title: "name", importance: KEEP, right: false, cut: true },
        column("generation", KEEP, true),
        column("from", 3, true),
        column("kind", 4, false),
        column("outcome", KEEP, false),
        column("ago", 8, true),
        column("took", 6, true),
        column("moved", 2, true),
        Column { title: "by", importance: 5, right: false, cut: true },
        Column { title: "reason", importance: 7, right: false, cut: true },
    ]);
    for one in app.history.iter().flatten() {
        table.row(row(app, one));
    }
    table.render(output::width(), output::colour())
}

fn row(app: &AppView, one: &DeploymentView) -> Vec<Cell> {
    vec![
        app.name.as_str().into(),
        one.generation.to_string().into(),
        one.from.map_or_else(|| "-".to_owned(), |from| from.to_string()).into(),
        one.kind.clone().into(),
        one.outcome.replace('_', " ").into(),
        human::uptime(human::ago(one.began_ms)).into(),
        format!("{:.1} s", Duration::from_millis(one.took_ms).as_secs_f64()).into(),
        one.moved.to_string().into(),
        one.who.as_str().into(),
        one.reason.as_deref().unwrap_or_default().into(),
    ]
}
