//! How apps are scheduled: in every group the same, switched everywhere or nowhere, and told anew after a takeover.

use std::collections::{BTreeMap, BTreeSet};

use super::{
    announcement::What,
    effect::{Aside, Refusal, Tale},
    event::{CallId, Command, Event, Exit, Reload},
    view::Status,
    world::{Faults, World, spec, start, targets},
};
use crate::{
    config::{
        change::Change,
        instances::Scale,
        pace::{Batch, Canary, Pace},
        scheduling::{Policy, Scheduling, Switch},
        spec::AppSpec,
        target::Target,
    },
    id::{AppId, GroupId, WorkerId},
};

const FIRST: GroupId = GroupId(0);
const SECOND: GroupId = GroupId(1);

#[test]
fn a_group_is_opened_with_the_rule_of_its_app() {
    let world = serving(AppSpec { scheduling: scheduling("hash shed=7"), ..spec("web", 2) }, &[80]);
    assert_eq!(world.rules[&FIRST], scheduling("hash shed=7"));
}

#[test]
fn an_app_whose_rule_is_refused_does_not_start_and_leaves_no_group() {
    let mut world = World::new();
    world.faults = Faults { schedule: true, ..Faults::default() };
    let call = world.command(start(spec("web", 1)));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    let worker = world.kills.last().copied().or(world.signals.last().map(|(worker, _)| *worker));
    world.exit(worker.unwrap(), Exit::Signal(15));
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Failed { .. })), "{:?}", world.answer(call));
    assert_eq!(world.state.apps(&[])[0].seats[0].status, Status::Errored);
    assert!(world.routes.is_empty() && world.rules.is_empty());
}

#[test]
fn an_app_whose_program_is_not_to_be_had_serves_in_turns_and_says_so() {
    let mut world = World::new();
    world.faults = Faults { schedule: true, ..Faults::default() };
    let own = scheduling("/srv/mine.bpf.o");
    world.command(start(AppSpec { scheduling: own.clone(), ..spec("web", 1) }));
    world.deliver_all();
    world.listen(world.worker(0, 0).unwrap(), 80);
    world.deliver_all();
    let app = &world.state.apps(&[])[0];
    assert_eq!((app.seats[0].status, app.unscheduled), (Status::Online, Some("it is gone")));
    assert_eq!(app.spec.scheduling, own, "it is what is wanted still");
    assert!(world.news.iter().any(|news| matches!(news.what, What::NotScheduled { .. })));

    world.faults = Faults::default();
    let call = switch(&mut world, "web", "/srv/mine.bpf.o");
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    assert_eq!(world.rules[&FIRST], own);
    assert_eq!(world.state.apps(&[])[0].unscheduled, None);
}

#[test]
fn a_program_of_the_same_name_is_read_anew_when_it_is_asked_for() {
    let own = AppSpec { scheduling: scheduling("/srv/mine.bpf.o"), ..spec("web", 1) };
    let mut world = serving(own, &[80]);
    world.rules.insert(FIRST, Scheduling::default());
    let call = switch(&mut world, "web", "/srv/mine.bpf.o");
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    assert_eq!(world.rules[&FIRST], defined(&world));
}

#[test]
fn a_switch_is_made_when_every_group_has_taken_it() {
    let mut world = serving(spec("web", 2), &[80, 443]);
    let call = switch(&mut world, "web", "least-conn guard=off");
    assert_eq!(defined(&world), Scheduling::default(), "nobody has taken it yet");
    world.deliver(0);
    assert!(world.answer(call).is_none());
    world.deliver(0);
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    assert_eq!(defined(&world), scheduling("least-conn guard=off"));
    assert_eq!([&world.rules[&FIRST], &world.rules[&SECOND]], [&defined(&world); 2]);
    assert!(world.news.iter().any(|news| matches!(news.what, What::Scheduled { .. })));
}

#[test]
fn a_switch_that_one_group_refuses_is_taken_back_everywhere() {
    let mut world = serving(spec("web", 2), &[80, 443]);
    let call = switch(&mut world, "web", "queue");
    refuse_last(&mut world);
    world.deliver_all();
    let refused = Refusal::NotScheduled { name: "web".to_owned(), why: "no room".to_owned() };
    assert_eq!(world.answer(call), Some(&Tale::Refused(refused)));
    assert_eq!(defined(&world), Scheduling::default());
    world.check_rules();
}

