//! Sockets that workers are given: `tcp://0.0.0.0:80`, `udp://[::]:53`, `unix:/run/app.sock?mode=0660`.

use std::{
    fmt,
    net::SocketAddr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::datapath::Protocol;

/// So many sockets can be given to a worker: those after them have numbers that other things have.
pub const MOST: usize = 11;
/// Longest path of a Unix socket, its end included (`unix(7)`).
const LONGEST_PATH: usize = 107;
/// Connections that wait to be accepted, unless it is said otherwise; the kernel takes less if `somaxconn` is.
pub const BACKLOG: u32 = 4096;
/// Who may connect to a Unix socket, unless it is said otherwise: everybody, as under systemd.
const MODE: u32 = 0o666;

/// A socket that every worker finds open (`sd_listen_fds(3)`).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Listen {
    /// Where it listens.
    pub place: Place,
    /// Its name in `LISTEN_FDNAMES`; that of the app's unit when absent.
    pub name: Option<String>,
    /// Connections that wait to be accepted.
    pub backlog: u32,
}

/// Where a socket listens.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// Each worker has a socket of its own there.
    Inet {
        /// TCP or UDP.
        protocol: Protocol,
        /// Address and port; the port is never 0.
        address: SocketAddr,
    },
    /// All workers share one stream socket.
    Unix {
        /// Absolute once it is resolved.
        path: PathBuf,
        /// Permissions.
        mode: u32,
        /// Owner, by name or number; the workers' user when absent.
        user: Option<String>,
        /// Group, by name or number; the workers' group when absent.
        group: Option<String>,
    },
}

/// Why a text is no socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenError(String);

impl fmt::Display for ListenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ListenError {}

impl Listen {
    /// Whether a socket of that protocol and address is this one.
    pub fn is_at(&self, protocol: Protocol, address: SocketAddr) -> bool {
        match &self.place {
            Place::Inet { protocol: own, address: at } => (*own, *at) == (protocol, address),
            Place::Unix { .. } => false,
        }
    }
}

/// Checks sockets together.
///
/// # Errors
/// A lowercase fragment.
pub fn check(all: &[Listen], ports: &[u16]) -> Result<(), String> {
    if all.len() > MOST {
        return Err(format!("listen names {} sockets, more than {MOST}", all.len()));
    }
    for (at, listen) in all.iter().enumerate() {
        let same = |other: &Listen| match (&other.place, &listen.place) {
            (Place::Unix { path: a, .. }, Place::Unix { path: b, .. }) => a == b,
            (a, b) => a == b,
        };
        if all[..at].iter().any(same) {
            return Err(format!("listen names {} twice", listen.place));
        }
        match &listen.place {
            Place::Inet { address, .. } => {
                if !ports.is_empty() && !ports.contains(&address.port()) {
                    return Err(format!(
                        "listen names {}, and port {} is not among those that are balanced",
                        listen.place,
                        address.port()
                    ));
                }
            }
            Place::Unix { path, .. } => {
                if !path.is_absolute() {
                    return Err(format!("listen names {}, no absolute path", listen.place));
                }
                fits(path).map_err(|error| error.to_string())?;
            }
        }
    }
    Ok(())
}

/// Whether a path fits into the address of a socket.
///
/// # Errors
/// When it is too long, or has a null in it.
pub fn fits(path: &Path) -> Result<(), ListenError> {
    let length = path.as_os_str().len();
    if path.as_os_str().as_bytes().contains(&0) {
        return Err(ListenError("path of a socket has a null in it".to_owned()));
    }
    if length > LONGEST_PATH {
        return Err(ListenError(format!(
            "path `{}` of a socket is {length} bytes long, more than the {LONGEST_PATH} that the kernel takes",
            path.display()
        )));
    }
    Ok(())
}

impl FromStr for Listen {
    type Err = ListenError;

