//! A daemon dies, and the next one goes on where it was.

use std::{
    fs,
    net::TcpStream,
    os::fd::AsFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Instant,
};

use cluster_common::names;

use super::{
    super::{bpf, ids::Program, join},
    steering::Question,
    world::{TCP, UDP, World, answer, ask, ask_many, in_a_world, slot, step_back, wait_until},
};
use crate::{
    datapath::{
        DataPath as _, GroupKey, GroupOptions, Report,
        record::{GroupRecord, Seated},
    },
    id::{AppId, GroupId, WorkerId},
};

const GROUP: GroupId = GroupId(0);
const ADDRESS: &str = "127.0.0.1:8080";

/// Binds when it is told to by a file, listens when told by another, and serves its label.
const STEPWISE: &str = "
import os, socket, sys, time
port, label, folder = int(sys.argv[1]), sys.argv[2].encode(), sys.argv[3]
def wait(name):
    while not os.path.exists(folder + '/' + name): time.sleep(0.002)
wait('bind')
s = socket.socket(); s.bind(('0.0.0.0', port)); open(folder + '/bound', 'w')
wait('listen')
s.listen(100); open(folder + '/listening', 'w')
while True:
    c, _ = s.accept(); c.sendall(label); c.close()
";

#[test]
fn a_group_outlives_a_killed_daemon_and_is_taken_over_without_losing_a_connection() {
    in_a_world(|world| {
        let record = world.killed_after(|world| {
            world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1, 2, 3]);
            ask_many(ADDRESS, 30);
            world.kernel.record(GROUP).unwrap()
        });
        let clients = Clients::start();
        assert_eq!(ask_many(ADDRESS, 30).len(), 3, "nobody is there, and it goes on");

        let begun = Instant::now();
        world.succeed();
        let seats = adopt(world, &record);
        world.kernel.settle();
        println!("adopted 3 workers within {:?}", begun.elapsed());

        clients.stop();
        assert_eq!(named(&seats), [(1, Some(1)), (2, Some(2)), (3, Some(3))]);
        let counted: u64 = (1..=3).map(|at| world.kernel.counters(GROUP, slot(at)).selected).sum();
        assert!(counted >= 60, "what was counted before and meanwhile: {counted}");
        assert!(world.all_listening().is_empty(), "all of them are seated");
        assert_eq!(ask_many(ADDRESS, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
    });
}

#[test]
fn there_is_a_waiting_room_again_and_what_waits_is_served() {
    in_a_world(|world| {
        let record = world.killed_after(|world| {
            world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1]);
            world.kernel.record(GROUP).unwrap()
        });
        world.succeed();
        adopt(world, &record);
        world.publish(GROUP, &[]);
        let waiting = TcpStream::connect(ADDRESS).unwrap();

        world.publish(GROUP, &[1]);

        assert_eq!(answer(waiting).unwrap(), "1");
    });
}

#[test]
fn what_the_killed_daemon_steered_is_forgotten() {
    in_a_world(|world| {
        let (stale, to) = ("127.0.0.1:40000", ADDRESS.parse().unwrap());
        let record = world.killed_after(|world| {
            let workers = world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1]);
            world.kernel.steer(workers[1], to, stale.parse().unwrap()).unwrap();
            world.kernel.record(GROUP).unwrap()
        });
        world.succeed();
        adopt(world, &record);
        // From now on sources are looked up again.
        let other = Question::new("127.0.0.1:0");
        world.kernel.steer(WorkerId(2), to, other.from).unwrap();

        assert_eq!(Question::new(stale).ask(ADDRESS).unwrap(), "1");
        assert_eq!(other.ask(ADDRESS).unwrap(), "2");
    });
}

#[test]
fn what_a_worker_does_while_there_is_no_daemon_is_learned_afterwards() {
    in_a_world(|world| {
        let folder = tempfile::tempdir().unwrap();
        let steps = folder.path().to_owned();
        let path = steps.to_str().unwrap().to_owned();
        let step = |name: &str, done: &str| {
            fs::write(steps.join(name), "").unwrap();
            wait_until(done, || steps.join(done).exists());
        };
        let record = world.killed_after(|world| {
            world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1]);
            world.spawn(STEPWISE, &["8080", "late", &path]);
            world.kernel.record(GROUP).unwrap()
        });
        // It can share the port, though nobody is there who could say so.
        step("bind", "bound");
        step("listen", "listening");
        assert_eq!(ask(ADDRESS).unwrap(), "1", "it gets nothing until it is in a route");

        world.succeed();
        adopt(world, &record);
        world.kernel.settle();

        let reported = world.all_listening();
        assert_eq!(reported.len(), 1);
        assert_eq!(reported[0].worker, WorkerId(2));
        world.kernel.join(reported[0].ticket, GROUP, slot(2)).unwrap();
        world.publish(GROUP, &[1, 2]);
        assert_eq!(ask_many(ADDRESS, 4).into_values().collect::<Vec<_>>(), [2, 2]);
    });
}

