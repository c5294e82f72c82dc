//! A block of metadata.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz metadata tests/fuzz/corpus/metadata tests/fuzz/seeds/metadata`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::fuzzed::metadata(data));
