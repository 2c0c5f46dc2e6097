//! What workers are given beside their program: sockets that listen already, and the file with their process id.

use std::os::fd::{AsFd as _, BorrowedFd, RawFd};

use nix::errno::Errno;

use super::{answer::Held, host::Host, run::Supervisor};
use crate::{
    api::message::What,
    config::{
        listen::{Listen, Place},
        spec::AppSpec,
    },
    datapath::Protocol,
    id::{AppId, Instance, WorkerId},
    process::{
        pid_file,
        spawn::{OWN_PID, Socket, SpawnError},
        tree::Tree,
        unix::{Shared, Wanted},
    },
    state::view::Status,
};

/// Number of the first socket (`SD_LISTEN_FDS_START` of `sd_listen_fds(3)`).
const FIRST: RawFd = 3;

/// The variable that tells a worker that the sockets are meant for it; its value is its own process id.
pub(super) fn for_itself(spec: &AppSpec) -> Option<(String, String)> {
    (!spec.listen.is_empty()).then(|| (OWN_PID.to_owned(), String::new()))
}

/// The sockets that a worker makes for itself.
pub(super) fn own(spec: &AppSpec) -> Vec<Socket> {
    let all = spec.listen.iter().zip(FIRST..);
    all.filter_map(|(listen, number)| match &listen.place {
        Place::Inet { protocol, address } => Some(Socket {
            number,
            is_tcp: *protocol == Protocol::Tcp,
            address: *address,
            // Else it would be in the way of the one for IPv4.
            v6only: address.is_ipv6()
                && spec.listen.iter().any(|other| is_v4(other, *protocol, address.port())),
            backlog: listen.backlog,
        }),
        Place::Unix { .. } => None,
    })
    .collect()
}

fn is_v4(listen: &Listen, protocol: Protocol, port: u16) -> bool {
    match &listen.place {
        Place::Inet { protocol: of, address } => {
            *of == protocol && address.is_ipv4() && address.port() == port
        }
        Place::Unix { .. } => false,
    }
}

impl Host {
    /// Sees to it that the sockets are there that all workers of an app share.
    ///
    /// # Errors
    /// A lowercase fragment.
    pub(super) fn open_shared(&mut self, app: AppId, spec: &AppSpec) -> Result<(), String> {
        for listen in &spec.listen {
            match &listen.place {
                Place::Inet { .. } => {}
                Place::Unix { path, mode, user, group } => {
                    if self.shared.contains_key(&(app, path.clone())) {
                        continue;
                    }
                    let id = |text: &Option<String>| text.as_deref().and_then(|id| id.parse().ok());
                    let wanted = Wanted {
                        path,
                        mode: *mode,
                        // Who cannot give it away keeps it.
                        uid: id(user).filter(|uid| *uid != nix::unistd::geteuid().as_raw()),
                        gid: id(group).filter(|gid| *gid != nix::unistd::getegid().as_raw()),
                        backlog: listen.backlog,
                    };
                    self.shared.insert((app, path.clone()), Shared::open(&wanted)?);
                }
            }
        }
        Ok(())
    }

    /// The shared sockets of an app, with their numbers in its workers.
    pub(super) fn shared_of(&self, app: AppId, spec: &AppSpec) -> Vec<(BorrowedFd<'_>, RawFd)> {
        let all = spec.listen.iter().zip(FIRST..);
        all.filter_map(|(listen, number)| match &listen.place {
            Place::Inet { .. } => None,
            Place::Unix { path, .. } => {
                Some((self.shared.get(&(app, path.clone()))?.as_fd(), number))
            }
        })
        .collect()
    }

    /// Takes the shared sockets of an app from a worker that an earlier daemon gave them to.
    pub(super) fn adopt_shared(&mut self, app: AppId, spec: &AppSpec, tree: &Tree) {
        for (listen, number) in spec.listen.iter().zip(FIRST..) {
            match &listen.place {
                Place::Inet { .. } => {}
                Place::Unix { path, .. } => {
                    let key = (app, path.clone());
                    if !self.shared.contains_key(&key)
                        && let Some(shared) = Shared::reopen(tree.process(), number, path)
                    {
                        self.shared.insert(key, shared);
                    }
                }
            }
        }
    }
}

impl Supervisor {
    /// Ends the shared sockets of apps that are gone, do not run, or have no use for them any more.
    pub(super) fn close_unused(&mut self) {
        if self.host.shared.is_empty() {
            return;
        }
        let state = &self.state;
        let running: Vec<AppId> = self.host.workers.values().map(|running| running.app).collect();
        let is_used = |(app, path): &(AppId, std::path::PathBuf)| {
            let Some(view) = state.app_of(*app) else { return false };
            if running.contains(app) {
                // Of an older generation, perhaps.
                return true;
            }
            let is_named = view.spec.listen.iter().any(|listen| match &listen.place {
                Place::Inet { .. } => false,
                Place::Unix { path: named, .. } => named == path,
            });
            let rests = |status: Status| status == Status::Stopped || status == Status::Errored;
            is_named && !view.seats.iter().all(|seat| rests(seat.status))
        };
        let unused = self.host.shared.extract_if(.., |key, _| !is_used(key));
        unused.for_each(|(_, shared)| shared.close());
    }

    /// Why a worker was not spawned, with who is in the way.
    pub(super) fn why_not_spawned(&self, error: &anyhow::Error) -> String {
        let reason = format!("{error:#}");
        let Some(error) = error.downcast_ref::<SpawnError>() else { return reason };
        let Some(socket) = error.socket.filter(|_| error.errno == Errno::EADDRINUSE) else {
            return reason;
        };
        let protocol = if socket.is_tcp { Protocol::Tcp } else { Protocol::Udp };
        match self.holder(protocol, socket.address) {
            Some(Held { address, by, app: _ }) => {
                format!("failed to listen on {}: {address} is held by {by}", socket.address)
            }
            None => reason,
        }
    }

    /// Writes down the process id of a worker where its app wants it.
    pub(super) fn write_pid_file(&self, worker: WorkerId) {
        let Some(spec) = self.state.spec_of(worker) else { return };
        let Some(running) = self.host.workers.get(&worker) else { return };
        let Some(path) = spec.identity.pid_file_of(running.instance.0) else { return };
        if let Err(error) = pid_file::write(&path, running.tree.pid()) {
            let detail = format!("failed to write the pid file {}: {error}", path.display());
            log::warn!("worker {worker}: {detail}");
            self.host.board.post(self.note(worker, What::Trouble).detail(detail));
        }
    }

    /// Removes the file with the process id of a worker that is gone, or writes that of the other in its seat into it.
    pub(super) fn remove_pid_file(&self, worker: WorkerId) {
        let Some(spec) = self.state.spec_of(worker) else { return };
        let Some(running) = self.host.workers.get(&worker) else { return };
        let Some(path) = spec.identity.pid_file_of(running.instance.0) else { return };
        pid_file::remove(&path, running.tree.pid());
        let seat: (AppId, Instance) = (running.app, running.instance);
        let mut others = self.host.workers.iter().rev();
        let other = others.find(|(id, of)| **id != worker && (of.app, of.instance) == seat);
        if let Some((other, _)) = other
            && !path.exists()
        {
            self.write_pid_file(*other);
        }
    }
}
