//! Generates the stubs of every contract in this directory.

use std::path::PathBuf;

const BENCH: &str = "ringway/bench/v1/bench.proto";

const SHOP: [&str; 5] = [
    "shop/v1/catalog.proto",
    "shop/v1/inventory.proto",
    "shop/v1/media.proto",
    "shop/v1/orders.proto",
    "shop/v1/payments.proto",
];

const INTEROP: &str = "grpc/testing/test.proto";

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ringway_build::configure()
        .build_blocking_client(true)
        .bytes(".")
        .file_descriptor_set_path(out_dir().join("bench.bin"))
        .compile_protos(&[BENCH], &["."])?;
    plain_tonic()?;
    ringway_build::configure()
        .bytes(".")
        .file_descriptor_set_path(out_dir().join("shop.bin"))
        .compile_protos(&SHOP, &["."])?;
    ringway_build::configure()
        .bytes(".")
        .compile_protos(&[INTEROP], &["."])?;
    Ok(())
}

/// The bench contract as tonic alone generates it, in a directory of its own: the comparison's other
/// half shares nothing with ours.
fn plain_tonic() -> Result<(), Box<dyn std::error::Error>> {
    let out_dir = out_dir().join("tonic");
    std::fs::create_dir_all(&out_dir)?;
    tonic_prost_build::configure()
        .bytes(".")
        .out_dir(out_dir)
        .compile_fds(protox::compile([BENCH], ["."])?)?;
    Ok(())
}

fn out_dir() -> PathBuf {
    PathBuf::from(std::env::var_os("OUT_DIR").expect("set by Cargo"))
}
