//! A server and a client, and the transport that a call took.
//!
//! ```text
//! cargo run --bin unary
//! ```
#![forbid(unsafe_code)]

use ringway::{Endpoint, Path, Server};
use ringway_examples::Polite;
use ringway_examples::greeter::Hello;
use ringway_examples::greeter::greeter_client::GreeterClient;
use ringway_examples::greeter::greeter_server::GreeterServer;
use tokio::sync::oneshot;

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Bound before it serves: a client that comes early waits in the socket.
    let server = Server::builder()
        .name("greeter:50051") // local clients find it by the name that they dial
        .listen("127.0.0.1:0")? // all others come by gRPC
        .add_service(GreeterServer::new(Polite))
        .bind()
        .await?;
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = tokio::spawn(server.serve_with_shutdown(async {
        // Stopped, or dropped with the client's errors: the server ends in either case.
        let _ = stopped.await;
    }));

    let channel = Endpoint::new("greeter:50051")?.connect().await?;
    let mut client = GreeterClient::new(channel);
    let response = client.greet(Hello { name: "Ada".into() }).await?;
    let path = Path::of(&response);
    println!("{} (over {path:?})", response.into_inner().text);

    match client.greet(Hello::default()).await {
        Ok(greeting) => println!("{greeting:?}"),
        Err(status) => println!("{:?}: {}", status.code(), status.message()),
    }

    drop(stop);
    serving.await??;
    Ok(())
}
