//! What crosses crates or processes.
#![forbid(unsafe_code)]
