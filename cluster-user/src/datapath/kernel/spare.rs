//! A program and maps for the next group, loaded before they are wanted.
//!
//! Verifying the program takes the kernel some milliseconds, which a worker that starts would have to wait for.
//! They are spent on a thread of their own while the worker is still starting.

use std::{
    sync::Arc,
    thread::{self, JoinHandle},
};

use anyhow::anyhow;

use super::load::{Select, SelectMaps};

/// What is loaded for the next group.
pub(super) struct Spare {
    select: Arc<Select>,
    state: State,
}

enum State {
    Nothing,
    Loading(JoinHandle<anyhow::Result<SelectMaps>>),
    Loaded(Box<SelectMaps>),
}

impl Spare {
    /// Begins with a spare, so that a kernel that does not take the program is found out at once.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn new(mut select: Select) -> anyhow::Result<Self> {
        let loaded = select.load(false).or_else(|error| {
            // Without CAP_PERFMON a program may not read the kernel's memory. It does without that.
            select.make_blind(&error)?;
            select.load(false)
        })?;
        let state = State::Loaded(Box::new(loaded));
        Ok(Self { select: Arc::new(select), state })
    }

    /// What it is loaded from.
    pub(super) fn select(&self) -> &Select {
        &self.select
    }

    /// The same, for another thread.
    pub(super) fn share(&self) -> Arc<Select> {
        Arc::clone(&self.select)
    }

    /// Sees to it that there will be a spare soon.
    pub(super) fn refill(&mut self) {
        if matches!(self.state, State::Nothing) {
            let select = Arc::clone(&self.select);
            let loading =
                thread::Builder::new().name("load".to_owned()).spawn(move || select.load(false));
            // Without a thread it is loaded when it is wanted.
            self.state = loading.map_or(State::Nothing, State::Loading);
        }
    }

    /// Takes the spare, or loads what there is none of.
    ///
    /// # Errors
    /// What the kernel said.
    pub(super) fn take(&mut self) -> anyhow::Result<SelectMaps> {
        match std::mem::replace(&mut self.state, State::Nothing) {
            State::Nothing => self.select.load(false),
            State::Loading(thread) => {
                thread.join().map_err(|_panic| anyhow!("loading the program panicked"))?
            }
            State::Loaded(maps) => Ok(*maps),
        }
    }
}
