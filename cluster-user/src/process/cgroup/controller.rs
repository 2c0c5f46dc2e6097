//! Controllers: what a worker may use, kept by the kernel for all its processes together.
//!
//! A file such as `memory.max` is in a cgroup when every cgroup above it has its controller in
//! `cgroup.subtree_control` (kernel: Documentation/admin-guide/cgroup-v2.rst, "Enabling and Disabling").

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use super::{APP, Hierarchy, WorkerCgroup, mount::candidates};
use crate::{
    config::spec::resources::{Controller, Resources},
    id::AppId,
};

/// Why a controller is not to be had. Displays as a fragment that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lacking {
    /// There are no cgroups for workers at all.
    Cgroups,
    /// A hierarchy of cgroup v1 has it.
    Taken(Controller),
    /// The kernel has none, or was told not to have it.
    Absent(Controller),
    /// The cgroup above the daemon's does not pass it on.
    Withheld(Controller, PathBuf),
    /// It could not be passed on.
    Refused(Controller, PathBuf, String),
}

impl Lacking {
    /// Which controller it is about; `None` for all of them.
    pub fn controller(&self) -> Option<Controller> {
        match self {
            Self::Cgroups => None,
            Self::Taken(controller)
            | Self::Absent(controller)
            | Self::Withheld(controller, _)
            | Self::Refused(controller, ..) => Some(*controller),
        }
    }

    /// The next step.
    pub fn hint(&self) -> String {
        match self {
            Self::Cgroups => "cluster doctor shows what keeps workers from having cgroups".to_owned(),
            Self::Taken(_) => "boot with systemd.unified_cgroup_hierarchy=1 or cgroup_no_v1=all on the kernel's command line".to_owned(),
            Self::Absent(controller) => format!(
                "see that the kernel's command line has no cgroup_disable={controller}, and that it was built with this controller",
                controller = controller.name()
            ),
            Self::Withheld(..) => "run the daemon as root, or in a unit with Delegate=yes".to_owned(),
            Self::Refused(..) => "run the daemon as root, or in a unit with Delegate=yes and DelegateSubgroup=daemon".to_owned(),
        }
    }
}

impl fmt::Display for Lacking {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cgroups => f.write_str("workers have no cgroups here"),
            Self::Taken(controller) => write!(
                f,
                "the controller `{}` belongs to a hierarchy of cgroup v1, and only that of v2 is made use of",
                controller.name()
            ),
            Self::Absent(controller) => {
                write!(f, "this kernel has no controller `{}`", controller.name())
            }
            Self::Withheld(controller, path) => write!(
                f,
                "the controller `{}` is not passed on to {}",
                controller.name(),
                path.display()
            ),
            Self::Refused(controller, path, why) => write!(
                f,
                "the controller `{}` could not be switched on in {}: {why}",
                controller.name(),
                path.display()
            ),
        }
    }
}

impl std::error::Error for Lacking {}

/// Whether a controller can be had on this host, without switching anything on: where it is offered, or what is lacking.
///
/// # Errors
/// [`Lacking`].
pub fn offered(controller: Controller) -> Result<PathBuf, Lacking> {
    let candidates = candidates();
    let has = |path: &Path| lists(path, "cgroup.controllers", controller);
    let first = candidates.first().ok_or(Lacking::Cgroups)?;
    candidates
        .iter()
        .find(|candidate| has(&candidate.path))
        .map(|candidate| candidate.path.clone())
        .ok_or_else(|| missing(controller, &first.path))
}

impl Hierarchy {
    /// Switches on what these limits need, for an app's workers; what is on already is left alone.
    ///
    /// # Errors
    /// The first controller that is not to be had.
    pub fn enable(&self, app: AppId, resources: &Resources) -> Result<(), Lacking> {
        for controller in Controller::ALL {
            if resources.limit_by(controller).is_some() {
                self.offer(controller)?;
                pass_on(&self.path().join(format!("{APP}{app}")), controller)?;
            }
        }
        Ok(())
    }

    /// Switches on what these limits need, as far as apps in general are concerned.
    ///
    /// # Errors
    /// The first controller that is not to be had.
    pub fn can(&self, resources: &Resources) -> Result<(), Lacking> {
        let mut needed = Controller::ALL.into_iter();
        needed.try_for_each(|controller| match resources.limit_by(controller) {
            Some(_) => self.offer(controller),
            None => Ok(()),
        })
    }

    fn offer(&self, controller: Controller) -> Result<(), Lacking> {
        let above = self.path().parent().unwrap_or(self.path());
        if !lists(self.path(), "cgroup.controllers", controller) {
            if !lists(above, "cgroup.controllers", controller) {
                return Err(missing(controller, above));
            }
            pass_on(above, controller)?;
        }
        pass_on(self.path(), controller)
    }
}

impl WorkerCgroup {
    /// Sets the limits. Its controllers are switched on.
    ///
    /// # Errors
    /// When the kernel refuses one; names the file.
    pub fn limit(&self, resources: &Resources) -> io::Result<()> {
        for (_, file, value) in resources.files() {
            let path = self.path().join(file);
            fs::write(&path, &value).map_err(|error| {
                let message = format!("failed to write {value} to {}: {error}", path.display());
                io::Error::new(error.kind(), message)
            })?;
        }
        Ok(())
    }

