//! How clients reach the workers: over `lo`, or over a pair of virtual interfaces from a network of their own.

use std::{
    fs::File,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sched::{CloneFlags, setns, unshare};

use super::{init, interface};
use crate::experiment::{Family, Link};

/// How long a new link may take to carry something.
const PATIENCE: Duration = Duration::from_secs(10);

/// The way between clients and workers.
#[derive(Debug)]
pub(crate) struct Way {
    /// Where the workers serve.
    pub(crate) server: IpAddr,
    /// Addresses that clients have, in turn; empty when the kernel picks the only one.
    pub(crate) clients: Vec<IpAddr>,
    /// The clients' own network.
    network: Option<File>,
}

impl Way {
    /// Makes it, in the network of this process.
    pub(crate) fn make(link: Link, family: Family, clients: u32) -> anyhow::Result<Self> {
        match link {
            Link::Loopback => Self::loopback(family, clients),
            Link::Veth => Self::veth(family, clients),
        }
    }

    /// Moves this thread to where the clients are.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        let Some(network) = &self.network else { return Ok(()) };
        setns(network, CloneFlags::CLONE_NEWNET).context("failed to go to the clients' network")
    }

    /// Waits until clients reach the workers.
    pub(crate) fn await_open(&self, port: u16) -> anyhow::Result<()> {
        let trying = thread::scope(|scope| scope.spawn(|| self.try_it(port)).join());
        trying.map_err(|_panic| anyhow::anyhow!("the way to the workers crashed"))?
    }

    fn try_it(&self, port: u16) -> anyhow::Result<()> {
        self.enter()?;
        let server = SocketAddr::new(self.server, port);
        let end = Instant::now() + PATIENCE;
        while let Err(error) = TcpStream::connect_timeout(&server, PATIENCE) {
            if Instant::now() > end {
                return Err(error).with_context(|| format!("clients do not reach {server}"));
            }
            thread::sleep(Duration::from_millis(5));
        }
        Ok(())
    }

    fn loopback(family: Family, clients: u32) -> anyhow::Result<Self> {
        let several = if clients > 1 { clients } else { 0 };
        let (server, clients) = match family {
            // All of 127.0.0.0/8 is there already.
            Family::V4 => (Ipv4Addr::LOCALHOST.into(), addresses(family, 1, several)),
            Family::V6 => {
                let clients = addresses(family, 1, several);
                let lines = clients.iter().map(|it| format!("addr add {it}/128 dev lo nodad"));
                ip(&lines.collect::<Vec<_>>())?;
                (Ipv6Addr::LOCALHOST.into(), clients)
            }
        };
        Ok(Self { server, clients, network: None })
    }

    fn veth(family: Family, clients: u32) -> anyhow::Result<Self> {
        let bits = match family {
            Family::V4 => 16,
            Family::V6 => 64,
        };
        let server = far(family, 1);
        let clients: Vec<IpAddr> = (0..clients).map(|number| far(family, 256 + number)).collect();
        let there = {
            let clients = clients.clone();
            let pid = std::process::id();
            // A namespace belongs to a thread: this one makes the clients' and is done.
            thread::spawn(move || -> anyhow::Result<File> {
                unshare(CloneFlags::CLONE_NEWNET).context("no network for the clients")?;
                interface::up("lo")?;
                init::tune();
                let mut lines = vec![format!("link add lab1 type veth peer name lab0 netns {pid}")];
                let address = |it: &IpAddr| format!("addr add {it}/{bits} dev lab1{}", nodad(it));
                lines.extend(clients.iter().map(address));
                lines.push("link set lab1 up".to_owned());
                ip(&lines)?;
                File::open("/proc/thread-self/ns/net").context("failed to keep a network")
            })
        };
        let network =
            there.join().map_err(|_panic| anyhow::anyhow!("no network for clients"))??;
        ip(&[
            format!("addr add {server}/{bits} dev lab0{}", nodad(&server)),
            "link set lab0 up".to_owned(),
        ])?;
        Ok(Self { server, clients, network: Some(network) })
    }
}

/// Addresses of clients that are on this host.
fn addresses(family: Family, first: u32, count: u32) -> Vec<IpAddr> {
    (first..first + count)
        .map(|number| match family {
            Family::V4 => Ipv4Addr::from(0x7f00_0100 + number).into(),
            Family::V6 => far(family, 256 + number),
        })
        .collect()
}

/// Addresses of the pair: private ones (RFC 1918, RFC 4193).
fn far(family: Family, number: u32) -> IpAddr {
    match family {
        Family::V4 => Ipv4Addr::from(0x0a4d_0000 + number).into(),
        Family::V6 => Ipv6Addr::from((0xfd4d_u128 << 112) + u128::from(number)).into(),
    }
}

/// No waiting for others who might have the same address.
fn nodad(address: &IpAddr) -> &'static str {
    if address.is_ipv6() { " nodad" } else { "" }
}

/// Runs lines of ip(8) in the network of this thread.
fn ip(lines: &[String]) -> anyhow::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    let child = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = child.context("failed to run `ip`\nhint: it is in the package iproute2")?;
    if let Some(mut stdin) = child.stdin.take() {
        stdin.write_all(format!("{}\n", lines.join("\n")).as_bytes())?;
    }
    let output = child.wait_with_output().context("failed to wait for `ip`")?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    anyhow::ensure!(output.status.success(), "`ip` failed: {}", complaint.trim());
    Ok(())
}
