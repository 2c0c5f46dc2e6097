//! What waits for a worker that hangs, where the kernel moves connections by itself.

use std::{
    fs,
    io::{Read as _, Write as _},
    os::fd::AsFd as _,
};

use rustix::process::{Signal, pidfd_send_signal};

use super::{super::*, *};
use crate::process::watch::reap;

const SWITCH: &str = "/proc/sys/net/ipv4/tcp_migrate_req";

#[test]
fn what_waits_is_answered_by_others_where_the_kernel_moves_it() {
    inside("rescue::what_waits_is_answered_by_others_where_the_kernel_moves_it", &[0], || {
        fs::write(SWITCH, "1").unwrap();
        let mut host = Host::new();
        let hung = host.start(&["/usr/bin/python3", "-c", PYTHON]);
        host.join_all(1);
        let stopped = host.workers[0].1.process.try_clone().unwrap();
        pidfd_send_signal(&stopped, Signal::STOP).unwrap();
        // As many as Python lets wait.
        let waiting: Vec<_> = (0..5).map(|_| TcpStream::connect(address()).unwrap()).collect();
        host.start(&["/usr/bin/python3", "-c", PYTHON]);
        host.next(|report| matches!(report, Report::Listening { .. }));

        host.plain.rescue(hung).unwrap();

        let other = host.workers[1].1.pid.to_string();
        for mut connection in waiting {
            connection.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
            let mut answer = String::new();
            connection.read_to_string(&mut answer).unwrap();
            assert!(answer.ends_with(&other), "{answer}");
        }
        assert_eq!(reap(stopped.as_fd()).unwrap(), None, "it was not ended");
    });
}

#[test]
fn where_the_kernel_does_not_move_them_they_are_left_alone() {
    inside("rescue::where_the_kernel_does_not_move_them_they_are_left_alone", &[0, 65534], || {
        let mut host = Host::new();
        let worker = host.start(&["/usr/bin/python3", "-c", PYTHON]);
        host.join_all(1);

        let error = host.plain.rescue(worker).unwrap_err().to_string();

        assert!(error.contains("tcp_migrate_req"), "{error}");
        let from = "127.0.0.1:40000".parse().unwrap();
        let error = host.plain.steer(worker, address(), from).unwrap_err().to_string();
        assert!(error.contains("cannot probe one worker"), "{error}");
        assert_eq!(host.asked(5).len(), 1, "it listens on");
    });
}
