//! Prints how fast a worker's output is captured, and at what cost: `cargo run --release --example flood`.
//!
//! With the argument `write <bytes>` it is that worker.

#![expect(clippy::print_stdout, reason = "printing figures is what it is for")]

use std::{
    env,
    io::{self, Write as _},
    os::fd::AsFd as _,
    path::Path,
    process,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use cluster_user::{
    id::{Instance, WorkerId},
    process::{
        output::{Output, RotateOptions},
        spawn::{Bounds, Launch, spawn},
        watch::ExitWatcher,
    },
};
use nix::sys::resource::{UsageWho, getrusage};

const BYTES: u64 = 200_000_000;
const LINE: &[u8] =
    b"2026-11-20T12:00:00Z info: one line of a log, of about a hundred bytes, as most of them are\n";

fn main() -> anyhow::Result<()> {
    let mut args = env::args().skip(1);
    match args.next().as_deref() {
        Some("write") => write(args.next().context("how many bytes?")?.parse()?),
        _ => measure(&env::current_exe()?),
    }
}

fn measure(program: &Path) -> anyhow::Result<()> {
    let folder = env::temp_dir().join(format!("cluster-flood-{}", process::id()));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    for round in 0..5 {
        let mut output = Output::start(&folder, RotateOptions::default())?;
        let worker = WorkerId(round);
        let ends = output.attach(worker, "flood", Instance(0))?;
        let before = cpu()?;
        let begin = Instant::now();
        let spawned = spawn(&Launch {
            program,
            args: &["flood".to_owned(), "write".to_owned(), BYTES.to_string()],
            env: &[],
            cwd: Path::new("/"),
            user: None,
            cgroup: None,
            stdout: ends.stdout.as_fd(),
            stderr: ends.stderr.as_fd(),
            inherited: &[],
            filter: None,
            bounds: &Bounds::default(),
        })?;
        drop(ends);
        let spawning = begin.elapsed();
        runtime.block_on(async { ExitWatcher::new(spawned.process.as_fd())?.exit().await })?;
        runtime.block_on(output.tail(worker, 1));
        let (seconds, cpu) = (begin.elapsed().as_secs_f64(), cpu()? - before);
        ensure!(output.dropped(worker) == 0, "output was dropped");
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let bytes = BYTES as f64;
        println!(
            "{:.0} MB/s, {:.2} s CPU per GB, spawned in {:.2} ms",
            bytes / 1e6 / seconds,
            cpu / (bytes / 1e9),
            spawning.as_secs_f64() * 1e3
        );
        drop(output);
        let captured: u64 = std::fs::read_dir(&folder)?
            .map(|entry| Ok(entry?.metadata()?.len()))
            .sum::<io::Result<u64>>()?;
        ensure!(captured == BYTES, "{captured} of {BYTES} bytes were captured");
        std::fs::remove_dir_all(&folder)?;
    }
    Ok(())
}

/// User and system time of this process, the capturing thread's above all, in seconds.
fn cpu() -> anyhow::Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let seconds = |time: nix::sys::time::TimeVal| {
        let whole = Duration::from_secs(time.tv_sec().unsigned_abs());
        (whole + Duration::from_micros(time.tv_usec().unsigned_abs())).as_secs_f64()
    };
    Ok(seconds(usage.user_time()) + seconds(usage.system_time()))
}

fn write(bytes: u64) -> anyhow::Result<()> {
    let chunk = LINE.repeat(64 * 1024 / LINE.len());
    let mut left = bytes;
    let mut out = io::stdout().lock();
    while left > 0 {
        let length = usize::try_from(left)?.min(chunk.len());
        out.write_all(&chunk[..length])?;
        left -= length as u64;
    }
    Ok(out.flush()?)
}
