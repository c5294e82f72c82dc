//! The attached sockets, by slot.

use std::os::fd::OwnedFd;

use super::SocketId;
use super::operation::MAX_SOCKETS;
use super::socket::{Inbox, Socket};
use crate::Error;

/// Sockets by slot. A slot is used again only once nothing of the last socket is in flight.
#[derive(Default)]
pub(super) struct Table {
    slots: Vec<Slot>,
    free: Vec<u32>,
}

#[derive(Default)]
struct Slot {
    generation: u32,
    socket: Option<Box<Socket>>,
}

impl Table {
    pub(super) fn insert(&mut self, descriptor: OwnedFd, inbox: Inbox) -> Result<SocketId, Error> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None => {
                let slot = u32::try_from(self.slots.len()).unwrap_or(MAX_SOCKETS);
                if slot >= MAX_SOCKETS {
                    return Err(Error::OutOfDescriptors);
                }
                self.slots.push(Slot::default());
                slot
            }
        };
        let place = &mut self.slots[slot as usize];
        let id = SocketId {
            slot,
            generation: place.generation,
        };
        place.socket = Some(Box::new(Socket::new(id, descriptor, inbox)));
        Ok(id)
    }

    pub(super) fn remove(&mut self, slot: u32) {
        let place = &mut self.slots[slot as usize];
        if place.socket.take().is_some() {
            place.generation = place.generation.wrapping_add(1);
            self.free.push(slot);
        }
    }

    /// Whoever has this slot, detached or not.
    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Socket> {
        self.slots.get_mut(slot as usize)?.socket.as_deref_mut()
    }

    pub(super) fn get(&self, id: SocketId) -> Option<&Socket> {
        let socket = self.slots.get(id.slot as usize)?.socket.as_deref()?;
        (socket.id == id && !socket.detached).then_some(socket)
    }

    pub(super) fn get_mut(&mut self, id: SocketId) -> Option<&mut Socket> {
        self.at(id.slot)
            .filter(|socket| socket.id == id && !socket.detached)
    }

    pub(super) fn ids(&self) -> Vec<SocketId> {
        let sockets = self.slots.iter().filter_map(|slot| slot.socket.as_deref());
        sockets.map(|socket| socket.id).collect()
    }
}
