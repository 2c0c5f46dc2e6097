//! Signs of readiness and health: from what was typed, and whether they can be had together.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr, ToSocketAddrs as _, UdpSocket},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    time::Duration,
};

use super::{
    definition::{
        self, Definition, MOST,
        value::{Question, Switch, Time},
    },
    duration,
    interpreter::Interpreting,
    probe,
    refusal::Refusal,
    script::{self, Lookup},
    spec::{AppSpec, Probe, ProbeTarget, Readiness, SETTLED},
};

/// The sign that was asked for, a probe aside.
pub(super) fn sign(said: &Definition) -> Readiness {
    if on(said.readiness.notify) {
        Readiness::Notified
    } else if on(said.readiness.wait_ready) {
        Readiness::Message
    } else if on(said.ports.no_port) || !said.identity.listen.is_empty() {
        // A socket that is there before the program says nothing about it.
        Readiness::Running
    } else if on(said.ports.optional_port) {
        Readiness::Settled
    } else {
        Readiness::Listening
    }
}

/// Whether a switch was said to be on.
pub(super) fn on(switch: Option<Switch>) -> bool {
    switch.is_some_and(|Switch(on)| on)
}

/// What is asked before a worker is ready.
pub(super) fn probe(said: &definition::Readiness) -> Option<Probe> {
    let Question(what) = said.probe.clone()?;
    Some(Probe {
        what,
        interval: time(said.probe_interval, Duration::from_secs(1)),
        timeout: time(said.probe_timeout, Duration::from_secs(1)),
        successes: said.probe_successes.unwrap_or(1),
        failures: said.probe_failures.unwrap_or(3),
    })
}

/// What is asked of an online worker.
pub(super) fn liveness(said: &definition::Readiness) -> Option<Probe> {
    let Question(what) = said.liveness.clone()?;
    Some(Probe {
        what,
        interval: time(said.liveness_interval, Duration::from_secs(10)),
        timeout: time(said.liveness_timeout, Duration::from_secs(1)),
        successes: 1,
        failures: said.liveness_failures.unwrap_or(3),
    })
}

/// What was said, or else what is usual.
pub(super) fn time(said: Option<Time>, usual: Duration) -> Duration {
    said.map_or(usual, |Time(time)| time)
}

