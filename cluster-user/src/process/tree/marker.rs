//! The variable that every process of a worker has in its environment.

use std::fmt;

use crate::id::WorkerId;

/// The variable of the environment that says whose a process is, where no cgroup does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker(String);

impl Marker {
    /// Name of the variable.
    pub const NAME: &'static str = "CLUSTER_WORKER";

    /// The marker of a worker; `home_id` keeps the daemons of a host apart.
    pub fn new(home_id: &str, worker: WorkerId) -> Self {
        Self(format!("{}={home_id}:{worker}", Self::NAME))
    }

    /// The worker that a marker of this home names.
    pub fn worker_of(home_id: &str, value: &str) -> Option<WorkerId> {
        value.strip_prefix(home_id)?.strip_prefix(':')?.parse().ok().map(WorkerId)
    }

    /// Name and value, to be put into the worker's environment.
    pub fn variable(&self) -> (String, String) {
        (Self::NAME.to_owned(), self.0[Self::NAME.len() + 1..].to_owned())
    }
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
