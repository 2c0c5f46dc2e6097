//! A run: workers are started, asked, disturbed, and ended.

use std::{
    fs,
    io::{self, BufRead as _, Write as _},
    net::SocketAddr,
    path::Path,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    sys::{
        resource::{Resource, getrlimit, setrlimit},
        signal::{Signal, kill},
    },
    unistd::Pid,
};

use crate::{
    arena::{self, link::Way},
    arrival::Arrival,
    fault::{Fault, FaultKind},
    generator::{self, Target},
    group::{Group, NoGroup},
    outcome::{Outcome, Tally},
    point::Point,
    verdict::{self, Verdict},
    worker::SLOWNESS,
};

/// Between the workers' being ready and the first request.
const BREATH: Duration = Duration::from_millis(100);

/// Drives the run on standard input in an arena with this folder, and prints its verdict.
///
/// # Errors
/// When there is no run, or nobody takes the verdict.
pub fn run(folder: &Path) -> anyhow::Result<()> {
    let mut job = String::new();
    io::stdin().lock().read_line(&mut job).context("failed to read a run")?;
    let point: Point = serde_json::from_str(&job).context("this is no run")?;
    let verdict = match drive(&point, folder) {
        Ok(verdict) => verdict,
        Err(error) => Verdict::Failed(format!("{error:#}")),
    };
    let mut stdout = io::stdout().lock();
    serde_json::to_writer(&mut stdout, &verdict)?;
    stdout.write_all(b"\n")?;
    stdout.flush().context("nobody takes the verdict")
}

fn drive(point: &Point, folder: &Path) -> anyhow::Result<Verdict> {
    let cpus = Cpus::part(point.setup.pin, point.setup.generators)?;
    let mut source = point.cell.service.source()?;
    if let Some(why) = verdict::hopeless(point, source.mean(), cpus.workers.len()) {
        return Ok(Verdict::NotOffered(why));
    }
    let plan = point.setup.arrivals.plan(point.rate, point.length(), &mut source, point.seed)?;
    raise_descriptors();
    if arena::is_private() {
        let value = point.cell.syncookies.to_string();
        fs::write("/proc/sys/net/ipv4/tcp_syncookies", value)
            .context("failed to set tcp_syncookies")?;
    }
    let way = Way::make(point.cell.link, point.cell.ip, point.setup.clients)?;
    let address = SocketAddr::new(way.server, point.setup.port);
    let free = crate::worker::bind(address, false, 1);
    drop(free.with_context(|| format!("{address} is in use\nhint: `port` is another one"))?);
    cpus.keep_to_workers()?;
    let group = match Group::start(point, folder, address) {
        Ok(group) => group,
        Err(NoGroup::NotAvailable(why)) => return Ok(Verdict::NotAvailable(why)),
        Err(NoGroup::NotServing(why)) => return Ok(Verdict::NotServing(why)),
        Err(NoGroup::Failed(error)) => return Err(error),
    };
    way.await_open(point.setup.port)?;
    let target = Target {
        address,
        clients: way.clients.clone(),
        path: point.setup.path.clone(),
        kind: point.cell.kind,
        reuse: point.cell.reuse,
        patience: point.setup.patience.0,
    };
    let outcome = measure(point, &target, &plan, group, &cpus, &way)?;
    Ok(verdict::judge(point, outcome))
}

/// Makes the load and the fault, and counts.
fn measure(
    point: &Point,
    target: &Target,
    plan: &[Arrival],
    group: Group,
    cpus: &Cpus,
    way: &Way,
) -> anyhow::Result<Outcome> {
    let warmup = point.setup.warmup.0;
    let tally = || Tally::new(warmup.as_nanos() as u64, point.length().as_nanos() as u64);
    let group = Mutex::new(group);
    let before = lock(&group).selected();
    let threads = point.setup.generators as usize;
    let start = Instant::now() + BREATH;
    let is_over = AtomicBool::new(false);
    let mut counted = tally();
    thread::scope(|scope| -> anyhow::Result<()> {
        let disturbing = scope.spawn(|| {
            let begin = start + warmup;
            disturb(&point.cell.fault, begin, &group, &is_over)
        });
        let loading: Vec<_> = (0..threads)
            .map(|number| {
                let share: Vec<Arrival> =
                    plan.iter().copied().skip(number).step_by(threads).collect();
                let tally = tally();
                scope.spawn(move || {
                    cpus.keep_to_generator(number);
                    way.enter()?;
                    thread::sleep(start.saturating_duration_since(Instant::now()));
                    generator::run(target, &share, start, tally)
                })
            })
            .collect();
        let tallies: Vec<_> = loading.into_iter().map(thread::ScopedJoinHandle::join).collect();
        is_over.store(true, Ordering::SeqCst);
        for tally in tallies {
            counted.add(tally.map_err(|_panic| anyhow::anyhow!("the generator crashed"))??);
        }
        disturbing.join().map_err(|_panic| anyhow::anyhow!("the fault crashed"))?
    })?;
    let warm = warmup.as_nanos() as u64;
    let planned = plan.iter().filter(|arrival| arrival.due >= warm).count() as u64;
    let mut outcome = counted.outcome(point.cell.workers, planned, point.setup.duration.seconds());
    if outcome.connections.is_empty() {
        let after = lock(&group).selected();
        if after.len() == before.len() {
            outcome.take_selected(
                before.iter().zip(&after).map(|(before, after)| after.saturating_sub(*before)),
            );
        }
    }
    Ok(outcome)
}

