//! Canaries: a new version has exactly the share it was given, until somebody says what becomes of it, or its health.

use std::collections::BTreeMap;

use cluster_tests::{
    clients::{Clients, assert_served_by},
    deploy::{self, assert_well_told, held, steps},
    host::{Host, freeze, is_alive, signal},
    http::{self, local},
    in_both_modes,
};
use cluster_user::api::message::{AppView, OtherView, Stage, Status};
use nix::sys::signal::Signal;

in_both_modes!(
    a_canary_is_promoted,
    a_canary_of_more_workers_than_there_are_is_refused,
    a_canary_goes_back_when_asked,
    a_healthy_canary_is_promoted_by_itself,
    a_canary_that_dies_goes_back_by_itself,
    a_canary_that_is_killed_while_nobody_waits_goes_back,
    a_canary_that_never_comes_up_goes_back,
    there_is_one_canary_at_a_time,
);

fn a_canary_is_promoted(host: &Host) {
    let before = host.start_web(3, &["--drain-timeout", "1s"]);
    host.cluster(&["reload", "web", "--canary", "1", "--env", "MODE=new"])
        .ok()
        .complains("cluster promote web");
    let canary = canary(&host.app("web"));
    assert_eq!((canary.status, canary.generation.0), (Status::Online, 2));
    assert_eq!(host.pids("web"), before, "beside the old ones");
    let reload = host.app("web").reload.unwrap();
    assert_eq!((reload.stage, reload.canary.as_deref()), (Stage::Canary, Some("1")));
    host.cluster(&["env", "web"]).ok().never_mentions("MODE=new");

    host.cluster(&["promote", "web"]).ok();

    let after = host.pids("web");
    assert!(after.contains(&canary.pid.unwrap()), "it stays");
    assert!(before.iter().all(|pid| !after.contains(pid) && !is_alive(*pid)));
    let app = host.until_online("web", 3);
    assert_eq!((app.generation.0, app.reload), (2, None));
    host.cluster(&["env", "web"]).ok().says("MODE=new");
    assert_eq!(host.history("web")[0].outcome, "done");
    let again = host.cluster(&["promote", "web"]).fails().code(1);
    assert_well_told(&again);
    assert_served_by(8080, &after);
}

fn a_canary_of_more_workers_than_there_are_is_refused(host: &Host) {
    let before = host.start_web(2, &[]);
    let refused = host.cluster(&["reload", "web", "--canary", "3"]).fails();
    assert_well_told(&refused);
    refused.complains("a canary of 3 is asked for, and app `web` has 2 workers");
    assert_eq!((host.pids("web"), host.app("web").reload), (before, None));
}

fn a_canary_goes_back_when_asked(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.cluster(&["reload", "web", "--canary", "1"]).ok();
    let canary = canary(&host.app("web")).pid.unwrap();

    host.cluster(&["rollback", "web"]).ok();

    assert!(!is_alive(canary));
    assert_eq!(host.pids("web"), before);
    let app = host.until_online("web", 2);
    assert_eq!((app.generation.0, app.reload, app.restarts), (1, None, 0));
    assert_eq!(host.history("web")[0].outcome, "rolled_back");
    assert_served_by(8080, &before);
    let again = host.cluster(&["rollback", "web"]).fails().code(1);
    assert_well_told(&again);
}

fn a_healthy_canary_is_promoted_by_itself(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);

    let reload = ["reload", "web", "--canary", "1", "--soak", "2s", "--json"];
    let reloaded = host.cluster(&reload).ok();

    let steps = steps(&reloaded, "done");
    assert!(steps.iter().any(|line| line["step"] == "canary"), "{steps:#?}");
    let app = host.until_online("web", 2);
    assert_eq!((app.generation.0, app.reload), (2, None));
    assert!(host.history("web")[0].took_ms >= 2_000, "it was waited for");
    assert!(before.iter().all(|pid| !is_alive(*pid)));
    assert_served_by(8080, &host.pids("web"));
}

