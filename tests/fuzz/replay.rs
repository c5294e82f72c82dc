//! Runs a fuzz target over the seeds that are kept for it. The unit tests of each crate that has targets include
//! this file: no crate is common to all of them, and the seeds are no crate's.

use std::fs;
use std::path::Path;

/// Bytes that the variations of one seed may have in sum: of a long one, only the beginning is varied.
const MAX_BYTES: usize = 16 << 20;

/// Runs `target` over the seeds in `tests/fuzz/seeds/<name>`, and over what comes of each with its end cut off
/// or a bit flipped.
pub(crate) fn replay(name: &str, target: fn(&[u8])) {
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fuzz/seeds");
    let mut seen = 0;
    for seed in fs::read_dir(seeds.join(name)).unwrap() {
        let seed = fs::read(seed.unwrap().path()).unwrap();
        target(&seed);
        let varied = seed.len().min(MAX_BYTES / 8 / seed.len().max(1));
        (0..varied).for_each(|end| target(&seed[..end]));
        for bit in 0..8 * varied {
            let mut flipped = seed.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            target(&flipped);
        }
        seen += 1;
    }
    assert!(seen > 0, "{name} has no seeds");
}
