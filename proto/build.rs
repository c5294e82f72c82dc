//! Generates the stubs of every contract in this directory.

use std::path::PathBuf;

use tonic_prost_build::FileDescriptorSet;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ringway");
    let bench = protox::compile(["ringway/bench/v1/bench.proto"], ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(bench.clone())?;
    plain_tonic(bench)?;

    println!("cargo:rerun-if-changed=shop");
    let shop = protox::compile(
        ["catalog", "inventory", "media", "orders", "payments"]
            .map(|service| format!("shop/v1/{service}.proto")),
        ["."],
    )?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(shop)?;
    Ok(())
}

/// The same contract as tonic alone generates it, in a directory of its own: the comparison's other
/// half shares nothing with ours.
fn plain_tonic(bench: FileDescriptorSet) -> std::io::Result<()> {
    let out_dir = PathBuf::from(std::env::var_os("OUT_DIR").expect("set by Cargo")).join("tonic");
    std::fs::create_dir_all(&out_dir)?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(out_dir)
        .compile_fds(bench)
}
