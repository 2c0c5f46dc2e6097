//! Probes as typed: `http://:8080/health`, `/health`, `tcp`, `tcp://:5432`, or a command line.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

use super::spec::ProbeTarget;

/// Longest probe that is read: request lines beyond it are refused by common servers.
const LONGEST: usize = 4096;

/// Reads what a probe asks. Nothing outside the text is looked at.
///
/// # Errors
/// When it cannot be asked, with what could be typed instead.
pub fn parse(text: &str) -> Result<ProbeTarget, ProbeError> {
    if text.len() > LONGEST {
        return Err(ProbeError(format!(
            "a probe is {} bytes long, not up to {LONGEST}",
            text.len()
        )));
    }
    let text = text.trim();
    let shown = || shown(text);
    if let Some((scheme, rest)) = text.split_once("://").filter(|(scheme, _)| is_word(scheme)) {
        return match scheme.to_ascii_lowercase().as_str() {
            "http" => http(text, rest),
            "tcp" => tcp(text, rest),
            "https" => Err(ProbeError(format!(
                "`{}`: probes do not speak TLS; ask a plain port, or use a command: curl -kfsS URL",
                shown()
            ))),
            _ => Err(ProbeError(format!("`{}` is neither http:// nor tcp://", shown()))),
        };
    }
    if text.eq_ignore_ascii_case("tcp") {
        return Ok(ProbeTarget::Tcp { port: None });
    }
    if text.starts_with('/') && !text.contains(char::is_whitespace) {
        return http(text, text);
    }
    let digits = text.strip_prefix("tcp:").unwrap_or(text);
    let digits = digits.strip_prefix(':').unwrap_or(digits);
    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(ProbeError(format!(
            "`{}` is no probe: write tcp://:{digits} or http://:{digits}/PATH",
            shown()
        )));
    }
    if let Some((host, rest)) = text.split_once(':')
        && !text.contains(char::is_whitespace)
        && rest.starts_with(|c: char| c.is_ascii_digit())
        && (host.is_empty() || host == "localhost" || host.parse::<Ipv4Addr>().is_ok())
    {
        let path = if rest.contains('/') { "" } else { "/PATH" };
        return Err(ProbeError(format!("`{}` is no probe: write http://{text}{path}", shown())));
    }
    command(text)
}

/// Checks what came from elsewhere than [`parse`].
///
/// # Errors
/// As for [`parse`].
pub fn check(target: &ProbeTarget) -> Result<(), ProbeError> {
    match target {
        ProbeTarget::Http { host, port, path } => {
            port_fits(*port)?;
            path_fits(path)?;
            host.as_deref().map_or(Ok(()), host_fits)
        }
        ProbeTarget::Tcp { port } => port_fits(*port),
        ProbeTarget::Command(line) => command(line).map(drop),
    }
}

fn http(text: &str, rest: &str) -> Result<ProbeTarget, ProbeError> {
    let split = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(split);
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    path_fits(&path)?;
    let (host, port) = authority_of(text, authority)?;
    if let Some(host) = &host {
        host_fits(host)?;
    }
    Ok(ProbeTarget::Http { host, port, path })
}

fn tcp(text: &str, rest: &str) -> Result<ProbeTarget, ProbeError> {
    let (host, port) = authority_of(text, rest.strip_suffix('/').unwrap_or(rest))?;
    if host.is_some() || rest.is_empty() {
        return Err(ProbeError(format!(
            "`{}`: a TCP probe goes to the app's own address; write tcp://:PORT or tcp",
            shown(text)
        )));
    }
    Ok(ProbeTarget::Tcp { port })
}

fn authority_of(text: &str, authority: &str) -> Result<(Option<String>, Option<u16>), ProbeError> {
    let bad = |what: &str| ProbeError(format!("`{}`: {what}", shown(text)));
    if authority.contains('@') {
        return Err(bad("a probe carries no password"));
    }
    let (host, port) = match authority.rsplit_once(':') {
        // The colons of an address in brackets are its own.
        Some((_, port)) if port.ends_with(']') => (authority, None),
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    let port = match port {
        None => None,
        Some(digits) => match digits.parse::<u16>() {
            Ok(port) if port != 0 && !digits.starts_with('+') => Some(port),
            Ok(_) | Err(_) => {
                return Err(bad(&format!("`{}` is no port: 1 to 65535", shown(digits))));
            }
        },
    };
    Ok(((!host.is_empty()).then(|| host.to_owned()), port))
}

fn port_fits(port: Option<u16>) -> Result<(), ProbeError> {
    match port {
        Some(0) => Err(ProbeError("a probe of port 0".to_owned())),
        Some(_) | None => Ok(()),
    }
}

fn path_fits(path: &str) -> Result<(), ProbeError> {
    let shown = || shown(path);
    if !path.starts_with('/') {
        return Err(ProbeError(format!("path `{}` does not begin with a slash", shown())));
    }
    if path.contains('#') {
        return Err(ProbeError(format!("path `{}` has a #, which is never sent", shown())));
    }
    let unfit = path.chars().find(|c| !c.is_ascii_graphic() || "\"<>\\^`{|}".contains(*c));
    match unfit {
        Some(unfit) => Err(ProbeError(format!(
            "path `{}` has {unfit:?}, which must be written with %",
            shown()
        ))),
        None => Ok(()),
    }
}

fn host_fits(host: &str) -> Result<(), ProbeError> {
    let bracketed = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    let fits = bracketed.map_or_else(
        || !host.is_empty() && host.len() <= 253 && host.bytes().all(known),
        |address| address.parse::<Ipv6Addr>().is_ok(),
    );
    if fits { Ok(()) } else { Err(ProbeError(format!("`{}` is no host", shown(host)))) }
}

fn command(line: &str) -> Result<ProbeTarget, ProbeError> {
    if line.contains('\0') {
        return Err(ProbeError("a probe contains a NUL".to_owned()));
    }
    match shell_words::split(line) {
        Err(_unclosed) => {
            Err(ProbeError(format!("`{}` has a quote that is not closed", shown(line))))
        }
        Ok(words) if words.first().is_none_or(String::is_empty) => {
            Err(ProbeError("a probe is empty: a URL, tcp, or a command".to_owned()))
        }
        Ok(_) => Ok(ProbeTarget::Command(line.to_owned())),
    }
}

/// As RFC 3986 has schemes, less what no scheme in use has.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'+')
}

