//! Tests of a service without a process or a port: three ways, the shortest first.
#![allow(clippy::unwrap_used)]

use ringway::{Endpoint, Path, Server};
use ringway_examples::Polite;
use ringway_examples::greeter::Hello;
use ringway_examples::greeter::greeter_client::GreeterClient;
use ringway_examples::greeter::greeter_server::{Greeter, GreeterServer};
use tonic::{Code, Request};

/// The handler alone: a plain function call.
#[tokio::test]
async fn the_handler_alone() {
    let hello = Request::new(Hello::default());
    let status = Polite.greet(hello).await.unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
}

/// The stubs at both ends and nothing between them: a generated client takes a generated server for a channel.
#[tokio::test]
async fn a_client_over_the_service() {
    let mut client = GreeterClient::new(GreeterServer::new(Polite));
    let hello = Hello { name: "Ada".into() };
    let greeting = client.greet(hello).await.unwrap().into_inner();
    assert_eq!(greeting.text, "Hello Ada!");
}

/// A whole server and a channel, with all settings in force: `inproc://` needs no directory. The name is this
/// test's own, because tests of one file share a process.
#[tokio::test]
async fn a_server_of_this_process() {
    let server = Server::builder()
        .name("greeter-of-this-test:50051")
        .directory(tempfile::tempdir().unwrap().path())
        .add_service(GreeterServer::new(Polite));
    tokio::spawn(server.bind().await.unwrap().serve());

    let endpoint = Endpoint::new("inproc://greeter-of-this-test:50051").unwrap();
    let mut client = GreeterClient::new(endpoint.connect().await.unwrap());
    let response = client.greet(Hello { name: "Ada".into() }).await.unwrap();
    assert_eq!(Path::of(&response), Some(Path::Inproc));
    assert_eq!(response.into_inner().text, "Hello Ada!");
}
