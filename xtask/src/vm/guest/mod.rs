//! Guest: what runs inside of a machine: the first process, and the one that does the work.

mod battery;
mod smoke;
mod world;

use std::{
    fs::{self, File},
    io::{self, Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    process::Command,
};

use anyhow::Context as _;
use nix::{
    errno::Errno,
    sys::{
        reboot::{RebootMode, reboot},
        wait::wait,
    },
};

pub(super) use self::{
    battery::{LIMIT as TESTS_LIMIT, PROGRAM as TESTS},
    smoke::{APP, CLUSTER, PAGES, PYTHON, VERIFIER},
    world::MODULES,
};
use super::{
    alarm,
    plan::{self, Depth, Plan},
    report::Report,
};

/// The second serial port, at whose other end is a file of the host's.
const HOST: &str = "/dev/ttyS1";
/// A record of the kernel's log is not longer than this (`CONSOLE_EXT_LOG_MAX`).
const RECORD: usize = 8192;

/// The first process: takes in what others leave behind, and ends the machine when the work is done.
pub(crate) fn run() -> anyhow::Result<()> {
    world::prepare()?;
    let work = Command::new("/proc/self/exe")
        .args(["vm-guest", "--work"])
        .env("PATH", "/usr/bin:/bin")
        .env("HOME", "/root")
        .spawn();
    let work = work.context("failed to begin the work")?.id().cast_signed();
    loop {
        match wait() {
            Ok(status) if status.pid().is_some_and(|pid| pid.as_raw() == work) => break,
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The machine was started such that it ends instead of starting anew.
    match reboot(RebootMode::RB_AUTOBOOT)? {}
}

/// The work: everything in the plan, and a report.
pub(crate) fn work() -> anyhow::Result<()> {
    let plan = fs::read_to_string(plan::PATH).context("failed to read the plan")?;
    let plan: Plan = serde_json::from_str(&plan)?;
    let mut report = Report {
        release: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
        boot_ms: world::uptime_ms()?,
        ..Report::default()
    };
    println!("vm: Linux {} after {} ms", report.release, report.boot_ms);
    if plan.filters.is_empty() {
        smoke::look(plan.promise, &mut report);
        if plan.depth >= Depth::Program {
            smoke::run(plan.promise, &mut report);
        }
    }
    if plan.depth == Depth::Tests {
        battery::run(&plan, &mut report);
    }
    report.alarms = alarm::find(&log()?);
    let mut line = serde_json::to_vec(&report)?;
    line.push(b'\n');
    let mut host = File::options().write(true).open(HOST).context("failed to reach the host")?;
    host.write_all(&line)?;
    println!("vm: done");
    Ok(())
}

/// Everything that the kernel has logged so far.
fn log() -> anyhow::Result<String> {
    let mut options = File::options();
    let mut records = options.read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg")?;
    let (mut log, mut record) = (String::new(), vec![0; RECORD]);
    loop {
        match records.read(&mut record) {
            Ok(0) => return Ok(log),
            Ok(length) => log += &String::from_utf8_lossy(&record[..length]),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(log),
            // Some were overwritten before they could be read; it goes on with what is there.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {}
            Err(error) => return Err(error).context("failed to read the kernel's log"),
        }
    }
}
