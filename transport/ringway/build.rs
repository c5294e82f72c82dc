//! Generates the stubs of the introspection service.

fn main() -> std::io::Result<()> {
    ringway_build::configure().compile_protos(
        &["ringway/introspection/v1/introspection.proto"],
        &["proto"],
    )
}
