//! Bad versions: they never serve anybody, and what was there before goes on as if nothing had been asked.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
};

use cluster_tests::{
    clients::{Clients, assert_a_death_costs_no_more_than_it_must, assert_served_by},
    deploy::{self, assert_well_told, held},
    host::{Host, is_alive, signal},
    http::{self, Connection, local},
    in_both_modes,
};
use nix::sys::signal::Signal;

in_both_modes!(
    a_version_that_exits_at_once,
    a_version_that_has_nothing_to_do,
    a_version_that_never_listens,
    a_version_that_listens_elsewhere,
    a_version_that_dies_in_its_soak,
    a_version_that_makes_no_sense,
    a_version_that_cannot_be_executed,
    a_version_that_nobody_finds,
    arguments_that_the_app_refuses,
    a_good_version_after_a_bad_one,
    what_was_deployed_before_can_be_had_again,
);

fn a_version_that_exits_at_once(host: &Host) {
    let version = "console.error('settings are missing'); process.exit(7);";
    Bad { version, reason: "exited with code 7 after", words: "settings are missing", ..USUAL }
        .is_refused(host);
}

fn a_version_that_has_nothing_to_do(host: &Host) {
    let version = "console.log('nothing to do');";
    Bad { version, reason: "exited with code 0 after", words: "nothing to do", ..USUAL }
        .is_refused(host);
}

fn a_version_that_never_listens(host: &Host) {
    let version = "console.log('waiting for the database'); setInterval(() => {}, 1000);";
    let (reason, words) = ("did not listen within 3.0 s", "waiting for the database");
    Bad { version, reason, words, ..USUAL }.is_refused(host);
}

fn a_version_that_listens_elsewhere(host: &Host) {
    let version = &deploy::after("process.env.PORT = '8081'; console.log('on port 8081');");
    let reason = "does not listen on";
    Bad { version, reason, words: "on port 8081", ..USUAL }.is_refused(host);
    assert!(http::try_get(local(8081)).is_err());
}

fn a_version_that_dies_in_its_soak(host: &Host) {
    let dies = "setTimeout(() => { console.error('out of memory'); process.exit(3); }, 500);";
    let version = &deploy::after(dies);
    let reason = "exited with code 3 after";
    let options = &["--soak", "20s"];
    Bad { version, reason, words: "out of memory", options }.is_refused(host);
}

fn a_version_that_makes_no_sense(host: &Host) {
    Bad { version: "const = ;\n", reason: "exited with code 1", words: "SyntaxError", ..USUAL }
        .is_refused(host);
}

fn a_version_that_cannot_be_executed(host: &Host) {
    let program = host.write("run", "#!/bin/sh\nexec app\n");
    let permit = |mode| fs::set_permissions(&program, Permissions::from_mode(mode)).unwrap();
    permit(0o755);
    host.cluster(&["start", &program, "-i", "2"]).ok();
    let before = host.pids("run");
    permit(0o644);

    let failed = host.cluster(&["reload", "run"]).fails().code(1).complains("rolled back");

    assert_well_told(&failed);
    assert_eq!(host.pids("run"), before);
    host.assert_balanced(local(8080), 2);
}

fn a_version_that_nobody_finds(host: &Host) {
    let before = host.start_web(2, &[]);
    fs::remove_file(host.work().join("web.js")).unwrap();

    let failed = host.cluster(&["reload", "web"]).fails().code(1).complains("rolled back");

    assert_well_told(&failed);
    assert_eq!(host.pids("web"), before);
    assert_served_by(8080, &before);
}

fn arguments_that_the_app_refuses(host: &Host) {
    host.deploy(&deploy::after(
        "if (process.argv[2]) { console.error('unknown option'); process.exit(2); }",
    ));
    host.cluster(&["start", "web.js", "--env", "MODE=a"]).ok();
    let before = host.pids("web");

    let failed = host.cluster(&["reload", "web", "--env", "MODE=b", "--", "--colour"]).fails();

    failed.code(1).complains("unknown option");
    assert_eq!(host.pids("web"), before);
    host.cluster(&["env", "web"]).ok().says("MODE=a").never_mentions("MODE=b");
    host.cluster(&["describe", "web"]).ok().never_mentions("--colour");
    // It is the old definition that is started from now on.
    signal(before[0], Signal::SIGKILL);
    host.until("web", "has a replacement", |app| {
        app.online == 1 && app.workers[0].pid != Some(before[0])
    });
    assert_served_by(8080, &host.pids("web"));
}

