//! Generates the stubs.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    ringway_build::configure().compile_protos(&["proto/greeter.proto"], &["proto"])?;
    Ok(())
}