#[test]
fn a_socket_that_was_bound_for_the_daemon_before_is_reported_when_it_listens() {
    in_a_world(|world| {
        let folder = tempfile::tempdir().unwrap();
        let steps = folder.path().to_owned();
        let path = steps.to_str().unwrap().to_owned();
        world.spawn(STEPWISE, &["8080", "1", &path]);
        fs::write(steps.join("bind"), "").unwrap();
        wait_until("bound", || steps.join("bound").exists());
        world.die();
        // What hangs there is not the whole set any more: the next daemon attaches its own.
        join::detach_one(world.root());

        world.succeed();
        world.kernel.settle();
        assert_eq!(hanging(world), 5);
        assert!(world.all_listening().is_empty());
        fs::write(steps.join("listen"), "").unwrap();

        assert_eq!(world.listening().worker, WorkerId(1));
    });
}

#[test]
fn sockets_reported_and_never_answered_are_reported_again_once() {
    in_a_world(|world| {
        world.killed_after(|world| {
            for label in ["1", "2"] {
                world.spawn(TCP, &["0.0.0.0", "8080", label]);
            }
            // One event is read, the other one stays in the ring.
            let _unanswered = world.listening();
        });

        world.succeed();
        world.kernel.settle();

        let mut workers: Vec<_> =
            world.all_listening().iter().map(|socket| socket.worker).collect();
        workers.sort();
        assert_eq!(workers, [WorkerId(1), WorkerId(2)]);
    });
}

#[test]
fn a_group_of_another_version_is_built_anew_under_load() {
    in_a_world(|world| {
        let record = world.killed_after(|world| {
            world.group_of(GROUP, 3, TCP, "0.0.0.0", 8080);
            world.publish(GROUP, &[1, 2, 3]);
            ask_many(ADDRESS, 30);
            world.kernel.record(GROUP).unwrap()
        });
        pretend_another_version(&record);
        let clients = Clients::start();

        world.succeed();
        let begun = Instant::now();
        let seats = adopt(world, &record);
        println!("bridged 3 workers within {:?}", begun.elapsed());
        world.kernel.settle();

        clients.stop();
        assert_eq!(named(&seats), [(1, Some(1)), (2, Some(2)), (3, Some(3))]);
        let anew = world.kernel.record(GROUP).unwrap();
        assert_ne!(anew.program, record.program);
        wait_until("the old program is gone", || Program::open(record.program).is_err());
        let counted: u64 = (1..=3).map(|at| world.kernel.counters(GROUP, slot(at)).selected).sum();
        assert!(counted >= 30, "what was counted before is kept: {counted}");
        assert!(world.all_listening().is_empty());
        assert_eq!(ask_many(ADDRESS, 30).into_values().collect::<Vec<_>>(), [10, 10, 10]);
        // And once more, from what was built.
        world.die();
        world.succeed();
        assert_eq!(adopt(world, &anew).len(), 3);
        let again: u64 = (1..=3).map(|at| world.kernel.counters(GROUP, slot(at)).selected).sum();
        assert!(again >= counted + 30, "{again}");
    });
}

#[test]
fn a_traced_group_goes_on_being_traced() {
    in_a_world(|world| {
        let app = format!("traced-{}", std::process::id());
        let options = GroupOptions { app: app.clone(), trace: true };
        let records = std::env::temp_dir().join(format!("{app}-trace.log"));
        let lines = || fs::read_to_string(&records).unwrap_or_default().lines().count();
        world.spawn(TCP, &["0.0.0.0", "8080", "1"]);
        let socket = world.listening();
        world.kernel.open(GROUP, socket.ticket, &options).unwrap();
        world.kernel.join(socket.ticket, GROUP, slot(1)).unwrap();
        world.publish(GROUP, &[1]);
        let record = world.kernel.record(GROUP).unwrap();
        world.die();
        ask_many(ADDRESS, 3);

        world.succeed();
        world.kernel.adopt(GROUP, &key(8080), &record, &options).unwrap();
        ask_many(ADDRESS, 2);
        world.run_for(std::time::Duration::from_millis(50));

        let written = lines();
        fs::remove_file(&records).unwrap();
        assert_eq!(written, 5, "those of the time without a daemon are not lost");
    });
}

