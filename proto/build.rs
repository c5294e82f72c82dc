//! Generates the stubs of every contract in this directory.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ringway");
    let bench = protox::compile(["ringway/bench/v1/bench.proto"], ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(bench)?;

    println!("cargo:rerun-if-changed=shop");
    let shop = protox::compile(
        ["catalog", "inventory", "media", "orders", "payments"]
            .map(|service| format!("shop/v1/{service}.proto")),
        ["."],
    )?;
    tonic_prost_build::configure().bytes(".").compile_fds(shop)?;
    Ok(())
}
