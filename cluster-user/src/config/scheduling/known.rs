//! The policies there are, and what each picks: for lists, completion and manuals.

use serde::Serialize;

/// A policy, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Known {
    /// Its name.
    pub name: &'static str,
    /// How its keys are written; empty when it has none.
    pub keys: &'static str,
    /// What it picks, in a few words.
    pub picks: &'static str,
}

/// All of them, in the order in which people need them.
pub const POLICIES: [Known; 11] = [
    known(
        "round-robin",
        "",
        "one worker after the other, in proportion to their weights; the usual one",
    ),
    known("least-conn", "", "the worker with the fewest connections, queued and in service"),
    known("p2c", "", "the better of two at random, by connections and how long they take"),
    known("queue", "", "the worker with the shortest accept queue"),
    known("hash", "", "by the client's address and port, over workers that are fit"),
    known(
        "sticky",
        "prefix=N prefix6=N quic=BYTES",
        "by the client's address: it stays with its worker; keeps UDP flows together",
    ),
    known("cpu-local", "", "the worker on the CPU that received the packet"),
    known("random", "", "any worker"),
    known("none", "", "the kernel's own hash over the whole group, as without cluster"),
    known(
        "class",
        "WHOM=WORKERS[:POLICY]…",
        "by kind of client: network, dscp:N, bytes:HEX or *, each with workers of its own",
    ),
    known(
        "custom",
        "./FILE.o",
        "what a program of your own picks: cargo xtask new-policy NAME begins one",
    ),
];

const fn known(name: &'static str, keys: &'static str, picks: &'static str) -> Known {
    Known { name, keys, picks }
}

#[cfg(test)]
mod tests {
    use super::{super::Policy, *};

    #[test]
    fn every_policy_is_known_by_the_name_it_is_read_by() {
        for known in POLICIES {
            let text = match known.name {
                "class" => "class *=0",
                "custom" => "mine.o",
                name => name,
            };
            assert_eq!(text.parse::<Policy>().unwrap().name(), known.name);
        }
    }
}