/// Does to the workers what is to be done, in time.
fn disturb(
    fault: &Fault,
    begin: Instant,
    group: &Mutex<Group>,
    is_over: &AtomicBool,
) -> anyhow::Result<()> {
    if fault.kind == FaultKind::None {
        return Ok(());
    }
    let at = begin + fault.at.unwrap_or_default().0;
    let end = at + fault.lasts.unwrap_or_default().0;
    let victim = fault.worker as usize;
    let pid = if fault.kind.has_victim() {
        let pids = lock(group).pids()?;
        *pids.get(victim).with_context(|| format!("there is no worker {victim}"))?
    } else {
        Pid::this()
    };
    thread::sleep(at.saturating_duration_since(Instant::now()));
    let pause = || thread::sleep(end.saturating_duration_since(Instant::now()));
    match fault.kind {
        FaultKind::None => {}
        FaultKind::Freeze => {
            kill(pid, Signal::SIGSTOP).context("failed to freeze a worker")?;
            pause();
            kill(pid, Signal::SIGCONT).context("failed to unfreeze a worker")?;
        }
        FaultKind::Kill => lock(group).kill(victim)?,
        FaultKind::Slow => {
            tell_slowness(pid, fault.factor)?;
            pause();
            tell_slowness(pid, 1.0)?;
        }
        FaultKind::Reload => lock(group).reload()?,
        FaultKind::Noise => make_noise(end, is_over),
    }
    Ok(())
}

/// Two threads for each CPU that the workers have take what they can get.
fn make_noise(end: Instant, is_over: &AtomicBool) {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..2 * cpus {
            scope.spawn(|| {
                while Instant::now() < end && !is_over.load(Ordering::Relaxed) {
                    std::hint::spin_loop();
                }
            });
        }
    });
}

/// Tells a worker of the laboratory how slow it is from now on.
fn tell_slowness(pid: Pid, factor: f64) -> anyhow::Result<()> {
    let hundredths = (factor * 100.0) as usize;
    let value = libc::sigval { sival_ptr: std::ptr::without_provenance_mut(hundredths) };
    // SAFETY: sigqueue(3) takes any number; the value is no pointer to either side.
    let told = unsafe { libc::sigqueue(pid.as_raw(), SLOWNESS as libc::c_int, value) };
    if told == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error()).context("failed to slow a worker")
    }
}

/// Which CPUs are whose.
struct Cpus {
    workers: Vec<usize>,
    /// Of the generator's threads, in turn; empty when they have none of their own.
    generator: Vec<usize>,
}

impl Cpus {
    /// The last ones are the generator's, as long as one is left for the workers.
    fn part(pin: bool, generators: u32) -> anyhow::Result<Self> {
        let set = sched_getaffinity(Pid::this()).context("failed to ask for the CPUs")?;
        let all: Vec<usize> =
            (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect();
        if !pin || all.len() < 2 {
            return Ok(Self { workers: all, generator: Vec::new() });
        }
        let count = (generators as usize).min(all.len() - 1);
        let (workers, generator) = all.split_at(all.len() - count);
        Ok(Self { workers: workers.to_vec(), generator: generator.to_vec() })
    }

    /// This process, and all that it starts from now on.
    fn keep_to_workers(&self) -> anyhow::Result<()> {
        keep_to(&self.workers).context("failed to keep to some CPUs")
    }

    /// This thread, before all others of its CPU if that is allowed: being late would be measured.
    fn keep_to_generator(&self, number: usize) {
        if let Some(count) = self.generator.len().checked_sub(1) {
            keep_to(&self.generator[number.min(count)..=number.min(count)]).unwrap_or_default();
        }
        let first = libc::sched_param { sched_priority: 1 };
        // SAFETY: the parameter outlives the call, which is about this thread alone.
        unsafe { libc::sched_setscheduler(0, libc::SCHED_RR, &raw const first) };
    }
}

fn keep_to(cpus: &[usize]) -> nix::Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu)?;
    }
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// As many descriptors as this process may have: a connection is one.
fn raise_descriptors() {
    if let Ok((_, hard)) = getrlimit(Resource::RLIMIT_NOFILE) {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap_or_default();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
