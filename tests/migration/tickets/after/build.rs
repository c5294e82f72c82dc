//! Generates the stubs, and the descriptors for reflection.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let descriptors = PathBuf::from(std::env::var("OUT_DIR")?).join("tickets.bin");
    ringway_build::configure()
        .file_descriptor_set_path(descriptors)
        .compile_protos(&["proto/tickets.proto"], &["proto"])?;
    Ok(())
}