/// Details of a question that is not asked.
fn of_nothing(said: &definition::Readiness) -> Option<(&'static str, &'static str)> {
    let probe = [
        (said.probe_interval.is_some(), "--probe-interval"),
        (said.probe_timeout.is_some(), "--probe-timeout"),
        (said.probe_successes.is_some(), "--probe-successes"),
        (said.probe_failures.is_some(), "--probe-failures"),
    ];
    let liveness = [
        (said.liveness_interval.is_some(), "--liveness-interval"),
        (said.liveness_timeout.is_some(), "--liveness-timeout"),
        (said.liveness_failures.is_some(), "--liveness-failures"),
    ];
    let first = |details: &[(bool, &'static str)]| {
        details.iter().find(|(said, _)| *said).map(|(_, option)| *option)
    };
    let of_probe = first(&probe).filter(|_| said.probe.is_none());
    let of_liveness = first(&liveness).filter(|_| said.liveness.is_none());
    of_probe.map(|option| (option, "--probe")).or(of_liveness.map(|option| (option, "--liveness")))
}

/// Checks what was typed together with what it is about; answers what is worth a notice.
///
/// # Errors
/// A contradiction, a host that is not this one, or a command that cannot be run.
pub(super) fn check(
    said: &Definition,
    spec: &AppSpec,
    lookup: &Lookup,
) -> Result<Vec<String>, Refusal> {
    let no_port = on(said.ports.no_port);
    if no_port && !said.ports.port.is_empty() {
        return Err(Refusal::usage(
            "--no-port says that the app serves none, and --port names one",
        )
        .hint("leave one of them out"));
    }
    if no_port && !said.identity.listen.is_empty() {
        return Err(Refusal::usage(
            "--no-port says that the app serves none, and --listen gives it a socket",
        )
        .hint("leave one of them out"));
    }
    if let Some((detail, question)) = of_nothing(&said.readiness) {
        return Err(Refusal::usage(format!("{detail} is said, and no {question} that it is of"))
            .hint(format!("add {question}, or leave {detail} out")));
    }
    consistent(spec).map_err(|message| {
        Refusal::usage(message)
            .hint("write the port into the probe: http://:PORT/PATH or tcp://:PORT")
    })?;
    let mut notices = Vec::new();
    for (option, probe) in [("--probe", &spec.probe), ("--liveness", &spec.liveness)] {
        let Some(probe) = probe else { continue };
        if no_port && probe.what.asks_port() && probe.what.port().is_none() {
            return Err(Refusal::usage(format!(
                "{option} {}: --no-port says that the app serves none",
                probe.what
            ))
            .hint("leave out --no-port, or write the port into the probe"));
        }
        match &probe.what {
            ProbeTarget::Http { host, port, path } => {
                if host.is_none() && port.is_none() && is_program(path) {
                    return Err(Refusal::usage(format!(
                        "{option} {path} is a path to ask the app for, and a program of this host"
                    ))
                    .hint(format!("write http://:PORT{path} or 'env {path}'")));
                }
                if let Some(host) = host {
                    is_here(host).map_err(|why| {
                        Refusal::usage(format!("{option} {}: {why}", probe.what))
                            .hint("a probe is for the workers of this host; leave the host out")
                    })?;
                }
            }
            ProbeTarget::Tcp { .. } => {}
            ProbeTarget::Command(line) => {
                command(line, lookup).map_err(|refusal| Refusal {
                    message: format!("{option}: {}", refusal.message),
                    ..refusal
                })?;
            }
        }
    }
    let (notify, wait_ready) = (on(said.readiness.notify), on(said.readiness.wait_ready));
    if spec.probe.is_some() && (notify || wait_ready) {
        notices.push("a worker is ready when it answers --probe; other signs do not count".into());
    } else if notify && wait_ready {
        notices.push("a worker is ready when it says READY=1; --wait-ready does not count".into());
    }
    Ok(notices)
}

/// Checks what can be told from the specification alone.
///
/// # Errors
/// A lowercase fragment.
pub fn consistent(spec: &AppSpec) -> Result<(), String> {
    askable(spec, "probe", spec.probe.as_ref())?;
    askable(spec, "liveness", spec.liveness.as_ref())?;
    in_time(spec.watchdog)
}

/// Checks a question to an app's workers, which is called `name`.
///
/// # Errors
/// A lowercase fragment.
pub fn askable(spec: &AppSpec, name: &str, asked: Option<&Probe>) -> Result<(), String> {
    let Some(asked) = asked else { return Ok(()) };
    let bad = |what: &str| Err(format!("{name} {}: {what}", asked.what));
    probe::check(&asked.what).map_err(|error| format!("{name}: {error}"))?;
    for (what, value) in [("interval", asked.interval), ("timeout", asked.timeout)] {
        if value.is_zero() {
            return bad(&format!("its {what} is 0"));
        }
        if value > duration::MAX {
            return bad(&format!("its {what} is longer than a year"));
        }
    }
    for (what, value) in [("successes", asked.successes), ("failures", asked.failures)] {
        if !(1..=MOST).contains(&i64::from(value)) {
            return bad(&format!("its {what} are {value}, not 1 to {MOST}"));
        }
    }
    match asked.what.port() {
        Some(port) if !spec.ports.is_empty() && !spec.ports.contains(&port) => {
            return bad(&format!("port {port} is not among those that are balanced"));
        }
        None if asked.what.asks_port()
            && spec.readiness == Readiness::Running
            && spec.listen.is_empty() =>
        {
            return bad("the app serves no port that could be asked");
        }
        None if asked.what.asks_port() && spec.ports.len() > 1 => {
            return bad("the app has several ports, and which one is not said");
        }
        Some(_) | None => {}
    }
    Ok(())
}

/// Checks how often a worker is to say that it lives.
///
/// # Errors
/// A lowercase fragment.
pub fn in_time(watchdog: Option<Duration>) -> Result<(), String> {
    match watchdog {
        Some(Duration::ZERO) => Err("watchdog is 0".to_owned()),
        Some(watchdog) if watchdog > duration::MAX => {
            Err("watchdog is longer than a year".to_owned())
        }
        Some(_) | None => Ok(()),
    }
}

/// How a probe's command is run: as a script is, without a shell where none is needed.
///
/// # Errors
/// When it cannot be run.
pub fn command(line: &str, lookup: &Lookup) -> Result<script::Run, Refusal> {
    script::locate(line, &[], &Interpreting::default(), lookup).map_err(|refusal| Refusal {
        hint: Some(
            "a probe is http://:PORT/PATH, /PATH, tcp, tcp://:PORT, or a command line".to_owned(),
        ),
        ..refusal
    })
}

/// Which of the addresses that a worker listens on a probe is for; `None` for a command, which needs none.
///
/// # Errors
/// A lowercase fragment, when there is none, or when it is not clear which.
pub fn address(
    target: &ProbeTarget,
    listening: &[SocketAddr],
) -> Result<Option<SocketAddr>, String> {
    if !target.asks_port() {
        return Ok(None);
    }
    let host: Option<IpAddr> = match target {
        ProbeTarget::Http { host: Some(host), .. } => host.trim_matches(['[', ']']).parse().ok(),
        ProbeTarget::Http { host: None, .. }
        | ProbeTarget::Tcp { .. }
        | ProbeTarget::Command(_) => None,
    };
    let meant = |at: &&SocketAddr| {
        target.port().is_none_or(|port| at.port() == port)
            && host.is_none_or(|host| at.ip() == host || at.ip().is_unspecified())
    };
    let found: Vec<&SocketAddr> = listening.iter().filter(meant).collect();
    let ports: BTreeSet<u16> = found.iter().map(|at| at.port()).collect();
    // The same port of several addresses: its own before one that stands for all, IPv4 before IPv6.
    let best = found.iter().min_by_key(|at| (host != Some(at.ip()), at.is_ipv6()));
    match (best, target.port(), ports.len()) {
        (Some(best), _, 0 | 1) => Ok(Some(**best)),
        (Some(_), ..) => {
            let ports: Vec<String> = ports.iter().map(u16::to_string).collect();
            Err(format!("it listens on ports {}, and which to ask is not said", ports.join(", ")))
        }
        (None, Some(port), _) => Err(format!("it does not listen on port {port}")),
        (None, None, _) => Err("it listens on no port".to_owned()),
    }
}

/// When a worker counts as ready, in words.
pub fn ready_when(spec: &AppSpec) -> String {
    let sign = match (&spec.probe, spec.readiness) {
        (Some(probe), _) => shown(probe),
        (None, Readiness::Listening) => "listening".to_owned(),
        (None, Readiness::Notified) => "READY=1 on NOTIFY_SOCKET".to_owned(),
        (None, Readiness::Message) => "process.send('ready')".to_owned(),
        (None, Readiness::Settled) => {
            let settled = duration::format(SETTLED.max(spec.restart.min_uptime));
            return format!("listening, or running for {settled} if it serves no port");
        }
        (None, Readiness::Running) => {
            return format!("running for {}", duration::format(spec.restart.min_uptime));
        }
    };
    format!("{sign}, within {}", duration::format(spec.listen_timeout))
}

/// A probe in words.
pub fn shown(probe: &Probe) -> String {
    let Probe { what, interval, timeout, successes, failures } = probe;
    let (interval, timeout) = (duration::format(*interval), duration::format(*timeout));
    let successes =
        if *successes == 1 { String::new() } else { format!(", {successes} times in a row") };
    format!("{what} every {interval}{successes}, answered in {timeout}, failed after {failures}")
}

fn is_program(path: &str) -> bool {
    Path::new(path)
        .metadata()
        .is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Whether an address of `host` can be bound here, which is only so for this host's own.
fn is_here(host: &str) -> Result<(), String> {
    let bare = host.trim_matches(['[', ']']);
    let addresses: Vec<IpAddr> = match bare.parse() {
        Ok(address) => vec![address],
        Err(_name) => match (bare, 0).to_socket_addrs() {
            Ok(addresses) => addresses.map(|address| address.ip()).collect(),
            Err(error) => return Err(format!("host {host} is not known: {error}")),
        },
    };
    let here = |address: &IpAddr| UdpSocket::bind((*address, 0)).is_ok();
    if addresses.iter().any(here) {
        return Ok(());
    }
    Err(format!("host {host} is not this one"))
}

#[cfg(test)]
mod tests {
    use clap::{Args as _, Command, FromArgMatches as _};

    use super::{
        super::{
            refusal::Kind,
            resolve::{Surroundings, resolve},
            typed::StartArgs,
        },
        *,
    };

    #[test]
    fn the_strongest_sign_that_was_asked_for_counts() {
        for (typed, expected) in [
            (&[][..], "listening, within 30s"),
            (&["--no-port"], "running for 1s"),
            (&["--wait-ready"], "process.send('ready'), within 30s"),
            (&["--wait-ready", "--no-port", "--notify"], "READY=1 on NOTIFY_SOCKET, within 30s"),
            (
                &["--notify", "--probe", "/up", "--listen-timeout", "5s"],
                "/up every 1s, answered in 1s, failed after 3, within 5s",
            ),
            (
                &["--probe", "tcp://:80", "--probe-successes", "2", "--probe-interval", "200"],
                "tcp://:80 every 200ms, 2 times in a row, answered in 1s, failed after 3, within 30s",
            ),
        ] {
            let (spec, notices) = resolved(typed).unwrap();
            assert_eq!(ready_when(&spec), expected);
            let overruled = typed.contains(&"--notify");
            assert_eq!(notices.len(), usize::from(overruled), "{typed:?}");
        }
        let (spec, _) = resolved(&["--liveness", "true", "--watchdog", "2s"]).unwrap();
        assert_eq!(
            shown(&spec.liveness.unwrap()),
            "true every 10s, answered in 1s, failed after 3"
        );
        assert_eq!(spec.watchdog, Some(Duration::from_secs(2)));
    }

    #[test]
    fn what_cannot_be_had_together_is_refused() {
        for (typed, message, hint) in [
            (&["--probe", "tcp", "--no-port"][..], "serves no port", "tcp://:PORT"),
            (&["--liveness", "/up", "--no-port", "--notify"], "--no-port", "leave out"),
            (&["--probe", "/up", "--port", "80,443"], "several ports", "http://:PORT/PATH"),
            (&["--probe", "http://:81/", "--port", "80"], "port 81 is not among", "port"),
            (&["--probe", "tcp", "--probe-timeout", "0"], "its timeout is 0", ""),
            (&["--liveness", "tcp", "--liveness-interval", "0"], "its interval is 0", ""),
            (&["--watchdog", "0"], "watchdog is 0", ""),
            (&["--probe", "http://192.0.2.1:80/"], "host 192.0.2.1 is not this one", "leave the"),
            (&["--probe", "http://[2001:db8::1]:80/"], "[2001:db8::1] is not this one", "leave"),
            (&["--probe", "/bin/sh"], "a program of this host", "'env /bin/sh'"),
            (&["--probe", "no-such-program -x"], "no script, program", ""),
        ] {
            let refusal = resolved(typed).expect_err(&format!("{typed:?}"));
            assert!(refusal.message.contains(message), "{typed:?}: {refusal}");
            let found = refusal.hint.unwrap_or_default();
            assert!(found.contains(hint), "{typed:?}: {found}");
        }
        assert_eq!(resolved(&["--watchdog", "0"]).unwrap_err().kind, Kind::Usage);
    }

    #[test]
    fn what_can_work_passes() {
        for typed in [
            &["--probe", "http://localhost:80/"][..],
            &["--probe", "http://127.0.0.1/"],
            &["--probe", "tcp", "--port", "80"],
            &["--probe", "tcp://:80", "--port", "80,443"],
            &["--probe", "tcp://:80", "--no-port"],
            &["--probe", "sh -c 'exit 0'", "--no-port"],
            &["--probe", "test $PORT = 80"],
        ] {
            assert!(resolved(typed).is_ok(), "{typed:?}");
        }
    }

    #[test]
    fn a_probe_is_for_the_address_that_it_means() {
        let at = |probe: &str, listening: &[&str]| {
            let listening: Vec<_> = listening.iter().map(|at| at.parse().unwrap()).collect();
            let at = address(&probe.parse().unwrap(), &listening)?;
            Ok(at.map(|at| at.to_string()).unwrap_or_default())
        };
        let both = &["[::]:80", "0.0.0.0:80", "127.0.0.1:81"];
        for (probe, listening, expected) in [
            ("tcp", &["0.0.0.0:80"][..], Ok("0.0.0.0:80")),
            ("tcp://:80", both, Ok("0.0.0.0:80")),
            ("http://:81/", both, Ok("127.0.0.1:81")),
            ("http://[::1]:80/", &["[::]:80", "[::1]:80"], Ok("[::1]:80")),
            ("http://127.0.0.1/", &["127.0.0.2:80", "0.0.0.0:80"], Ok("0.0.0.0:80")),
            ("http://localhost:80/", both, Ok("0.0.0.0:80")),
            ("true", &[], Ok("")),
            ("tcp", both, Err("ports 80, 81, and which")),
            ("tcp", &[], Err("listens on no port")),
            ("tcp://:82", both, Err("not listen on port 82")),
        ] {
            let found: Result<String, String> = at(probe, listening);
            match expected {
                Ok(expected) => assert_eq!(found.unwrap(), expected, "{probe}"),
                Err(why) => assert!(found.as_ref().unwrap_err().contains(why), "{found:?}"),
            }
        }
    }

    fn resolved(options: &[&str]) -> Result<(AppSpec, Vec<String>), Refusal> {
        let command = StartArgs::augment_args(Command::new("start").no_binary_name(true));
        let matches = command.try_get_matches_from([&["true"], options].concat()).unwrap();
        let typed = StartArgs::from_arg_matches(&matches).unwrap();
        let path = "/usr/local/bin:/usr/bin:/bin";
        let env = vec![("PATH".into(), path.into())];
        let around = Surroundings { cwd: "/".into(), env, cpus: 4 };
        resolve(&typed.definition_of("true"), &around)
            .map(|resolved| (resolved.spec, resolved.notices))
    }
}