#[test]
fn groups_of_which_there_is_no_record_are_found() {
    in_a_world(|world| {
        world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.group_of(GroupId(1), 1, UDP, "127.0.0.1", 5353);
        world.publish(GROUP, &[1, 2]);
        world.die();

        world.succeed();
        let mut found = world.kernel.unadopted();
        found.sort_by_key(|(key, _)| key.address.port());
        let ports: Vec<_> = found.iter().map(|(key, _)| key.address.port()).collect();
        assert_eq!(ports, [5353, 8080]);
        for (number, (key, record)) in (0..).zip(&found) {
            world.kernel.adopt(GroupId(number), key, record, &options()).unwrap();
        }

        assert!(world.kernel.unadopted().is_empty());
        world.kernel.settle();
        assert!(world.all_listening().is_empty());
        assert_eq!(ask_many(ADDRESS, 4).into_values().collect::<Vec<_>>(), [2, 2]);
    });
}

#[test]
fn sockets_of_a_group_that_nobody_adopted_can_be_joined_to_a_new_one() {
    in_a_world(|world| {
        world.group_of(GROUP, 2, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1, 2]);
        world.die();

        world.succeed();
        world.kernel.settle();
        let reported = world.all_listening();
        world.open(GROUP, &reported[0]);
        for (number, socket) in (1..).zip(&reported) {
            world.kernel.join(socket.ticket, GROUP, slot(number)).unwrap();
        }

        world.publish(GROUP, &[1, 2]);
        assert_eq!(ask_many(ADDRESS, 4).into_values().collect::<Vec<_>>(), [2, 2]);
    });
}

#[test]
fn a_group_is_found_whatever_program_its_record_names() {
    in_a_world(|world| {
        world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.group_of(GroupId(1), 1, TCP, "0.0.0.0", 9090);
        world.publish(GROUP, &[1]);
        let record = world.kernel.record(GROUP).unwrap();
        let other = world.kernel.record(GroupId(1)).unwrap();
        let wrong = [
            (
                GroupRecord { loaded: record.loaded + 1, ..record.clone() },
                "is not the one that was",
            ),
            (
                GroupRecord { program: other.program, loaded: other.loaded, ..record.clone() },
                "none of the sockets",
            ),
            (GroupRecord { program: joining_program(), ..record.clone() }, "is not the one"),
            (GroupRecord { program: u32::MAX, ..record.clone() }, "No such file"),
        ];
        for (asked, (wrong, why)) in wrong.into_iter().enumerate() {
            world.die();
            world.succeed();
            let elsewhere = world.kernel.adopt(GROUP, &key(7070), &wrong, &options()).unwrap_err();
            assert!(format!("{elsewhere:#}").contains(why), "{elsewhere:#}");
            assert_eq!(adopt(world, &wrong).len(), 1);
            assert_eq!(world.kernel.record(GROUP).unwrap().program, record.program);
            let counted = world.kernel.counters(GROUP, slot(1)).selected;
            assert_eq!(counted, u64::try_from(asked).unwrap(), "counting goes on");
            assert_eq!(ask(ADDRESS).unwrap(), "1");
        }
    });
}

#[test]
fn nothing_is_attached_twice_however_many_daemons_there_were() {
    in_a_world(|world| {
        assert_eq!(hanging(world), 5);
        for level in [3, 3, 2, 3] {
            world.die();
            world.start_at(level);
            assert_eq!(hanging(world), 5);
        }
        let worker = world.spawn(TCP, &["0.0.0.0", "8080", "1"]);
        assert!(matches!(world.report(), Report::Binding { worker: of, .. } if of == worker));
        let reported = world.all_listening();
        assert_eq!(reported.len(), 1);
        super::super::Kernel::detach(world.root()).unwrap();
        assert_eq!(hanging(world), 0);
    });
}

