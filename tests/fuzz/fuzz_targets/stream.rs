//! The frames of a stream of bytes, however it is cut.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz stream tests/fuzz/corpus/stream tests/fuzz/seeds/stream`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_local::fuzzed::stream(data));