#[test]
fn several_apps_switch_together_or_not_at_all() {
    let mut world = serving(spec("web", 1), &[80]);
    world.command(start(spec("api", 3)));
    world.deliver_all();
    for instance in 0..3 {
        world.listen(world.worker(1, instance).unwrap(), 81);
        world.deliver_all();
    }
    let call = switch(&mut world, "all", "weights=1,2,3");
    assert!(matches!(
        world.answer(call),
        Some(Tale::Refused(Refusal::Unschedulable { name, .. })) if name == "web"
    ));
    let call = switch(&mut world, "all", "random");
    refuse_last(&mut world);
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Refused(_))));
    world.check_rules();
    assert!(world.state.apps(&[]).iter().all(|app| app.spec.scheduling == Scheduling::default()));
}

#[test]
fn a_second_switch_waits_for_nobody_and_is_refused_meanwhile() {
    let mut world = serving(spec("web", 1), &[80]);
    let first = switch(&mut world, "web", "random");
    let second = switch(&mut world, "web", "hash");
    assert!(matches!(world.answer(second), Some(Tale::Refused(Refusal::Superseded { .. }))));
    world.deliver_all();
    assert!(matches!(world.answer(first), Some(Tale::Done { .. })));
    assert_eq!(world.rules[&FIRST], scheduling("random"));
}

#[test]
fn whoever_switches_an_app_that_is_deleted_meanwhile_is_answered() {
    let mut world = serving(spec("web", 1), &[80]);
    let call = switch(&mut world, "web", "random");
    world.command(Command::Delete { targets: targets("web"), wait: true });
    assert!(matches!(world.answer(call), Some(Tale::Refused(Refusal::Superseded { .. }))));
}

#[test]
fn the_next_supervisor_tells_every_group_and_knows_no_switch_that_was_not_made() {
    let mut world = serving(spec("web", 1), &[80, 443]);
    switch(&mut world, "web", "random");
    assert_eq!(world.rules[&FIRST], scheduling("random"), "the data path was faster");
    world.take_over();
    world.deliver_all();
    assert_eq!(defined(&world), Scheduling::default());
    world.check_rules();
    let call = switch(&mut world, "web", "hash");
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    world.take_over();
    world.deliver_all();
    assert_eq!([&defined(&world), &world.rules[&SECOND]], [&scheduling("hash"); 2]);
}

#[test]
fn turns_go_by_weight_and_by_the_canary_s_share() {
    let weighted = AppSpec { scheduling: scheduling("round-robin weights=3,1"), ..spec("web", 2) };
    let mut world = serving(weighted, &[80]);
    assert_eq!(turns(&world), [3, 1]);
    let (canary, _) = canary_of_a_fifth(&mut world);
    let routed = routed(&world);
    let new = routed[&canary];
    assert_eq!(5 * new, routed.values().sum::<u32>(), "{routed:?}");
    let old: Vec<_> =
        routed.iter().filter(|(id, _)| **id != canary).map(|(_, turns)| *turns).collect();
    assert_eq!(old[0], 3 * old[1], "{routed:?}");
}

#[test]
fn turns_are_taken_as_long_as_a_canary_has_a_share_that_the_rule_would_not_give_it() {
    for (rule, turns) in
        [("least-conn shed=7", true), ("none", true), ("hash", false), ("sticky", false)]
    {
        let mut world =
            serving(AppSpec { scheduling: scheduling(rule), ..spec("web", 2) }, &[80, 443]);
        let (_, call) = canary_of_a_fifth(&mut world);
        let wanted = scheduling(rule);
        let aside = Aside::Turns { name: "web".to_owned(), policy: wanted.policy.clone() };
        assert_eq!(world.told[&call].contains(&Tale::Aside(aside)), turns, "{rule}");
        let mut now = wanted.clone();
        if turns {
            now.policy = Policy::RoundRobin;
        }
        assert_eq!([&world.rules[&FIRST], &world.rules[&SECOND]], [&now; 2], "{rule}");
        assert_eq!(world.state.apps(&[])[0].takes_turns, turns);
        assert_eq!(defined(&world), wanted, "it is what is wanted still");

        world.take_over();
        world.deliver_all();
        assert_eq!(world.rules[&FIRST], now, "the next supervisor knows it, too");
        switch(&mut world, "web", "queue");
        world.deliver_all();
        assert_eq!(
            world.rules[&FIRST].policy,
            Policy::RoundRobin,
            "a switch waits for the end of the canary"
        );

        world.command(Command::Promote { targets: targets("web"), wait: false });
        world.deliver_all();
        assert_eq!(world.rules[&FIRST], Scheduling { policy: Policy::Queue, ..wanted });
        world.check_rules();
    }
}

