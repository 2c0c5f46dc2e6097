//! Clients that account for every request to a server of pages: it is answered to the last byte, or it is said why not.

use std::{collections::BTreeSet, time::Duration};

use cluster_proof::{
    account::Account,
    failure::{Cause, Failure},
    load::{Load, Plan, Target},
    request::Kind,
    wait,
};

use cluster_user::datapath::Mode;

use crate::http::local;

/// Requests per second.
const RATE: f64 = 120.0;
/// Connections that are kept in use.
const CONNECTIONS: usize = 8;
/// Longest time to an answer: longer than anything waits here, shorter than what a test may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// Clients at work, in the network of the thread that started them.
#[derive(Debug)]
pub struct Clients(Load);

impl Clients {
    /// Clients that use their connections again and again.
    pub fn kept(port: u16) -> Self {
        Self::start(port, &[Kind::Kept])
    }

    /// Clients that open a connection for each request.
    pub fn fresh(port: u16) -> Self {
        Self::start(port, &[Kind::Fresh])
    }

    /// Clients of both kinds.
    pub fn both(port: u16) -> Self {
        Self::start(port, &[Kind::Kept, Kind::Fresh])
    }

    fn start(port: u16, kinds: &[Kind]) -> Self {
        let target = Target {
            name: format!("port {port}"),
            address: local(port),
            rate: RATE,
            connections: CONNECTIONS,
            mix: kinds.iter().map(|kind| (*kind, 1)).collect(),
        };
        let plan =
            Plan { seed: u64::from(port), targets: vec![target], patience: PATIENCE, limit: 1_000 };
        let clients = Self(Load::start(plan).expect("failed to start clients"));
        clients.until_answered(20);
        clients
    }

    /// Waits until that many more requests have been answered than now.
    #[track_caller]
    pub fn until_answered(&self, more: u64) {
        let enough = self.0.so_far().answered() + more;
        wait::until_true(&format!("{more} more requests are answered"), || {
            self.0.so_far().answered() >= enough
        });
    }

    /// Begins no more requests, waits for those under way, and checks that each of them is accounted for.
    #[track_caller]
    pub fn stop(self) -> Account {
        let account = self.0.stop();
        assert!(account.is_complete(), "{account}");
        account
    }

    /// The same, when none may have failed.
    #[track_caller]
    pub fn nothing_fails(self) -> Account {
        self.until_answered(20);
        let account = self.stop();
        assert_eq!(account.failed(), 0, "{account}{:#?}", account.failures);
        account
    }
}

/// What the death of a worker among others costs clients: nothing in kernel mode. In plain mode the kernel resets what waits
/// in its accept queue, and it is checked that this is all.
#[track_caller]
pub fn assert_a_death_costs_no_more_than_it_must(clients: Clients, mode: Mode) {
    match mode {
        Mode::Kernel => drop(clients.nothing_fails()),
        Mode::Plain => {
            clients.until_answered(20);
            let account = clients.stop();
            let is_reset = |failure: &Failure| failure.cause == Cause::Reset;
            assert!(account.failures.iter().all(is_reset), "{account}{:#?}", account.failures);
        }
    }
}

/// Checks that pages are answered by these processes and by no other, over new connections and kept ones.
#[track_caller]
pub fn assert_served_by(port: u16, pids: &[u32]) {
    let account = Clients::both(port).nothing_fails();
    let answering: BTreeSet<_> = account.workers.keys().copied().collect();
    assert!(
        !answering.is_empty() && answering.iter().all(|pid| pids.contains(pid)),
        "{answering:?}"
    );
}
