//! An endpoint against a peer that writes anything into its region, between any two calls.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz region tests/fuzz/corpus/region tests/fuzz/seeds/region`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_ring::fuzzed::region(data));
