//! Running an experiment: one point after the other, each kept as soon as it is there.

use std::{
    fs,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicBool, Ordering},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use crate::{
    arena::{self, Role},
    experiment::Experiment,
    machine::Machine,
    matrix,
    point::Point,
    refusal::{Kind, Refusal},
    results::{FORMAT, Record, Results, write_json},
    resume,
    verdict::Verdict,
};

/// What starting and ending workers takes, roughly; for the time that is left.
const AROUND: Duration = Duration::from_millis(1_500);
/// How often it is looked whether a run has ended, or the user has had enough.
const LOOK: Duration = Duration::from_millis(20);
/// What a run may take on top of its own time before it is given up.
const SLACK: Duration = Duration::from_mins(2);
/// A point that the machine could not offer is tried so often: others use it, too.
const ATTEMPTS: u32 = 2;

/// An experiment, and where its results go.
#[derive(Clone, Debug)]
pub struct Order {
    /// What to run.
    pub experiment: Experiment,
    /// Folder of the results.
    pub out: PathBuf,
    /// Whether to go on with what is there.
    pub resume: bool,
    /// Version of `cluster`.
    pub version: String,
}

/// Who watches an experiment.
pub trait Audience {
    /// Something that a run has left cannot be removed.
    fn left(&mut self, what: &str);
    /// It begins: so many points, of which so many are there already.
    fn begin(&mut self, points: usize, there: usize);
    /// A point begins; so much time is left in all.
    fn point(&mut self, point: &Point, left: Duration);
    /// Time passes; so much is left in all.
    fn pass(&mut self, left: Duration);
    /// A point has ended.
    fn done(&mut self, record: &Record);
}

/// Runs all points that are not there yet, and writes the results.
///
/// # Errors
/// When the experiment makes no sense, cannot be run, or was ended by the user.
pub fn run(
    order: &Order,
    audience: &mut dyn Audience,
    is_enough: &AtomicBool,
) -> Result<Results, Refusal> {
    let experiment = &order.experiment;
    experiment.check()?;
    for left in arena::sweep().1 {
        audience.left(&format!("{left:#}"));
    }
    if !arena::is_private() {
        needs_no_root(experiment)?;
    }
    let points = matrix::points(experiment)?;
    let raw = order.out.join("raw");
    let has_some = fs::read_dir(&raw).is_ok_and(|mut files| files.next().is_some());
    if has_some && !order.resume {
        return Err(Refusal::usage(format!("{} has results already", order.out.display()))
            .hint("--resume goes on with them, and --out is another folder"));
    }
    resume::check(&raw, &points)?;
    fs::create_dir_all(&raw)
        .map_err(|error| Refusal::failed(format!("failed to make {}: {error}", raw.display())))?;
    let mut records: Vec<Option<Record>> =
        points.iter().map(|point| there(&raw, point, &order.version)).collect();
    let there = records.iter().flatten().count();
    audience.begin(points.len(), there);
    let machine = Machine::here();
    for (at, point) in points.iter().enumerate() {
        if records[at].is_some() {
            continue;
        }
        let left: Vec<&Point> = points[at..]
            .iter()
            .zip(&records[at..])
            .filter(|it| it.1.is_none())
            .map(|it| it.0)
            .collect();
        let after: Duration = left.iter().skip(1).map(|point| point.length() + AROUND).sum();
        let mut verdict = Verdict::Failed(String::new());
        for _ in 0..ATTEMPTS {
            audience.point(point, after + point.length() + AROUND);
            verdict = one(point, after, audience, is_enough).inspect_err(|_refusal| {
                // A folder in which nothing came to be is not left behind.
                remove_if_empty(&raw, &order.out);
            })?;
            if !matches!(verdict, Verdict::NotOffered(_)) {
                break;
            }
        }
        if let Verdict::NotServing(why) = verdict {
            remove_if_empty(&raw, &order.out);
            return Err(Refusal::failed(why).hint(
                "`port`, or --port, says where the app serves; no other point was tried, and --resume goes on",
            ));
        }
        let record = Record {
            format: FORMAT,
            version: order.version.clone(),
            date: jiff::Timestamp::now().round(jiff::Unit::Second).unwrap_or_default().to_string(),
            machine: machine.clone(),
            point: point.clone(),
            verdict,
        };
        write_json(&raw.join(point.file_name()), &record)?;
        audience.done(&record);
        records[at] = Some(record);
    }
    let records: Vec<Record> = records.into_iter().flatten().collect();
    let date = records.iter().map(|record| record.date.clone()).max().unwrap_or_default();
    let version = order.version.clone();
    let experiment = experiment.clone();
    Ok(Results { format: FORMAT, version, date, machine, experiment, records })
}

