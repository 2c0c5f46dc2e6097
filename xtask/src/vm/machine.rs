//! Machine: one run of QEMU, which ends by itself or is ended.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{kernel::Kernel, report::Report};

/// What QEMU is called.
pub(super) const QEMU: &str = "qemu-system-x86_64";
/// Megabytes. The image is in it twice while the kernel unpacks it.
const MEMORY: &str = "2048";
const CPUS: &str = "2";
/// Everything that can be emulated but for the instructions that copy and fill memory by the byte: kernels that find them
/// use nothing else, and emulated they take several times as long as a loop. The verifier, which copies states all the time,
/// takes two thirds of the time without.
const CPU: &str = "max,-erms,-fsrm";
/// Between two looks at whether it has ended.
const PAUSE: Duration = Duration::from_millis(50);
/// Lines of the console that are shown when a machine did not end in order.
const LAST_LINES: usize = 40;
/// How the kernel is told to behave.
///
/// Whatever is wrong ends it. Emulated CPUs stand still whenever the host has something else to do, so what looks for
/// that is off. What protects from other guests costs emulation a lot, and there are none.
const PARAMETERS: &str = "console=ttyS0 quiet panic=-1 oops=panic nosoftlockup \
    rcupdate.rcu_cpu_stall_suppress=1 mitigations=off random.trust_cpu=on rdinit=/bin/xtask -- vm-guest";

/// What a machine said.
pub(super) struct Said {
    /// What it reported; an error when it did not get that far.
    pub(super) report: anyhow::Result<Report>,
    /// Everything on its console.
    pub(super) console: String,
    /// From start to end.
    pub(super) took: Duration,
}

/// Boots a kernel with an image and waits for the end, for as long as `limit`. Files go to `folder`.
pub(super) fn run(
    kernel: &Kernel,
    image: &Path,
    folder: &Path,
    limit: Duration,
) -> anyhow::Result<Said> {
    let path = |name: &str| -> anyhow::Result<PathBuf> {
        let path = folder.join(name);
        File::create(&path).with_context(|| format!("failed to create {}", path.display()))?;
        Ok(path)
    };
    let (console, report, errors) = (path("console.log")?, path("report.json")?, path("qemu.log")?);
    let mut qemu = Command::new(QEMU);
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", CPU, "-smp", CPUS, "-m", MEMORY])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-serial", &format!("file:{}", console.display())])
        .args(["-serial", &format!("file:{}", report.display())])
        .arg("-kernel")
        .arg(&kernel.image)
        .arg("-initrd")
        .arg(image)
        .args(["-append", PARAMETERS])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(&errors)?);
    let began = Instant::now();
    let mut running = qemu.spawn().with_context(|| format!("failed to run {QEMU}"))?;
    let status = loop {
        if let Some(status) = running.try_wait()? {
            break Some(status);
        }
        if began.elapsed() > limit {
            running.kill()?;
            running.wait()?;
            break None;
        }
        thread::sleep(PAUSE);
    };
    let took = began.elapsed();
    let console = String::from_utf8_lossy(&fs::read(&console)?).replace('\r', "");
    let reported = fs::read_to_string(&report)?;
    let report = Report::read(&reported).with_context(|| {
        let how = match status {
            None => format!("it was ended after {} s", limit.as_secs()),
            Some(status) if status.success() => "it ended".to_owned(),
            Some(status) => {
                let said = fs::read_to_string(&errors).unwrap_or_default();
                format!("{QEMU} ended with {status}: {}", said.trim())
            }
        };
        format!("{how} without a report; the end of its console:\n{}", last_lines(&console))
    });
    Ok(Said { report, console, took })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LINES)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_a_console_is_short() {
        let console = "a line\n".repeat(100);
        assert_eq!(last_lines(&console).lines().count(), LAST_LINES);
        assert_eq!(last_lines("one"), "one");
    }
}
