//! What a worker's `bind` or `listen` is answered.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd},
};

use nix::errno::Errno;
use rustix::net::{listen, sockopt};

use super::{
    Listener, Pending, Plain, Port,
    caller::{Caller, parse},
    notify::{Answer, Call, Notifier},
};
use crate::{
    datapath::{
        Protocol, Report,
        socket::{self, Unfit, group_key, key_at},
    },
    id::{Ticket, WorkerId},
};

impl Plain {
    /// Takes one call of a worker and answers it.
    pub(super) fn take_call(&mut self, worker: WorkerId) {
        let running = self.workers.get(&worker).and_then(|known| known.running.as_ref());
        let notifier = running.and_then(|running| running.notifier.as_ref());
        let Some(call) = notifier.and_then(Notifier::receive) else { return };
        let answer = match call.number {
            libc::SYS_bind => self.bind(worker, &call),
            libc::SYS_listen => self.listen(worker, &call),
            _ => Some(Answer::Continue),
        };
        // What cannot be examined is left as it would have been.
        let answer = answer.unwrap_or(Answer::Continue);
        let running = self.workers.get(&worker).and_then(|known| known.running.as_ref());
        if let Some(notifier) = running.and_then(|running| running.notifier.as_ref()) {
            notifier.answer(&call, answer);
        }
    }

    /// A port of ours gets `SO_REUSEPORT` first. A TCP socket is then bound by the worker itself. A UDP
    /// socket is bound here, because no later call says that it was.
    fn bind(&mut self, worker: WorkerId, call: &Call) -> Option<Answer> {
        let caller = Caller::of(call).ok()?;
        let [_, pointer, length, ..] = call.args;
        let bytes = caller.address(pointer, length).ok()?;
        let address = parse(&bytes)?;
        let socket = self.duplicate(worker, call, &caller).ok()?;
        let protocol = socket::protocol(socket.as_fd()).ok().flatten()?;
        let known = self.workers.get_mut(&worker)?;
        let app = known.app;
        if address.port() == 0 {
            if sockopt::socket_reuseport(&socket).unwrap_or(false) {
                known.private.insert(socket::inode(socket.as_fd()).ok()?);
            }
            return None;
        }
        if !wanted(&known.ports, address.port()) {
            return None;
        }
        // A socket that is bound already cannot be bound again, and bind will say so.
        sockopt::set_socket_reuseport(&socket, true).ok()?;
        self.reports.push_back(Report::Binding { worker, protocol, address });
        if self.has_rival(app, &key_at(socket.as_fd(), protocol, address).ok()?) {
            return Some(Answer::Done(Err(Errno::EADDRINUSE)));
        }
        if protocol == Protocol::Tcp || !caller.may_bind(address.port()) {
            return None;
        }
        Some(self.bind_here(worker, socket, &bytes, address))
    }

    fn bind_here(
        &mut self,
        worker: WorkerId,
        socket: OwnedFd,
        bytes: &[u8],
        address: SocketAddr,
    ) -> Answer {
        let result = match bind_raw(socket.as_fd(), bytes) {
            // A signal interrupted the worker after its call had been carried out, and it called again.
            Err(Errno::EINVAL) if self.was_bound_here(&socket, address) => Ok(()),
            other => other,
        };
        if result.is_ok() {
            self.report(worker, socket);
        }
        Answer::Done(result)
    }

    fn was_bound_here(&self, socket: &OwnedFd, address: SocketAddr) -> bool {
        let inode = socket::inode(socket.as_fd());
        let bound = socket::local_address(socket.as_fd()).ok().flatten();
        inode.is_ok_and(|inode| self.listeners.contains_key(&inode)) && bound == Some(address)
    }

