//! Mending what an earlier release saved: what is refused of it by now is left out, so that no app is lost by a stricter check.

use std::time::Duration;

use crate::{
    api::validate,
    config::{
        duration, listen,
        spec::{AppSpec, hooks::HOOK_TIMEOUT},
    },
};

type LeaveOut = fn(&mut AppSpec);

/// What can be left out of a definition, or be put within bounds: the rest of one can do without. Without its program, folder
/// or arguments it is another app: they are refused as ever. Of two that contradict each other the first goes.
const PARTS: [LeaveOut; 32] = [
    |spec| spec.probe = None,
    |spec| spec.liveness = None,
    |spec| spec.watchdog = None,
    |spec| {
        if let Some(watch) = &mut spec.watch {
            watch.paths.retain(|path| path.is_absolute());
        }
    },
    |spec| {
        if let Some(watch) = &mut spec.watch {
            watch.delay = watch.delay.min(duration::MAX);
        }
    },
    |spec| spec.watch = None,
    |spec| spec.recycle.max_memory = None,
    |spec| spec.recycle.max_lifetime = None,
    |spec| spec.recycle.cron = None,
    |spec| spec.hooks.timeout = HOOK_TIMEOUT,
    |spec| spec.hooks.pre_start = None,
    |spec| spec.hooks.post_ready = None,
    |spec| spec.hooks.pre_stop = None,
    |spec| spec.hooks.post_stop = None,
    |spec| spec.hooks.on_failure = None,
    |spec| spec.identity.instance_var = None,
    |spec| spec.identity.increment_var = None,
    |spec| spec.identity.pid_file = None,
    |spec| spec.resources.memory_high = None,
    |spec| spec.resources.memory_max = None,
    |spec| spec.resources.cpu_max = None,
    |spec| spec.resources.cpu_weight = None,
    |spec| spec.resources.pids_max = None,
    |spec| spec.resources.nice = None,
    |spec| spec.resources.umask = None,
    |spec| spec.resources.oom_score_adj = None,
    |spec| within(&mut spec.listen_timeout),
    |spec| within(&mut spec.restart.min_uptime),
    |spec| within(&mut spec.restart.restart_delay),
    |spec| within(&mut spec.stop.drain_timeout),
    |spec| within(&mut spec.stop.kill_timeout),
    |spec| within(&mut spec.wait_timeout),
];

/// Leaves out what is refused, and says why: as lowercase fragments, none when all is well.
pub(super) fn mend(spec: &mut AppSpec) -> Vec<String> {
    let mut refused = sockets(spec);
    refused.extend(spec.scheduling.mend(spec.instances));
    // What is left out may be what another part relied on: it is looked again until nothing is refused.
    while let Err(why) = validate::spec(spec) {
        // It is the one without which there is another complaint, or none.
        let without = PARTS.iter().find_map(|leave_out| {
            let mut without = spec.clone();
            leave_out(&mut without);
            (validate::spec(&without).err().as_ref() != Some(&why)).then_some(without)
        });
        let Some(without) = without else { break };
        *spec = without;
        refused.push(why);
    }
    refused
}

/// Leaves out the sockets that are refused beside those before them.
fn sockets(spec: &mut AppSpec) -> Vec<String> {
    let mut refused = Vec::new();
    let mut kept = Vec::with_capacity(spec.listen.len());
    for socket in spec.listen.drain(..) {
        kept.push(socket);
        if let Err(why) = listen::check(&kept, &spec.ports) {
            kept.pop();
            // All that are too many are refused in the same words.
            if !refused.contains(&why) {
                refused.push(why);
            }
        }
    }
    spec.listen = kept;
    refused
}

