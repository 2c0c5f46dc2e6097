//! The environment that processes were started with: marks in it tell what belongs to a worker, or to an evaluation.

use std::{fs, thread, time::Duration};

/// How often a process that begins is asked for its environment again, and the time it has in between.
const LOOKS: usize = 100;
const PAUSE: Duration = Duration::from_millis(1);

/// Whether the environment that process `pid` was started with has this variable.
pub(crate) fn has_variable(pid: u32, variable: &str) -> bool {
    let environment = raw(pid);
    environment.split(|byte| *byte == 0).any(|found| found == variable.as_bytes())
}

/// Value of a variable of that environment.
pub(crate) fn variable(pid: u32, name: &str) -> Option<String> {
    of(pid).into_iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

/// The environment that process `pid` was started with; empty for a zombie and where it may not be read.
pub(crate) fn of(pid: u32) -> Vec<(String, String)> {
    let environment = raw(pid);
    let variables = environment.split(|byte| *byte == 0).filter(|variable| !variable.is_empty());
    let pair = |variable: &[u8]| {
        let text = String::from_utf8_lossy(variable);
        let (name, value) = text.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    variables.filter_map(pair).collect()
}

/// As the kernel shows it.
///
/// A process that begins to execute a program has neither arguments nor environment for a moment (`load_elf_binary` in Linux
/// tells of both last, and somebody else may have the CPU before that): it is asked again. Kernel threads and zombies have no
/// program.
fn raw(pid: u32) -> Vec<u8> {
    let read = |file: &str| fs::read(format!("/proc/{pid}/{file}")).unwrap_or_default();
    for _ in 0..LOOKS {
        let environment = read("environ");
        if !environment.is_empty() || fs::read_link(format!("/proc/{pid}/exe")).is_err() {
            return environment;
        }
        // It may have come to that meanwhile.
        if !read("cmdline").is_empty() {
            break;
        }
        thread::sleep(PAUSE);
    }
    read("environ")
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_variable_is_known_by_its_name_and_value() {
        let me = std::process::id();
        let path = format!("PATH={}", std::env::var("PATH").unwrap());
        assert!(has_variable(me, &path));
        assert!(!has_variable(me, "PATH"));
    }

    #[test]
    fn a_process_that_begins_to_execute_has_its_environment() {
        for _ in 0..300 {
            // Whoever spawned it goes on when its descriptors are closed, and that is before its environment is told of.
            let mut child =
                Command::new("sleep").arg("1000").env("BEGINS_TO", "execute").spawn().unwrap();
            let has = has_variable(child.id(), "BEGINS_TO=execute");
            child.kill().unwrap();
            child.wait().unwrap();
            assert!(has);
        }
    }
}
