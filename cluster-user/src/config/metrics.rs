//! Where metrics can be read besides the daemon's own socket: `127.0.0.1:9400`, `9400`, `[::1]:9400`, or `off`.

use std::net::{Ipv4Addr, SocketAddr};

/// The variable that goes before what `cluster metrics --listen` has set.
pub const VARIABLE: &str = "CLUSTER_METRICS";

/// Reads such an address; `None` is `off`. A port alone is one of this host only: `9400` and `:9400` are
/// `127.0.0.1:9400`.
///
/// # Errors
/// A lowercase fragment, when the text is none.
pub fn parse(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "off" {
        return Ok(None);
    }
    let shown = || text.escape_debug().take(80).collect::<String>();
    let port = text.strip_prefix(':').unwrap_or(text);
    let address = match port.parse::<u16>() {
        Ok(port) => SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        Err(_no_number) => text.parse().map_err(|_no_address| {
            format!("`{}` is no address such as 127.0.0.1:9400, no port, and not `off`", shown())
        })?,
    };
    if address.port() == 0 {
        return Err(format!("`{}` has port 0, and nobody would find the one it becomes", shown()));
    }
    Ok(Some(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_alone_is_one_of_this_host_only() {
        for text in ["9400", ":9400", "127.0.0.1:9400"] {
            assert_eq!(parse(text).unwrap(), Some("127.0.0.1:9400".parse().unwrap()), "{text}");
        }
        for text in ["0.0.0.0:9400", "[::]:9400", "[::1]:9400", "10.0.0.7:80"] {
            assert_eq!(parse(text).unwrap(), Some(text.parse().unwrap()), "{text}");
        }
        assert_eq!(parse("off").unwrap(), None);
    }

    #[test]
    fn what_is_no_address_is_refused() {
        for text in ["", "0", ":0", "127.0.0.1", "localhost:9400", "70000", "-1", "on", "\u{1b}[2J"]
        {
            let error = parse(text).unwrap_err();
            assert!(!error.contains('\u{1b}') && error.contains('`'), "{error}");
        }
    }
}
