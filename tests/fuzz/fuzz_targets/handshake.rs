//! A hello of any bytes.
//!
//! `cargo +nightly fuzz run --fuzz-dir tests/fuzz handshake tests/fuzz/corpus/handshake tests/fuzz/seeds/handshake`

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| ringway_wire::fuzzed::handshake(data));
