//! Whether this host can pick workers as an app wants it, before anything is started or switched.

use super::{run::Supervisor, verify::Verdicts};
use crate::{
    api::message::{Failure, Notice, PolicyRequest, Reason},
    config::{
        name::Name,
        refusal::Refusal,
        scheduling::{Guard, Policy, Scheduling, resolve},
        target::Target,
    },
    datapath::Mode,
    state::event::Command,
};

impl Supervisor {
    /// A switch of those apps, when this host can do what it asks for.
    ///
    /// # Errors
    /// What it cannot do.
    pub(super) fn switch(
        &self,
        targets: Vec<Target>,
        asked: PolicyRequest,
        verdicts: &mut Verdicts,
    ) -> Result<Command, Failure> {
        for app in self.state.apps(&targets) {
            let scheduling = asked.switch.apply(&app.spec.scheduling);
            // What contradicts itself is refused below, where that is known better.
            if scheduling.check(app.spec.instances).is_ok() {
                self.can_schedule(&app.spec.name, &scheduling, verdicts)?;
            }
        }
        Ok(Command::Switch { targets, switch: Box::new(asked.switch) })
    }

    /// Whether workers of an app can be picked that way here. `verdicts` has what the kernel said of programs of the user's;
    /// what it does not say of one is heard when a group gets it.
    ///
    /// # Errors
    /// What is missing, and how to get it; of a program of the user's, what is wrong with it.
    pub(super) fn can_schedule(
        &self,
        app: &Name,
        scheduling: &Scheduling,
        verdicts: &mut Verdicts,
    ) -> Result<(), Failure> {
        let policy = &scheduling.policy;
        let is_plain = self.host.datapath.mode() == Mode::Plain;
        if is_plain && !matches!(policy, Policy::RoundRobin | Policy::None) {
            let (reasons, hint) = self.host.lacking();
            let message = format!(
                "policy {} needs kernel mode, which is not to be had: {reasons}",
                policy.name()
            );
            return Err(Failure::new(Reason::Unsupported, message).hint(hint));
        }
        resolve::is_there(policy).map_err(|refusal: Refusal| {
            let failure = Failure::new(Reason::Unschedulable, refusal.message);
            match refusal.hint {
                Some(hint) => failure.hint(hint),
                None => failure,
            }
        })?;
        let mut tried = self.host.datapath.try_schedule(scheduling);
        if let Policy::Custom(path) = policy
            && let Some(verdict) = verdicts.remove(path)
        {
            tried = tried.and(verdict);
        }
        tried.map_err(|error| {
            let failure = Failure::new(Reason::Unschedulable, format!("app `{app}`: {error:#}"));
            if let Policy::Custom(path) = policy {
                let path = path.display();
                return failure.hint(format!(
                    "cargo xtask policy verify {path} shows how the kernel sees it"
                ));
            }
            failure.hint("cluster doctor shows what this kernel supports")
        })
    }

    /// What of a command's wishes is in vain in plain mode.
    pub(super) fn in_vain(&self, command: &Command) -> Option<Notice> {
        let scheduling = match command {
            Command::Start { spec, .. } => spec.scheduling.clone(),
            Command::Switch { switch, .. } => switch.apply(&Scheduling::default()),
            Command::Stop { .. }
            | Command::Restart { .. }
            | Command::Reload(_)
            | Command::Promote { .. }
            | Command::Rollback { .. }
            | Command::Delete { .. }
            | Command::Scale { .. }
            | Command::Flush { .. }
            | Command::Reset { .. }
            | Command::Kill => return None,
        };
        let Scheduling { policy: _, weights, guard, shed } = scheduling;
        let wishes = [
            ("weights", !weights.is_empty()),
            // Nobody misses what nobody asked for.
            ("guard", guard != Guard::default() && guard != Guard::OFF),
            ("shed", shed.is_some()),
        ];
        let wishes: Vec<_> = wishes.iter().filter(|(_, is)| *is).map(|(name, _)| *name).collect();
        if wishes.is_empty() || self.host.datapath.mode() == Mode::Kernel {
            return None;
        }
        let message =
            format!("in plain mode the kernel's hash decides, without {}", wishes.join(" and "));
        Some(Notice {
            message,
            hint: Some("cluster doctor shows what kernel mode needs".to_owned()),
        })
    }
}
