//! Telling a worker's connections to close: which of them the programs see.
//!
//! A connection is put in through a duplicate of its socket, once, and leaves when it is closed. What the programs do with
//! it is in [`cluster_common::exchange`].

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::File,
    io,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use aya_obj::generated::{bpf_attach_type as attach, bpf_prog_type as program};
#[cfg(test)]
use cluster_common::stats::DrainStats;
use cluster_common::{
    exchange::{Exchange, TcpSock},
    names,
};

use super::{
    bpf,
    object::{Prepared, Wanted},
    probe, types,
};
use crate::{
    datapath::{
        diag::Entry,
        idle::{self, Holder},
        socket::{self, OpenSocket},
    },
    id::WorkerId,
};

/// The compiled object.
pub(super) static DRAIN: &[u8] =
    aya::include_bytes_aligned!("../../../../cluster-ebpf/object/drain.bpf.o");

const PROGRAMS: [Wanted; 3] = [
    Wanted {
        name: names::ARRIVE,
        program_type: program::BPF_PROG_TYPE_CGROUP_SKB as u32,
        attach_type: attach::BPF_CGROUP_INET_INGRESS as u32,
        target: 0,
    },
    Wanted {
        name: names::READ,
        program_type: program::BPF_PROG_TYPE_CGROUP_SKB as u32,
        attach_type: attach::BPF_CGROUP_INET_INGRESS as u32,
        target: 0,
    },
    Wanted {
        name: names::DEPART,
        program_type: program::BPF_PROG_TYPE_SK_MSG as u32,
        attach_type: attach::BPF_SK_MSG_VERDICT as u32,
        target: 0,
    },
];

/// How long one call may take for connections that are new: the others have to wait for the next one.
const TURN: Duration = Duration::from_millis(30);
/// How often a connection is looked for that no process of the worker seems to have.
const TRIES: u8 = 3;

/// Which connections are told to close.
pub(super) struct Drain {
    root: PathBuf,
    state: State,
    workers: BTreeMap<WorkerId, BTreeMap<u64, Place>>,
}

enum State {
    /// Nothing has been drained so far.
    Unused,
    /// This kernel does not take the programs: draining is waiting.
    Missing,
    Loaded(Programs),
}

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The programs see it.
    Inside,
    /// It cannot be put in.
    Unfit,
    /// It has been looked for as often as this, and was not found.
    Sought(u8),
}

/// The programs, loaded, and their maps.
pub(super) struct Programs {
    arrive: OwnedFd,
    #[expect(dead_code, reason = "held: the kernel empties it when nobody else does")]
    steps: OwnedFd,
    connections: OwnedFd,
    exchanges: OwnedFd,
    #[cfg(test)]
    stats: super::mapping::Mapping,
    /// While a worker drains, [`names::ARRIVE`] is attached to the workers' cgroups, and to the daemon's own.
    links: Vec<OwnedFd>,
}

impl Drain {
    pub(super) fn new(root: &Path) -> Self {
        Self { root: root.to_owned(), state: State::Unused, workers: BTreeMap::new() }
    }

    /// Lets the programs see the connections of a worker: those of `found` that they do not see yet.
    ///
    /// `open` lists the sockets that the worker's processes have open. It is called when there are new connections.
    pub(super) fn watch(
        &mut self,
        worker: WorkerId,
        found: &[Entry],
        open: impl FnOnce() -> Vec<(u32, OpenSocket)>,
    ) {
        let Some(programs) = self.state.programs(&self.root) else { return };
        let known = self.workers.entry(worker).or_default();
        let there: BTreeSet<u64> = found.iter().map(|entry| entry.cookie).collect();
        known.retain(|cookie, _| there.contains(cookie));
        // One without a number is in the accept queue: nobody has it open.
        let new: BTreeMap<u64, &Entry> = found
            .iter()
            .filter(|entry| entry.inode != 0 && is_new(known.get(&entry.cookie)))
            .map(|entry| (entry.inode.into(), entry))
            .collect();
        if new.is_empty() {
            return;
        }
        let mut holders = idle::holders(open(), |inode| new.contains_key(&inode));
        let began = Instant::now();
        for (inode, entry) in new {
            let holder = holders.remove(&inode);
            let place = match holder.map(|holder| programs.insert(&holder, entry)) {
                Some(Ok(true)) => Place::Inside,
                Some(Ok(false)) => Place::Unfit,
                // It was closed in this moment, or has been accepted in this moment and has no descriptor yet.
                Some(Err(_)) | None => match known.get(&entry.cookie) {
                    Some(Place::Sought(tries)) => Place::Sought(tries + 1),
                    _ => Place::Sought(1),
                },
            };
            known.insert(entry.cookie, place);
            if began.elapsed() > TURN {
                return;
            }
        }
    }

