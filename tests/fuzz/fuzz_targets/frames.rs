//! The state machine in either role, against a peer and an application that do anything.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz frames tests/fuzz/corpus/frames tests/fuzz/seeds/frames`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::fuzzed::frames(data));
