//! Notes of segments that are handed over.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz notes tests/fuzz/corpus/notes tests/fuzz/seeds/notes`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_local::fuzzed::notes(data));
