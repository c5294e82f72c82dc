//! Generates the stubs, blocking clients included.

fn main() -> std::io::Result<()> {
    ringway_build::configure()
        .build_blocking_client(true)
        .compile_protos(&["proto/greeter.proto", "proto/weather.proto"], &["proto"])
}
