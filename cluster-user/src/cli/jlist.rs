//! `cluster jlist`: PM2's shape, for programs that read that.

use clap::Args;
use serde::Serialize;

use super::{
    error::Error,
    output,
    session::{Session, block_on},
};
use crate::{
    api::message::{AppView, Detail, Status, WorkerView},
    config::{signal::StopSignal, spec::identity::pm_id},
    id::{AppId, Instance},
};

/// Lists workers as JSON in the shape of PM2's jlist
#[derive(Args, Debug)]
#[command(after_help = "Example: cluster jlist | jq '.[].pm2_env.status'

An array with one object per worker: pid, name, pm_id, monit {memory, cpu}, and pm2_env.
pm_id is the one that the worker finds in its environment: the same across restarts and reloads.
The environment is left out: see `cluster env`.
For the fields of cluster's own, see `cluster list --json`.")]
pub(super) struct Jlist {}

impl Jlist {
    pub(super) fn run() -> Result<(), Error> {
        let session = Session::new()?;
        let apps = block_on(session.apps(&[], Detail::Usual))?;
        if apps.is_none() {
            output::quiet("no daemon is running");
        }
        Ok(output::json(&shape(&apps.unwrap_or_default()))?)
    }
}

#[derive(Debug, Serialize)]
struct Process<'a> {
    pid: u32,
    name: &'a str,
    pm_id: u64,
    monit: Monit,
    pm2_env: Pm2Env<'a>,
}

#[derive(Debug, Serialize)]
struct Monit {
    memory: u64,
    cpu: f64,
}

#[derive(Debug, Serialize)]
struct Pm2Env<'a> {
    name: &'a str,
    namespace: &'a str,
    pm_id: u64,
    app_id: AppId,
    status: &'static str,
    exec_mode: &'static str,
    instances: u32,
    #[serde(rename = "NODE_APP_INSTANCE")]
    instance: Instance,
    /// Milliseconds since the epoch, as PM2 means it.
    pm_uptime: Option<u64>,
    created_at: u64,
    restart_time: u32,
    unstable_restarts: u32,
    autorestart: bool,
    max_restarts: u32,
    min_uptime: u128,
    restart_delay: u128,
    kill_timeout: u128,
    stop_exit_codes: &'a [i32],
    stop_signal: String,
    pm_exec_path: String,
    exec_interpreter: String,
    args: &'a [String],
    pm_cwd: String,
    pm_out_log_path: String,
    pm_err_log_path: String,
}

fn shape(apps: &[AppView]) -> Vec<Process<'_>> {
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed();
    let now = now.ok().and_then(|since| u64::try_from(since.as_millis()).ok()).unwrap_or(0);
    let workers = apps.iter().flat_map(|app| app.workers.iter().map(move |worker| (app, worker)));
    workers.map(|(app, worker)| process(app, worker, now)).collect()
}

fn process<'a>(app: &'a AppView, worker: &'a WorkerView, now: u64) -> Process<'a> {
    let spec = &app.spec;
    let pm_id = pm_id(app.id, worker.instance);
    Process {
        pid: worker.pid.unwrap_or(0),
        name: &app.name,
        pm_id,
        monit: Monit { memory: worker.memory_bytes, cpu: worker.cpu_percent },
        pm2_env: Pm2Env {
            name: &app.name,
            namespace: &app.namespace,
            pm_id,
            app_id: app.id,
            status: status(worker.status),
            exec_mode: "cluster_mode",
            instances: app.instances,
            instance: worker.instance,
            pm_uptime: worker.uptime_ms.map(|uptime| now.saturating_sub(uptime)),
            created_at: app.created_ms,
            restart_time: worker.restarts,
            unstable_restarts: worker.unstable,
            autorestart: spec.restart.autorestart,
            max_restarts: spec.restart.max_restarts,
            min_uptime: spec.restart.min_uptime.as_millis(),
            restart_delay: spec.restart.restart_delay.as_millis(),
            kill_timeout: spec.stop.kill_timeout.as_millis(),
            stop_exit_codes: &spec.restart.stop_exit_codes,
            stop_signal: StopSignal(spec.stop.signal).to_string(),
            pm_exec_path: spec.cwd.join(&spec.script).display().to_string(),
            exec_interpreter: spec.program.display().to_string(),
            args: &spec.args,
            pm_cwd: spec.cwd.display().to_string(),
            pm_out_log_path: worker.logs.out.display().to_string(),
            pm_err_log_path: worker.logs.err.display().to_string(),
        },
    }
}

/// PM2's word.
fn status(status: Status) -> &'static str {
    match status {
        Status::Starting | Status::Ready => "launching",
        Status::Online => "online",
        Status::Draining | Status::Stopping => "stopping",
        Status::Backoff => "waiting restart",
        Status::Errored => "errored",
        Status::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::{super::sample::app, *};

    #[test]
    fn every_worker_is_one_of_pm2s_processes_without_environment() {
        let second = AppView { id: AppId(1), ..app() };
        let apps = [AppView { id: AppId(0), ..app() }, second];
        let value = serde_json::to_value(shape(&apps)).unwrap();
        assert_eq!(value.as_array().unwrap().len(), 4);
        assert_eq!(value[0]["pid"], 4001);
        assert_eq!(value[1]["pid"], 0, "PM2 says 0 for what is not running");
        assert_eq!(value[1]["pm_id"], 1);
        assert_eq!(value[3]["pm_id"], 1025, "as the worker sees it");
        assert_eq!(value[1]["pm2_env"]["NODE_APP_INSTANCE"], 1);
        assert_eq!(value[1]["pm2_env"]["status"], "errored");
        assert_eq!(value[0]["pm2_env"]["pm_exec_path"], "/srv/server.js");
        assert!(!value.to_string().contains("secret"));
    }
}