#[test]
fn a_port_stays_its_apps_while_there_is_no_daemon_and_is_free_when_it_has_gone() {
    in_a_world(|world| {
        let workers = world.group_of(GROUP, 1, TCP, "0.0.0.0", 8080);
        world.publish(GROUP, &[1]);
        let record = world.kernel.record(GROUP).unwrap();
        world.die();
        world.succeed();
        adopt(world, &record);
        world.kernel.settle();
        world.app = AppId(1);
        let tries = "
import socket, sys, time
s = socket.socket(); told = socket.socket()
try: s.bind(('0.0.0.0', 8080)); told.bind(('127.0.0.1', 9001))
except OSError: told.bind(('127.0.0.1', 9002))
told.listen(); time.sleep(60)
";
        world.spawn(tries, &[]);
        assert_eq!(world.listening().key.address.port(), 9002, "it is the first app's");

        world.kill(workers[0]);
        world.die();
        world.succeed();
        assert!(world.kernel.adopt(GROUP, &key(8080), &record, &options()).is_err());
        world.kernel.settle();

        world.spawn(tries, &[]);
        wait_until("it has bound", || TcpStream::connect("127.0.0.1:9001").is_ok());
    });
}

#[test]
fn a_hundred_workers_are_adopted_in_no_time() {
    in_a_world(|world| {
        for workers in [4, 100] {
            let group = GroupId(workers.into());
            let port = 8000 + workers;
            world.group_of(group, workers, TCP, "0.0.0.0", port);
            let route: Vec<u16> = (1..=workers).collect();
            world.publish(group, &route);
            let record = world.kernel.record(group).unwrap();
            world.die();

            let begun = Instant::now();
            world.start();
            let started = begun.elapsed();
            world.admit_all();
            let seats = world.kernel.adopt(group, &key(port), &record, &options()).unwrap();
            let adopted = begun.elapsed();
            world.kernel.settle();
            println!(
                "{workers} workers: data path after {started:?}, adopted after {adopted:?}, settled after {:?}",
                begun.elapsed()
            );
            assert_eq!(seats.len(), usize::from(workers));
            assert!(seats.iter().all(|seat| seat.worker.is_some()));
        }
    });
}

/// Clients that connect without a pause, and notice the first connection that is not served.
pub(super) struct Clients {
    over: Arc<AtomicBool>,
    threads: Vec<JoinHandle<u32>>,
}

impl Clients {
    pub(super) fn start() -> Self {
        let over = Arc::new(AtomicBool::new(false));
        // Threads inherit the network namespace.
        let threads = [(); 2].map(|()| {
            let over = Arc::clone(&over);
            thread::spawn(move || {
                step_back();
                let mut served = 0;
                while !over.load(Ordering::Relaxed) {
                    assert_ne!(ask(ADDRESS).expect("no connection is lost"), "");
                    served += 1;
                }
                served
            })
        });
        Self { over, threads: threads.into() }
    }

    pub(super) fn stop(self) {
        self.over.store(true, Ordering::Relaxed);
        let served: u32 = self.threads.into_iter().map(|thread| thread.join().unwrap()).sum();
        println!("{served} connections, all of them served");
        assert!(served > 0);
    }
}

pub(super) fn adopt(world: &mut World, record: &GroupRecord) -> Vec<Seated> {
    world.kernel.adopt(GROUP, &key(8080), record, &options()).unwrap()
}

fn options() -> GroupOptions {
    GroupOptions { app: "test".to_owned(), trace: false }
}

pub(super) fn key(port: u16) -> GroupKey {
    let listener = std::net::TcpListener::bind("0.0.0.0:0").unwrap();
    let mut key = crate::datapath::socket::group_key(listener.as_fd()).unwrap();
    key.address.set_port(port);
    key
}

pub(super) fn named(seats: &[Seated]) -> Vec<(u16, Option<u64>)> {
    seats.iter().map(|seat| (seat.slot.get(), seat.worker.map(|worker| worker.0))).collect()
}

fn pretend_another_version(record: &GroupRecord) {
    let program = Program::open(record.program).unwrap();
    let mut config = program.value(names::CONFIG, 0).unwrap();
    config[..4].copy_from_slice(&u32::MAX.to_ne_bytes());
    let map = program.map(names::CONFIG, config.len()).unwrap();
    bpf::update(map.as_fd(), 0, &config).unwrap();
}

/// Programs of ours on the daemon's cgroup.
fn hanging(world: &World) -> usize {
    join::count(world.root())
}

fn joining_program() -> u32 {
    super::super::ids::all_programs()
        .filter_map(|id| Program::open(id).ok())
        .find(|program| program.name == names::BIND4)
        .unwrap()
        .id
}
