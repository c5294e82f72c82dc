//! Generates the stubs of every contract in this directory.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=ringway");
    let bench = protox::compile(["ringway/bench/v1/bench.proto"], ["."])?;
    tonic_prost_build::configure().bytes(".").compile_fds(bench)?;
    Ok(())
}
