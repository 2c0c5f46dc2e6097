//! The channel with real programs at its other end: Node, which defined it.

use std::{fs::File, path::Path};

use proptest::prelude::*;
use rustix::process::{Signal, WaitId, WaitIdOptions, pidfd_send_signal, waitid};
use tokio::{task::yield_now, time::timeout};

use super::*;
use crate::process::spawn::{Bounds, Launch, Spawned, spawn};

const PATIENCE: Duration = Duration::from_secs(10);
const WORKER: WorkerId = WorkerId(7);

/// As users of PM2 write it.
const READY: &str = "process.send('ready'); process.on('message', message => {
    if (message === 'shutdown') process.exit(17);
});";

#[test]
fn only_the_word_itself_says_that_a_worker_is_ready() {
    for (said, expected) in [
        (&b"\"ready\"\n"[..], true),
        (b" \"ready\" \r\n", true),
        (b"{\"type\":\"axm:monitor\"}\n\"ready\"\n\"x\"\n", true),
        (b"\"ready\"", false),
        (b"ready\n", false),
        (b"\"Ready\"\n", false),
        (b"{\"type\":\"process:msg\",\"data\":\"ready\"}\n", false),
        (b"[\"ready\"]\n", false),
        (b"\n\n\xff\n", false),
    ] {
        assert_eq!(Lines::default().says_ready(said), expected, "{said:?}");
    }
}

#[test]
fn a_line_that_is_too_long_hides_nothing_after_it() {
    let mut lines = Lines::default();
    for _ in 0..1000 {
        assert!(!lines.says_ready(&[b'x'; 5000]));
        assert!(lines.begun.len() <= LONGEST);
    }
    assert!(!lines.says_ready(b"\"ready\"\n"), "the end of the long one");
    assert!(lines.says_ready(b"\"ready\"\n"));
}

proptest! {
    #[test]
    fn pieces_make_no_difference(cuts in prop::collection::vec(1..9_usize, 0..20)) {
        let said = b"{\"a\":1}\n\"ready\"\n\"unready\"\n";
        let (mut lines, mut at, mut ready) = (Lines::default(), 0, false);
        for cut in cuts.into_iter().chain([said.len()]) {
            let to = (at + cut).min(said.len());
            ready |= lines.says_ready(&said[at..to]);
            at = to;
        }
        prop_assert!(ready);
    }
}

#[tokio::test]
async fn node_says_that_it_is_ready_and_hears_that_it_shall_end() {
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", READY]);
    let mut news = worker.listen();

    assert_ready(&mut news).await;
    worker.channel.send("shutdown").unwrap();

    assert_eq!(worker.exit_code().await, 17);
}

#[tokio::test]
async fn a_worker_does_not_notice_that_the_daemon_is_gone_and_the_next_one_finds_it() {
    let code = format!("{READY} process.on('disconnect', () => process.exit(99));");
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", &code]);
    assert_ready(&mut worker.listen()).await;
    let id = worker.channel.id().unwrap();

    // As if killed: whatever the daemon had is closed.
    worker.channel = Channel::new().unwrap().0;
    let channel = Channel::reopen(worker.spawned.process.as_fd(), Some(id)).unwrap();
    channel.send("shutdown").unwrap();

    assert_eq!(worker.exit_code().await, 17);
}

#[tokio::test]
async fn a_number_that_became_something_else_is_no_channel() {
    let worker = Worker::start("/bin/sh", &["sh", "-c", "exec sleep 1000"]);
    let process = worker.spawned.process.as_fd();
    let id = worker.channel.id().unwrap();
    let error = Channel::reopen(process, Some(id + 1)).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
    assert!(Channel::reopen(process, Some(id)).is_ok());
    assert!(Channel::reopen(process, None).is_ok());
    pidfd_send_signal(process, Signal::KILL).unwrap();
    waitid(WaitId::PidFd(process), WaitIdOptions::EXITED).unwrap();
    assert!(Channel::reopen(process, Some(id)).is_err());
}

#[tokio::test]
async fn a_flood_of_messages_keeps_nobody_from_their_work() {
    let code = "import os, time
line = b'{' + b'x' * 100000 + b'}\\n'
while True: os.write(98, line)";
    let code = code.replace("\\\\n", "\\n");
    let mut worker = Worker::start("/usr/bin/python3", &["python3", "-I", "-S", "-c", &code]);
    let mut news = worker.listen();
    let started = std::time::Instant::now();

    // Others get their turns all the while.
    let mut turns = 0;
    while started.elapsed() < Duration::from_millis(300) {
        yield_now().await;
        turns += 1;
    }

    assert!(turns > 100, "{turns}");
    assert!(news.try_recv().is_err(), "nothing of it means anything");
    assert_eq!(worker.channel.send("shutdown").map_err(|error| error.kind()), Ok(()));
}

#[tokio::test]
async fn a_worker_that_does_not_listen_is_not_waited_for() {
    let worker = Worker::start("/bin/sh", &["sh", "-c", "exec sleep 1000"]);
    let full = (0..100_000).find_map(|_| worker.channel.send("shutdown").err()).unwrap();
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_worker_that_closed_its_end_is_an_error() {
    let (channel, theirs) = Channel::new().unwrap();
    drop(theirs);
    assert_eq!(channel.send("shutdown").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn other_programs_find_the_number_in_their_environment() {
    let code = "import os; os.write(int(os.environ['NODE_CHANNEL_FD']), b'\"ready\"\\n')";
    let mut worker = Worker::start("/usr/bin/python3", &["python3", "-I", "-S", "-c", code]);
    assert_ready(&mut worker.listen()).await;
}

/// A process with a channel; killed when dropped.
struct Worker {
    channel: Channel,
    spawned: Spawned,
}

impl Worker {
    fn start(program: &str, args: &[&str]) -> Self {
        let (channel, theirs) = Channel::new().unwrap();
        let null = File::options().write(true).open("/dev/null").unwrap();
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let env = VARIABLES.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let spawned = spawn(&Launch {
            program: Path::new(program),
            args: &args,
            env: &env,
            cwd: Path::new("/"),
            user: None,
            cgroup: None,
            stdout: null.as_fd(),
            stderr: null.as_fd(),
            inherited: &[(theirs.as_fd(), THEIRS), (channel.end(), KEPT)],
            filter: None,
            bounds: &Bounds::default(),
        });
        Self { channel, spawned: spawned.unwrap() }
    }

    fn listen(&mut self) -> mpsc::Receiver<News> {
        let (sender, news) = mpsc::channel(4);
        self.channel.listen(WORKER, sender);
        news
    }

    async fn exit_code(&self) -> i32 {
        let process = self.spawned.process.try_clone().unwrap();
        let waited = tokio::task::spawn_blocking(move || {
            waitid(WaitId::PidFd(process.as_fd()), WaitIdOptions::EXITED).unwrap().unwrap()
        });
        timeout(PATIENCE, waited).await.unwrap().unwrap().exit_status().unwrap()
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        pidfd_send_signal(&self.spawned.process, Signal::KILL).unwrap_or_default();
        waitid(WaitId::PidFd(self.spawned.process.as_fd()), WaitIdOptions::EXITED)
            .unwrap_or_default();
    }
}

async fn assert_ready(news: &mut mpsc::Receiver<News>) {
    match timeout(PATIENCE, news.recv()).await.unwrap().unwrap() {
        News::Message { worker } => assert_eq!(worker, WORKER),
        other @ (News::Notified { .. } | News::Answered { .. }) => panic!("{other:?}"),
    }
}
