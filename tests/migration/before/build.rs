//! Generates the stubs.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = protox::compile(["proto/greeter.proto"], ["proto"])?;
    tonic_prost_build::configure().compile_fds(files)?;
    Ok(())
}