#[test]
fn a_canary_whose_turns_are_refused_is_not_told_to_have_them_and_no_switch_is_told_as_made() {
    let mut world =
        serving(AppSpec { scheduling: scheduling("least-conn"), ..spec("web", 2) }, &[80]);
    world.faults = Faults { schedule: true, ..Faults::default() };
    let (_, call) = canary_of_a_fifth(&mut world);
    let told = &world.told[&call];
    assert!(!told.iter().any(|tale| matches!(tale, Tale::Aside(Aside::Turns { .. }))), "{told:?}");
    let refused = |tale: &Tale| matches!(tale, Tale::Aside(Aside::NotScheduled { .. }));
    assert_eq!(told.iter().filter(|tale| refused(tale)).count(), 1, "{told:?}");
    assert!(world.state.apps(&[])[0].unscheduled.is_some());

    let call = switch(&mut world, "web", "round-robin");
    world.deliver_all();
    let answer = world.answer(call);
    assert!(matches!(answer, Some(Tale::Refused(Refusal::NotScheduled { .. }))), "{answer:?}");
    assert_eq!(world.rules[&FIRST], scheduling("least-conn"), "it has been so all along");

    world.faults = Faults::default();
    let call = switch(&mut world, "web", "round-robin");
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    assert_eq!(world.rules[&FIRST], scheduling("round-robin"));
    assert_eq!(world.state.apps(&[])[0].unscheduled, None);
}

#[test]
fn a_rule_that_is_refused_when_a_canary_ends_is_asked_for_again_when_somebody_wants_it() {
    let mut world =
        serving(AppSpec { scheduling: scheduling("least-conn"), ..spec("web", 2) }, &[80]);
    canary_of_a_fifth(&mut world);
    world.faults = Faults { schedule: true, ..Faults::default() };
    world.command(Command::Promote { targets: targets("web"), wait: false });
    world.deliver_all();
    assert_eq!(world.rules[&FIRST], scheduling("round-robin"), "turns go on");
    assert!(world.state.apps(&[])[0].unscheduled.is_some());

    let call = switch(&mut world, "web", "least-conn");
    world.deliver_all();
    let answer = world.answer(call);
    assert!(matches!(answer, Some(Tale::Refused(Refusal::NotScheduled { .. }))), "{answer:?}");
    assert!(world.state.apps(&[])[0].unscheduled.is_some(), "it is so still");

    world.faults = Faults::default();
    let call = switch(&mut world, "web", "least-conn");
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Done { .. })));
    assert_eq!(world.rules[&FIRST], scheduling("least-conn"));
    world.check_rules();
}

#[test]
fn a_switch_that_a_canary_comes_into_the_way_of_leaves_no_group_with_what_it_has_taken() {
    let mut world =
        serving(AppSpec { scheduling: scheduling("least-conn"), ..spec("web", 2) }, &[80]);
    let (canary, _) = canary_of_a_fifth(&mut world);
    let call = switch(&mut world, "web", "hash");
    world.exit(canary, Exit::Signal(9));
    refuse_last(&mut world);
    world.deliver_all();
    assert!(matches!(world.answer(call), Some(Tale::Refused(_))), "{:?}", world.answer(call));
    assert_eq!(defined(&world), scheduling("least-conn"));
    world.check_rules();
}

