//! The waiting room of a group: when there is one, and when what waits in it leaves.

use std::os::fd::{AsFd as _, OwnedFd};

use anyhow::Context as _;
use cluster_common::{choose, slot::Slot};

use super::{
    super::{hub::Source, waiting::WaitingRoom},
    Group,
};
use crate::datapath::{OnMiss, Protocol, socket};

impl Group {
    pub(super) fn open_waiting_room(&mut self) -> anyhow::Result<()> {
        self.replace_waiting_room()?;
        self.set_on_miss(OnMiss::Wait)
    }

    /// Makes the connections in the waiting room leave it if they have somewhere to go: to a worker, or away.
    ///
    /// # Errors
    /// When there can be no new waiting room; they stay in the old one then.
    pub(in super::super) fn settle(&mut self) -> anyhow::Result<()> {
        if self.abstains() && self.key.protocol == Protocol::Tcp {
            // The kernel's hash would send connections here.
            if self.has_worker() {
                self.waiting_room = None;
            } else if self.waiting_room.is_none() && self.on_miss == OnMiss::Wait {
                self.replace_waiting_room()?;
            }
            return Ok(());
        }
        // It was closed if the kernel's hash decided before.
        let missing = self.waiting_room.is_none() && self.key.protocol == Protocol::Tcp;
        if missing && self.on_miss == OnMiss::Wait {
            self.replace_waiting_room()?;
            return self.configure(choose::OnMiss::Wait);
        }
        let occupied = self.waiting_room.as_ref().is_some_and(WaitingRoom::is_occupied);
        // With nobody in the route they would only move to the next waiting room.
        if occupied && (self.on_miss == OnMiss::Refuse || self.has_worker()) {
            self.replace_waiting_room()?;
        }
        Ok(())
    }

    /// A copy of the waiting room, if there is one.
    pub(in super::super) fn copy_of_room(&self) -> Option<OwnedFd> {
        self.waiting_room.as_ref().and_then(|room| room.as_fd().try_clone_to_owned().ok())
    }

    pub(super) fn replace_waiting_room(&mut self) -> anyhow::Result<()> {
        let room = WaitingRoom::new(&self.key)?;
        self.hub.watch(&room, Source::WaitingRoom(self.id))?;
        self.put(Slot::WAITING_ROOM, room.as_fd()).context("put the waiting room into its slot")?;
        let cookie = socket::cookie(room.as_fd())?;
        // Closes the old one, whose connections the program now places. It still is told that they come from there.
        self.waiting_room = Some(room);
        self.told.room = cookie;
        self.tell()
    }
}
