//! The unit for systemd (`systemd.service(5)`).

use std::fmt::Write as _;

use super::service::{Owner, Service};

/// The unit of a service.
pub(super) fn unit(service: &Service) -> String {
    let program = argument(&service.program.display().to_string());
    let home = service.home.path().display();
    let whose = match &service.owner {
        Owner::Root => "apps of root".to_owned(),
        Owner::Other(user) => format!("apps of {user}"),
        Owner::Own => "apps".to_owned(),
    };
    let mut text = format!(
        "\
[Unit]
Description=cluster, process manager: {whose}
"
    );
    // A user's own systemd knows neither the network nor other disks.
    let is_own = matches!(service.owner, Owner::Own);
    if !is_own {
        text += "Wants=network-online.target\nAfter=network-online.target\n";
        let _infallible = writeln!(text, "RequiresMountsFor={}", word(&home.to_string()));
    }
    let _infallible = write!(
        text,
        "\
# Ten starts in a minute that fail, and that is the end of it.
StartLimitIntervalSec=60
StartLimitBurst=10

[Service]
# It says when the saved apps are up, how many workers are online, and that it lives.
Type=notify
NotifyAccess=main
ExecStart={program} daemon --replace --resurrect
ExecReload={program} reload all
"
    );
    if let Owner::Other(user) = &service.owner {
        let _infallible = writeln!(text, "User={user}");
    }
    for (name, value) in service.variables() {
        let _infallible = writeln!(text, "Environment={}", word(&format!("{name}={value}")));
    }
    text += "\
# SIGTERM lets workers finish, then ends the daemon; it asks for more time when its apps may take longer.
KillMode=process
TimeoutStopSec=90
# Without the daemon its workers go on serving, and the next one takes them over: so nobody else is to be killed, by
# whatever it ended, and the next one comes at once.
Restart=on-failure
RestartSec=100ms
RestartPreventExitStatus=2 4 5
WatchdogSec=60
WatchdogSignal=SIGKILL
OOMPolicy=continue
# Workers are kept apart in cgroups of their own.
Delegate=yes
TasksMax=infinity
LimitNOFILE=1048576

[Install]
";
    text += if is_own { "WantedBy=default.target\n" } else { "WantedBy=multi-user.target\n" };
    text
}

/// A word of a command line: unlike others it may have variables.
fn argument(text: &str) -> String {
    word(text).replace('$', "$$")
}

/// A word in a unit: quoted if need be, and without specifiers.
fn word(text: &str) -> String {
    let escaped: String = text
        .chars()
        .map(|character| match character {
            '%' => "%%".to_owned(),
            '"' | '\\' => format!("\\{character}"),
            other if other.is_control() => other.escape_default().to_string(),
            other => other.to_string(),
        })
        .collect();
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "-_./:=@,+".contains(character);
    if text.chars().all(plain) { escaped } else { format!("\"{escaped}\"") }
}

#[cfg(test)]
mod tests {
    use super::{super::service::sample, *};

    #[test]
    fn a_unit_says_everything_that_matters() {
        insta::assert_snapshot!(unit(&sample()));
    }

    #[test]
    fn whose_it_is_decides_what_it_waits_for() {
        let mut service = sample();
        service.owner = Owner::Own;
        let own = unit(&service);
        assert!(own.contains("default.target") && !own.contains("network"), "{own}");
        service.owner = Owner::Other("web".to_owned());
        let other = unit(&service);
        assert!(other.contains("User=web\n") && other.contains("multi-user.target"), "{other}");
    }

    #[test]
    fn what_means_something_to_systemd_is_escaped() {
        assert_eq!(argument("/usr/bin/cluster"), "/usr/bin/cluster");
        assert_eq!(word("/a$b"), "\"/a$b\"");
        assert_eq!(argument("/a $b"), "\"/a $$b\"");
        assert_eq!(argument("/a%b"), "\"/a%%b\"");
        assert_eq!(argument("/a\"b\\c\n"), "\"/a\\\"b\\\\c\\n\"");
    }
}
