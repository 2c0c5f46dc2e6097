//! The scripts for `OpenRC` and for System V init. The daemon of both is in the background and has a guardian.

use super::service::{Owner, Service};

/// What both have in common: how the program is called, and what starting means.
fn common(service: &Service) -> String {
    let variables = service.variables();
    let variables = variables.map(|(name, value)| format!("{name}={}", shell_words::quote(&value)));
    let call = format!("env {} {}", variables.join(" "), shell_words::quote(&path_of(service)));
    let run = match &service.owner {
        Owner::Other(name) => {
            let shell = format!("su -s /bin/sh {} -c", shell_words::quote(name));
            format!("{shell} {}\" $*\"", shell_words::quote(&format!("exec {call}")))
        }
        Owner::Root | Owner::Own => format!("{call} \"$@\""),
    };
    let dump = service.home.dump().display().to_string();
    format!(
        "\
cluster() {{
    {run}
}}

# An app that cannot be started does not keep the others down; at first, nothing may have been saved.
bring_up() {{
    [ -e {} ] || return 0
    cluster resurrect || cluster ping >/dev/null
}}
",
        shell_words::quote(&dump)
    )
}

fn path_of(service: &Service) -> String {
    service.program.display().to_string()
}

/// The script for `OpenRC` (`openrc-run(8)`).
pub(super) fn openrc(service: &Service) -> String {
    format!(
        "\
#!/sbin/openrc-run
description=\"cluster, process manager\"
description_reload=\"Reloads all apps without losing a connection\"
extra_started_commands=\"reload\"

depend() {{
    need localmount
    use net dns logger
    after firewall
}}

{}
start() {{
    ebegin \"Starting the apps of ${{RC_SVCNAME}}\"
    bring_up
    eend $?
}}

stop() {{
    ebegin \"Stopping the apps of ${{RC_SVCNAME}}\"
    cluster kill
    eend $?
}}

status() {{
    cluster ping
}}

reload() {{
    ebegin \"Reloading the apps of ${{RC_SVCNAME}}\"
    cluster reload all
    eend $?
}}
",
        common(service)
    )
}

/// The script for System V init (Linux Standard Base, \"Init Script Actions\").
pub(super) fn sysv(service: &Service) -> String {
    let name = &service.name;
    format!(
        "\
#!/bin/sh
### BEGIN INIT INFO
# Provides:          {name}
# Required-Start:    $remote_fs $network
# Required-Stop:     $remote_fs $network
# Should-Start:      $syslog $named
# Should-Stop:       $syslog $named
# Default-Start:     2 3 4 5
# Default-Stop:      0 1 6
# Short-Description: cluster, process manager
# Description:       Starts the apps that were saved with `cluster save`.
### END INIT INFO
# chkconfig: 2345 80 20

{}
case \"$1\" in
    start) bring_up ;;
    stop) cluster kill ;;
    restart | force-reload) cluster kill && bring_up ;;
    reload) cluster reload all ;;
    status) cluster ping ;;
    *)
        echo \"Usage: $0 {{start|stop|restart|reload|force-reload|status}}\" >&2
        exit 2
        ;;
esac
",
        common(service)
    )
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write as _,
        process::{Command, Stdio},
    };

    use super::{super::service::sample, *};

    #[test]
    fn scripts_say_what_they_do() {
        insta::assert_snapshot!(openrc(&sample()));
        insta::assert_snapshot!(sysv(&sample()));
    }

    #[test]
    fn a_shell_understands_them_whatever_the_paths() {
        let mut service = sample();
        service.program = "/opt/it's here/$(x)/cluster".into();
        for owner in [Owner::Root, Owner::Other("web".to_owned())] {
            service.owner = owner;
            for text in [openrc(&service), sysv(&service)] {
                let shell = Command::new("/bin/sh").arg("-n").stdin(Stdio::piped()).spawn();
                let mut shell = shell.unwrap();
                shell.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
                assert!(shell.wait().unwrap().success(), "{text}");
            }
        }
    }
}
