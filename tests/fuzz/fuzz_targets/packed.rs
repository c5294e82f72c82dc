//! A frame of packed messages.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz packed tests/fuzz/corpus/packed tests/fuzz/seeds/packed`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::fuzzed::packed(data));