/// How long all points take, roughly.
///
/// # Errors
/// As [`matrix::points`].
pub fn estimate(experiment: &Experiment) -> Result<(usize, Duration), Refusal> {
    let points = matrix::points(experiment)?;
    Ok((points.len(), points.iter().map(|point| point.length() + AROUND).sum()))
}

/// A run that is under way, with everything that it started.
struct Running {
    child: Child,
    stdout: Option<JoinHandle<Vec<u8>>>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Running {
    fn begin(point: &Point) -> Result<Self, Refusal> {
        let failed =
            |error: std::io::Error| Refusal::failed(format!("failed to start a run: {error}"));
        let mut child = Command::new(arena::program())
            .args([arena::COMMAND, Role::Keeper.name()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let mut job = serde_json::to_vec(point).unwrap_or_default();
        job.push(b'\n');
        if let Some(stdin) = &mut child.stdin {
            stdin.write_all(&job).map_err(failed)?;
        }
        let stdout = child.stdout.take().map(|pipe| thread::spawn(move || read(pipe)));
        let stderr = child.stderr.take().map(|pipe| thread::spawn(move || read(pipe)));
        Ok(Self { child, stdout, stderr })
    }

    /// Ends it early: its keeper ends everything when its standard input ends.
    fn end(&mut self) {
        drop(self.child.stdin.take());
        drop(self.child.wait());
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
        // A keeper that was killed has left everything behind. What is left after this is found, and said, by the next
        // experiment or `lab clean`.
        arena::sweep();
    }
}

/// Runs one point.
fn one(
    point: &Point,
    after: Duration,
    audience: &mut dyn Audience,
    is_enough: &AtomicBool,
) -> Result<Verdict, Refusal> {
    let began = Instant::now();
    let expected = point.length() + AROUND;
    let mut running = Running::begin(point)?;
    let ended = loop {
        if is_enough.load(Ordering::SeqCst) {
            running.end();
            return Err(Refusal {
                kind: Kind::Interrupted,
                message: "interrupted".to_owned(),
                hint: Some("the same command with --resume goes on".to_owned()),
            });
        }
        if let Ok(Some(ended)) = running.child.try_wait() {
            break ended;
        }
        if began.elapsed() > expected + point.setup.patience.0 + SLACK {
            running.end();
            return Ok(Verdict::Failed(format!("not over after {} s", began.elapsed().as_secs())));
        }
        audience.pass(after + expected.saturating_sub(began.elapsed()));
        thread::sleep(LOOK);
    };
    if !ended.success() {
        // What a killed keeper has left may still hold what is read here.
        arena::sweep();
    }
    let said = running.stdout.take().and_then(|it| it.join().ok()).unwrap_or_default();
    let complained = running.stderr.take().and_then(|it| it.join().ok()).unwrap_or_default();
    let verdict = said.split(|byte| *byte == b'\n').rfind(|line| !line.is_empty());
    let complained = String::from_utf8_lossy(&complained);
    let why: Vec<&str> = complained.lines().filter(|it| !it.trim().is_empty()).collect();
    let why = match why.len() {
        0 => format!("its keeper ended with {ended}"),
        lines => why[lines.saturating_sub(3)..].join("; "),
    };
    if let Some(Ok(verdict)) = verdict.map(serde_json::from_slice::<Verdict>) {
        if !ended.success() {
            // It was measured all the same.
            audience.left(&why);
        }
        return Ok(verdict);
    }
    Ok(Verdict::Failed(why))
}

/// What an earlier run of the same point came to: only what was measured by the same program counts.
fn there(raw: &Path, point: &Point, version: &str) -> Option<Record> {
    let text = fs::read_to_string(raw.join(point.file_name())).ok()?;
    let record: Record = serde_json::from_str(&text).ok()?;
    let is_same = record.point == *point && record.version == version && record.format == FORMAT;
    (is_same && record.verdict.outcome().is_some()).then_some(record)
}

fn needs_no_root(experiment: &Experiment) -> Result<(), Refusal> {
    let usual = Experiment::default();
    for (name, is_usual) in [
        ("link", experiment.link == usual.link),
        ("syncookies", experiment.syncookies == usual.syncookies),
    ] {
        if !is_usual {
            return Err(Refusal::usage(format!("`{name}` needs a network namespace, and so root")));
        }
    }
    Ok(())
}

fn remove_if_empty(raw: &Path, out: &Path) {
    // One with something in it stays.
    fs::remove_dir(raw).unwrap_or_default();
    fs::remove_dir(out).unwrap_or_default();
}

fn read(mut pipe: impl std::io::Read) -> Vec<u8> {
    let mut bytes = Vec::new();
    drop(pipe.read_to_end(&mut bytes));
    bytes
}
