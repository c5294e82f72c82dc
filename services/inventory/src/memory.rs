//! Stock in memory: gone when the process ends.

use std::collections::HashMap;

use crate::rules::{Book, Refusal, Reservation};

/// A book in two maps.
#[derive(Debug, Default)]
pub(crate) struct MemoryBook {
    available: HashMap<u32, u32>,
    reservations: HashMap<u64, Reservation>,
}

impl Book for MemoryBook {
    type Error = Refusal;

    fn available(&self, product: u32) -> Result<Option<u32>, Refusal> {
        Ok(self.available.get(&product).copied())
    }

    fn set_available(&mut self, product: u32, units: u32) -> Result<(), Refusal> {
        self.available.insert(product, units);
        Ok(())
    }

    fn reservation(&self, order: u64) -> Result<Option<Reservation>, Refusal> {
        Ok(self.reservations.get(&order).cloned())
    }

    fn set_reservation(&mut self, order: u64, reservation: Reservation) -> Result<(), Refusal> {
        self.reservations.insert(order, reservation);
        Ok(())
    }

    fn forget(&mut self, order: u64) -> Result<(), Refusal> {
        self.reservations.remove(&order);
        Ok(())
    }

    fn since(&self, since_s: u64) -> Result<Vec<(u64, Reservation)>, Refusal> {
        let old = self
            .reservations
            .iter()
            .filter(|(_, known)| known.since_s <= since_s);
        Ok(old.map(|(&order, known)| (order, known.clone())).collect())
    }
}
