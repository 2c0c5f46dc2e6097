//! Footprint: what the manager itself costs, and how long one waits for its list.

use std::{
    thread,
    time::{Duration, Instant},
};

use super::{
    Effort,
    contestant::Contestant,
    report::{Better, Report},
};
use crate::{arena::Arena, process};

/// Memory and idle CPU time of each daemon, and the time of `list`.
pub(super) fn measure(
    arena: &Arena,
    contestants: &[Contestant],
    effort: Effort,
    report: &mut Report,
) -> anyhow::Result<()> {
    let idle = Duration::from_secs(if effort.quick { 1 } else { 10 });
    for contestant in contestants.iter().copied().filter(|contestant| contestant.has_daemon()) {
        println!("bench: footprint: {}", contestant.name());
        let serving = contestant.serve(arena)?;
        let daemon = serving.daemon()?;

        // What is left of starting is over by then.
        thread::sleep(idle / 10);
        let before = process::cpu_time(daemon)?;
        thread::sleep(idle);
        let used = process::cpu_time(daemon)?.saturating_sub(before);
        let percent = 100.0 * used.as_secs_f64() / idle.as_secs_f64();
        report.note("daemon, idle CPU", "%", Better::Less, contestant, percent);

        for _ in 0..if effort.quick { 3 } else { 20 } {
            let began = Instant::now();
            process::run(contestant.command(arena)?.arg("list"))?;
            let took = began.elapsed().as_secs_f64() * 1e3;
            report.note("list", "ms", Better::Less, contestant, took);
        }
        let megabytes = process::resident(daemon)? as f64 / 1e6;
        report.note("daemon, resident memory", "MB", Better::Less, contestant, megabytes);
    }
    Ok(())
}
