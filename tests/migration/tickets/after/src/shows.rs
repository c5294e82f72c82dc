//! The shows and their seats. Nothing here knows of calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::watch;

/// The shows of one box office.
#[derive(Debug, Clone, Default)]
pub struct Shows(Arc<Mutex<HashMap<String, Hall>>>);

/// The seats of one show.
#[derive(Debug)]
struct Hall {
    seats: u32,
    left: watch::Sender<u32>,
}

/// Why a booking is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    #[error("there is no show called {0:?}")]
    NoSuchShow(String),
    #[error("{wanted} seats are wanted, {left} are left")]
    TooFewSeats { wanted: u32, left: u32 },
}

impl Shows {
    /// Puts a show on, or gives it other seats: those sold before are forgotten.
    pub fn put_on(&self, name: &str, seats: u32) {
        let mut halls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match halls.get_mut(name) {
            Some(hall) => {
                hall.seats = seats;
                hall.left.send_replace(seats);
            }
            None => {
                let left = watch::Sender::new(seats);
                halls.insert(name.to_owned(), Hall { seats, left });
            }
        }
    }

    /// Sells seats beside each other, and returns the first one's number.
    pub(crate) fn book(&self, name: &str, wanted: u32) -> Result<u32, Refused> {
        let halls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let hall = halls
            .get(name)
            .ok_or_else(|| Refused::NoSuchShow(name.to_owned()))?;
        let left = *hall.left.borrow();
        if wanted > left {
            return Err(Refused::TooFewSeats { wanted, left });
        }
        hall.left.send_replace(left - wanted);
        Ok(hall.seats - left + 1)
    }

    /// Watches how many seats of a show are left.
    pub(crate) fn watch(&self, name: &str) -> Result<watch::Receiver<u32>, Refused> {
        let halls = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        halls
            .get(name)
            .map(|hall| hall.left.subscribe())
            .ok_or_else(|| Refused::NoSuchShow(name.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seats_are_sold_once() {
        let shows = Shows::default();
        shows.put_on("Hamlet", 3);
        assert_eq!(shows.book("Hamlet", 2), Ok(1));
        let refused = Refused::TooFewSeats { wanted: 2, left: 1 };
        assert_eq!(shows.book("Hamlet", 2), Err(refused));
        assert_eq!(shows.book("Hamlet", 1), Ok(3));
    }
}