fn a_canary_that_dies_goes_back_by_itself(host: &Host) {
    let before = host.start_web(2, &[]);
    let dies = "setTimeout(() => { console.error('out of memory'); process.exit(3); }, 700);";
    host.deploy(&deploy::after(dies));

    let failed = host.cluster(&["reload", "web", "--canary", "1", "--soak", "30s"]).fails().code(1);

    assert_well_told(&failed);
    failed.complains("exited with code 3").complains("| out of memory").complains("rolled back");
    assert_went_back(host, &before);
}

fn a_canary_that_is_killed_while_nobody_waits_goes_back(host: &Host) {
    let before = host.start_web(2, &[]);
    host.cluster(&["reload", "web", "--canary", "50%"]).ok();

    signal(canary(&host.app("web")).pid.unwrap(), Signal::SIGKILL);

    host.until("web", "is what it was", |app| app.reload.is_none());
    assert_went_back(host, &before);
    let reason = host.history("web")[0].reason.clone().unwrap();
    assert!(reason.contains("killed by SIGKILL"), "{reason}");
}

fn a_canary_that_never_comes_up_goes_back(host: &Host) {
    let before = host.start_web(2, &["--listen-timeout", "3s"]);
    host.deploy(&held());
    host.cluster(&["reload", "web", "--canary", "5%"])
        .fails()
        .code(1)
        .complains("did not listen within 3.0 s");
    assert_went_back(host, &before);
}

fn there_is_one_canary_at_a_time(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.cluster(&["reload", "web", "--canary", "1"]).ok();
    let first = canary(&host.app("web")).pid.unwrap();

    let second = host.cluster(&["reload", "web", "--canary", "1"]).fails().code(1);
    assert_well_told(&second);
    second.complains("has a canary, by");
    assert!(is_alive(first));
    host.cluster(&["reload", "web", "--canary", "1", "--force"]).ok();

    let second = canary(&host.app("web")).pid.unwrap();
    assert!(second != first && !is_alive(first));
    assert_eq!(host.pids("web"), before);
    host.cluster(&["rollback", "web"]).ok();
    assert_eq!(host.pids("web"), before);
    assert_eq!(host.app("web").generation.0, 1);
}

fn assert_went_back(host: &Host, before: &[u32]) {
    assert_eq!(host.pids("web"), before);
    let app = host.until_online("web", u32::try_from(before.len()).unwrap());
    assert_eq!((app.generation.0, app.reload, app.restarts), (1, None, 0));
    assert!(app.workers.iter().all(|worker| worker.others.is_empty()), "{:#?}", app.workers);
    assert_eq!(host.history("web")[0].outcome, "failed");
    assert_served_by(8080, before);
}

#[test]
fn five_in_a_hundred_are_exactly_five_in_a_hundred() {
    assert_share(4, "5%", 400, 20);
}

#[test]
fn one_in_sixteen_is_exactly_one_in_sixteen() {
    assert_share(3, "1/16", 480, 30);
}

#[test]
fn one_in_a_thousand_is_exactly_one_in_a_thousand() {
    assert_share(2, "0.1%", 4_000, 4);
}

#[test]
fn a_third_is_exactly_a_third_of_two_new_and_five_old() {
    assert_share(5, "1/3", 300, 100);
}

#[test]
fn one_worker_gets_as_many_as_every_other() {
    assert_share(4, "1", 200, 40);
}

#[test]
fn ninety_in_a_hundred_are_exactly_ninety_in_a_hundred() {
    assert_share(2, "90%", 200, 180);
}

#[test]
fn a_policy_that_goes_by_connections_gives_an_idle_canary_no_more_than_its_share() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "4", "--policy", "least-conn"]).ok();
    let before = host.pids("app");
    let turns = "in turns as long as the canary has its share";

    host.cluster(&["reload", "app", "--canary", "10%"]).ok().complains("least-conn would give it");

    let answers = http::tally(local(8080), 200);
    let old = answers.iter().filter(|(answer, _)| before.iter().any(|pid| is_of(answer, *pid)));
    assert_eq!(old.map(|(_, count)| count).sum::<u32>(), 180, "{answers:#?}");
    host.cluster(&["describe", "app"]).ok().says("least-conn").says(turns);
    assert_eq!(host.app("app").policy, "round-robin", "it is what picks now");

    host.cluster(&["promote", "app"]).ok();

    host.cluster(&["describe", "app"]).ok().says("least-conn").never_mentions(turns);
    assert_eq!(host.app("app").policy, "least-conn");
}

