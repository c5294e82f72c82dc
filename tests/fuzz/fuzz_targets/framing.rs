//! gRPC's framing in a body, however it is cut.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz framing tests/fuzz/corpus/framing tests/fuzz/seeds/framing`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway::fuzzed::framing(data));
