//! Calls from threads without a runtime.
//!
//! `build_blocking_client(true)` in `build.rs` adds the blocking client to the stubs, and the feature `blocking` of
//! `ringway` the calls.
//!
//! ```text
//! cargo run --bin blocking
//! ```
#![forbid(unsafe_code)]

use ringway::{Endpoint, Server};
use ringway_examples::Polite;
use ringway_examples::greeter::Hello;
use ringway_examples::greeter::greeter_blocking_client::GreeterBlockingClient;
use ringway_examples::greeter::greeter_server::GreeterServer;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let runtime = serve()?;

    let channel = Endpoint::new("greeter:50051")?.connect_blocking()?;
    let greeters = ["Ada", "Grace"].map(|name| {
        let mut client = GreeterBlockingClient::new(channel.clone());
        std::thread::spawn(move || {
            let hello = Hello { name: name.into() };
            client
                .greet(hello)
                .map(|greeting| greeting.into_inner().text)
        })
    });
    for greeter in greeters {
        let text = greeter.join().map_err(|_| "a greeter panicked")??;
        println!("{text}");
    }

    runtime.shutdown_background();
    Ok(())
}

/// The server, on a runtime of its own; in life a process of its own.
fn serve() -> Result<tokio::runtime::Runtime, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Runtime::new()?;
    let server = Server::builder()
        .name("greeter:50051")
        .add_service(GreeterServer::new(Polite));
    let server = runtime.block_on(server.bind())?;
    runtime.spawn(server.serve());
    Ok(runtime)
}
