//! A supervisor dies, and the next one goes on.

use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{
    PYTHON,
    host::{Host, options},
    inside,
};
use crate::{
    datapath::{DataPath as _, Report, record::GroupRecord},
    id::{GroupId, WorkerId},
};

/// Binds and listens after a while, on the port it is given, and then serves it with its pid.
const LATE: &str = "
import http.server, os, sys, time
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200); self.end_headers(); self.wfile.write(str(os.getpid()).encode())
    def log_message(self, *args): pass
time.sleep(0.3)
http.server.HTTPServer(('127.0.0.1', 8080), Handler).serve_forever()
";

#[test]
fn workers_go_on_and_can_still_bind_and_listen() {
    inside("adopting::workers_go_on_and_can_still_bind_and_listen", &[0, 65534], || {
        let mut host = Host::new();
        for _ in 0..2 {
            host.start(&["/usr/bin/python3", "-c", PYTHON]);
        }
        let key = host.join_all(2).remove(0);
        let late = host.start(&["/usr/bin/python3", "-c", LATE]);
        let record = host.plain.record(GroupId(0)).unwrap();
        assert_eq!(host.asked(40).len(), 2);

        host.succeed();
        let seats = host.plain.adopt(GroupId(0), &key, &record, &options()).unwrap();
        host.plain.settle();

        let seats: Vec<_> = seats.iter().map(|seat| (seat.slot.get(), seat.worker)).collect();
        let sockets = [seats[0].1.unwrap(), seats[1].1.unwrap()];
        assert_eq!([seats[0].0, seats[1].0], [1, 2]);
        assert!(sockets.contains(&WorkerId(0)) && sockets.contains(&WorkerId(1)), "{sockets:?}");
        assert_eq!(host.plain.traffic(WorkerId(0)).unwrap().established, 0);
        let report = host.next(|report| !matches!(report, Report::Binding { .. }));
        let Report::Listening { worker, ticket, key: of } = report else { panic!("{report:?}") };
        assert_eq!((worker, of), (late, key.clone()));
        host.plain.join(ticket, GroupId(0), super::Slot::masked(3)).unwrap();
        assert_eq!(host.asked(80).len(), 3);
        let again = host.plain.record(GroupId(0)).unwrap();
        assert_eq!(again.slots.len(), 3);

        let nobody = GroupRecord { slots: Vec::new(), ..record };
        assert!(host.plain.adopt(GroupId(1), &key, &nobody, &options()).is_err());
    });
}

#[test]
fn a_call_waits_for_the_next_supervisor() {
    inside("adopting::a_call_waits_for_the_next_supervisor", &[0, 65534], || {
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", LATE]);
        host.plain = {
            let _context = host.runtime().enter();
            super::Plain::new().unwrap()
        };
        let (_, waiting) = host.workers.first().unwrap();
        let begun = Instant::now();
        let in_bind = || {
            let call = fs::read_to_string(format!("/proc/{}/syscall", waiting.pid)).unwrap();
            call.split(' ').next() == Some(&libc::SYS_bind.to_string())
        };
        while !in_bind() {
            assert!(begun.elapsed() < Duration::from_secs(30), "it does not wait");
            thread::sleep(Duration::from_millis(2));
        }

        host.succeed();
        host.plain.settle();

        let report = host.next(|report| !matches!(report, Report::Binding { .. }));
        assert!(
            matches!(report, Report::Listening { worker: of, .. } if of == worker),
            "{report:?}"
        );
    });
}

#[test]
fn sockets_of_which_there_is_no_record_are_reported() {
    inside("adopting::sockets_of_which_there_is_no_record_are_reported", &[0, 65534], || {
        let mut host = Host::new();
        for _ in 0..2 {
            host.start(&["/usr/bin/python3", "-c", PYTHON]);
        }
        host.join_all(2);

        host.succeed();
        host.plain.settle();

        host.join_all(2);
        assert_eq!(host.asked(40).len(), 2);
        assert!(host.poll(Duration::from_millis(50)).is_none(), "once each");
    });
}
