//! A token that the client's interceptor adds and the server's interceptor demands, and a deadline.
//!
//! ```text
//! cargo run --bin interceptors
//! ```
#![forbid(unsafe_code)]

use std::time::Duration;

use ringway::{Endpoint, Server};
use ringway_examples::Polite;
use ringway_examples::greeter::Hello;
use ringway_examples::greeter::greeter_client::GreeterClient;
use ringway_examples::greeter::greeter_server::GreeterServer;
use tonic::metadata::MetadataValue;
use tonic::{Request, Status};

const TOKEN: &str = "Bearer of-good-news";

/// Lets calls with the token pass.
#[allow(clippy::result_large_err)] // tonic's signature
fn demand_token(request: Request<()>) -> Result<Request<()>, Status> {
    match request.metadata().get("authorization") {
        Some(token) if token == TOKEN => Ok(request),
        Some(_) => Err(Status::unauthenticated("the token is not known")),
        None => Err(Status::unauthenticated("there is no token")),
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let server = Server::builder()
        .name("greeter:50051")
        .add_service(GreeterServer::with_interceptor(Polite, demand_token))
        .bind()
        .await?;
    tokio::spawn(server.serve());

    let channel = Endpoint::new("greeter:50051")?.connect().await?;

    let mut stranger = GreeterClient::new(channel.clone());
    match stranger.greet(Hello { name: "Eve".into() }).await {
        Ok(greeting) => println!("{greeting:?}"),
        Err(status) => println!("{:?}: {}", status.code(), status.message()),
    }

    let token = MetadataValue::from_static(TOKEN);
    let mut known = GreeterClient::with_interceptor(channel, move |mut request: Request<()>| {
        request
            .metadata_mut()
            .insert("authorization", token.clone());
        Ok(request)
    });
    let mut request = Request::new(Hello { name: "Ada".into() });
    request.set_timeout(Duration::from_secs(5));
    let greeting = known.greet(request).await?.into_inner();
    println!("{}", greeting.text);
    Ok(())
}