/// Checks that of so many connections so many are answered by the new generation; that none is lost on the way
/// there, and none goes to it any more once it was rolled back.
fn assert_share(workers: u32, share: &str, connections: u32, expected: u32) {
    let host = Host::kernel();
    let instances = workers.to_string();
    host.cluster(&["start", "app", "-i", &instances]).ok();
    let before = host.pids("app");

    host.cluster(&["reload", "app", "--canary", share]).ok();

    let answers = http::tally(local(8080), connections);
    let by_old: BTreeMap<_, _> = before
        .iter()
        .map(|pid| {
            (
                *pid,
                answers
                    .iter()
                    .filter(|(answer, _)| is_of(answer, *pid))
                    .map(|(_, n)| n)
                    .sum::<u32>(),
            )
        })
        .collect();
    let old: u32 = by_old.values().sum();
    assert_eq!(connections - old, expected, "{share}: {answers:#?}");
    let most = by_old.values().max().unwrap() - by_old.values().min().unwrap();
    assert!(most <= 1, "the old ones share what is left: {answers:#?}");
    assert_eq!(host.pids("app"), before);

    host.cluster(&["rollback", "app"]).ok();

    let answers = http::tally(local(8080), 10 * workers);
    assert!(answers.keys().all(|answer| before.iter().any(|pid| is_of(answer, *pid))));
    assert_eq!(answers.values().copied().collect::<Vec<_>>(), vec![10; workers as usize]);
    assert_eq!(host.pids("app"), before);
}

fn is_of(answer: &str, pid: u32) -> bool {
    answer.starts_with(&format!("pid {pid} "))
}

#[test]
fn nothing_is_lost_by_a_canary_whatever_becomes_of_it() {
    let host = Host::kernel();
    let before = host.start_web(2, &[]);
    let clients = Clients::both(8080);
    host.cluster(&["reload", "web", "--canary", "1/4"]).ok();
    clients.until_answered(50);
    host.cluster(&["rollback", "web"]).ok();
    assert_eq!(host.pids("web"), before);
    host.cluster(&["reload", "web", "--canary", "1/4"]).ok();
    clients.until_answered(50);
    host.cluster(&["promote", "web"]).ok();
    clients.nothing_fails();
    assert!(before.iter().all(|pid| !is_alive(*pid)));
}

#[test]
fn an_app_with_a_canary_can_be_scaled() {
    let host = Host::kernel();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.cluster(&["reload", "app", "--canary", "1/5"]).ok();
    let share = |connections: u32| {
        let old = host.pids("app");
        let answers = http::tally(local(8080), connections);
        let new = answers.iter().filter(|(answer, _)| !old.iter().any(|pid| is_of(answer, *pid)));
        new.map(|(_, count)| count).sum::<u32>()
    };
    assert_eq!(share(100), 20);
    host.cluster(&["scale", "app", "4"]).ok();
    assert_eq!(share(100), 20, "whatever the number of workers");
    host.cluster(&["promote", "app"]).ok();
    host.until_online("app", 4);
    host.assert_balanced(local(8080), 4);
}

#[test]
fn a_canary_that_lets_connections_wait_goes_back_by_itself() {
    let host = Host::kernel();
    let before = host.start_web(2, &["--drain-timeout", "1s", "--kill-timeout", "500ms"]);
    let mut reload = host.begin(&["reload", "web", "--canary", "1/2", "--soak", "30s", "--json"]);
    reload.until_says(r#""step":"canary""#);
    freeze(canary(&host.app("web")).pid.unwrap());
    let clients = Clients::fresh(8080);

    let failed = reload.end().fails().code(1);

    assert_well_told(&failed);
    failed.complains("lets connections wait").complains("rolled back");
    drop(clients.stop());
    assert_went_back(&host, &before);
}

/// The new worker beside the first one.
fn canary(app: &AppView) -> OtherView {
    let others = &app.workers[0].others;
    assert_eq!(others.len(), 1, "{app:#?}");
    others[0].clone()
}
