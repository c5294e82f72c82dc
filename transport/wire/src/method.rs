//! Methods by number. A client chooses small numbers and defines each with its first call; two
//! such calls may both define it, since neither knows when the other reaches the peer.

use crate::limits::{MAX_METHODS, MAX_REMEMBERED_PATH_BYTES};
use crate::{Method, ProtocolError};

/// Client: which numbers the server knows.
#[derive(Debug, Default)]
pub(crate) struct DefinedMethods {
    bits: Vec<u64>,
}

impl DefinedMethods {
    #[inline]
    pub(crate) fn refer<'a>(&self, number: u32, path: &'a str) -> Method<'a> {
        if self.is_defined(number) {
            Method::Known(number)
        } else if number < MAX_METHODS && path.len() <= MAX_REMEMBERED_PATH_BYTES {
            Method::Define(number, path)
        } else {
            Method::Inline(path)
        }
    }

    pub(crate) fn define(&mut self, number: u32) {
        if number < MAX_METHODS {
            let (word, bit) = position(number);
            if self.bits.len() <= word {
                self.bits.resize(word + 1, 0);
            }
            self.bits[word] |= bit;
        }
    }

    #[inline]
    fn is_defined(&self, number: u32) -> bool {
        let (word, bit) = position(number);
        self.bits.get(word).is_some_and(|bits| bits & bit != 0)
    }
}

#[inline]
fn position(number: u32) -> (usize, u64) {
    (number as usize / 64, 1 << (number % 64))
}

/// Server: the path behind each number.
#[derive(Debug, Default)]
pub(crate) struct MethodTable {
    paths: Vec<Option<Box<str>>>,
}

impl MethodTable {
    /// Checks a request's method, and remembers what it defines.
    #[inline]
    pub(crate) fn resolve(&mut self, method: Method<'_>) -> Result<(), ProtocolError> {
        match method {
            Method::Known(number) if self.path(number).is_some() => Ok(()),
            Method::Known(number) => Err(ProtocolError::UnknownMethod(number)),
            Method::Define(number, path) => self.define(number, path),
            Method::Inline(_) => Ok(()),
        }
    }

    #[inline]
    pub(crate) fn path(&self, number: u32) -> Option<&str> {
        self.paths.get(number as usize)?.as_deref()
    }

    fn define(&mut self, number: u32, path: &str) -> Result<(), ProtocolError> {
        let same = self.path(number).map(|known| known == path);
        let fits = number < MAX_METHODS && path.len() <= MAX_REMEMBERED_PATH_BYTES;
        match same {
            Some(true) => Ok(()),
            None if fits => {
                let index = number as usize;
                if self.paths.len() <= index {
                    self.paths.resize(index + 1, None);
                }
                self.paths[index] = Some(path.into());
                Ok(())
            }
            _ => Err(ProtocolError::BadMethodDefinition(number)),
        }
    }
}