fn a_good_version_after_a_bad_one(host: &Host) {
    let before = host.start_web(2, &["--drain-timeout", "1s"]);
    host.deploy("process.exit(1);");
    host.cluster(&["reload", "web"]).fails().code(1);
    host.deploy(&deploy::good());

    host.cluster(&["reload", "web"]).ok();

    assert!(before.iter().all(|pid| !is_alive(*pid)));
    let outcomes: Vec<_> = host.history("web").into_iter().map(|one| one.outcome).collect();
    assert_eq!(outcomes, ["failed", "done"]);
    assert_served_by(8080, &host.pids("web"));
}

fn what_was_deployed_before_can_be_had_again(host: &Host) {
    host.start_web(2, &["--env", "MODE=a", "--drain-timeout", "1s"]);
    host.cluster(&["reload", "web", "--env", "MODE=b", "--", "--new"]).ok();
    let second = host.pids("web");

    host.cluster(&["rollback", "web"]).ok();

    host.cluster(&["env", "web"]).ok().says("MODE=a");
    assert_eq!(host.app("web").generation.0, 3);
    let spec = host.app("web").spec;
    assert!(!spec.args.contains(&"--new".to_owned()), "{:?}", spec.args);
    assert!(second.iter().all(|pid| !is_alive(*pid)));
    let last = host.history("web").pop().unwrap();
    assert_eq!((last.kind.as_str(), last.outcome.as_str()), ("rollback", "done"));
    assert_served_by(8080, &host.pids("web"));
    // And back to what it was before that.
    host.cluster(&["undo", "web"]).ok();
    host.cluster(&["env", "web"]).ok().says("MODE=b");
}

/// A version that fails.
struct Bad<'a> {
    version: &'a str,
    options: &'a [&'a str],
    /// What is said of it.
    reason: &'a str,
    /// What it said itself.
    words: &'a str,
}

const USUAL: Bad<'_> = Bad { version: "", options: &[], reason: "", words: "" };

impl Bad<'_> {
    /// Checks that it changes nothing for clients, and that the user hears why.
    fn is_refused(&self, host: &Host) {
        let before = host.start_web(3, &["--env", "MODE=old", "--listen-timeout", "3s"]);
        let spec = host.app("web").spec;
        let clients = Clients::both(8080);
        host.deploy(self.version);

        let reload = ["reload", "web", "--env", "MODE=new"];
        let failed = host.cluster(&[&reload, self.options].concat()).fails().code(1);

        assert_well_told(&failed);
        let failed = failed.complains("worker 0 of app `web`").complains(self.reason);
        failed
            .complains("rolled back, the old version serves")
            .complains(&format!("| {}", self.words));
        assert_eq!(host.pids("web"), before, "nobody was stopped");
        // Only one that had its soak served before it died.
        if self.options.contains(&"--soak") {
            assert_a_death_costs_no_more_than_it_must(clients, host.mode());
        } else {
            clients.nothing_fails();
        }
        assert_served_by(8080, &before);

        let app = host.until_online("web", 3);
        assert_eq!((app.generation.0, app.reload, app.restarts), (1, None, 0));
        assert_eq!(app.spec, spec);
        assert!(app.workers.iter().all(|worker| worker.others.is_empty()), "{:#?}", app.workers);
        host.cluster(&["env", "web"]).ok().says("MODE=old").never_mentions("MODE=new");
        let history = host.history("web");
        assert_eq!(history.len(), 1, "{history:#?}");
        assert_eq!(history[0].outcome, "failed");
        let reason = history[0].reason.clone().unwrap();
        assert!(reason.contains(self.reason), "{reason}");
        host.cluster(&["history", "web"]).ok().says("failed");
    }
}

