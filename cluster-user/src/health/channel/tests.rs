//! The channel with real programs at its other end: Node, which defined it.

use std::{fs::File, path::Path};

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

#[tokio::test]
async fn node_says_that_it_is_ready_and_hears_that_it_shall_end() {
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", READY]);
    let mut news = worker.listen();

    assert_ready(&mut news).await;
    worker.channel.send(&"shutdown".into()).unwrap();

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
    channel.send(&"shutdown".into()).unwrap();

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
while True: os.write(14, line)";
    let code = code.replace("\\\\n", "\\n");
    let mut worker = Worker::start("/usr/bin/python3", &["python3", "-I", "-S", "-c", &code]);
    let mut news = worker.listen();
    let started = Instant::now();

    // Others get their turns all the while.
    let mut turns = 0;
    while started.elapsed() < Duration::from_millis(300) {
        yield_now().await;
        turns += 1;
    }

    assert!(turns > 100, "{turns}");
    match news.try_recv() {
        Err(_) => {}
        Ok(News::Spoke { spoken: Spoken::Dropped { messages, .. }, .. }) => assert!(messages > 0),
        Ok(other) => panic!("nothing of it means anything: {other:?}"),
    }
    assert_eq!(worker.channel.send(&"shutdown".into()).map_err(|error| error.kind()), Ok(()));
}

#[tokio::test]
async fn a_worker_that_does_not_listen_is_not_waited_for() {
    let worker = Worker::start("/bin/sh", &["sh", "-c", "exec sleep 1000"]);
    let full = (0..1_000_000).find_map(|_| worker.channel.send(&"shutdown".into()).err()).unwrap();
    assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
}

#[tokio::test]
async fn a_worker_that_closed_its_end_is_an_error() {
    let (channel, theirs) = Channel::new().unwrap();
    drop(theirs);
    assert_eq!(channel.send(&"shutdown".into()).unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn other_programs_find_the_number_in_their_environment() {
    let code = "import os; os.write(int(os.environ['NODE_CHANNEL_FD']), b'\"ready\"\\n')";
    let mut worker = Worker::start("/usr/bin/python3", &["python3", "-I", "-S", "-c", code]);
    assert_ready(&mut worker.listen()).await;
}

#[tokio::test]
async fn a_long_message_arrives_whole_and_one_that_is_too_long_is_refused() {
    let code = "process.on('message', text => process.exit(text.length === 1e6 ? 5 : 6))";
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", code]);
    let _news = worker.listen();
    let refused = worker.channel.send(&"x".repeat(LONGEST).into()).unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(Errno::MSGSIZE.raw_os_error()));

    worker.channel.send(&"x".repeat(1_000_000).into()).unwrap();

    assert_eq!(worker.exit_code().await, 5);
}

#[tokio::test]
async fn node_sends_on_after_it_has_sent_a_handle() {
    let code = "const server = require('net').createServer().listen(0, () => {
        process.send('mine', server); process.send('ready'); })";
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", code]);
    assert_ready(&mut worker.listen()).await;
}

#[tokio::test]
async fn a_channel_keeps_no_program_from_ending_and_is_none_of_its_children() {
    let code = "const list = require('child_process').execSync('ls /proc/self/fd').toString();
        process.exitCode = /^1[45]$/m.test(list) || 'NODE_CHANNEL_FD' in process.env ? 1
            : process.connected ? 7 : 2";
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", code]);
    let _news = worker.listen();
    assert_eq!(worker.exit_code().await, 7);
}

#[tokio::test]
async fn a_message_is_handed_on_and_a_flood_of_them_is_counted() {
    let code = "for (let n = 0; n < 100000; n++) process.send({ n });
        process.send('x'.repeat(1e8)); process.send('ready')";
    let mut worker = Worker::start("/usr/bin/node", &["node", "-e", code]);
    let mut news = worker.listen();
    let (mut shown, mut dropped, mut longest_seen) = (0, 0, 0);
    loop {
        match timeout(PATIENCE * 2, news.recv()).await.unwrap().unwrap() {
            News::Spoke { spoken: Spoken::Message(text), .. } => {
                assert!(text.starts_with("{\"n\":"), "{text}");
                shown += 1;
            }
            News::Spoke { spoken: Spoken::Dropped { messages, longest, malformed }, .. } => {
                assert_eq!(malformed, 0);
                dropped += messages;
                longest_seen = longest_seen.max(longest);
            }
            News::Spoke { spoken: Spoken::Ready, .. } => {}
            other @ (News::Notified { .. } | News::Answered { .. }) => panic!("{other:?}"),
        }
        if shown + dropped == 100_001 {
            break;
        }
    }
    assert!((100..2000).contains(&shown), "{shown}");
    assert_eq!(longest_seen, 100_000_002);
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
            sockets: &[],
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
        News::Spoke { worker, spoken } => assert_eq!((worker, spoken), (WORKER, Spoken::Ready)),
        other @ (News::Notified { .. } | News::Answered { .. }) => panic!("{other:?}"),
    }
}
