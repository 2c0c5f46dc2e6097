//! Upgrades: whether another program may take over, and how it does.

use std::path::Path;

use anyhow::Context as _;
use semver::Version;

use super::{
    journal,
    run::{End, Supervisor},
    succession::{self, Inheritance},
};
use crate::{
    api::{
        message::{Done, Failure, HandOverRequest, Line, Reason, UpgradeRequest},
        socket::Lock,
    },
    datapath::Mode,
};

impl Supervisor {
    /// Prepares for becoming another program, which happens when this answer is on its way.
    pub(super) fn upgrade(&mut self, asked: UpgradeRequest) -> Result<Line, Failure> {
        Self::may_take_over(&asked.release, asked.journal)?;
        let program = asked.program;
        let executable = rustix::fs::access(&program, rustix::fs::Access::EXEC_OK);
        if !program.is_absolute() || !program.is_file() || executable.is_err() {
            let message = format!("`{}` is no program that can be executed", program.display());
            return Err(Failure::new(Reason::BadRequest, message)
                .hint("give the path of a cluster program: cluster upgrade --program PATH"));
        }
        self.end = Some(End::Upgrade(program));
        Ok(Line::Done(Done::default()))
    }

    /// Prepares for leaving everything to whoever comes next.
    pub(super) fn hand_over(&mut self, asked: &HandOverRequest) -> Result<Line, Failure> {
        Self::may_take_over(&asked.release, asked.journal)?;
        if self.state.anybody_waits() {
            // They wait in sockets of this process, which end with it.
            return Err(Failure::new(
                Reason::Conflict,
                "connections wait for workers that are being started",
            )
            .hint("try again when cluster list shows them online, or use cluster upgrade"));
        }
        self.end = Some(End::HandOver);
        Ok(Line::Done(Done::default()))
    }

    fn may_take_over(release: &str, reads: u32) -> Result<(), Failure> {
        let own = env!("CARGO_PKG_VERSION");
        let older = match (Version::parse(release), Version::parse(own)) {
            (Ok(new), Ok(own)) => new < own,
            (Err(_), _) | (_, Err(_)) => {
                let shown: String = release.escape_debug().take(40).collect();
                return Err(Failure::new(Reason::BadRequest, format!("`{shown}` is no release")));
            }
        };
        if older || reads < journal::FORMAT {
            return Err(Failure::new(
                Reason::Conflict,
                format!("release {release} is older than {own}, which runs"),
            )
            .hint("a daemon goes back only through cluster kill, which ends its apps"));
        }
        Ok(())
    }

    /// Becomes another program; says why it could not.
    pub(super) fn become_program(
        mut self,
        program: &Path,
        mode: Option<Mode>,
        lock: &Lock,
    ) -> anyhow::Error {
        self.write_down();
        let rooms = self.host.datapath.waiting_rooms();
        // What workers have written so far is in their files.
        drop(self.host.output);
        let lock = match lock.descriptor() {
            Ok(lock) => lock,
            Err(error) => return anyhow::Error::new(error).context("failed to hand over the lock"),
        };
        let inheritance = Inheritance { lock: Some(lock), rooms };
        let error = succession::become_program(program, mode, &inheritance);
        let failed =
            Err::<(), _>(error).with_context(|| format!("failed to become {}", program.display()));
        failed.err().unwrap_or_else(|| anyhow::anyhow!("failed to become another program"))
    }
}
