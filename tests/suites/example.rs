//! The demonstration app, without `cluster`: it has to be a correct server for anything to be learned from it.

use cluster_tests::{
    host::Host,
    http::{self, Connection, local},
    wait,
};

#[test]
fn the_demonstration_app_keeps_connections_alive_and_closes_when_asked_to() {
    let host = Host::plain();
    let app = host.stranger("app", &[]);
    wait::until_true("it listens", || http::try_get(local(8080)).is_ok());

    let expected = format!("pid {} instance -", app.pid());
    let mut connection = Connection::open(local(8080)).unwrap();
    for _ in 0..3 {
        assert_eq!(connection.get().unwrap(), expected);
    }
    connection.send("close").unwrap();
    assert_eq!(connection.receive().unwrap(), expected);
    assert!(connection.get().is_err(), "the connection was to be closed");
}

#[test]
fn two_of_it_cannot_share_a_port_without_help() {
    let host = Host::plain();
    let _first = host.stranger("app", &[]);
    wait::until_true("it listens", || http::try_get(local(8080)).is_ok());

    let second = host.command("app").output().unwrap();
    assert!(!second.status.success());
    assert!(String::from_utf8_lossy(&second.stderr).contains("AddrInUse"));
}
