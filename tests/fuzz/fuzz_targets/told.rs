//! Metadata and a status of a peer's, on their way into tonic's types.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz told tests/fuzz/corpus/told tests/fuzz/seeds/told`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::fuzzed::told(data));
