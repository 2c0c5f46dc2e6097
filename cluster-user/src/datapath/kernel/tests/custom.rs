//! Programs of users that pick workers: good ones, and all the ways in which they are not.

use std::{fs, net::TcpStream, path::PathBuf};

use aya_obj::generated::bpf_map_type as kind;
use cluster_common::{abi, load::Load, names, route::RouteTable};
use cluster_proof::assembler::{
    Assembly, LOOK_UP, R0, R1, R2, R3, R4, R6, RANDOM, SELECT,
    Step::{self, *},
};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use super::{
    super::{custom::log_of, ids::Program},
    adopting::{Clients, adopt},
    world::{TCP, World, ask, ask_many, in_a_world, turns, wait_until},
};
use crate::{
    config::scheduling::{Guard, Policy, Scheduling},
    datapath::DataPath as _,
    id::{GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";
const ARRAY: u32 = kind::BPF_MAP_TYPE_ARRAY as u32;

/// A folder for objects, and for the logs of a daemon.
struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// Writes an object down, and how a group is scheduled by it.
    fn policy(&self, name: &str, object: &[u8]) -> Scheduling {
        let path = self.0.path().join(name);
        fs::write(&path, object).unwrap();
        custom(path)
    }
}

fn custom(path: PathBuf) -> Scheduling {
    Scheduling { policy: Policy::Custom(path), guard: Guard::OFF, ..Scheduling::default() }
}

fn with_three_workers(then: impl FnOnce(&mut World, &[WorkerId], &Folder) + Send + 'static) {
    in_a_world(move |world| {
        let folder = Folder::new();
        world.kernel.logs = folder.0.path().to_owned();
        let workers = world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
        world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
        world.publish(GROUP, &[1, 2, 3]);
        then(world, &workers, &folder);
    });
}

fn always(index: i32) -> Vec<u8> {
    Assembly::current().program("always", &[Set(R0, index), Exit]).finish()
}

/// Counts in a map of its own, and picks by that.
fn counting() -> Vec<u8> {
    let steps = [
        Set(R1, 0),
        Keep(R1),
        Map(R1, "COUNT"),
        Kept(R2),
        Helper(LOOK_UP),
        SkipIfZero(R0, 5),
        Long(R1, R0, 0),
        Copy(R6, R1),
        Add(R6, 1),
        Store(R0, R6),
        Copy(R0, R1),
        Exit,
    ];
    // A null pointer is zero.
    Assembly::current().map("COUNT", ARRAY, 4, 8).program("counting", &steps).finish()
}

/// Picks the second entry of the route while the worker of the first one has connections.
fn relieving() -> Vec<u8> {
    let none = |skip| [SkipIfZero(R0, skip)];
    let look_up = |map| [Keep(R1), Map(R1, map), Kept(R2), Helper(LOOK_UP)];
    let steps: Vec<Step> = [
        &[Set(R1, 0)][..],
        &look_up(names::CURSORS),
        &none(25),
        // The table that is in use.
        &[Long(R1, R0, 0), Shift(R1, 56), Mask(R1, 1)],
        &look_up(names::ROUTES),
        &none(15),
        // The seat of its first entry.
        &[Word(R1, R0, 8), Shift(R1, 16), Mask(R1, 0x7ff)],
        &look_up(names::LOADS),
        &none(5),
        &[Long(R1, R0, 0), Set(R0, 0), SkipIfZero(R1, 1), Set(R0, 1)],
        &[Exit, Set(R0, -1), Exit],
    ]
    .concat();
    // The first words of a cursor's line and of a load.
    let sizes =
        [size_of::<RouteTable>(), size_of::<Load>()].map(|size| u32::try_from(size).unwrap());
    Assembly::current()
        .map(names::CURSORS, ARRAY, 4, 64)
        .map(names::ROUTES, ARRAY, 4, sizes[0])
        .map(names::LOADS, ARRAY, 4, sizes[1])
        .program("relieving", &steps)
        .finish()
}

/// Why a group cannot be scheduled like this.
fn refused(world: &mut World, scheduling: &Scheduling) -> String {
    format!("{:#}", world.kernel.schedule(GROUP, scheduling).unwrap_err())
}

fn program(world: &World) -> u32 {
    world.kernel.record(GROUP).unwrap().program
}

#[test]
fn a_program_of_the_users_picks_the_worker() {
    with_three_workers(|world, _, folder| {
        for index in 0..3 {
            let scheduling = folder.policy("always.bpf.o", &always(index));
            world.kernel.schedule(GROUP, &scheduling).unwrap();
            let answers = ask_many(ADDRESS, 20);
            assert_eq!(answers, [((index + 1).to_string(), 20)].into(), "entry {index}");
        }
        world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
        assert_eq!(ask_many(ADDRESS, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
    });
}

#[test]
fn it_goes_by_the_loads_that_are_counted_for_all() {
    with_three_workers(|world, workers, folder| {
        let scheduling = folder.policy("relieving.bpf.o", &relieving());
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        world.signal(workers[0], Signal::SIGSTOP);
        let held = TcpStream::connect(ADDRESS).unwrap();
        assert_eq!(ask_many(ADDRESS, 10), [("2".to_owned(), 10)].into());
        drop(held);
        world.signal(workers[0], Signal::SIGCONT);
        wait_until("the first is idle", || ask(ADDRESS).unwrap() == "1");
    });
}

#[test]
fn an_answer_that_means_nothing_is_round_robin() {
    with_three_workers(|world, _, folder| {
        for garbage in [3, 4096, i32::MAX, i32::MIN, -1] {
            let scheduling = folder.policy("garbage.bpf.o", &always(garbage));
            world.kernel.schedule(GROUP, &scheduling).unwrap();
            let answers = ask_many(ADDRESS, 30);
            assert_eq!(answers.into_values().collect::<Vec<_>>(), [10, 10, 10], "{garbage}");
        }
        // Something else each time, and an address.
        for steps in [&[Helper(RANDOM), Exit], &[Copy(R0, R1), Exit]] {
            let object = Assembly::current().program("garbage", steps).finish();
            let scheduling = folder.policy("garbage.bpf.o", &object);
            world.kernel.schedule(GROUP, &scheduling).unwrap();
            assert_eq!(ask_many(ADDRESS, 30).into_values().sum::<usize>(), 30);
        }
        // Of the random ones some may have meant somebody.
        let unfollowed = world.kernel.group_telemetry(GROUP).unwrap().unfollowed;
        assert!((150..=210).contains(&unfollowed), "{unfollowed} of 210");
    });
}

#[test]
fn a_worker_that_is_gone_is_picked_in_vain() {
    with_three_workers(|world, workers, folder| {
        let scheduling = folder.policy("always.bpf.o", &always(0));
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        world.kill(workers[0]);
        let answers = ask_many(ADDRESS, 30);
        assert_eq!(answers.values().sum::<usize>(), 30);
        assert!(!answers.contains_key("1") && answers.len() == 2, "{answers:?}");
    });
}

#[test]
fn a_socket_that_it_selects_by_itself_is_not_what_counts() {
    with_three_workers(|world, _, folder| {
        let steps = [
            Set(R3, 2),
            Keep(R3),
            Map(R2, names::SOCKETS),
            Kept(R3),
            Set(R4, 0),
            Helper(SELECT),
            Set(R0, 0),
            Exit,
        ];
        let sockets = kind::BPF_MAP_TYPE_REUSEPORT_SOCKARRAY as u32;
        let object =
            Assembly::current().map(names::SOCKETS, sockets, 4, 8).program("selects", &steps);
        let scheduling = folder.policy("selects.bpf.o", &object.finish());
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        assert_eq!(ask_many(ADDRESS, 20), [("1".to_owned(), 20)].into());
    });
}

#[test]
fn what_is_no_policy_is_refused_with_a_reason_and_changes_nothing() {
    with_three_workers(|world, _, folder| {
        let before = program(world);
        let pick: &[Step] = &[Set(R0, 0), Exit];
        let version = abi::VERSION;
        let named = Assembly::current().map(names::LOADS, ARRAY, 4, 8);
        let load = [Set(R1, 0), Keep(R1), Map(R1, names::LOADS), Kept(R2), Helper(LOOK_UP)];
        let load = [&load[..], pick].concat();
        for (object, reason) in [
            (b"not an object".to_vec(), "is not a compiled object"),
            (fs::read("/bin/true").unwrap(), "for another machine"),
            (Assembly::current().finish(), "has no program of type sk_reuseport"),
            (
                Assembly::current().program("one", pick).program("two", pick).finish(),
                "has 2 programs of type sk_reuseport (one, two)",
            ),
            (
                Assembly::empty().program("pick", pick).finish(),
                &format!(
                    "does not say for which ABI it was made, and this version of cluster has ABI {version}"
                ),
            ),
            (
                Assembly::empty().version(version + 1).program("pick", pick).finish(),
                &format!(
                    "made for ABI {}, and this version of cluster has ABI {version}",
                    version + 1
                ),
            ),
            (
                named.program("pick", &load).finish(),
                "map LOADS has keys of 4 and values of 8 bytes, and this version's has keys of 4 and values of 64",
            ),
        ] {
            let scheduling = folder.policy("bad.bpf.o", &object);
            let said = refused(world, &scheduling);
            assert!(said.contains(reason) && said.contains("bad.bpf.o"), "{said}");
        }
        let missing = refused(world, &custom(folder.0.path().join("missing.bpf.o")));
        assert!(missing.contains("missing.bpf.o: No such file"), "{missing}");
        let no_file = refused(world, &custom(folder.0.path().to_owned()));
        assert!(no_file.contains("is not a file"), "{no_file}");
        let fifo = folder.0.path().join("fifo.bpf.o");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let nobody_writes = refused(world, &custom(fifo));
        assert!(nobody_writes.contains("is not a file"), "{nobody_writes}");

        assert_eq!(program(world), before);
        assert_eq!(ask_many(ADDRESS, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
    });
}

#[test]
fn what_the_kernel_refuses_is_told_in_its_words_and_changes_nothing() {
    with_three_workers(|world, _, folder| {
        let before = program(world);
        let clients = Clients::start();
        for (name, steps, reason) in [
            ("loops", &[Set(R0, 0), SkipIfZero(R0, -1), Exit][..], "infinite loop"),
            ("waits", &[Helper(RANDOM), SkipIfZero(R0, -2), Exit], "infinite loop"),
            ("never-ends", &[Go(-1)], "infinite loop"),
            ("reads", &[Set(R1, 0), Long(R0, R1, 0), Exit], "invalid mem access"),
        ] {
            let object = Assembly::current().program("pick", steps).finish();
            let scheduling = folder.policy("refused.bpf.o", &object);
            let error = world.kernel.schedule(GROUP, &scheduling).unwrap_err();
            let said = format!("{error:#}");
            println!("{name}: {said}");
            assert!(said.contains(reason), "{name}: {said}");
            let file = folder.0.path().join("test-policy.log");
            assert!(said.contains(file.to_str().unwrap()), "{said}");
            assert_eq!(log_of(&error), Some(&*fs::read_to_string(file).unwrap()));
        }
        clients.stop();
        assert_eq!(program(world), before);
    });
}

#[test]
fn it_is_changed_under_connections_and_none_is_lost() {
    with_three_workers(|world, _, folder| {
        let clients = Clients::start();
        for turn in turns(4, 20) {
            let scheduling =
                folder.policy("always.bpf.o", &always(i32::try_from(turn % 4).unwrap()));
            world.kernel.schedule(GROUP, &scheduling).unwrap();
            ask_many(ADDRESS, 5);
            let other = if turn % 2 == 0 { Policy::RoundRobin } else { Policy::LeastConn };
            let other = Scheduling { policy: other, ..Scheduling::default() };
            world.kernel.schedule(GROUP, &other).unwrap();
            ask_many(ADDRESS, 5);
        }
        clients.stop();
    });
}

#[test]
fn the_same_again_goes_on_with_what_it_has_in_its_maps() {
    with_three_workers(|world, _, folder| {
        let scheduling = folder.policy("counting.bpf.o", &counting());
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        let before = program(world);
        assert_eq!([ask(ADDRESS).unwrap(), ask(ADDRESS).unwrap()], ["1", "2"]);
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        assert_eq!(program(world), before);
        assert_eq!(ask(ADDRESS).unwrap(), "3");

        world.kernel.schedule(GROUP, &Scheduling::default()).unwrap();
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        assert_eq!(ask(ADDRESS).unwrap(), "1", "what another one had is not taken over");
    });
}

#[test]
fn the_next_daemon_takes_it_over_and_can_change_it() {
    in_a_world(|world| {
        let folder = Folder::new();
        let scheduling = folder.policy("counting.bpf.o", &counting());
        let given = scheduling.clone();
        let record = world.killed_after(move |world| {
            world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1, 2, 3]);
            world.kernel.schedule(GROUP, &given).unwrap();
            ask(ADDRESS).unwrap();
            world.kernel.record(GROUP).unwrap()
        });
        assert_eq!(ask(ADDRESS).unwrap(), "2", "nobody is there, and it goes on");

        world.succeed();
        adopt(world, &record);
        world.kernel.settle();
        world.kernel.schedule(GROUP, &scheduling).unwrap();
        assert_eq!(program(world), record.program, "it is the same");
        assert_eq!(ask(ADDRESS).unwrap(), "3");

        let other = folder.policy("counting.bpf.o", &always(0));
        world.kernel.schedule(GROUP, &other).unwrap();
        assert_eq!(ask_many(ADDRESS, 10), [("1".to_owned(), 10)].into());
        wait_until("the one before is gone", || Program::open(record.program).is_err());
    });
}
