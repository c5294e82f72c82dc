//! What takes more than one part of the crate.
