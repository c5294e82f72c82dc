//! The head of a request, a response or a status.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz heads tests/fuzz/corpus/heads tests/fuzz/seeds/heads`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::fuzzed::heads(data));
