//! Ports that somebody else has.

use cluster_tests::{
    built::fixture,
    host::Host,
    http::{self, get, local, local6},
    in_both_modes,
    load::Load,
    wait,
};
use cluster_user::{api::message::Status, datapath::Mode};
use nix::sys::signal::Signal;

in_both_modes!(
    a_port_held_by_a_stranger_is_an_error_that_names_him,
    a_port_held_by_a_stranger_who_shares_is_not_shared_with_him,
    two_apps_cannot_have_the_same_port,
    a_worker_cannot_listen_on_another_apps_port_later,
    an_address_in_the_way_of_another_apps_is_refused,
    an_app_may_have_a_port_on_two_addresses,
    two_apps_may_have_the_same_port_of_different_protocols,
    a_port_is_free_again_after_its_app,
);

fn a_port_held_by_a_stranger_is_an_error_that_names_him(host: &Host) {
    let stranger = host.stranger("python3", &[&fixture("server.py")]);
    wait::until_true("the stranger serves", || http::try_get(local(8080)).is_ok());

    host.cluster(&["start", "app", "-i", "2", "--max-restarts", "1"])
        .fails()
        .code(1)
        .complains("8080")
        .complains(&stranger.pid().to_string())
        .complains("python3");

    assert!(get(local(8080)).starts_with(&format!("pid {} ", stranger.pid())));
    assert!(!host.apps().iter().any(|app| app.online > 0));
}

fn a_port_held_by_a_stranger_who_shares_is_not_shared_with_him(host: &Host) {
    let stranger = host.stranger("python3", &[&fixture("reuseport.py")]);
    wait::until_true("the stranger serves", || http::try_get(local(8080)).is_ok());

    host.cluster(&["start", "app", "-i", "2", "--max-restarts", "1"])
        .fails()
        .complains("8080")
        .complains(&stranger.pid().to_string());

    for _ in 0..20 {
        assert!(get(local(8080)).starts_with(&format!("pid {} ", stranger.pid())));
    }
}

fn two_apps_cannot_have_the_same_port(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--name", "first"]).ok();
    let before = host.pids("first");
    let load = Load::start(local(8080), 2);

    host.cluster(&["start", "app", "-i", "2", "--name", "second", "--max-restarts", "1"])
        .fails()
        .code(1)
        .complains("8080")
        .complains("first");

    let score = load.stop();
    assert_eq!(score.failed(), 0, "{:#?}", score.failures);
    assert_eq!(score.answers.len(), 2, "only the first app's workers answered: {score:#?}");
    assert_eq!(host.pids("first"), before);
    host.assert_balanced(local(8080), 2);
}

fn a_worker_cannot_listen_on_another_apps_port_later(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--name", "first"]).ok();

    let load = Load::start(local(8080), 2);
    let listen = "LISTEN=0.0.0.0:8081 0.0.0.0:8080";
    let script = fixture("addresses.py");
    let start = ["start", &script, "--env", listen, "--max-restarts", "1"];

    // Told which ports it shall serve, it is not ready before it serves them all.
    let told = [&start[..], &["--name", "told", "--port", "8081", "--port", "8080"]].concat();
    host.cluster(&told).fails().code(1).complains("8080").complains("first");

    // Otherwise its first port makes it ready, and what it does later is seen later.
    host.cluster(&[&start[..], &["--name", "untold", "--no-wait"]].concat()).ok();
    let app = host.until("untold", "is given up", |app| app.status == Status::Errored);
    assert_eq!(app.ports, []);
    host.cluster(&["delete", "told", "untold"]).ok();

    let score = load.stop();
    assert_eq!(score.failed(), 0, "{:#?}", score.failures);
    assert_eq!(score.answers.len(), 2, "only the first app's workers answered: {score:#?}");
    host.assert_balanced(local(8080), 2);
}

