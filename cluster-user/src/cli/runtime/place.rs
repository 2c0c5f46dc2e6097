//! Where the daemon of a foreground run keeps what it has.

use std::{env, fs};

use crate::{
    api::socket::Lock,
    cli::error::Error,
    config::home::{self, Home},
};

/// A home, and whether it goes away at the end.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) home: Home,
    pub(super) temporary: bool,
}

impl Place {
    /// The usual home, or where that cannot be written one that is removed at the end.
    ///
    /// # Errors
    /// When a daemon is there already, or there is nowhere to write.
    pub(super) fn choose() -> Result<Self, Error> {
        let given = env::var_os(home::VARIABLE).is_some_and(|value| !value.is_empty());
        let usual = Home::usual().and_then(|home| home.create().map(|()| home));
        let place = match usual {
            Ok(home) => Self { home, temporary: false },
            Err(refusal) if given => return Err(refusal.into()),
            Err(refusal) => {
                let spare = Home::spares().into_iter().find(|home| home.create().is_ok());
                let Some(home) = spare else { return Err(refusal.into()) };
                Self { home, temporary: true }
            }
        };
        if Lock::is_held(&place.home) {
            let path = place.home.path().display();
            return Err(Error::failed(format!("a daemon runs in `{path}` already")).hint(
                "cluster start starts apps there; CLUSTER_HOME makes room for another daemon",
            ));
        }
        Ok(place)
    }

    /// Removes what is not to stay.
    pub(super) fn remove(&self) {
        if self.temporary
            && let Err(error) = fs::remove_dir_all(self.home.path())
        {
            log::warn!("failed to remove `{}`: {error}", self.home.path().display());
        }
    }
}