fn within(time: &mut Duration) {
    *time = (*time).min(duration::MAX);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{
        rlimit::{Limit, Rlimit},
        scheduling::Policy,
        spec::{Probe, ProbeTarget, Readiness, hooks::Hooks, watch::Watch},
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

    #[test]
    fn a_socket_that_is_left_out_does_not_take_the_probe_of_another_with_it() {
        let listen = |text: &str| text.parse::<listen::Listen>().unwrap();
        let mut spec = usual();
        spec.readiness = Readiness::Running;
        spec.probe = Some(probe());
        spec.listen = vec![listen("tcp://127.0.0.1:80"), listen("tcp://127.0.0.1:80")];

        assert_eq!(mend(&mut spec), ["listen names tcp://127.0.0.1:80 twice"]);

        assert_eq!(validate::spec(&spec), Ok(()));
        assert_eq!(spec.listen, [listen("tcp://127.0.0.1:80")]);
        assert_eq!(spec.probe, Some(probe()));
    }

    #[test]
    fn a_probe_of_a_socket_that_is_left_out_is_left_out_too_and_not_the_app() {
        let mut spec = usual();
        spec.readiness = Readiness::Running;
        spec.ports = vec![80];
        spec.probe = Some(probe());
        spec.listen = vec!["tcp://127.0.0.1:81".parse().unwrap()];

        let refused = mend(&mut spec);

        assert_eq!(validate::spec(&spec), Ok(()));
        assert_eq!((spec.listen.as_slice(), &spec.probe), (&[][..], &None));
        let [socket, probe] = refused.as_slice() else { panic!("{refused:?}") };
        assert!(socket.starts_with("listen names"), "{socket}");
        assert!(probe.ends_with("serves no port that could be asked"), "{probe}");
    }

    #[test]
    fn what_is_well_beside_what_is_refused_is_kept() {
        let mut spec = usual();
        spec.resources.umask = Some(0o7777);
        spec.resources.nice = Some(100);
        spec.resources.memory_max = Some(1 << 30);
        spec.resources.rlimits = [(Rlimit::Nofile, Limit { soft: Some(1024), hard: None })].into();
        spec.identity.pid_file = Some("web.pid".into());
        spec.identity.port = Some(3000);
        spec.identity.increment_var = Some("PORT".into());
        spec.hooks =
            Hooks { pre_start: Some("true".into()), timeout: Duration::ZERO, ..Hooks::default() };
        spec.recycle.max_memory = Some(1);
        spec.recycle.max_lifetime = Some(Duration::from_mins(1));
        spec.watch = Some(Watch {
            paths: vec!["lib".into(), "/srv".into()],
            ignore: Vec::new(),
            delay: Duration::MAX,
        });
        let mut expected = spec.clone();
        (expected.resources.umask, expected.resources.nice) = (None, None);
        expected.identity.pid_file = None;
        expected.hooks.timeout = HOOK_TIMEOUT;
        expected.recycle.max_memory = None;
        let (paths, ignore) = (vec!["/srv".into()], Vec::new());
        expected.watch = Some(Watch { paths, ignore, delay: duration::MAX });

        assert_eq!(mend(&mut spec).len(), 7);

        assert_eq!(spec, expected);
        assert_eq!(validate::spec(&spec), Ok(()));
    }

    #[test]
    fn of_two_limits_that_contradict_each_other_the_hard_one_is_kept() {
        let mut spec = usual();
        (spec.resources.memory_high, spec.resources.memory_max) = (Some(2 << 30), Some(1 << 30));
        assert_eq!(mend(&mut spec).len(), 1);
        assert_eq!((spec.resources.memory_high, spec.resources.memory_max), (None, Some(1 << 30)));
    }

    #[test]
    fn what_an_app_cannot_be_without_is_refused_as_ever() {
        let mut spec = usual();
        spec.cwd = "srv".into();
        assert_eq!(mend(&mut spec), Vec::<String>::new());
        assert!(validate::spec(&spec).is_err());
    }

    fn probe() -> Probe {
        Probe {
            what: ProbeTarget::Tcp { port: None },
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            successes: 1,
            failures: 3,
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