    /// Carried out on the duplicate: then its result is known, and the report comes after the fact.
    fn listen(&mut self, worker: WorkerId, call: &Call) -> Option<Answer> {
        let caller = Caller::of(call).ok()?;
        let socket = match self.duplicate(worker, call, &caller) {
            Ok(socket) => socket,
            Err(error) => {
                let reason = format!("its socket could not be examined: {error}");
                self.reports.push_back(Report::Unusable { worker, address: None, reason });
                return None;
            }
        };
        if socket::protocol(socket.as_fd()).ok().flatten() != Some(Protocol::Tcp) {
            return None;
        }
        let address = socket::local_address(socket.as_fd()).ok().flatten()?;
        let known = self.workers.get(&worker)?;
        let inode = socket::inode(socket.as_fd()).ok()?;
        let shared = sockopt::socket_reuseport(&socket).unwrap_or(false);
        if !shared || known.private.contains(&inode) || !wanted(&known.ports, address.port()) {
            return None;
        }
        // Between its bind and now another may have come to listen; one that listens already may change its backlog.
        let known_already = self.listeners.contains_key(&inode);
        if !known_already && self.has_rival(known.app, &group_key(socket.as_fd()).ok()?) {
            return Some(Answer::Done(Err(Errno::EADDRINUSE)));
        }
        #[expect(clippy::cast_possible_truncation, reason = "the argument is an int in a register")]
        let backlog = call.args[1] as i32;
        let result =
            listen(&socket, backlog).map_err(|error| Errno::from_raw(error.raw_os_error()));
        if result.is_ok() {
            self.report(worker, socket);
        }
        Some(Answer::Done(result))
    }

    /// Reports a socket that listens (TCP) or is bound (UDP), unless it was reported before.
    pub(super) fn report(&mut self, worker: WorkerId, socket: OwnedFd) {
        let (Ok(inode), Some(known)) = (socket::inode(socket.as_fd()), self.workers.get(&worker))
        else {
            return;
        };
        let key = group_key(socket.as_fd());
        let at = key.as_ref().ok().map(Port::of);
        if self.listeners.insert(inode, Listener { app: known.app, at }).is_some() {
            return;
        }
        self.reports.push_back(match key {
            Ok(key) => {
                self.last += 1;
                let ticket = Ticket(self.last);
                self.tickets.insert(ticket, Pending { worker, key: key.clone(), socket });
                Report::Listening { worker, ticket, key }
            }
            Err(unfit) => {
                let address = match unfit {
                    Unfit::Multipath { address } => Some(address),
                    Unfit::Foreign | Unfit::Unbound | Unfit::Unknown(_) => None,
                };
                Report::Unusable { worker, address, reason: unfit.to_string() }
            }
        });
    }

    /// A duplicate of the socket that a call is about.
    fn duplicate(&self, worker: WorkerId, call: &Call, caller: &Caller) -> io::Result<OwnedFd> {
        let gone = || io::Error::from_raw_os_error(libc::ESRCH);
        let running =
            self.workers.get(&worker).and_then(|known| known.running.as_ref()).ok_or_else(gone)?;
        let socket = caller.descriptor((running.pid, running.process.as_fd()), call.args[0])?;
        // Everything was read of the caller by now; was it the caller?
        let waits = running.notifier.as_ref().is_some_and(|notifier| notifier.waits(call));
        if waits { Ok(socket) } else { Err(gone()) }
    }
}

/// Whether a port is to be balanced.
pub(super) fn wanted(ports: &[u16], port: u16) -> bool {
    port != 0 && (ports.is_empty() || ports.contains(&port))
}

/// Binds to an address as the worker gave it, whatever else it holds.
fn bind_raw(socket: BorrowedFd<'_>, address: &[u8]) -> Result<(), Errno> {
    let length = libc::socklen_t::try_from(address.len()).map_err(|_too_long| Errno::EINVAL)?;
    // SAFETY: `address` is valid for reads of `length` bytes.
    let status = unsafe { libc::bind(socket.as_raw_fd(), address.as_ptr().cast(), length) };
    Errno::result(status).map(drop)
}
