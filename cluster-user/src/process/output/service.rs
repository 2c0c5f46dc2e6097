//! Log services of the host: journald by its own protocol, and syslog. Both take datagrams, and neither is waited for.

use std::{
    io,
    os::{fd::AsFd as _, unix::net::UnixDatagram},
    time::Instant,
};

use jiff::{Timestamp, tz::TimeZone};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::Kind;
use crate::{config::spec::logs::Service, id::Instance};

/// Where journald listens (`systemd-journald.service(8)`).
const JOURNALD: &str = "/run/systemd/journal/socket";
/// Where syslog daemons listen (`syslog(3)`).
const SYSLOG: &str = "/dev/log";

/// A longer line comes in pieces: what the services keep of one in their usual settings (journald: `LineMax=48K` of
/// streams; rsyslog: `maxMessageSize` 8 KiB, with what goes before the text).
const LONGEST: [usize; 2] = [48 * 1024, 8000];

/// Severities of RFC 5424, section 6.2.1.
const INFORMATIONAL: u8 = 6;
const ERROR: u8 = 3;
/// The facility of programs that serve (RFC 5424, section 6.2.1).
const DAEMON: u8 = 3;

/// The way to one service.
#[derive(Debug)]
pub(super) struct Courier {
    service: Service,
    socket: Option<UnixDatagram>,
}

/// Whose lines they are, in the words of the service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Letterhead {
    service: Service,
    /// What goes before the time, or before the text where none is said.
    before: Vec<u8>,
    /// What goes between the time and the text.
    after: Vec<u8>,
}

/// What became of a line.
#[derive(Debug)]
pub(super) enum Sent {
    /// It is there.
    Done,
    /// There is no room, or nobody there: later perhaps.
    NotNow(io::Error),
}

/// Where a service listens.
pub(super) const fn place(service: Service) -> &'static str {
    match service {
        Service::Journald => JOURNALD,
        Service::Syslog => SYSLOG,
    }
}

impl Letterhead {
    pub(super) fn new(service: Service, app: &str, instance: Instance, kind: Kind) -> Self {
        let severity = match kind {
            Kind::Out => INFORMATIONAL,
            Kind::Error => ERROR,
        };
        let word = match kind {
            Kind::Out => "out",
            Kind::Error => "err",
        };
        match service {
            Service::Journald => {
                // A line end would end a field.
                let app = app.replace('\n', " ");
                let before = format!(
                    "PRIORITY={severity}\nSYSLOG_FACILITY={DAEMON}\nSYSLOG_IDENTIFIER={app}\n\
                     CLUSTER_APP={app}\nCLUSTER_INSTANCE={instance}\nCLUSTER_STREAM={word}\nMESSAGE="
                );
                Self { service, before: before.into_bytes(), after: Vec::new() }
            }
            Service::Syslog => {
                let fit =
                    |c: char| if c.is_ascii_graphic() && c != ':' && c != '[' { c } else { '_' };
                let tag: String = app.chars().map(fit).take(32).collect();
                let before = format!("<{}>", DAEMON * 8 + severity).into_bytes();
                Self { service, before, after: format!(" {tag}[{instance}]: ").into_bytes() }
            }
        }
    }

    fn letters(&self, line: &[u8]) -> Vec<Vec<u8>> {
        let (longest, time) = match self.service {
            Service::Journald => (LONGEST[0], String::new()),
            // The format of RFC 3164, section 4.1.2, in local time: what `syslog(3)` writes.
            Service::Syslog => {
                let zone = TimeZone::try_system().unwrap_or(TimeZone::UTC);
                let now = Timestamp::now().to_zoned(zone);
                (LONGEST[1], now.strftime("%b %e %H:%M:%S").to_string())
            }
        };
        let letter = |piece: &[u8]| {
            let end: &[u8] = match self.service {
                Service::Journald => b"\n",
                Service::Syslog => b"",
            };
            [&self.before, time.as_bytes(), &self.after, piece, end].concat()
        };
        if line.is_empty() { vec![letter(b"")] } else { line.chunks(longest).map(letter).collect() }
    }
}

impl Courier {
    pub(super) fn new(service: Service) -> Self {
        Self { service, socket: None }
    }

    /// Sends a line, given without its end. `until` says how long room for it may be waited for.
    pub(super) fn send(&mut self, head: &Letterhead, line: &[u8], until: Option<Instant>) -> Sent {
        for letter in head.letters(line) {
            if let Err(error) = self.post(&letter, until) {
                return Sent::NotNow(error);
            }
        }
        Sent::Done
    }

    fn post(&mut self, letter: &[u8], until: Option<Instant>) -> io::Result<()> {
        match self.try_post(letter) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let left = until.map(|until| until.saturating_duration_since(Instant::now()));
                let Some((left, socket)) = left.zip(self.socket.as_ref()) else {
                    return Err(error);
                };
                let mut room = [PollFd::new(socket.as_fd(), PollFlags::POLLOUT)];
                poll(&mut room, PollTimeout::try_from(left).unwrap_or(PollTimeout::ZERO))?;
                self.try_post(letter)
            }
            // A service that was started anew has a new socket.
            Err(_) => {
                self.socket = None;
                self.try_post(letter)
            }
            Ok(()) => Ok(()),
        }
    }

    fn try_post(&mut self, letter: &[u8]) -> io::Result<()> {
        if self.socket.is_none() {
            let socket = UnixDatagram::unbound()?;
            socket.set_nonblocking(true)?;
            socket.connect(place(self.service))?;
            self.socket = Some(socket);
        }
        let Some(socket) = &self.socket else { return Ok(()) };
        socket.send(letter).map(drop)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn letters(service: Service, app: &str, kind: Kind, line: &[u8]) -> Vec<String> {
        let head = Letterhead::new(service, app, Instance(2), kind);
        head.letters(line).into_iter().map(|letter| String::from_utf8(letter).unwrap()).collect()
    }

    #[test]
    fn journald_gets_fields() {
        let letters = letters(Service::Journald, "web", Kind::Error, b"a=b");
        let expected = "PRIORITY=3\nSYSLOG_FACILITY=3\nSYSLOG_IDENTIFIER=web\nCLUSTER_APP=web\n\
                        CLUSTER_INSTANCE=2\nCLUSTER_STREAM=err\nMESSAGE=a=b\n";
        assert_eq!(letters, [expected]);
    }

    #[test]
    fn syslog_gets_a_line_as_every_program_sends_it() {
        let letters = letters(Service::Syslog, "my app", Kind::Out, b"hello");
        assert!(letters[0].starts_with("<30>"), "{letters:?}");
        assert!(letters[0].ends_with(" my_app[2]: hello"), "{letters:?}");
        assert_eq!(letters[0].len(), "<30>Nov 21 14:10:17 my_app[2]: hello".len());
    }

    #[test]
    fn a_long_line_comes_in_pieces() {
        assert_eq!(letters(Service::Syslog, "a", Kind::Out, &b"x".repeat(20_000)).len(), 3);
        assert_eq!(letters(Service::Journald, "a", Kind::Out, &b"x".repeat(48 * 1024)).len(), 1);
        assert_eq!(letters(Service::Journald, "a", Kind::Out, b"").len(), 1);
    }
}