/// Works as the first worker and fails as any other.
const FIRST_ONLY: &str = "if (process.env.NODE_APP_INSTANCE !== '0') {
  console.error('no such shard');
  process.exit(1);
}";

#[test]
fn workers_that_have_gone_are_started_again_from_the_old_definition() {
    let host = Host::kernel();
    let before = host.start_web(3, &["--env", "MODE=old"]);
    let clients = Clients::both(8080);
    host.deploy(&deploy::after(&format!("if (process.env.MODE === 'new') {{ {FIRST_ONLY} }}")));

    let reload = host.cluster(&["reload", "web", "--batch", "1", "--env", "MODE=new", "--json"]);

    let failed = reload.fails().code(1).complains("no such shard").complains("worker 1");
    assert!(failed.stdout.contains("gone"), "the first one had been replaced: {failed:?}");
    clients.nothing_fails();
    let app = host.until_online("web", 3);
    assert_eq!(app.generation.0, 1);
    assert!(app.workers.iter().all(|worker| worker.generation.0 == 1), "{:#?}", app.workers);
    let after = host.pids("web");
    assert!(after[0] != before[0] && after[1..] == before[1..], "{before:?} {after:?}");
    host.cluster(&["env", "web"]).ok().says("MODE=old");
    assert_served_by(8080, &after);
}

#[test]
fn workers_that_still_drain_come_back() {
    let host = Host::kernel();
    let before = host.start_web(2, &["--drain-timeout", "20s"]);
    // Each worker has a request that is under way, so none of the old ones can go.
    let mut asked: Vec<_> = (0..8).map(|_| Connection::open(local(8080)).unwrap()).collect();
    for connection in &mut asked {
        connection.send_to("/?wait=3000", "keep-alive").unwrap();
    }
    let dies = "setTimeout(() => { console.error('out of memory'); process.exit(3); }, 400);";
    host.deploy(&deploy::after(dies));

    let failed = host.cluster(&["reload", "web", "--batch", "100%"]).fails().code(1);

    failed.complains("out of memory");
    assert_eq!(host.pids("web"), before, "the same processes");
    for connection in &mut asked {
        connection.receive().unwrap();
    }
    assert_served_by(8080, &before);
}

#[test]
fn a_reload_can_be_turned_back_while_it_is_under_way() {
    let host = Host::kernel();
    let before = host.start_web(3, &[]);
    let clients = Clients::both(8080);
    // The first worker of the new version serves when the others do not even listen.
    let second = "if (process.env.NODE_APP_INSTANCE !== '0') { process.env.HELD = '1'; }";
    host.deploy(&format!("{second}\nif (process.env.HELD) {{ {} }}\n{}", HOLD, deploy::good()));
    let mut reload = host.begin(&["reload", "web", "--batch", "1", "--json"]);
    reload.until_says(r#""instance":1,"generation":2,"step":"starting""#);

    host.cluster(&["rollback", "web"]).ok();

    let _turned_back = reload.end();
    clients.nothing_fails();
    let app = host.until_online("web", 3);
    assert_eq!((app.generation.0, app.reload), (1, None));
    assert_eq!(host.pids("web")[1..], before[1..]);
    assert_eq!(host.history("web")[0].outcome, "rolled_back");
    assert_served_by(8080, &host.pids("web"));
}

/// Waits for ever.
const HOLD: &str = "Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);";

#[test]
fn two_bad_versions_at_the_same_time_harm_nobody() {
    let host = Host::kernel();
    let before = host.start_web(2, &["--listen-timeout", "3s"]);
    let clients = Clients::both(8080);
    host.deploy(&held());
    let mut first = host.begin(&["reload", "web", "--json"]);
    first.until_says("starting");
    host.deploy("console.error('worse'); process.exit(1);");
    host.cluster(&["reload", "web", "--force"]).fails().code(1).complains("worse");
    first.end().fails();
    clients.nothing_fails();
    assert_eq!(host.pids("web"), before);
    assert_eq!(host.app("web").generation.0, 1);
}
