//! Stubs that the workspace keeps, so that no build waits for them, are those that are generated.
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

/// With this set to anything, the kept stubs are written anew.
const BLESS: &str = "RINGWAY_BLESS";

#[test]
fn the_introspection_stubs_are_what_is_generated() {
    let ringway = Path::new(env!("CARGO_MANIFEST_DIR")).join("../ringway");
    let generated = tempfile::tempdir().unwrap();
    let proto = ringway.join("proto");
    ringway_build::configure()
        .out_dir(generated.path())
        .compile_protos(
            &[proto.join("ringway/introspection/v1/introspection.proto")],
            &[proto],
        )
        .unwrap();
    let generated =
        fs::read_to_string(generated.path().join("ringway.introspection.v1.rs")).unwrap();
    let kept = ringway.join("src/introspection/v1.rs");
    if std::env::var_os(BLESS).is_some() {
        fs::write(&kept, &generated).unwrap();
    }
    assert!(
        fs::read_to_string(&kept).unwrap() == generated,
        "{kept:?} is out of date: run this test with {BLESS}=1"
    );
}