    /// Memory that the kernel could not take back by dropping what is on disk as well; `None` without the controller.
    pub fn memory(&self) -> Option<u64> {
        let current = fs::read_to_string(self.path().join("memory.current")).ok()?;
        let current: u64 = current.trim().parse().ok()?;
        let stat = fs::read_to_string(self.path().join("memory.stat")).ok()?;
        let of = |key: &str| super::worker::value::<u64>(stat.as_bytes(), key).unwrap_or(0);
        Some(current.saturating_sub(of("inactive_file") + of("active_file")))
    }

    /// How many of its processes were killed because it used more memory than it may.
    pub fn oom_kills(&self) -> u64 {
        let events = fs::read_to_string(self.path().join("memory.events")).unwrap_or_default();
        super::worker::value(events.as_bytes(), "oom_kill").unwrap_or(0)
    }
}

/// Switches a controller on for the cgroups below one.
fn pass_on(path: &Path, controller: Controller) -> Result<(), Lacking> {
    if lists(path, "cgroup.subtree_control", controller) {
        return Ok(());
    }
    let file = path.join("cgroup.subtree_control");
    fs::write(&file, format!("+{}", controller.name())).map_err(|error| {
        let why = match error.raw_os_error() {
            Some(libc::EBUSY) => "it has processes of its own".to_owned(),
            _ => error.to_string().to_lowercase(),
        };
        Lacking::Refused(controller, path.to_owned(), why)
    })
}

/// Whether a file of a cgroup that lists controllers has this one.
fn lists(path: &Path, file: &str, controller: Controller) -> bool {
    let text = fs::read_to_string(path.join(file)).unwrap_or_default();
    text.split_whitespace().any(|name| name == controller.name())
}

/// Why the cgroup at `path` is not offered a controller.
fn missing(controller: Controller, path: &Path) -> Lacking {
    missing_from(&fs::read_to_string("/proc/cgroups").unwrap_or_default(), controller, path)
}

/// `/proc/cgroups` has a line for each controller: name, number of its hierarchy (0 is v2), cgroups, whether it is on
/// (`cgroups(7)`).
fn missing_from(table: &str, controller: Controller, path: &Path) -> Lacking {
    let fields = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let line =
        fields.filter(|fields| fields.len() == 4).find(|fields| fields[0] == controller.name());
    match line {
        Some(fields) if fields[3] == "0" => Lacking::Absent(controller),
        Some(fields) if fields[1] != "0" => Lacking::Taken(controller),
        Some(_) => Lacking::Withheld(controller, path.to_owned()),
        // Since Linux 6.12 a kernel without cgroup v1 does not have the file.
        None if table.is_empty() => Lacking::Withheld(controller, path.to_owned()),
        None => Lacking::Absent(controller),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests::hierarchy, *};

    const TABLE: &str = "#subsys_name\thierarchy\tnum_cgroups\tenabled\n\
                         cpu\t1\t1\t1\nmemory\t0\t22\t1\npids\t0\t1\t0\n";

    #[test]
    fn what_keeps_a_controller_away_is_told_apart() {
        let missing = |controller| missing_from(TABLE, controller, Path::new("/own"));
        assert_eq!(missing(Controller::Cpu), Lacking::Taken(Controller::Cpu));
        assert_eq!(
            missing(Controller::Memory),
            Lacking::Withheld(Controller::Memory, "/own".into())
        );
        assert_eq!(missing(Controller::Pids), Lacking::Absent(Controller::Pids));
        assert!(missing(Controller::Cpu).to_string().contains("cgroup v1"));
        assert!(missing(Controller::Cpu).hint().contains("cgroup_no_v1"));
    }

    /// Where this host offers a controller its limit is set, and where not the reason is told: one of both is tried for
    /// each.
    #[test]
    fn limits_hold_or_the_controller_they_lack_is_named() {
        let hierarchy = hierarchy("limits");
        for (resources, controller, file, expected) in [
            (
                Resources { memory_max: Some(64 << 20), ..Resources::default() },
                Controller::Memory,
                "memory.max",
                "67108864",
            ),
            (
                Resources { cpu_max: Some(250), ..Resources::default() },
                Controller::Cpu,
                "cpu.max",
                "25000 100000",
            ),
            (
                Resources { pids_max: Some(7), ..Resources::default() },
                Controller::Pids,
                "pids.max",
                "7",
            ),
        ] {
            let worker = hierarchy.create_worker(AppId(0), crate::id::WorkerId(0)).unwrap();
            match (offered(controller), hierarchy.enable(AppId(0), &resources)) {
                (Ok(_), Ok(())) => {
                    worker.limit(&resources).unwrap();
                    let found = fs::read_to_string(worker.path().join(file)).unwrap();
                    assert_eq!(found.trim(), expected);
                }
                (Err(lacking), Err(same)) => {
                    assert_eq!(lacking, same);
                    assert!(lacking.to_string().contains(controller.name()), "{lacking}");
                    assert!(worker.limit(&resources).is_err(), "there is no {file}");
                }
                (offered, enabled) => panic!("{controller:?}: {offered:?}, but {enabled:?}"),
            }
        }
        hierarchy.remove().unwrap();
    }
}