    /// Lets go of the connections of a worker.
    pub(super) fn leave(&mut self, worker: WorkerId) {
        let Some(known) = self.workers.remove(&worker) else { return };
        let State::Loaded(programs) = &mut self.state else { return };
        for (cookie, place) in known {
            if place == Place::Inside {
                // One that was closed has left by itself.
                drop(bpf::remove_connection(programs.connections.as_fd(), cookie));
            }
        }
        if self.workers.is_empty() {
            programs.links.clear();
        }
    }

    /// Whether something arrived at a connection that was no request, so that it may be of another protocol.
    pub(super) fn is_strange(&self, socket: BorrowedFd<'_>) -> bool {
        match &self.state {
            State::Loaded(programs) => programs.is_strange(socket),
            State::Unused | State::Missing => false,
        }
    }

    /// How many connections the programs see.
    #[cfg(test)]
    pub(super) fn connections(&self) -> usize {
        let State::Loaded(programs) = &self.state else { return 0 };
        bpf::count(programs.connections.as_fd())
    }

    /// What the programs have counted; absent before the first drain.
    #[cfg(test)]
    pub(super) fn stats(&self) -> Option<DrainStats> {
        let State::Loaded(Programs { stats, .. }) = &self.state else { return None };
        let counter = |offset: usize| stats.counter(offset / 8);
        Some(DrainStats {
            told: counter(std::mem::offset_of!(DrainStats, told)),
            failed: counter(std::mem::offset_of!(DrainStats, failed)),
            ..DrainStats::default()
        })
    }
}

/// Whether something can still be done for a connection.
fn is_new(place: Option<&Place>) -> bool {
    match place {
        None => true,
        Some(Place::Inside | Place::Unfit) => false,
        Some(Place::Sought(tries)) => *tries < TRIES,
    }
}

impl State {
    /// The programs, loaded and attached; `None` where that cannot be.
    fn programs(&mut self, root: &Path) -> Option<&mut Programs> {
        if let Self::Unused = self {
            *self = match Programs::load() {
                Ok(programs) => Self::Loaded(programs),
                Err(error) => {
                    log::warn!(
                        "connections cannot be told to close, so draining is waiting: {error:#}"
                    );
                    Self::Missing
                }
            };
        }
        let Self::Loaded(programs) = self else { return None };
        if let Err(error) = programs.attach(root) {
            log::warn!("connections cannot be told to close: {error:#}");
            return None;
        }
        Some(programs)
    }
}

/// The cgroups that connections of workers are in: those of workers, and that of the daemon, where a connection stays
/// that has waited for a worker (a connection is in the cgroup of the listener that completed it, `sk_clone_lock`).
///
/// A program sees what is below it too, and must see everything once.
fn homes(root: &Path, own: Option<PathBuf>) -> Vec<PathBuf> {
    match own {
        Some(own) if root.starts_with(&own) => vec![own],
        Some(own) if !own.starts_with(root) => vec![root.to_owned(), own],
        Some(_) | None => vec![root.to_owned()],
    }
}

/// The value of [`names::TCP_SOCK`]: where this kernel has what the programs read.
///
/// # Errors
/// When it does not say.
pub(super) fn places() -> anyhow::Result<Vec<u8>> {
    let TcpSock { rcv_nxt, snd_nxt, copied_seq, write_seq } = types::tcp_sock()?;
    let places = [rcv_nxt, snd_nxt, copied_seq, write_seq];
    Ok(places.into_iter().flat_map(u32::to_ne_bytes).collect())
}