    fn from_str(text: &str) -> Result<Self, ListenError> {
        let shown: String = text.escape_debug().take(80).collect();
        let bad = |why: String| ListenError(format!("`{shown}`: {why}"));
        let (place, query) = text.split_once('?').unwrap_or((text, ""));
        let mut listen = match place.split_once(':') {
            Some((kind @ ("tcp" | "udp"), rest)) => {
                let protocol = if kind == "tcp" { Protocol::Tcp } else { Protocol::Udp };
                let rest = rest.strip_prefix("//").unwrap_or(rest);
                let address: SocketAddr = rest.parse().map_err(|_no_address| {
                    let example = format!("{kind}://0.0.0.0:80 or {kind}://[::]:80");
                    bad(format!("`{rest}` is no address and port, as in {example}"))
                })?;
                if address.port() == 0 {
                    return Err(bad("port 0 would be another one for each worker".to_owned()));
                }
                Place::Inet { protocol, address }
            }
            Some(("unix", rest)) => {
                // unix:/x, unix:///x, and unix:x for one in the app's folder.
                let path = rest.strip_prefix("//").unwrap_or(rest);
                if path.is_empty() || path.ends_with('/') {
                    return Err(bad("no path of a socket, as in unix:/run/app.sock".to_owned()));
                }
                if path.starts_with('@') {
                    return Err(
                        bad("abstract sockets have no permissions; give a path".to_owned()),
                    );
                }
                fits(Path::new(path))?;
                Place::Unix { path: path.into(), mode: MODE, user: None, group: None }
            }
            Some(_) | None => {
                return Err(bad(
                    "no socket: tcp://ADDRESS:PORT, udp://ADDRESS:PORT or unix:PATH".to_owned()
                ));
            }
        };
        let (mut name, mut backlog) = (None, BACKLOG);
        let mut given = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            if given.contains(&key) {
                return Err(bad(format!("{key} is given twice")));
            }
            given.push(key);
            let value = value.to_owned();
            match (key, &mut listen) {
                // As systemd checks them (FileDescriptorName= in systemd.socket(5)).
                ("name", _) => {
                    let plain = |c: char| c.is_ascii_graphic() && c != ':';
                    if value.is_empty() || value.len() > 255 || !value.chars().all(plain) {
                        return Err(bad(format!("`{value}` cannot be a name")));
                    }
                    name = Some(value);
                }
                ("backlog", _) => {
                    let number = value.parse().ok().filter(|number| (1..=65_535).contains(number));
                    backlog = number
                        .ok_or_else(|| bad(format!("backlog `{value}` is not 1 to 65535")))?;
                }
                ("mode", Place::Unix { mode, .. }) => {
                    *mode = u32::from_str_radix(&value, 8)
                        .ok()
                        .filter(|mode| *mode <= 0o777)
                        .ok_or_else(|| bad(format!("mode `{value}` is not 0 to 0777")))?;
                }
                ("user", Place::Unix { user, .. }) if !value.is_empty() => *user = Some(value),
                ("group", Place::Unix { group, .. }) if !value.is_empty() => *group = Some(value),
                _ => {
                    return Err(bad(format!(
                        "unknown `{pair}`: there is name=, backlog=, and for unix mode=, user=, group="
                    )));
                }
            }
        }
        Ok(Self { place: listen, name, backlog })
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet { protocol: Protocol::Tcp, address } => write!(f, "tcp://{address}"),
            Self::Inet { protocol: Protocol::Udp, address } => write!(f, "udp://{address}"),
            Self::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.place.fmt(f)?;
        let mut pairs = Vec::new();
        pairs.extend(self.name.as_ref().map(|name| format!("name={name}")));
        if self.backlog != BACKLOG {
            pairs.push(format!("backlog={}", self.backlog));
        }
        match &self.place {
            Place::Inet { .. } => {}
            Place::Unix { mode, user, group, .. } => {
                if *mode != MODE {
                    pairs.push(format!("mode=0{mode:o}"));
                }
                pairs.extend(user.as_ref().map(|user| format!("user={user}")));
                pairs.extend(group.as_ref().map(|group| format!("group={group}")));
            }
        }
        if pairs.is_empty() { Ok(()) } else { write!(f, "?{}", pairs.join("&")) }
    }
}

impl Serialize for Listen {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Listen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_read_as_it_is_written() {
        for text in [
            "tcp://0.0.0.0:80",
            "udp://[::]:53?name=dns&backlog=1",
            "unix:/run/app.sock?mode=0660&user=www-data&group=33",
        ] {
            assert_eq!(text.parse::<Listen>().unwrap().to_string(), text);
        }
        assert_eq!("unix:///run/x".parse::<Listen>(), "unix:/run/x".parse());
        assert_eq!("tcp:127.0.0.1:80".parse::<Listen>(), "tcp://127.0.0.1:80".parse());
    }

    #[test]
    fn what_is_no_socket_says_what_one_is() {
        let long = format!("unix:/{}", "x".repeat(107));
        for (text, said) in [
            ("80", "tcp://ADDRESS:PORT"),
            ("http://x", "tcp://ADDRESS:PORT"),
            ("tcp://localhost:80", "tcp://0.0.0.0:80"),
            ("tcp://0.0.0.0", "no address and port"),
            ("udp://0.0.0.0:0", "port 0"),
            ("unix:", "no path"),
            ("unix:/run/", "no path"),
            ("unix:@x", "abstract"),
            ("unix:/x?mode=888", "not 0 to 0777"),
            ("tcp://0.0.0.0:80?mode=0600", "unknown `mode=0600`"),
            ("tcp://0.0.0.0:80?name=a:b", "cannot be a name"),
            ("tcp://0.0.0.0:80?backlog=0", "not 1 to 65535"),
            ("tcp://0.0.0.0:80?backlog=1&name=a&backlog=2", "backlog is given twice"),
            (&long, "108 bytes long"),
        ] {
            let error = text.parse::<Listen>().unwrap_err().to_string();
            assert!(error.contains(said), "{text}: {error}");
        }
    }

    #[test]
    fn sockets_have_to_fit_together() {
        let all =
            |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<_>>();
        assert_eq!(
            check(&all(&["tcp://0.0.0.0:80", "udp://0.0.0.0:80", "tcp://[::]:80"]), &[]),
            Ok(())
        );
        let twice = check(&all(&["unix:/x", "unix:/x?mode=0600"]), &[]).unwrap_err();
        assert!(twice.contains("unix:/x twice"), "{twice}");
        assert!(check(&all(&["tcp://0.0.0.0:80"]), &[81]).unwrap_err().contains("port 80"));
        assert!(check(&all(&["unix:x"]), &[]).is_err());
        let many: Vec<_> = (1..20).map(|port| format!("tcp://0.0.0.0:{port}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert!(check(&all(&many), &[]).is_err());
    }
}
