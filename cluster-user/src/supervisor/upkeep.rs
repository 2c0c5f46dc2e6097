//! Limits
use super::run::Supervisor;
use crate::{
    api::message::{Failure, Reason},
    config::spec::AppSpec,
    process::cgroup::Lacking,
};
impl Supervisor {
    /// Whether the limits that an app asks for can be kept here.
    ///
    /// # Errors
    /// What is missing, and how to get it.
    pub(super) fn can_limit(&self, spec: &AppSpec) -> Result<(), Failure> {
        let Some((controller, file, _)) = spec.resources.files().into_iter().next() else {
            return Ok(());
        };
        let _ = controller;
        let possible = match &self.host.hierarchy {
            Some(hierarchy) => hierarchy.can(&spec.resources),
            None => Err(Lacking::Cgroups),
        };
        possible.map_err(|lacking| {
            let limit = file.replace('.', "_");
            Failure::new(Reason::Unsupported, format!("{limit} is not to be had: {lacking}"))
                .hint(lacking.hint())
        })
    }
}
