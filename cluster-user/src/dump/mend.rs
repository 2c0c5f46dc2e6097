//! Mending what an earlier release saved: what is refused of it by now is left out, so that no app is lost by a stricter check.

use std::time::Duration;

use crate::config::{
    duration, listen, readiness,
    spec::{
        AppSpec, hooks::Hooks, identity::Identity, recycle::Recycle, resources::Resources,
        watch::Watch,
    },
};

type Check = fn(&AppSpec) -> Result<(), String>;
type LeaveOut = fn(&mut AppSpec);

/// What can be left out of a definition, each with its check; the rest of one can do without. Without its program, folder or
/// arguments it is another app: they are refused as ever.
const PARTS: [(Check, LeaveOut); 9] = [
    (|spec| readiness::askable(spec, "probe", spec.probe.as_ref()), |spec| spec.probe = None),
    (
        |spec| readiness::askable(spec, "liveness", spec.liveness.as_ref()),
        |spec| spec.liveness = None,
    ),
    (|spec| readiness::in_time(spec.watchdog), |spec| spec.watchdog = None),
    (|spec| spec.watch.as_ref().map_or(Ok(()), Watch::check), |spec| spec.watch = None),
    (|spec| spec.recycle.check(), |spec| spec.recycle = Recycle::default()),
    (|spec| spec.hooks.check(), |spec| spec.hooks = Hooks::default()),
    (|spec| spec.identity.check(), |spec| spec.identity = Identity::default()),
    (|spec| listen::check(&spec.listen, &spec.ports), |spec| spec.listen.clear()),
    (|spec| spec.resources.check(), |spec| spec.resources = Resources::default()),
];

/// Leaves out what is refused, and says why: as lowercase fragments, none when all is well.
pub(super) fn mend(spec: &mut AppSpec) -> Vec<String> {
    let mut refused = Vec::new();
    for (check, leave_out) in PARTS {
        if let Err(why) = check(spec) {
            refused.push(why);
            leave_out(spec);
        }
    }
    refused.extend(spec.scheduling.mend(spec.instances));
    for (name, value) in times(spec) {
        if *value > duration::MAX {
            refused.push(format!("{name} is longer than a year"));
            *value = duration::MAX;
        }
    }
    refused
}

fn times(spec: &mut AppSpec) -> [(&'static str, &mut Duration); 6] {
    [
        ("listen_timeout", &mut spec.listen_timeout),
        ("restart.min_uptime", &mut spec.restart.min_uptime),
        ("restart.restart_delay", &mut spec.restart.restart_delay),
        ("stop.drain_timeout", &mut spec.stop.drain_timeout),
        ("stop.kill_timeout", &mut spec.stop.kill_timeout),
        ("wait_timeout", &mut spec.wait_timeout),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::validate,
        config::{
            scheduling::Policy,
            spec::{Probe, ProbeTarget},
        },
    };

    type Breach<'a> = &'a dyn Fn(&mut AppSpec);

    #[test]
    fn what_is_well_stays_as_it_is() {
        let mut spec = usual();
        assert_eq!(mend(&mut spec), Vec::<String>::new());
        assert_eq!(spec, usual());
    }

    #[test]
    fn each_part_that_is_refused_is_left_out_and_named_and_the_app_can_be_started() {
        let never = Probe {
            what: ProbeTarget::Tcp { port: None },
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
            successes: 0,
            failures: 0,
        };
        let breaches: [(&str, Breach<'_>); 12] = [
            ("probe", &|spec| spec.probe = Some(never.clone())),
            ("liveness", &|spec| spec.liveness = Some(never.clone())),
            ("watchdog", &|spec| spec.watchdog = Some(Duration::ZERO)),
            ("watch", &|spec| {
                spec.watch =
                    Some(Watch { paths: Vec::new(), ignore: Vec::new(), delay: Duration::ZERO });
            }),
            ("max_memory_restart", &|spec| spec.recycle.max_memory = Some(1)),
            ("hook_timeout", &|spec| spec.hooks.timeout = Duration::ZERO),
            ("pid_file", &|spec| spec.identity.pid_file = Some("web.pid".into())),
            ("listen", &|spec| {
                let listen: listen::Listen = "tcp://127.0.0.1:80".parse().unwrap();
                spec.listen = vec![listen.clone(), listen];
            }),
            ("umask", &|spec| spec.resources.umask = Some(0o7777)),
            ("shed", &|spec| spec.scheduling.shed = Some(0)),
            ("guard", &|spec| {
                (spec.scheduling.policy, spec.scheduling.guard.queue) = (Policy::None, Some(9));
            }),
            ("wait_timeout", &|spec| spec.wait_timeout = Duration::MAX),
        ];
        for (name, breach) in breaches {
            let mut spec = usual();
            breach(&mut spec);
            assert!(validate::spec(&spec).is_err(), "{name} is refused");

            let refused = mend(&mut spec);

            assert_eq!(validate::spec(&spec), Ok(()));
            assert_eq!(refused.len(), 1, "{refused:?}");
            assert!(refused[0].starts_with(name), "{refused:?}");
        }
    }

    fn usual() -> AppSpec {
        AppSpec {
            program: "/bin/true".into(),
            cwd: "/".into(),
            ..AppSpec::usual("web".parse().unwrap())
        }
    }
}