fn an_address_in_the_way_of_another_apps_is_refused(host: &Host) {
    host.cluster(&["start", "app", "-i", "2", "--name", "first"]).ok();

    let script = fixture("addresses.py");
    let load = Load::start(local(8080), 2);
    for (address, bound) in [
        ("127.0.0.1:8080", "127.0.0.1:8080"),
        ("dual:8080", "[::]:8080"),
        ("0.0.0.0:8080", "0.0.0.0:8080"),
    ] {
        let listen = format!("LISTEN={address}");
        let start = ["start", &script, "--env", &listen, "--max-restarts", "1"];
        let failed = host.cluster(&start).fails().code(1).complains("8080").complains("first");
        if host.mode() == Mode::Kernel {
            failed
                .complains(&format!("{bound} is held by worker "))
                .complains(" of app `first`")
                .complains("cluster stop first ends it, or choose another port for addresses");
        }
        host.cluster(&["delete", "addresses"]).ok();
    }
    let score = load.stop();
    if host.mode() == Mode::Kernel {
        // The bind fails, as it would without cluster. In plain mode it is refused a moment later.
        assert_eq!(score.failed(), 0, "{:#?}", score.failures);
        assert_eq!(score.answers.len(), 2, "only the first app's workers answered: {score:#?}");
    }
    host.assert_balanced(local(8080), 2);

    host.cluster(&["delete", "first"]).ok();
    host.cluster(&["start", &script, "-i", "2", "--env", "LISTEN=127.0.0.1:8080"]).ok();
    host.assert_balanced(local(8080), 2);
}

fn an_app_may_have_a_port_on_two_addresses(host: &Host) {
    let listen = "LISTEN=0.0.0.0:8080 [::]:8080";
    host.cluster(&["start", &fixture("addresses.py"), "-i", "2", "--env", listen]).ok();
    // A worker is ready when it listens on one of them.
    wait::until_true("both workers serve both", || {
        let ports = host.app("addresses").ports;
        ports.len() == 2 && ports.iter().all(|port| port.workers == 2)
    });
    host.assert_balanced(local(8080), 2);
    host.assert_balanced(local6(8080), 2);
}

fn two_apps_may_have_the_same_port_of_different_protocols(host: &Host) {
    host.cluster(&["start", &fixture("udp.py"), "-i", "2"]).ok();
    host.cluster(&["start", "app", "-i", "2"]).ok();
    host.assert_balanced(local(8080), 2);
    assert_eq!(host.app("udp").ports[0].workers, 2);
}

fn a_port_is_free_again_after_its_app(host: &Host) {
    for name in ["first", "second"] {
        host.cluster(&["start", "app", "-i", "2", "--name", name]).ok();
        host.assert_balanced(local(8080), 2);
        host.cluster(&["delete", name]).ok();
        assert!(http::try_get(local(8080)).is_err());
    }
    let stranger = host.stranger("app", &[]);
    wait::until_true("a stranger can have it", || {
        http::try_get(local(8080))
            .is_ok_and(|who| who.starts_with(&format!("pid {} ", stranger.pid())))
    });
}

#[test]
fn daemons_with_different_homes_do_not_meet() {
    let one = Host::kernel();
    let other = Host::beside(&one);
    one.cluster(&["start", "app", "-i", "2"]).ok();
    other.cluster(&["start", "app", "-i", "3", "--env", "PORT=8081"]).ok();

    one.assert_balanced(local(8080), 2);
    other.assert_balanced(local(8081), 3);
    assert_eq!((one.apps().len(), other.apps().len()), (1, 1));
    assert_ne!(one.ping().pid, other.ping().pid);

    other
        .cluster(&["start", "app", "--name", "greedy", "--max-restarts", "1"])
        .fails()
        .complains("8080");
    one.assert_balanced(local(8080), 2);

    drop(other);
    one.assert_balanced(local(8080), 2);
    cluster_tests::host::signal(one.pids("app")[0], Signal::SIGKILL);
    one.until_online("app", 2);
}