#[test]
fn another_number_of_workers_fits_the_weights_and_says_so() {
    let weighted = AppSpec { scheduling: scheduling("round-robin weights=3,2"), ..spec("web", 2) };
    let mut world = serving(weighted, &[80]);
    let target = Target::parse("web").unwrap();
    let call =
        world.command(Command::Scale { target: target.clone(), to: Scale::To(3), wait: false });
    let aside = Aside::Weights { name: "web".to_owned(), weights: vec![3, 2, 1] };
    assert!(world.told[&call].contains(&Tale::Aside(aside)));
    world.deliver_all();
    assert_eq!(defined(&world).weights, [3, 2, 1]);
    world.check_rules();

    switch(&mut world, "web", "class *=2");
    world.deliver_all();
    let call = world.command(Command::Scale { target, to: Scale::To(2), wait: false });
    assert!(matches!(world.answer(call), Some(Tale::Refused(Refusal::Unschedulable { .. }))));
    assert_eq!(world.state.apps(&[])[0].spec.instances, 3);
}

#[test]
fn weights_end_with_their_rule_and_that_is_said() {
    let weighted = AppSpec { scheduling: scheduling("round-robin weights=3,2"), ..spec("web", 2) };
    let mut world = serving(weighted, &[80]);
    let call = switch(&mut world, "web", "least-conn");
    world.deliver_all();
    let aside = Aside::WeightsEnded { name: "web".to_owned() };
    assert!(world.told[&call].contains(&Tale::Aside(aside)));
    assert_eq!(turns(&world), [1, 1]);
}

/// Reloads with a worker that is to get a fifth of the connections, and has it on its way to that.
fn canary_of_a_fifth(world: &mut World) -> (WorkerId, CallId) {
    let pace = Pace {
        batch: Batch::Workers(1),
        canary: Some(Canary::Share { part: 1, of: 5 }),
        ..Pace::default()
    };
    let reload = Reload {
        targets: targets("web"),
        change: Change::default(),
        pace,
        force: false,
        who: "somebody".to_owned(),
        yields: false,
        wait: true,
    };
    let call = world.command(Command::Reload(Box::new(reload)));
    world.deliver_all();
    let canary = world.successor(0, 0).unwrap();
    let ports: BTreeSet<_> =
        world.state.apps(&[])[0].ports.iter().map(|(_, address, _)| address.port()).collect();
    for port in ports {
        world.listen(canary, port);
        world.deliver_all();
    }
    (canary, call)
}

/// An app that listens on those ports.
fn serving(spec: AppSpec, ports: &[u16]) -> World {
    let instances = spec.instances;
    let mut world = World::new();
    world.command(start(spec));
    world.deliver_all();
    for instance in 0..instances {
        for port in ports {
            world.listen(world.worker(0, instance).unwrap(), *port);
            world.deliver_all();
        }
    }
    world
}

fn scheduling(text: &str) -> Scheduling {
    change(text).apply(&Scheduling::default())
}

fn change(text: &str) -> Switch {
    Switch::of_words(&text.split(' ').map(str::to_owned).collect::<Vec<_>>()).unwrap()
}

fn switch(world: &mut World, target: &str, text: &str) -> CallId {
    let switch = Box::new(change(text));
    world.command(Command::Switch { targets: targets(target), switch })
}

/// The data path did not take the last rule that it was asked for.
fn refuse_last(world: &mut World) {
    let Some(Event::Scheduled { group, .. }) = world.answers.pop_back() else { panic!() };
    world.rules.insert(group, Scheduling::default());
    world.answers.push_back(Event::Scheduled { group, result: Err("no room".to_owned()) });
}

fn defined(world: &World) -> Scheduling {
    world.state.app_of(AppId(0)).unwrap().spec.scheduling.clone()
}

fn routed(world: &World) -> BTreeMap<WorkerId, u32> {
    let mut turns = BTreeMap::new();
    for slot in &world.routes[&FIRST] {
        *turns.entry(world.sockets[&(FIRST, *slot)]).or_insert(0) += 1;
    }
    turns
}

/// Turns of the workers, by number.
fn turns(world: &World) -> Vec<u32> {
    let mut turns: Vec<_> =
        routed(world).into_iter().map(|(worker, turns)| (world.alive[&worker].1, turns)).collect();
    turns.sort_unstable();
    turns.into_iter().map(|(_, turns)| turns).collect()
}
