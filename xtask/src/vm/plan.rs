//! Plan: what a machine is to do, as it finds it in its image.

use serde::{Deserialize, Serialize};

use super::kernel::Promise;

/// Where it is in the image.
pub(super) const PATH: &str = "/plan.json";

/// What a machine is to do.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// What `cluster` does on this kernel.
    pub(super) promise: Promise,
    pub(super) depth: Depth,
    /// Tests whose names contain one of these, and nothing else; all of [`DEFAULT_FILTER`] when there are none.
    pub(super) filters: Vec<String>,
    /// Tests whose names contain one of these do not run.
    pub(super) left_out: Vec<String>,
}

/// How much is tried on a kernel. Each has what is in those before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) enum Depth {
    /// The kernel programs are loaded, and `cluster doctor` is asked.
    Verifier,
    /// The real program serves, is reloaded, killed, and ends.
    Program,
    /// The tests of the library.
    Tests,
}

impl Depth {
    /// What is not tried, for people.
    pub(super) fn without(self) -> Option<&'static str> {
        match self {
            Self::Verifier => Some("the real program, and the tests of the library"),
            Self::Program => Some("the tests of the library"),
            Self::Tests => None,
        }
    }
}

/// The part of the library that meets the kernel.
pub(super) const DEFAULT_FILTER: &str = "datapath::";

/// Tests, by a part of their names, that cannot run inside of a machine, and why.
const NOWHERE: [(&str, &str); 4] = [
    ("plain::tests::static_go_servers_share_a_port", "there is no Go compiler inside"),
    (
        "plain::tests::node_servers_share_a_port",
        "there is no Node inside, which would be half of the image",
    ),
    (
        "kernel::tests::draining::thousands_of_connections_are_told",
        "it takes minutes on emulated CPUs, and another number of connections is no other matter to the kernel",
    ),
    (
        "kernel::tests::adopting::a_hundred_workers_are_adopted_in_no_time",
        "a hundred Pythons take minutes to start on emulated CPUs, and it is about time",
    ),
];

/// The same, for a kernel on which there is no kernel mode.
const NOT_IN_PLAIN_MODE: [(&str, &str); 6] = [
    ("datapath::kernel::tests::", "they load programs that this kernel does not take"),
    (
        "kernel::depth::tests::a_cgroup_knows_how_deep_it_is_only_from_within",
        "this kernel has no bpf_get_current_ancestor_cgroup_id for it, and plain mode no use for it",
    ),
    (
        "plain::tests::rescue::what_waits_is_answered_by_others_where_the_kernel_moves_it",
        "this kernel moves nothing: it has no net.ipv4.tcp_migrate_req",
    ),
    (
        "kernel::drain::tests::the_programs_are_loaded_quickly",
        "it counts programs against a limit of 64 KiB, which is only raised to try things",
    ),
    (
        "kernel::measure::tests::every_program_is_measured",
        "it does not take all; which it takes is compared with what is recorded",
    ),
    (
        "probe::tests::a_host_that_runs_these_tests_can_do_everything",
        "it cannot; what it lacks is compared with what is known of this kernel",
    ),
];

/// The tests that are left out, and why.
pub(super) fn left_out(promise: Promise) -> Vec<(&'static str, &'static str)> {
    let plain = match promise {
        Promise::Everything => [].as_slice(),
        Promise::Plain => &NOT_IN_PLAIN_MODE,
    };
    NOWHERE.iter().chain(plain).copied().collect()
}
