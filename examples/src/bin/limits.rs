//! A server that says where its handlers run, and sheds the calls that are too many.
//!
//! ```text
//! cargo run --bin limits
//! ```
#![forbid(unsafe_code)]

use std::sync::Arc;

use ringway::{Endpoint, HandlerPolicy, Server, WaitPolicy};
use ringway_examples::greeter::greeter_client::GreeterClient;
use ringway_examples::greeter::greeter_server::{Greeter, GreeterServer};
use ringway_examples::greeter::{Greeting, Hello};
use tokio::sync::Barrier;
use tonic::{Request, Response, Status};

/// Greets once the program lets it.
struct Slow {
    begun: Arc<Barrier>,
    go_on: Arc<Barrier>,
}

#[tonic::async_trait]
impl Greeter for Slow {
    async fn greet(&self, request: Request<Hello>) -> Result<Response<Greeting>, Status> {
        self.begun.wait().await;
        self.go_on.wait().await;
        let text = format!("Hello {}, at last!", request.into_inner().name);
        Ok(Response::new(Greeting { text }))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let [begun, go_on] = [(); 2].map(|()| Arc::new(Barrier::new(2)));
    let slow = Slow {
        begun: Arc::clone(&begun),
        go_on: Arc::clone(&go_on),
    };
    let server = Server::builder()
        .name("greeter:50051")
        .handler_policy(HandlerPolicy::Adaptive)
        .handler_policy_of("/greeter.Greeter/Greet", HandlerPolicy::Spawn)
        .concurrency_limit_per_connection(1)
        .load_shed(true) // without it, one more call waits
        .add_service(GreeterServer::new(slow));
    tokio::spawn(server.bind().await?.serve());

    let endpoint = Endpoint::new("greeter:50051")?.wait_policy(WaitPolicy::Park);
    let mut client = GreeterClient::new(endpoint.connect().await?);

    let mut first = client.clone();
    let first = tokio::spawn(async move { first.greet(Hello { name: "Ada".into() }).await });
    begun.wait().await;
    match client.greet(Hello { name: "Eve".into() }).await {
        Ok(greeting) => println!("{greeting:?}"),
        Err(status) => println!("{:?}: {}", status.code(), status.message()),
    }
    go_on.wait().await;
    println!("{}", first.await??.into_inner().text);
    Ok(())
}
