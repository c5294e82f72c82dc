//! Generates the stubs twice.

use std::path::PathBuf;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    let of = |name: &str| -> std::io::Result<PathBuf> {
        let directory = out.join(name);
        std::fs::create_dir_all(&directory)?;
        Ok(directory)
    };
    let files = protox::compile(["proto/ways.proto"], ["proto"])?;
    tonic_prost_build::configure()
        .out_dir(of("tonic")?)
        .compile_fds(files)?;
    ringway_build::configure()
        .out_dir(of("ringway")?)
        .compile_protos(&["proto/ways.proto"], &["proto"])?;
    Ok(())
}