impl Programs {
    /// Loads them. Takes some milliseconds, for the kernel's type information and the verifier.
    ///
    /// # Errors
    /// What the kernel lacks.
    pub(super) fn load() -> anyhow::Result<Self> {
        let places = places()?;
        let object = Prepared::new(DRAIN, &[(names::TCP_SOCK, &places)], &PROGRAMS)?;
        let mut loaded = object.load()?;
        let programs: Vec<OwnedFd> =
            loaded.take_programs().into_iter().map(|(_, program)| program).collect();
        let Ok([arrive, read, depart]) = <[OwnedFd; 3]>::try_from(programs) else {
            anyhow::bail!("the drain object lacks a program");
        };
        let steps = loaded.take_map(names::STEPS)?;
        bpf::update(steps.as_fd(), 0, &read.as_raw_fd().to_ne_bytes())
            .context("put a program into a map")?;
        let connections = loaded.take_map(names::CONNECTIONS)?;
        let attach_type = attach::BPF_SK_MSG_VERDICT as u32;
        bpf::attach_to_sockets(depart.as_fd(), connections.as_fd(), attach_type)
            .context("attach to a map of sockets")?;
        let exchanges = loaded.take_map(names::EXCHANGES)?;
        #[cfg(test)]
        let stats = {
            let stats = loaded.take_map(names::DRAIN_STATS)?;
            super::mapping::Mapping::new(stats.as_fd(), size_of::<DrainStats>(), false)?
        };
        Ok(Self {
            arrive,
            steps,
            connections,
            exchanges,
            #[cfg(test)]
            stats,
            links: Vec::new(),
        })
    }

    /// Sees what arrives at all workers from now on, if it does not yet.
    fn attach(&mut self, root: &Path) -> anyhow::Result<()> {
        if !self.links.is_empty() {
            return Ok(());
        }
        let mut links = Vec::new();
        for path in homes(root, probe::own_cgroup().ok()) {
            let cgroup = File::open(&path).with_context(|| format!("open {}", path.display()))?;
            let attach_type = attach::BPF_CGROUP_INET_INGRESS as u32;
            let link = bpf::link_to_cgroup(self.arrive.as_fd(), cgroup.as_fd(), attach_type);
            links.push(link.with_context(|| format!("attach to {}", path.display()))?);
        }
        self.links = links;
        Ok(())
    }

    /// Puts a connection in; `false` if it is one that cannot be.
    ///
    /// # Errors
    /// When it cannot be duplicated, or is not there any more.
    fn insert(&self, holder: &Holder, entry: &Entry) -> io::Result<bool> {
        let socket = holder.duplicate()?;
        if socket::cookie(socket.as_fd())? != entry.cookie {
            // The descriptor was closed and its number used again.
            return Err(io::ErrorKind::NotFound.into());
        }
        // Whoever asks to be told when his memory has been sent would wait for it in vain: in such a map the kernel copies
        // (`tcp_bpf_sendmsg`) and says nothing.
        if socket::is_mptcp(socket.as_fd())? || socket::has_zerocopy(socket.as_fd())? {
            return Ok(false);
        }
        let exchange = Exchange::new(!entry.busy);
        let key = socket.as_raw_fd().cast_unsigned();
        let kept = bpf::update(self.exchanges.as_fd(), key, exchange.as_bytes());
        let kept = kept.and_then(|()| {
            bpf::insert_connection(self.connections.as_fd(), entry.cookie, socket.as_fd())
        });
        // Not connected any more, or with TLS of the kernel on top, or there are too many.
        Ok(kept.is_ok())
    }

    fn is_strange(&self, socket: BorrowedFd<'_>) -> bool {
        const WORDS: usize = size_of::<Exchange>() / size_of::<u64>();
        let key = socket.as_raw_fd().cast_unsigned();
        bpf::lookup::<WORDS>(self.exchanges.as_fd(), key)
            .is_ok_and(|words| Exchange::from_words(words).is_strange())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_programs_are_loaded_quickly() {
        let began = Instant::now();
        let programs = Programs::load();
        let took = began.elapsed();

        println!("loaded in {took:?}");
        assert!(programs.is_ok(), "{:#}", programs.err().unwrap());
    }
}