fn shown(text: &str) -> String {
    text.escape_default().take(60).collect()
}

impl FromStr for ProbeTarget {
    type Err = ProbeError;

    fn from_str(text: &str) -> Result<Self, ProbeError> {
        parse(text)
    }
}

/// As [`parse`] reads it.
impl fmt::Display for ProbeTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let colon = |port: &Option<u16>| port.map(|port| format!(":{port}")).unwrap_or_default();
        match self {
            Self::Http { host: None, port: None, path } => f.write_str(path),
            Self::Http { host, port, path } => {
                write!(f, "http://{}{}{path}", host.as_deref().unwrap_or_default(), colon(port))
            }
            Self::Tcp { port: None } => f.write_str("tcp"),
            Self::Tcp { port } => write!(f, "tcp://{}", colon(port)),
            Self::Command(line) => f.write_str(line),
        }
    }
}

/// Not a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeError(String);

impl fmt::Display for ProbeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ProbeError {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_users_type_is_understood() {
        let http = |host: Option<&str>, port, path: &str| ProbeTarget::Http {
            host: host.map(str::to_owned),
            port,
            path: path.to_owned(),
        };
        for (text, expected) in [
            ("http://:8080/health", http(None, Some(8080), "/health")),
            ("http://127.0.0.1:80/a?b=c%20d", http(Some("127.0.0.1"), Some(80), "/a?b=c%20d")),
            ("http://[::1]:80/", http(Some("[::1]"), Some(80), "/")),
            ("http://[::1]/x", http(Some("[::1]"), None, "/x")),
            ("HTTP://localhost", http(Some("localhost"), None, "/")),
            ("http://localhost?x=1", http(Some("localhost"), None, "/?x=1")),
            ("http:///health", http(None, None, "/health")),
            ("/health", http(None, None, "/health")),
            ("tcp", ProbeTarget::Tcp { port: None }),
            ("tcp://:5432", ProbeTarget::Tcp { port: Some(5432) }),
            (" curl -f http://x/ ", ProbeTarget::Command("curl -f http://x/".to_owned())),
            ("/opt/check --fast", ProbeTarget::Command("/opt/check --fast".to_owned())),
            ("check", ProbeTarget::Command("check".to_owned())),
        ] {
            assert_eq!(parse(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn what_cannot_work_is_refused_with_what_could() {
        for (text, message) in [
            ("https://:8443/", "do not speak TLS"),
            ("ftp://x/", "neither http:// nor tcp://"),
            ("http://:0/", "`0` is no port"),
            ("http://:65536/", "`65536` is no port"),
            ("http://:+80/", "is no port"),
            ("http://x:/", "`` is no port"),
            ("http://::1:80/", "is no host"),
            ("http://[::g]:80/", "is no host"),
            ("http://a b/", "is no host"),
            ("http://me:pw@x/", "no password"),
            ("http://:80/a b", "must be written with %"),
            ("http://:80/a\r\nHost: x", "must be written with %"),
            ("http://:80/ü", "must be written with %"),
            ("http://:80/a#b", "never sent"),
            ("tcp://127.0.0.1:80", "own address"),
            ("tcp://", "own address"),
            ("tcp://:80/x", "is no port"),
            ("tcp:80", "write tcp://:80"),
            (":80", "write tcp://:80"),
            ("8080", "write tcp://:8080"),
            ("", "empty"),
            ("  ", "empty"),
            ("'' x", "empty"),
            ("check 'x", "not closed"),
            ("check \0", "NUL"),
        ] {
            let error = parse(text).expect_err(text).to_string();
            assert!(error.contains(message), "{text:?}: {error}");
        }
        assert!(parse(&"x".repeat(1 << 20)).unwrap_err().to_string().len() < 200);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(text in "(http://|tcp://|tcp|/)?[a-z/:0-9\\[\\]?= ]{0,20}") {
            if let Ok(target) = parse(&text) {
                prop_assert!(check(&target).is_ok());
                prop_assert_eq!(parse(&target.to_string()), Ok(target));
            }
        }

        #[test]
        fn no_text_panics(text in "\\PC*") {
            drop(parse(&text));
        }
    }
}
