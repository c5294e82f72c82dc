//! Names of metadata, parsed once: an application's calls carry the same few again and again, and
//! to check and to hash a name costs more than to find it here.

use std::cell::RefCell;
use std::hash::{BuildHasher, Hasher, RandomState};

use http::header::{HeaderName, InvalidHeaderName};
use ringway_net::reserved::Meaning;

/// Names kept for each thread. Each has one possible place: a peer that invents names drives out
/// others, which are then parsed as if they were new.
const PLACES: usize = 128;
/// Longer ones are not worth a place.
const MAX_NAME_BYTES: usize = 64;

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::new(Known::default());
}

/// A name, and what it means to the transport.
#[derive(Debug, Clone)]
pub(super) struct Name {
    pub(super) header: HeaderName,
    pub(super) meaning: Meaning,
}

impl Name {
    fn parse(bytes: &[u8]) -> Result<Self, InvalidHeaderName> {
        let header = HeaderName::from_lowercase(bytes)?;
        let meaning = Meaning::of(header.as_str());
        Ok(Self { header, meaning })
    }
}

struct Known {
    places: [Option<Name>; PLACES],
    /// Keyed, so that no peer can choose names that share a place with a certain other.
    key: u64,
}

impl Default for Known {
    fn default() -> Self {
        Self {
            places: [const { None }; PLACES],
            key: RandomState::new().build_hasher().finish(),
        }
    }
}

impl Known {
    fn parse(&mut self, name: &[u8]) -> Result<Name, InvalidHeaderName> {
        let index = place(self.key, name);
        if let Some(known) = &self.places[index]
            && known.header.as_str().as_bytes() == name
        {
            return Ok(known.clone());
        }
        let parsed = Name::parse(name)?;
        self.places[index] = Some(parsed.clone());
        Ok(parsed)
    }
}

/// Eight bytes at a time, by multiplication: good enough to spread names, and quick.
fn place(key: u64, name: &[u8]) -> usize {
    const ODD: u64 = 0x9e37_79b9_7f4a_7c15;
    let mix = |hash: u64, word: u64| (hash ^ word).wrapping_mul(ODD).rotate_left(29);
    let (words, rest) = name.as_chunks::<8>();
    let hash = words.iter().fold(key ^ name.len() as u64, |hash, word| {
        mix(hash, u64::from_le_bytes(*word))
    });
    let mut last = [0; 8];
    last[..rest.len()].copy_from_slice(rest);
    let hash = mix(mix(hash, u64::from_le_bytes(last)), key);
    usize::try_from(hash % PLACES as u64).unwrap_or(0)
}

/// The name in `bytes`, in lower case, as HTTP/2 has it too.
pub(super) fn parse(bytes: &[u8]) -> Result<Name, InvalidHeaderName> {
    if bytes.len() > MAX_NAME_BYTES {
        return Name::parse(bytes);
    }
    KNOWN.with_borrow_mut(|known| known.parse(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_the_same_each_time_and_whoever_shares_its_place() {
        let names: Vec<String> = (0..4 * PLACES)
            .map(|number| format!("x-name-{number}"))
            .collect();
        for _ in 0..2 {
            for name in &names {
                assert_eq!(parse(name.as_bytes()).unwrap().header.as_str(), name);
                assert_eq!(parse(name.as_bytes()).unwrap().header.as_str(), name);
            }
        }
    }

    #[test]
    fn what_is_no_name_is_refused_each_time() {
        for _ in 0..2 {
            parse(b"no name").unwrap_err();
            parse(b"").unwrap_err();
            parse(b"X-Upper").unwrap_err();
            parse("X-long-".repeat(10).as_bytes()).unwrap_err();
        }
    }

    #[test]
    fn names_are_spread() {
        let mut used = [false; PLACES];
        for number in 0..PLACES {
            used[place(7, format!("x-name-{number}").as_bytes())] = true;
        }
        assert!(used.iter().filter(|used| **used).count() > PLACES / 2);
    }
}
