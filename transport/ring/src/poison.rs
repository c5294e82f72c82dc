//! The verdict that all parts of an endpoint share: once corrupt, always corrupt.

use std::sync::{Arc, OnceLock};

use crate::Corrupt;

/// Set once by whoever finds the peer out, read by everybody.
#[derive(Debug, Clone, Default)]
pub(crate) struct Poison(Arc<OnceLock<Corrupt>>);

impl Poison {
    /// `Err` with the first verdict, if there is one.
    pub(crate) fn check(&self) -> Result<(), Corrupt> {
        match self.0.get() {
            None => Ok(()),
            Some(corrupt) => Err(*corrupt),
        }
    }

    /// Records the verdict and gives back the one that stands.
    pub(crate) fn set(&self, corrupt: Corrupt) -> Corrupt {
        *self.0.get_or_init(|| corrupt)
    }

    /// Passes a check's result through, recording a failure.
    pub(crate) fn guard<T>(&self, result: Result<T, Corrupt>) -> Result<T, Corrupt> {
        result.map_err(|corrupt| self.set(corrupt))
    }
}
